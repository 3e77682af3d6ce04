from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from scipy.stats import pearsonr

from clipsyn.analyses.diversity.view import diversity_gain, error_consistency
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import RESULT
from clipsyn.stats.intervals import least_squares

THREE = ("a/m", "b/m", "c/m")
DATASETS = ("birds", "cars", "dogs", "flags")
DIVERSITY = (0.10, 0.20, 0.30, 0.25)
GAINS = {
    "best-single": (0.0, -0.1, 0.0, 0.0),
    "log-avg": (0.01, 0.03, 0.02, 0.04),
    "oracle": (0.10, 0.22, 0.28, 0.27),
}
NAN = float("nan")


def row(metric: str, value: float, backbones: Sequence[str] = THREE, **about) -> dict:
    common = {
        "dataset": "birds",
        "split": "test",
        "perturbation": "clean",
        "head": "zero-shot",
        "prompts": "own",
    }
    numbers = {"value": value, "ci_low": value - 0.02, "ci_high": value + 0.04, "n": 40}
    return common | numbers | {"metric": metric, "backbones": list(backbones)} | about


def frame(*rows: dict) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=RESULT)


def gains(datasets: Sequence[str] = DATASETS, **about) -> list[dict]:
    """Diversity and gains, as `diversity` with results has them."""
    rows = []
    for place, dataset in enumerate(datasets):
        rows.append(row("mean_error_inconsistency", DIVERSITY[place], dataset=dataset, **about))
        rows.append(row("mean_yules_q", 0.9, dataset=dataset, **about))
        rows += [
            row("gain", values[place], dataset=dataset, ensemble=ensemble, **about)
            for ensemble, values in GAINS.items()
        ]
    return rows


def test_error_consistency_is_that_of_pairs():
    found = error_consistency.data(
        frame(
            row("error_consistency", 0.5, ("a/m", "b/m")),
            row("error_consistency", -0.1, ("a/m", "c/m")),
            row("error_consistency", 0.1, ("a/m", "b/m"), dataset="cars"),
            row("yules_q", 0.9, ("a/m", "b/m")),
            row("mean_error_consistency", 0.2),
        )
    )
    pairs = found.select("backbone", "other", "dataset", "value", "datasets", "ci_high").rows()
    assert pairs == [
        ("a/m", "b/m", None, pytest.approx(0.3), 2, None),
        ("a/m", "c/m", "birds", -0.1, 1, pytest.approx(-0.06)),
    ]
    texts = {text.get_text() for text in error_consistency(found).texts}
    assert texts == {"0.30", "-0.10"}


def test_gains_stand_beside_the_diversity_of_their_dataset():
    found = diversity_gain.data(
        frame(*gains(), row("pearson_error_inconsistency", 0.5, dataset=None))
    )
    assert found["ensemble"].unique(maintain_order=True).to_list() == ["oracle", "log-avg"]
    for ensemble in ("oracle", "log-avg"):
        values = GAINS[ensemble]
        part = found.filter(ensemble=ensemble)
        points = part.select(
            "dataset", "diversity", "value", "diversity_low", "ci_high", "n"
        ).rows()
        assert points == [
            (dataset, x, y, pytest.approx(x - 0.02), pytest.approx(y + 0.04), 40)
            for dataset, x, y in zip(DATASETS, DIVERSITY, values, strict=True)
        ]
        assert part["r"].to_list() == pytest.approx([pearsonr(DIVERSITY, values).statistic] * 4)
        assert part["fit"].to_list() == pytest.approx(
            np.polyval(np.polyfit(DIVERSITY, values, 1), DIVERSITY)
        )
        assert (part["fit_low"] < part["fit"]).all()
        assert (part["fit_high"] > part["fit"]).all()


def test_points_that_are_not_known_are_left_out():
    rows = gains()
    rows[0]["value"] = NAN  # the diversity of birds
    rows[8]["value"] = NAN  # log-avg on cars
    found = diversity_gain.data(frame(*rows))
    assert found.filter(ensemble="oracle")["dataset"].to_list() == ["cars", "dogs", "flags"]
    assert found.filter(ensemble="log-avg")["dataset"].to_list() == ["dogs", "flags"]


def test_the_drawing_has_a_panel_an_ensemble_with_its_points_and_line():
    data = diversity_gain.data(frame(*gains()))
    ax = diversity_gain(data)
    oracle, average = ax.child_axes
    r = pearsonr(DIVERSITY, GAINS["oracle"])
    low, high = r.confidence_interval()
    assert oracle.get_title(loc="left") == f"oracle\nr {r.statistic:+.2f} ({low:.2f} to {high:.2f})"
    points = np.concatenate([line.get_xydata() for line in average.lines[:4]])
    assert points == pytest.approx(100 * np.array([DIVERSITY, GAINS["log-avg"]]).T)
    places, heights = average.lines[4].get_data()
    assert (places[0], places[-1]) == pytest.approx((10, 30))
    expected = least_squares(np.array(DIVERSITY), np.array(GAINS["log-avg"]), places / 100)
    assert heights == pytest.approx(100 * expected.value)
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == list(DATASETS)
    assert diversity_gain.about(data) == "test · clean · prompts own · head zero-shot"


def test_gains_of_other_backbones_are_not_compared():
    rows = [*gains(DATASETS[:3]), *gains(("geese",), backbones=list(THREE[:2]))]
    with pytest.raises(UsageError, match="other backbones than each other, so that"):
        diversity_gain.data(frame(*rows))
