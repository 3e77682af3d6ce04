"""Weights of a router."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from clipsyn.errors import UsageError
from clipsyn.router.predict import router_weights

WEIGHTS = np.random.default_rng(0).dirichlet([1, 3, 2], 500)
FRAME = pl.DataFrame(
    {"id": [str(number) for number in range(500)], "class": ["cat"] * 500}
    | {f"weight tiny-{name}/zoo": WEIGHTS[:, at] for at, name in enumerate("abc")}
)


def test_the_heaviest_backbone_is_first():
    data = router_weights.data(FRAME)
    assert data["backbone"].to_list() == ["tiny-b/zoo", "tiny-c/zoo", "tiny-a/zoo"]
    assert data["mean"].to_list() == pytest.approx(WEIGHTS.mean(axis=0)[[1, 2, 0]].tolist())
    levels = np.percentile(WEIGHTS[:, 1], [5, 25, 50, 75, 95]).tolist()
    assert list(data.select("p5", "p25", "median", "p75", "p95").row(0)) == pytest.approx(levels)
    assert data["n"].unique().to_list() == [500]


def test_images_without_a_prediction_do_not_count():
    frame = pl.concat([FRAME, FRAME.head(7).with_columns(pl.col(pl.Float64) * None)])
    assert_frame_equal(router_weights.data(frame), router_weights.data(FRAME))


def test_a_box_a_line_and_two_marks_for_each_backbone():
    data = router_weights.data(FRAME)
    ax = router_weights(data)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["b", "c", "a"]
    boxes = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
    assert boxes == [pytest.approx(row) for row in data.select("p25", "p75").rows()]
    (lines,) = ax.collections
    ends = [tuple(segment[:, 0]) for segment in lines.get_segments()]
    assert ends == [pytest.approx(row) for row in data.select("p5", "p95").rows()]
    medians, means = (line.get_xdata() for line in ax.lines)
    assert medians == pytest.approx(data["median"].to_numpy())
    assert means == pytest.approx(data["mean"].to_numpy())
    assert ax.get_xlabel() == "weight, over 500 images"


def test_weights_that_are_the_same_for_all_images():
    frame = pl.DataFrame({"id": ["a", "b"], "weight x": [0.25, 0.25], "weight y": [0.75, 0.75]})
    ax = router_weights(router_weights.data(frame))
    left, right = ax.get_xlim()
    assert left <= 0
    assert right > 0.75  # the mark is not cut off


@pytest.mark.parametrize(
    "frame", [FRAME.select("id", "class"), FRAME.clear(), pl.DataFrame()], ids=["none", "empty", ""]
)
def test_an_ensemble_without_weights(frame):
    with pytest.raises(UsageError, match="no weight of any backbone to draw: give what `clip"):
        router_weights.data(frame)
