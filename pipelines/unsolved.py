"""The share of images that no backbone gets right, by true class, over all datasets of a store.

    python pipelines/unsolved.py STORE

STORE holds predictions with labels, such as those that `clipsyn run pipelines/real.yaml` imports.
Each image must have been shown under one perturbation; all perturbations of a dataset are taken
together. Prints a row for each class and a column for each prompt set, over all its datasets.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from clipsyn.analyses.predicted import Predicted, predicted
from clipsyn.errors import ClipsynError
from clipsyn.evaluation.selection import Selection
from clipsyn.methods.numerics.metrics import scored
from clipsyn.show.tables import show
from clipsyn.store.features import FeatureStore


def unsolved(store: FeatureStore) -> pl.DataFrame:
    """A row for each class and prompt set: how many images count, and the share nobody gets right.

    Columns: prompts, class, images, none (a fraction).
    """
    groups = predicted(store, Selection(), pooled=True)
    rows = [row for group in groups for row in _rows(group)]
    counts = pl.DataFrame(rows, schema=["prompts", "class", "images", "none"], orient="row")
    return counts.group_by("prompts", "class", maintain_order=True).agg(
        pl.col("images").sum(), pl.col("none").sum() / pl.col("images").sum()
    )


def _rows(group: Predicted) -> Iterator[tuple[str, str, int, int]]:
    counted = scored(group.predictions, group.labels)
    right = (group.predictions == group.labels).any(axis=0)
    for index, text in enumerate(group.samples.class_names):
        of_class = counted & (group.labels == index)
        yield group.prompts, text, int(of_class.sum()), int((of_class & ~right).sum())


def table(shares: pl.DataFrame) -> str:
    """The shares in percent; the class that is missed most often comes first."""
    groups = shares["prompts"].unique(maintain_order=True).to_list()
    wide = shares.pivot("prompts", index="class", values="none", maintain_order=True)
    return show(wide.sort(groups[0], descending=True), percent=groups)


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        raise SystemExit(__doc__)
    try:
        shares = unsolved(FeatureStore.open(Path(arguments[0])))
    except ClipsynError as error:
        raise SystemExit(f"Error: {error}") from None
    sys.stdout.write(table(shares) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
