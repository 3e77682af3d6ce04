import pytest

from clipsyn.analyses.cascade import GIVEN, WITHIN
from clipsyn.analyses.cascade.measure import CASCADE
from clipsyn.analyses.cascade.view import pareto
from clipsyn.evaluation.results.frame import frame
from tests.results import row

BOTH = ("big/m", "small/m")  # sorted; a cascade runs the small one first


def candidate(ensemble, backbones, numbers, threshold=None, rule=None, **about):
    """numbers: accuracy and cost, then both on the support."""
    about |= {"threshold": threshold, "rule": rule}
    accuracy, *others = zip(
        ("acc1", "mean_gflops", "support_acc1", "support_mean_gflops"), numbers, strict=True
    )
    return [
        row(*accuracy, backbones, ensemble, off=(0.1, 0.1), **about),
        *(row(*other, backbones, ensemble, off=None, **about) for other in others),
    ]


def rows(by=0.0, **about):
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


def data(*given):
    return pareto.data(frame(given, CASCADE))


def test_the_front_is_that_of_the_support():
    # on the support the threshold 0.5 costs more than the small backbone and is worse; on what is
    # measured it is better
    assert data(*rows())["front"].to_list() == [True, False, True, False, True, True]


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
    texts = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert texts == [
        "ensembles", "cascade of log-avg", "big", "small", "chosen threshold",
        "front on the support",
    ]  # fmt: skip
    points = [line.get_xydata().round(9).tolist() for line in ax.lines]
    cascades, chosen, front = [[3, 55], [8, 65]], [[7, 62]], [[1, 50], [11, 70], [8, 65], [7, 62]]
    assert points == [[[11, 70]], cascades, [[10, 60]], [[1, 50]], chosen, front]
    assert ax.get_xscale() == "log"
    assert pareto.about(data(*rows())).startswith("birds/test · clean · prompts own · n 40")
