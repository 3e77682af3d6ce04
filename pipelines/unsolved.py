"""Which images no backbone gets: by true class, in every dataset of a store.

    python pipelines/unsolved.py STORE

STORE has answers or predictions with labels, such as `clipsyn run pipelines/real.yaml` imports.
Perturbations of a dataset are taken together, each image having been shown under one. Prints the
table of docs/real.md: a row a class, a column a prompt set, whose datasets are taken together.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from clipsyn.analyses.predicted import Predicted, predicted
from clipsyn.errors import ClipsynError
from clipsyn.numerics.metrics import scored
from clipsyn.show.tables import show
from clipsyn.store.features import FeatureStore


def unsolved(store: FeatureStore) -> pl.DataFrame:
    """A row a class and prompt set: images that count, and the share that nobody gets right."""
    rows = [row for group in predicted(store, pooled=True) for row in _rows(group)]
    found = pl.DataFrame(rows, schema=["prompts", "class", "images", "none"], orient="row")
    return found.group_by("prompts", "class", maintain_order=True).agg(
        pl.col("images").sum(), pl.col("none").sum() / pl.col("images").sum()
    )


def _rows(group: Predicted) -> Iterator[tuple[str, str, int, int]]:
    counted = scored(group.predictions, group.labels)
    right = (group.predictions == group.labels).any(axis=0)
    for index, text in enumerate(group.samples.class_names):
        of_class = counted & (group.labels == index)
        yield group.prompts, text, int(of_class.sum()), int((of_class & ~right).sum())


def table(found: pl.DataFrame) -> str:
    """The shares in percent, the class that is missed most often first."""
    groups = found["prompts"].unique(maintain_order=True).to_list()
    wide = found.pivot("prompts", index="class", values="none", maintain_order=True)
    return show(wide.sort(groups[0], descending=True), percent=groups)


def main(arguments: list[str]) -> None:
    if len(arguments) != 1:
        raise SystemExit(__doc__)
    try:
        found = unsolved(FeatureStore.open(Path(arguments[0])))
    except ClipsynError as error:
        raise SystemExit(f"Error: {error}") from None
    sys.stdout.write(table(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
