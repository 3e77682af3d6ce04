"""Weights of a router."""

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


@pytest.mark.parametrize(
    "frame", [FRAME.select("id", "class"), FRAME.clear(), pl.DataFrame()], ids=["none", "empty", ""]
)
def test_an_ensemble_without_weights(frame):
    with pytest.raises(UsageError, match="no weight of any backbone to draw: give what `clip"):
        router_weights.data(frame)
