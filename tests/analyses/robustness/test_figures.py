import numpy as np
import polars as pl
import pytest

from clipsyn.analyses.robustness.view import corruptions, severity
from clipsyn.errors import UsageError
from tests.results import row as made
from tests.results import tidy

NAMES = ("a/m", "b/m")
CLEAN = {"a/m": 0.8, "b/m": 0.6}
LOST = {"a/m": 0.1, "b/m": 0.02}  # with each severity
SEVERITIES = {"fog": (1, 3), "jpeg": (2,)}


def row(value, backbones, perturbation="clean", severity=0, metric="acc1", **about):
    about |= {"perturbation": perturbation, "severity": severity, "n": 50}
    return made(metric, value, backbones, off=(0.05, 0.05), **about)


def accuracies(name):
    """By perturbation and severity: each, the means over severities, and the mean of those."""
    known = {("clean", 0): CLEAN[name]}
    means = []
    for family, levels in SEVERITIES.items():
        values = [CLEAN[name] - level * LOST[name] for level in levels]
        known |= {
            (f"{family}-{level}", level): value for level, value in zip(levels, values, strict=True)
        }
        means.append(sum(values) / len(values))
        known[family, None] = means[-1]
    return known | {("all", None): sum(means) / len(means)}


def frame(*more, oracle=0.9, **about):
    rows = []
    for name in NAMES:
        for where, value in accuracies(name).items():
            rows.append(row(value, [name], *where, **about))
            if where[0] != "clean":
                relative = value / CLEAN[name]
                rows.append(row(relative, [name], *where, metric="relative_robustness", **about))
            if oracle and name == NAMES[0]:
                rows.append(row(oracle, NAMES, *where, ensemble="oracle", **about))
    return tidy(*rows, *more)


def test_curves_begin_at_clean_images_and_go_by_severity():
    data = severity.data(frame())
    a = data.filter(backbone="a/m").select("perturbation", "severity", "value", "ci_low", "n")
    assert a.rows() == [
        ("fog", 0, 0.8, 0.75, 50),
        ("fog", 1, pytest.approx(0.7), pytest.approx(0.65), 50),
        ("fog", 3, pytest.approx(0.5), pytest.approx(0.45), 50),
        ("jpeg", 0, 0.8, 0.75, 50),
        ("jpeg", 2, pytest.approx(0.6), pytest.approx(0.55), 50),
    ]
    assert set(data["ensemble"]) == {None, "oracle"}
    about = data.select("dataset", "split", "prompts", "datasets").unique().rows()
    assert about == [("birds", "test", "own", 1)]


def test_each_perturbation_has_its_panel_with_all_curves():
    data = severity.data(frame())
    ax = severity(data)
    fog, jpeg = ax.figure.axes[1:]
    assert [panel.get_title(loc="left") for panel in (fog, jpeg)] == ["fog", "jpeg"]
    curves = np.array([line.get_xydata() for line in fog.lines])
    of_a, of_b, oracle = ([80, 70, 50], [60, 58, 54], [90, 90, 90])
    assert curves[..., 0].tolist() == [[0, 1, 3]] * 3
    assert curves[..., 1] == pytest.approx(np.array([of_a, of_b, oracle]))
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == ["a", "b", "oracle"]
    assert (
        severity.about(data)
        == "birds/test · prompts own · n 50 · backbones */m · 95 % interval about ±5.0"
    )


def test_several_datasets_are_drawn_by_their_mean():
    parts = [frame(), frame(dataset="cars"), frame(dataset=None, oracle=0.95)]
    data = severity.data(pl.concat(parts))
    assert data.select("dataset", "datasets").unique().rows() == [(None, 2)]
    assert data.filter(ensemble="oracle")["value"].unique().to_list() == [0.95]
    assert severity.about(data).startswith("mean over 2 datasets · test · prompts own")


def test_datasets_that_have_no_mean_are_not_drawn_together():
    with pytest.raises(UsageError, match="name some with datasets=…"):
        severity.data(pl.concat([frame(), frame(dataset="cars")]))


def test_the_matrix_has_clean_images_each_perturbation_and_their_mean():
    data = corruptions.data(frame())
    for name in NAMES:
        found = dict(data.filter(backbone=name).select("perturbation", "value").iter_rows())
        known = accuracies(name)
        places = {"clean": ("clean", 0)} | {it: (it, None) for it in ("fog", "jpeg", "all")}
        assert found == {it: pytest.approx(known[place]) for it, place in places.items()}
    assert data.filter(ensemble="oracle")["value"].to_list() == [0.9] * 4
