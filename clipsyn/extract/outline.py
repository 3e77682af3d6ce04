"""What an extraction would do, as far as it is known without weights and images.

Widths and costs come from the catalogue and from open_clip's configurations, sizes of datasets
that are not here from the catalogue. Unknown values are None.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product

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
        passes, gflops, size = self._cost(to_make)
        cells = len(self.splits) * len(self.perturbations) * len(self.backbones)
        return (
            f"{len(to_make):,} of {cells:,} cells to make: "
            f"{_told(passes)} images through a backbone, {_told(gflops)} GFLOPs, {size}"
        )

    def unchecked(self) -> str:
        """What is missing, and what the outline therefore leaves open."""
        weights = sum(not backbone.is_here for backbone in self.backbones)
        images = [f"{split.dataset}/{split.split}" for split in self.splits if split.missing]
        parts = [
            f"the weights of {weights} of {len(self.backbones)} backbones" if weights else "",
            f"the images of {', '.join(images)}" if images else "",
        ]
        catalogue = " (their numbers are the catalogue's)" if images else ""
        return (
            f"not here: {' and '.join(filter(None, parts))}{catalogue}. No weights were loaded "
            "and no images compared: cells count as stored by their names alone"
        )

    def _to_make(
        self, splits: Iterable[OutlinedSplit], perturbations: Sequence[Perturbation]
    ) -> list[tuple[OutlinedSplit, Perturbation, OutlinedBackbone]]:
        """Split, perturbation and backbone of each cell that is not stored."""
        return [
            (split, perturbation, backbone)
            for split, perturbation, backbone in product(splits, perturbations, self.backbones)
            if FeatureKey(split.dataset, split.split, perturbation.label, backbone.name)
            not in self.stored
        ]

    def _cost(
        self, cells: Iterable[tuple[OutlinedSplit, Perturbation, OutlinedBackbone]]
    ) -> tuple[float, float, CellBytes]:
        """Images, GFLOPs and bytes of cells; NaN where one of the numbers is not known."""
        passes = gflops = 0.0
        sizes = []
        for split, perturbation, backbone in cells:
            images, classes = _number(split.images), _number(split.classes)
            passes += images
            gflops += images * _number(backbone.gflops)
            has_logits = stores_logits(perturbation, self.logits)
            sizes.append(CellBytes.of(images, _number(backbone.embed_dim), classes, has_logits))
        return passes, gflops, CellBytes.sum(sizes)


def _place(is_here: bool) -> str:
    return "here" if is_here else "not here"


def _number(known: float | None) -> float:
    return math.nan if known is None else known


def _told(number: float) -> str:
    return "an unknown number of" if math.isnan(number) else f"{number:,.0f}"
