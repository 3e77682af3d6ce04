"""Reliability diagrams."""

from __future__ import annotations

import math

import polars as pl
import pytest

from clipsyn.analyses.representation.measure import COLUMNS
from clipsyn.analyses.representation.view import reliability
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
    bin_rows("cars", A, 3, 30, 12, 0.21),
    bin_rows("birds", A, 3, 40, 10, 0.26, "_calibrated"),
    bin_rows("birds", B, 7, 3, 1, 0.5),
)


def test_images_of_all_datasets_are_put_together():
    data = reliability.data(FRAME)
    plain = data.filter(backbone=A, scaling="as it is")
    assert plain["bin"].to_list() == [3, 9]
    assert plain["n"].to_list() == [40, 30]
    assert plain["accuracy"].to_list() == pytest.approx([14 / 40, 24 / 30])
    assert plain["confidence"].to_list() == pytest.approx([(10 * 0.25 + 30 * 0.21) / 40, 0.95])
    low, high = plain.select("low", "high").row(0)  # distances of both sets add as squares
    ends = [wilson_interval(2, 10), wilson_interval(12, 30)]
    assert 14 - 40 * low == pytest.approx(math.hypot(2 - 10 * ends[0].low, 12 - 30 * ends[1].low))
    assert 40 * high - 14 == pytest.approx(
        math.hypot(10 * ends[0].high - 2, 30 * ends[1].high - 12)
    )
    assert plain.select("low", "high").row(1) == pytest.approx(wilson_interval(24, 30))
    assert data["datasets"].unique().to_list() == [2]


def test_a_part_for_each_backbone_with_its_lines():
    ax = reliability(reliability.data(FRAME))
    first, second = ax.child_axes
    assert [part.get_title(loc="left") for part in (first, second)] == ["a", "b"]
    diagonal, plain, scaled = first.lines
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 100]
    assert plain.get_ydata() == pytest.approx([35, 80])
    assert scaled.get_ydata() == pytest.approx([25])
    assert len(second.lines) == 2
    assert reliability.about(reliability.data(FRAME)) == "over the images of 2 datasets"


def test_rounding_makes_no_more_right_answers_than_images():
    """1.0 times n may come out above n when it is added up."""
    frame = tidy(*(bin_rows(f"d{n}", A, 9, n, n, 0.99) for n in (3, 7, 49, 10_000_001)))
    assert reliability.data(frame)["accuracy"].to_list() == [1.0]
