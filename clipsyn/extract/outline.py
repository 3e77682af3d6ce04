"""What an extraction would do, as far as it is known without weights and images.

Widths and costs come from the catalogue and from open_clip's configurations, sizes of datasets
that are not here from the catalogue. Unknown values are None.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from typing import NamedTuple

import polars as pl

from clipsyn.extract.plan import severities
from clipsyn.extract.sizes import CellBytes, stores_logits
from clipsyn.specs import FeatureKey, Perturbation


@dataclass(frozen=True)
class OutlinedBackbone:
    name: str
    is_here: bool  # its weights
    embed_dim: int | None
    gflops: float | None  # image tower, per image


@dataclass(frozen=True)
class OutlinedSplit:
    dataset: str
    split: str
    images: int | None
    classes: int | None
    missing: str = ""  # why its images could not be opened


class Cost(NamedTuple):
    """What cells take; NaN where one of the numbers is not known."""

    passes: float = 0  # images through a backbone
    gflops: float = 0
    size: CellBytes = CellBytes()

    @classmethod
    def sum(cls, costs: Iterable[Cost]) -> Cost:
        each = [*costs]
        return cls(
            sum(cost.passes for cost in each),
            sum(cost.gflops for cost in each),
            CellBytes.sum(cost.size for cost in each),
        )

    def __str__(self) -> str:
        passes, gflops = _told(self.passes), _told(self.gflops)
        return f"{passes} images through a backbone, {gflops} GFLOPs, {self.size}"


@dataclass(frozen=True)
class Outline:
    """A plan for which weights or images are missing; cells in the store count by their names."""

    backbones: Sequence[OutlinedBackbone]
    splits: Sequence[OutlinedSplit]
    perturbations: Sequence[Perturbation]
    stored: Collection[FeatureKey]
    logits: str = "clean"

    @property
    def is_complete(self) -> bool:
        """Whether everything is here, so that a plan can be made."""
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
        return pl.DataFrame(rows, infer_schema_length=None)

    def table(self) -> pl.DataFrame:
        """A row for each dataset, split and perturbation, as in `Plan.table`."""
        rows = []
        for split in self.splits:
            for _, same in groupby(self.perturbations, lambda p: replace(p, severity=0)):
                group = list(same)
                to_make = self._to_make([split], group)
                _, gflops, size = self._cost(to_make)
                cells = len(group) * len(self.backbones)
                rows.append(
                    {
                        "dataset": split.dataset,
                        "split": split.split,
                        "perturbation": severities(p.label for p in group),
                        "images": split.images,
                        "classes": split.classes,
                        "cells": cells,
                        "stored": cells - len(to_make),
                        "GFLOPs": None if math.isnan(gflops) else round(gflops),
                        **size.columns(),
                        "found": _place(not split.missing),
                    }
                )
        return pl.DataFrame(rows, infer_schema_length=None)

    def summary(self) -> str:
        to_make = self._to_make(self.splits, self.perturbations)
        cells = len(self.splits) * len(self.perturbations) * len(self.backbones)
        return f"{len(to_make):,} of {cells:,} cells to make: {self._cost(to_make)}"

    def every(self) -> Iterator[FeatureKey]:
        """Every cell, stored or not."""
        return (_key(*cell) for cell in self._cells(self.splits, self.perturbations))

    def cost(self) -> Cost:
        """Of the cells that are not stored."""
        return self._cost(self._to_make(self.splits, self.perturbations))

    def cost_of_answers(self, keys: Collection[FeatureKey]) -> Cost:
        """Of predictions and logits under other prompts, for cells whose embeddings are there."""
        cells = self._cells(self.splits, self.perturbations)
        sizes = (self._answers(*cell[:2]) for cell in cells if _key(*cell) in keys)
        return Cost(0, 0, CellBytes.sum(sizes))

    def unchecked(self) -> str:
        """What is missing, and what the outline therefore leaves open."""
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

    def _cells(
        self, splits: Iterable[OutlinedSplit], perturbations: Sequence[Perturbation]
    ) -> Iterator[_Cell]:
        return product(splits, perturbations, self.backbones)

    def _to_make(
        self, splits: Iterable[OutlinedSplit], perturbations: Sequence[Perturbation]
    ) -> list[_Cell]:
        """The cells that are not stored."""
        cells = self._cells(splits, perturbations)
        return [cell for cell in cells if _key(*cell) not in self.stored]

    def _cost(self, cells: Iterable[_Cell]) -> Cost:
        costs = []
        for split, perturbation, backbone in cells:
            images = _number(split.images)
            answers = self._answers(split, perturbation)
            embeddings = CellBytes.of(images, _number(backbone.embed_dim), 0, False)
            size = CellBytes.sum([embeddings, answers])
            costs.append(Cost(images, images * _number(backbone.gflops), size))
        return Cost.sum(costs)

    def _answers(self, split: OutlinedSplit, perturbation: Perturbation) -> CellBytes:
        has_logits = stores_logits(perturbation, self.logits)
        return CellBytes.of(_number(split.images), 0, _number(split.classes), has_logits)


_Cell = tuple[OutlinedSplit, Perturbation, OutlinedBackbone]


def _key(
    split: OutlinedSplit, perturbation: Perturbation, backbone: OutlinedBackbone
) -> FeatureKey:
    return FeatureKey(split.dataset, split.split, perturbation.label, backbone.name)


def _place(is_here: bool) -> str:
    return "here" if is_here else "not here"


def _number(known: float | None) -> float:
    return math.nan if known is None else known


def _told(number: float) -> str:
    return "an unknown number of" if math.isnan(number) else f"{number:,.0f}"
