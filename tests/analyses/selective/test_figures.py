import pytest

from clipsyn.analyses.selective.measure import COLUMNS
from clipsyn.analyses.selective.view import coverage
from clipsyn.evaluation.results.frame import frame
from tests.results import row as made

BOTH = ("a/m", "b/m")
METHODS = {
    ("single", ("a/m",)): 0.5,
    ("single", ("b/m",)): 0.6,
    ("log-avg", BOTH): 0.7,
}  # accuracy of all
SCORES = ("max-softmax", "margin")
COVERAGES = (0.25, 0.5, 1.0)


def row(value, method, metric="acc1", **about):
    return made(metric, value, method[1], method[0], off=(0.1, 0.1), **about)


def rows(by=0.0, **about):
    """Accuracy rises by 0.1 at half of the coverage, and by 0.2 at a quarter."""
    made = []
    for method, accuracy in METHODS.items():
        made.append(row(accuracy, method, **about))
        for score in SCORES:
            made.append(row(0.3, method, metric="aurc", score=score, **about))
            for at, more in zip(COVERAGES, (0.2, 0.1, 0.0), strict=True):
                kept = about | {"coverage": at, "n": round(40 * at)}
                made.append(row(accuracy + more + by, method, score=score, **kept))
            chosen = {"score": score, "wished": 0.95, "threshold": 0.9} | about
            made.append(row(0.4, method, metric="coverage", **chosen))
            made.append(row(accuracy + 0.15 + by, method, **chosen))
            made.append(row(0.3, method, metric="support_coverage", **chosen))
            made.append(row(0.96, method, metric="support_acc1", **chosen))
    return made


def data(*given):
    return coverage.data(frame(given, COLUMNS))


def test_curves_and_thresholds_of_each_method_and_score():
    found = data(*rows())
    assert len(found) == 3 * (3 + 1)
    columns = found.select("coverage", "value", "wished", "ci_low", "n")
    of_a = columns.filter(found["backbone"] == "a/m")
    assert of_a.rows() == [
        (0.25, 0.7, None, pytest.approx(0.6), 10),
        (0.5, 0.6, None, pytest.approx(0.5), 20),
        (1.0, 0.5, None, pytest.approx(0.4), 40),
        (0.4, 0.65, 0.95, pytest.approx(0.55), 40),
    ]
    assert set(found.filter(ensemble="log-avg")["backbone"]) == {None}


def test_means_over_datasets_are_of_what_all_have():
    cars = [
        one
        for one in rows(by=0.1, dataset="cars")
        if one["backbones"] != ["b/m"] and one.get("score") != "margin"
    ]
    found = data(*rows(), *cars)
    assert found["score"].unique().to_list() == ["max-softmax"]
    assert set(found["backbone"]) == {"a/m", None}
    assert found.select("dataset", "datasets", "ci_low").unique().rows() == [(None, 2, None)]
    full = found.filter(coverage=1.0).select("backbone", "value", "n").rows()
    assert full == [("a/m", pytest.approx(0.55), 80), (None, pytest.approx(0.75), 80)]


def test_the_first_score_is_drawn_with_all_methods():
    ax = coverage(data(*rows()))
    a, at_a, *_, wished = ax.lines
    assert a.get_xydata().round(9).tolist() == [[25, 70], [50, 60], [100, 50]]
    assert at_a.get_xydata().round(9).tolist() == [[40, 65]]
    assert list(wished.get_ydata()) == [95, 95]
    assert len(ax.lines) == 7
    texts = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert texts == ["a", "b", "log-avg", "chosen for 95 %"]
    about = coverage.about(data(*rows()))
    assert about.startswith("birds/test · clean · prompts own · n 40 · score max-softmax")  # of all
