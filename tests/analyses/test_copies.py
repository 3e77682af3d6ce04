"""Where every image of a set stands in it twice, all intervals and tests are those of once."""

import numpy as np
import polars as pl
import pytest

import clipsyn

ABOUT = ["metric", "perturbation", "backbones", "head", "ensemble", "shots", "seed", "bin", "stage"]
FINE = ["mcnemar_p", "mcnemar_p_holm"]
OTHER = ["left_out", "floor", "region", "aurc", "augrc", "second", "cka", "procrustes", "mutual"]


@pytest.fixture(scope="module")
def stores(fakes, tmp_path_factory):
    """The same 90 images once, and each of them twice."""

    class Twice(fakes.Source):
        def __post_init__(self):
            super().__post_init__()
            self.labels = np.repeat(self.labels[: self.count // 2], 2)

        def _pixels(self, index):
            return super()._pixels(index // 2)

    encoders = [fakes.Encoder(name) for name in ("rn/a", "rn/b", "vit/c")]
    train, shown = fakes.Source(split="train", count=30), ("clean", "jpeg:1", "jpeg:3")
    path = tmp_path_factory.mktemp("copies")
    return [
        fakes.fill(path / kind.__name__, encoders, [kind(count=count), train], shown)
        for kind, count in ((fakes.Source, 90), (Twice, 180))
    ]


def evaluate(store):
    return clipsyn.evaluate(store, heads=["zero-shot", "lda"], ensembles=["log-avg"], shots=[4])


@pytest.mark.parametrize(
    "analysis",
    [
        clipsyn.zeroshot,
        clipsyn.oracle,
        clipsyn.diversity,
        clipsyn.robustness,
        clipsyn.representation,
        clipsyn.cascade,
        clipsyn.selective,
        evaluate,
    ],
)
def test_copies_make_nothing_surer(analysis, stores):
    once, twice = (analysis(store) for store in stores)
    by = [name for name in (*ABOUT, "score", "coverage", "threshold", "wished") if name in once]
    other = pl.col("metric").str.contains("|".join(OTHER))
    both = once.filter(~other).join(twice, on=by, nulls_equal=True, suffix=" twice")
    both = both.filter((pl.col("value") - pl.col("value twice")).abs() < 1e-9)
    assert len(both) > 0.6 * len(once.filter(~other, pl.col("value").is_not_nan()))
    for row in both.iter_rows(named=True):
        for end in ("ci_low", "ci_high") if row["ci_low"] is not None else ():
            width = 0.2 * (row["ci_high"] - row["ci_low"])
            near = pytest.approx(row[end], abs=max(0.01, width), nan_ok=True)
            assert row[f"{end} twice"] == near, [row[name] for name in (*by, "value", "n")]
    sure = both.filter(pl.col("metric").is_in(["acc1", "unique_correct", "coverage", *FINE]))
    for name in ("value", "ci_low", "ci_high"):
        exact = sure.drop_nulls([name, f"{name} twice"])
        if analysis not in (clipsyn.selective, clipsyn.robustness) or name == "value":
            assert exact[name].to_list() == pytest.approx(exact[f"{name} twice"].to_list())
