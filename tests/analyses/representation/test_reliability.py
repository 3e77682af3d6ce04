"""Reliability diagrams."""

import polars as pl
import pytest

from clipsyn.analyses.representation.measure import COLUMNS
from clipsyn.analyses.representation.view import reliability
from clipsyn.errors import UsageError
from clipsyn.stats.intervals import wilson_interval
from tests.results import row, tidy

A, B = "tiny-a/zoo", "tiny-b/zoo"


def bin_rows(dataset, backbone, bin, n, right, confidence, suffix=""):  # noqa: PLR0917
    about = {"backbones": [backbone], "dataset": dataset, "n": n, "bin": bin}
    low, high = wilson_interval(right, n)
    return [
        row(f"bin_accuracy{suffix}", right / n, **about, ci_low=low, ci_high=high),
        row(f"bin_confidence{suffix}", confidence, **about),
    ]


def frame(*pairs):
    return tidy(*(row for pair in pairs for row in pair), columns=COLUMNS)


FRAME = frame(
    bin_rows("birds", A, 9, 30, 24, 0.95),
    bin_rows("birds", A, 3, 10, 2, 0.25),
    bin_rows("birds", A, 3, 40, 10, 0.26, "_calibrated"),
    bin_rows("birds", B, 7, 3, 1, 0.5),
)


def test_each_bin_has_its_accuracy_with_the_interval_and_its_confidence():
    data = reliability.data(FRAME)
    plain = data.filter(backbone=A, scaling="as it is")
    assert plain.select("bin", "n", "accuracy", "confidence").rows() == [
        (3, 10, 0.2, 0.25),
        (9, 30, 0.8, 0.95),
    ]
    assert plain.select("low", "high").rows() == [wilson_interval(2, 10), wilson_interval(24, 30)]


def test_a_part_for_each_backbone_with_its_lines():
    ax = reliability(reliability.data(FRAME))
    first, second = ax.figure.axes[1:]
    assert [part.get_title(loc="left") for part in (first, second)] == ["a", "b"]
    diagonal, plain, scaled = first.lines
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 100]
    assert plain.get_ydata() == pytest.approx([20, 80])
    assert scaled.get_ydata() == pytest.approx([25])
    assert len(second.lines) == 2


def test_datasets_are_not_mixed():
    with pytest.raises(UsageError, match="there are 2 datasets, birds, cars"):
        reliability.data(pl.concat([FRAME, frame(bin_rows("cars", A, 3, 30, 12, 0.21))]))
