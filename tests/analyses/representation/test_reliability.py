"""Reliability diagrams."""

from __future__ import annotations

import polars as pl
import pytest

from clipsyn.analyses.representation.measure import COLUMNS
from clipsyn.analyses.representation.view import reliability
from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import RESULT
from clipsyn.stats.intervals import wilson_interval

A, B = "tiny-a/zoo", "tiny-b/zoo"


def bin_rows(dataset, backbone, bin, n, right, confidence, suffix=""):  # noqa: PLR0917
    about = {"dataset": dataset, "split": "test", "perturbation": "clean", "prompts": "own"}
    about |= {"head": "zero-shot", "classes": "all", "backbones": [backbone], "n": n, "bin": bin}
    return [
        about
        | {"metric": f"bin_accuracy{suffix}", "value": right / n}
        | dict(zip(("ci_low", "ci_high"), wilson_interval(right, n), strict=True)),
        about | {"metric": f"bin_confidence{suffix}", "value": confidence},
    ]


def tidy(*pairs):
    rows = [row for pair in pairs for row in pair]
    return pl.DataFrame(rows, schema=RESULT | COLUMNS)


FRAME = tidy(
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
        reliability.data(pl.concat([FRAME, tidy(bin_rows("cars", A, 3, 30, 12, 0.21))]))
