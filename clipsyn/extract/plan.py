"""What an extraction would do and take, in tables and words.

It is known before weights are loaded and images read: widths and costs come from the catalogue and
from open_clip's configurations then, sizes of datasets from the catalogue. What nobody knows is
None, or NaN in a `Cost`. `clipsyn.extract.work` has what is loaded, and a plan of what is left.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import TYPE_CHECKING, Any, NamedTuple

from clipsyn.names import CLEAN, FeatureKey, Perturbation, parse_perturbation

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class PlannedBackbone:
    name: str
    is_here: bool  # its weights
    embed_dim: int | None
    gflops: float | None  # image tower, per image


@dataclass(frozen=True)
class PlannedSplit:
    dataset: str
    split: str
    images: int | None
    classes: int | None
    missing: str = ""  # why its images could not be opened


class Cost(NamedTuple):
    """What cells take; NaN where one of the numbers is not known."""

    passes: float = 0  # images through a backbone
    gflops: float = 0
    embeddings: float = 0  # bytes on disk, of these and what follows
    logits: float = 0
    predictions: float = 0

    @classmethod
    def of(
        cls,
        images: float,
        passes: float,
        gflops: float,
        width: float,
        classes: float,
        *,
        has_logits: bool,
    ) -> Cost:
        """One cell: without embeddings if `passes` is 0, without predictions if `classes` is 0."""
        return cls(
            passes,
            passes and passes * gflops,
            images * (2 * width + 1) if passes else 0,  # float16, and whether it is valid
            images * 4 * classes if has_logits and classes else 0,
            images * 2 if classes else 0,
        )

    @classmethod
    def sum(cls, costs: Iterable[Cost]) -> Cost:
        return cls(*map(sum, zip(cls(), *costs, strict=True)))

    @property
    def sizes(self) -> dict[str, float]:
        """Megabytes on disk, by what is stored."""
        return {kind: getattr(self, kind) / 1e6 for kind in self._fields[2:]}

    def columns(self) -> dict[str, float | None]:
        """For tables."""
        sizes = {f"{kind} MB": size for kind, size in self.sizes.items()}
        columns = {"passes left": self.passes, "GFLOPs": self.gflops, **sizes}
        known = {name: None if math.isnan(value) else value for name, value in columns.items()}
        gflops = known["GFLOPs"]
        return {**known, "GFLOPs": None if gflops is None else round(gflops)}

    @property
    def storage(self) -> str:
        if math.isnan(total := sum(self.sizes.values())):
            return "an unknown number of MB to store"
        sizes = ", ".join(f"{kind} {size:,.1f}" for kind, size in self.sizes.items())
        return f"{total:,.1f} MB to store ({sizes})"

    def __str__(self) -> str:
        passes, gflops = _told(self.passes), _told(self.gflops)
        return f"{passes} images through a backbone, {gflops} GFLOPs, {self.storage}"


class PlannedCell(NamedTuple):
    split: PlannedSplit
    perturbation: Perturbation
    backbone: str
    cost: Cost

    @property
    def key(self) -> FeatureKey:
        split, label = self.split, self.perturbation.label
        return FeatureKey(split.dataset, split.split, label, self.backbone)


@dataclass(frozen=True)
class Plan:
    """Cells that are asked for, and the keys of those that are done."""

    cells: Sequence[PlannedCell]
    done: Collection[FeatureKey]
    backbones: Sequence[PlannedBackbone] = ()
    splits: Sequence[PlannedSplit] = ()

    @property
    def is_complete(self) -> bool:
        """Whether everything is here, so that it can be carried out."""
        return all(b.is_here for b in self.backbones) and not any(s.missing for s in self.splits)

    def backbone_table(self) -> pl.DataFrame:
        rows = [
            {
                "backbone": backbone.name,
                "width": backbone.embed_dim,
                "GFLOPs an image": backbone.gflops,
                "weights": _place(backbone.is_here),
            }
            for backbone in self.backbones
        ]
        return _frame(rows)

    def table(self) -> pl.DataFrame:
        """A row for each dataset, split and perturbation: what is there, what the rest costs.

        The severities of a perturbation share a row: "jpeg-1,2,3".
        """
        rows = []
        groups = groupby(self.cells, lambda c: (c.split, replace(c.perturbation, severity=0)))
        for (split, _), group in groups:
            cells = [*group]
            to_make = self._to_make(cells)
            rows.append(
                {
                    "dataset": split.dataset,
                    "split": split.split,
                    "perturbation": _severities(cell.perturbation.label for cell in cells),
                    "images": split.images,
                    "classes": split.classes,
                    "cells": len(cells),
                    "done": len(cells) - len(to_make),
                    **Cost.sum(cell.cost for cell in to_make).columns(),
                    "found": _place(not split.missing),
                }
            )
        return _frame(rows)

    def summary(self) -> str:
        to_make = self._to_make(self.cells)
        return f"{len(to_make):,} of {len(self.cells):,} cells to make: {self.cost()}"

    @property
    def keys(self) -> set[FeatureKey]:
        """Of every cell, done or not."""
        return {cell.key for cell in self.cells}

    def cost(self) -> Cost:
        """Of the cells that are not done."""
        return Cost.sum(cell.cost for cell in self._to_make(self.cells))

    def cost_of_answers(self, keys: Collection[FeatureKey]) -> Cost:
        """Of predictions and logits under other prompts, for cells whose embeddings are there."""
        whole = Cost.sum(cell.cost for cell in self.cells if cell.key in keys)
        return whole._replace(passes=0, gflops=0, embeddings=0)

    def unchecked(self) -> str:
        """What is missing, and what the plan therefore leaves open."""
        doubt = (
            "No weights were loaded and no images compared: cells count as stored by their names "
            "alone"
        )
        if self.is_complete:
            return doubt
        weights = sum(not backbone.is_here for backbone in self.backbones)
        images = [f"{split.dataset}/{split.split}" for split in self.splits if split.missing]
        parts = [
            f"the weights of {weights} of {len(self.backbones)} backbones" if weights else "",
            f"the images of {', '.join(images)}" if images else "",
        ]
        catalogue = " (their numbers are the catalogue's)" if images else ""
        return f"not here: {' and '.join(filter(None, parts))}{catalogue}. {doubt}"

    def _to_make(self, cells: Iterable[PlannedCell]) -> list[PlannedCell]:
        return [cell for cell in cells if cell.key not in self.done]


def planned_cells(
    backbones: Iterable[PlannedBackbone],
    splits: Iterable[PlannedSplit],
    perturbations: Iterable[Perturbation],
    logits: str,
) -> list[PlannedCell]:
    """Every cell, with what it takes if nothing of it is there."""
    cells = []
    for split, perturbation, backbone in product(splits, perturbations, backbones):
        images, classes = _number(split.images), _number(split.classes)
        gflops, width = _number(backbone.gflops), _number(backbone.embed_dim)
        has_logits = stores_logits(perturbation, logits)
        cost = Cost.of(images, images, gflops, width, classes, has_logits=has_logits)
        cells.append(PlannedCell(split, perturbation, backbone.name, cost))
    return cells


def stores_logits(perturbation: Perturbation, logits: str) -> bool:
    """Whether cells of a perturbation store logits by that setting: clean, all or none."""
    return logits == "all" or (logits == "clean" and perturbation.name == CLEAN.name)


def _severities(labels: Iterable[str]) -> str:
    """One label, "jpeg-1,2,3", for the labels of one perturbation at several severities."""
    first, *others = dict.fromkeys(labels)
    if not others:
        return first
    levels = sorted(parse_perturbation(label).severity for label in (first, *others))
    one = parse_perturbation(first)
    return one.label.replace(f"-{one.severity}", f"-{','.join(map(str, levels))}", 1)


def _frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    import polars as pl  # 0.1 s, and a recipe's stages import this module

    return pl.DataFrame(rows, infer_schema_length=None)


def _place(is_here: bool) -> str:
    return "here" if is_here else "not here"


def _number(known: float | None) -> float:
    return math.nan if known is None else known


def _told(number: float) -> str:
    return "an unknown number of" if math.isnan(number) else f"{number:,.0f}"
