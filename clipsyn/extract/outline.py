"""What an extraction would do, as far as it is known without weights and images.

Widths and costs come from the catalogue and from open_clip's configurations, sizes of datasets
that are not here from the catalogue. Unknown values are None, and so is every sum with one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import polars as pl

from clipsyn.extract.plan import features_bytes, logits_bytes, severities
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
class _CellOutline:
    split: OutlinedSplit
    backbone: OutlinedBackbone
    perturbation: Perturbation
    is_stored: bool
    logits: bool

    @property
    def passes(self) -> int | None:
        return 0 if self.is_stored else self.split.images

    @property
    def gflops(self) -> float | None:
        return 0 if self.is_stored else _product(self.split.images, self.backbone.gflops)

    @property
    def bytes(self) -> int | None:
        images, width, classes = self.split.images, self.backbone.embed_dim, self.split.classes
        if self.is_stored:
            return 0
        if images is None or width is None or (self.logits and classes is None):
            return None
        logits = logits_bytes(images, classes) if self.logits and classes else 0
        return features_bytes(images, width) + logits


@dataclass(frozen=True)
class Outline:
    """A plan for which weights or images are missing; cells in the store count by their names."""

    backbones: Sequence[OutlinedBackbone]
    splits: Sequence[OutlinedSplit]
    perturbations: Sequence[Perturbation]
    stored: Collection[FeatureKey]
    logits: bool = True

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
                cells = self._cells([split], group)
                rows.append(
                    {
                        "dataset": split.dataset,
                        "split": split.split,
                        "perturbation": severities(p.label for p in group),
                        "images": split.images,
                        "classes": split.classes,
                        "cells": len(cells),
                        "stored": sum(cell.is_stored for cell in cells),
                        "GFLOPs": _sum((cell.gflops for cell in cells), round),
                        "MB": _sum((cell.bytes for cell in cells), lambda size: size / 1e6),
                        "found": _place(not split.missing),
                    }
                )
        return pl.DataFrame(rows, infer_schema_length=None)

    def summary(self) -> str:
        cells = self._cells(self.splits, self.perturbations)
        passes = _sum(cell.passes for cell in cells)
        gflops = _sum(cell.gflops for cell in cells)
        size = _sum((cell.bytes for cell in cells), lambda size: size / 1e6)
        return (
            f"{sum(not cell.is_stored for cell in cells):,} of {len(cells):,} cells to make: "
            f"{_told(passes)} images through a backbone, {_told(gflops)} GFLOPs, "
            f"{_told(size, '.1f')} MB to store"
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

    def _cells(
        self, splits: Iterable[OutlinedSplit], perturbations: Sequence[Perturbation]
    ) -> list[_CellOutline]:
        return [
            _CellOutline(
                split,
                backbone,
                perturbation,
                FeatureKey(split.dataset, split.split, perturbation.label, backbone.name)
                in self.stored,
                self.logits,
            )
            for split in splits
            for perturbation in perturbations
            for backbone in self.backbones
        ]


def _place(is_here: bool) -> str:
    return "here" if is_here else "not here"


def _product(images: int | None, each: float | None) -> float | None:
    return None if images is None or each is None else images * each


def _sum(values: Iterable[float | None], finish: Callable[[float], float] = float) -> float | None:
    known = list(values)
    return None if None in known else finish(sum(value or 0 for value in known))


def _told(number: float | None, form: str = ".0f") -> str:
    return "an unknown number of" if number is None else f"{number:,{form}}"
