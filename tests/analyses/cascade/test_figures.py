from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest

from clipsyn.analyses.cascade import GIVEN, WITHIN
from clipsyn.analyses.cascade.figures import pareto
from clipsyn.analyses.cascade.measure import CASCADE
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import RESULT, frame

BOTH = ("big/m", "small/m")  # sorted; a cascade runs the small one first


def candidate(
    ensemble: str,
    backbones: Sequence[str],
    numbers: tuple[float, float, float, float],
    threshold: float | None = None,
    rule: str | None = None,
    **about,
) -> list[dict]:
    """numbers: accuracy and cost, then both on the support."""
    common = {
        "dataset": "birds", "split": "test", "perturbation": "clean", "prompts": "own", "n": 40,
        "ensemble": ensemble, "backbones": list(backbones), "threshold": threshold, "rule": rule,
    }  # fmt: skip
    names = ("acc1", "mean_gflops", "support_acc1", "support_mean_gflops")
    return [
        common
        | {"metric": metric, "value": value}
        | ({"ci_low": value - 0.1, "ci_high": value + 0.1} if metric == "acc1" else {})
        | about
        for metric, value in zip(names, numbers, strict=True)
    ]


def rows(by: float = 0.0, **about) -> list[dict]:
    """Two backbones, their ensemble, and a cascade with two thresholds and one that is chosen."""
    run = BOTH[::-1]
    return [
        *candidate("single", ["small/m"], (0.5 + by, 1, 0.55, 1), **about),
        *candidate("single", ["big/m"], (0.6 + by, 10, 0.60, 10), **about),
        *candidate("log-avg", run, (0.7 + by, 11, 0.65, 11), **about),
        *candidate("log-avg", run, (0.55 + by, 3, 0.50, 3), 0.5, GIVEN, **about),
        *candidate("log-avg", run, (0.65 + by, 8, 0.64, 8), 0.9, GIVEN, **about),
        *candidate("log-avg", run, (0.62 + by, 7, 0.63, 7), 0.8 - by, WITHIN, **about),
    ]


def data(*given: dict) -> pl.DataFrame:
    return pareto.data(frame(given, CASCADE))


def test_a_row_for_each_candidate():
    found = data(*rows()).select(
        "ensemble", "rule", "threshold", "backbones", "acc1", "mean_gflops"
    )
    assert found.rows() == [
        ("single", None, None, ["small/m"], 0.5, 1),
        ("single", None, None, ["big/m"], 0.6, 10),
        ("log-avg", None, None, [*BOTH], 0.7, 11),
        ("log-avg", GIVEN, 0.5, [*BOTH], 0.55, 3),
        ("log-avg", GIVEN, 0.9, [*BOTH], 0.65, 8),
        ("log-avg", WITHIN, None, [*BOTH], 0.62, 7),
    ]
    assert data(*rows())["ci_low"].to_list() == pytest.approx([0.4, 0.5, 0.6, 0.45, 0.55, 0.52])


def test_the_front_is_that_of_the_support():
    # on the support the threshold 0.5 costs more than the small backbone and is worse; on what is
    # measured it is better
    assert data(*rows())["front"].to_list() == [True, False, True, False, True, True]


def test_other_rows_change_nothing():
    more = rows()[0] | {"metric": "gain_over_full", "value": 0.0}
    exits = rows()[-4] | {"metric": "exit", "stage": 1}
    assert data(*rows(), more, exits).equals(data(*rows()))


def test_means_over_datasets_are_of_what_all_have():
    alone = candidate("nlc", BOTH, (0.9, 11, 0.9, 11))
    greedy = [
        one | {"backbones": [*BOTH]} if one["ensemble"] != "single" else one
        for one in rows(0.1, dataset="cars")
    ]
    found = data(*rows(), *alone, *greedy)
    assert found["acc1"].to_list() == pytest.approx([0.55, 0.65, 0.75, 0.6, 0.7, 0.67])
    assert found["rule"].to_list() == [None, None, None, GIVEN, GIVEN, WITHIN]
    assert found.select("dataset", "datasets", "n", "ci_low").unique().rows() == [
        (None, 2, 80, None)
    ]


def test_the_drawing_has_a_layer_for_each_kind():
    ax = pareto(data(*rows()))
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == [
        "ensembles",
        "cascade of log-avg",
        "big",
        "small",
        "chosen threshold",
        "front on the support",
    ]
    points = [line.get_xydata().round(9).tolist() for line in ax.lines]
    cascades, chosen, front = [[3, 55], [8, 65]], [[7, 62]], [[1, 50], [11, 70], [8, 65], [7, 62]]
    assert points == [[[11, 70]], cascades, [[10, 60]], [[1, 50]], chosen, front]
    assert ax.get_xscale() == "log"
    assert pareto.about(data(*rows())).startswith("birds/test · clean · prompts own · n 40")


def test_a_choice_that_costs_nothing_is_drawn():
    free = candidate(None, ["small/m"], (0.5, 0, 0.55, 0))
    ax = pareto(data(*free, *rows()[4:]))
    assert ax.get_xscale() == "linear"
    assert (0, 50) in [tuple(line.get_data()[axis][0] for axis in (0, 1)) for line in ax.lines]


def test_several_perturbations_are_not_mixed():
    with pytest.raises(UsageError, match="2 perturbations, clean, fog-1, and this shows one"):
        data(*rows(), *rows(perturbation="fog-1"))


@pytest.mark.parametrize("columns", [RESULT, RESULT | CASCADE])
def test_a_frame_without_cascades_is_refused(columns):
    foreign = pl.DataFrame(rows(), schema=columns).filter(
        pl.col("metric") == ("acc1" if columns == RESULT else "x")
    )
    with pytest.raises(UsageError, match="no accuracy and cost of cascades to draw: give a store"):
        pareto.data(foreign)
