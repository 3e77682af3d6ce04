"""What docs/real.md says beside its tables, of the store that pipelines/real.yaml fills.

    python pipelines/real_answers.py STORE

Prints, by experiment, kappa and the lead of the oracle, of all conditions together and within each;
the vote of the three backbones; by backbone, what its answers to cue-conflict images name and how
sure it is; and by class and prompt set the share of images that no backbone gets.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polars as pl

from clipsyn.analyses.diversity.measure import error_consistency, over_pairs, pair_counts
from clipsyn.analyses.predicted import Predicted, predicted
from clipsyn.errors import ClipsynError
from clipsyn.evaluation import Selection
from clipsyn.methods.numerics.metrics import class_hits, correctness, independent_oracle, scored
from clipsyn.show.tables import show
from clipsyn.stats.differences import difference_interval
from clipsyn.store.features import FeatureStore

LARGEST = "ViT-L-14"  # decides where three answers differ: its size is known without a label
SHAPES, PROMPTS = "shape-bias", "80 templates"


def experiments(store: FeatureStore, *, pooled: bool) -> list[Predicted]:
    found = predicted(store, Selection(), pooled=pooled)
    return [group for group in found if group.samples.dataset != SHAPES]


def by_condition(store: FeatureStore) -> pl.DataFrame:
    """A row for each experiment: mean kappa over pairs, and how far the oracle is below that of
    independent errors, a fraction; of all images together, and as means over the conditions.
    """
    rows = [
        (group.samples.dataset, "pooled" if pooled else "within", *_agreement(group))
        for pooled in (True, False)
        for group in experiments(store, pooled=pooled)
    ]
    frame = pl.DataFrame(rows, schema=["experiment", "of", "kappa", "below"], orient="row")
    means = frame.group_by("experiment", "of", maintain_order=True).agg(
        pl.col("kappa").drop_nans().mean(), pl.col("below").mean(), conditions=pl.len()
    )
    pooled, within = (means.filter(of=of).drop("of") for of in ("pooled", "within"))
    return pooled.drop("conditions").join(within, on="experiment", suffix=" within")


def _agreement(group: Predicted) -> tuple[float, float]:
    counted = scored(group.predictions, group.labels)
    right, labels = correctness(group.predictions, group.labels), group.labels[counted]
    sizes = np.bincount(labels)
    shares = class_hits(right, labels) / np.maximum(sizes, 1)
    lead = independent_oracle(shares, sizes) - right.any(axis=0).mean()
    pairs = error_consistency(pair_counts(group.predictions, group.labels))
    return float(over_pairs(pairs)), float(lead)


def votes(store: FeatureStore) -> pl.DataFrame:
    """A row for each experiment: the majority of three against the largest, which decides ties."""
    rows = []
    for group in experiments(store, pooled=True):
        first = group.backbones.index(LARGEST)
        others = np.delete(group.predictions, first, axis=0)
        alone = group.predictions[first]
        vote = np.where(others[0] == others[1], others[0], alone)
        right, base = vote == group.labels, alone == group.labels
        lead = right.astype(np.int8) - base
        gain = difference_interval([lead], [group.images])
        tied = np.mean([len({*answers}) == 3 for answers in group.predictions.T])
        rows.append((group.samples.dataset, tied, right.mean(), right.mean() - base.mean(), *gain))
    columns = ["experiment", "tied", "vote", "gain", "low", "high"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def named(store: FeatureStore) -> pl.DataFrame:
    """A row for each backbone: what its answers to cue-conflict images name, its confidence, and
    what this exceeds its accuracy by, with the shape as the truth, and with the texture as right.
    """
    (group,) = predicted(store, Selection(datasets=(SHAPES,), prompts=(PROMPTS,)))
    classes = {name: place for place, name in enumerate(group.samples.class_names)}
    texture = np.array(
        [classes[text.split("-")[1].rstrip("0123456789")] for text in group.samples.ids]
    )
    rows = []
    for key, answer in zip(group.keys, group.predictions, strict=True):
        sure = store.cell(key).confidences(PROMPTS)
        shape = answer == group.labels
        either = shape | (answer == texture)
        rows.append(
            {
                "backbone": key.backbone,
                "shape": shape.mean(),
                "texture": (answer == texture).mean(),
                "of errors": (answer == texture)[~shape].mean(),
                "sure there": sure[~shape].mean(),
                "over": sure.mean() - shape.mean(),
                "over if either": sure.mean() - either.mean(),
            }
        )
    return pl.DataFrame(rows)


def unsolved(store: FeatureStore) -> pl.DataFrame:
    """A row for each class and prompt set: how many images count, and the share nobody gets right.

    Columns: prompts, class, images, none (a fraction).
    """
    rows = []
    for group in predicted(store, Selection(), pooled=True):
        counted = scored(group.predictions, group.labels)
        right = (group.predictions == group.labels).any(axis=0)
        for index, text in enumerate(group.samples.class_names):
            of_class = counted & (group.labels == index)
            rows.append((group.prompts, text, int(of_class.sum()), int((of_class & ~right).sum())))
    counts = pl.DataFrame(rows, schema=["prompts", "class", "images", "none"], orient="row")
    return counts.group_by("prompts", "class", maintain_order=True).agg(
        pl.col("images").sum(), pl.col("none").sum() / pl.col("images").sum()
    )


def report(store: FeatureStore) -> str:
    shares, of_images = unsolved(store), named(store)
    prompts = shares["prompts"].unique(maintain_order=True).to_list()
    wide = shares.pivot("prompts", index="class", values="none", maintain_order=True)
    return "\n\n".join(
        (
            show(by_condition(store), percent=["below", "below within"]),
            show(votes(store), percent=["tied", "vote", "gain", "low", "high"]),
            show(of_images, percent=of_images.columns[1:]),
            show(wide.sort(prompts[0], descending=True), percent=prompts),
        )
    )


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        raise SystemExit(__doc__)
    try:
        text = report(FeatureStore.open(Path(arguments[0])))
    except ClipsynError as error:
        raise SystemExit(f"Error: {error}") from None
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
