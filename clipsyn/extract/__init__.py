"""Images into cells: what an extraction is asked for, and what it would do, in tables and words.

Nothing here imports torch. A plan is known before weights are loaded and images read: widths and
costs come from the catalogue and from open_clip's configurations then, sizes of datasets from the
catalogue. What nobody knows is None, or NaN in a `Cost`. `clipsyn.extract.work` has what is loaded,
and a plan of what is left.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clipsyn.names import CLEAN, MOST, MOST_WORKERS, FeatureKey, Perturbation, parse_perturbation
from clipsyn.names import HELP as SHARD_HELP
from clipsyn.settings import FLAG, NUMBER, PATH, REQUIRED, TEXT, TEXTS, WHOLE, Settings, setting

if TYPE_CHECKING:
    import polars as pl


class ExtractSettings(Settings):
    """Settings of `clipsyn extract`: what to extract and how, as text and numbers."""

    backbones: tuple[str, ...] = setting(
        ("zoo",),
        TEXTS,
        "ARCH/TAG, hf-hub:ORG/REPO, local-dir:PATH or ARCH@CHECKPOINT, each with an optional "
        "NAME=; a collection (openai, zoo); a .txt file with one a line. Repeated or with commas.",
        letter="-b",
    )
    datasets: tuple[str, ...] = setting(
        REQUIRED,
        TEXTS,
        "A folder, a .csv or .parquet manifest, a webdataset or an image set of Hugging Face's, "
        "with an optional NAME=; or a name that `clipsyn catalog datasets` lists. Repeated or with "
        "commas.",
        flag="--dataset",
        letter="-d",
    )
    splits: tuple[str, ...] = setting(
        ("test",),
        TEXTS,
        "Which part of each dataset. Repeated or with commas.",
        flag="--split",
        letter="-s",
    )
    perturbations: tuple[str, ...] = setting(
        ("clean",),
        TEXTS,
        "clean; NAME:SEVERITY (1 to 5), for instance jpeg:3; or GROUP:SEVERITY, GROUP (all five) "
        "of imagenet-c, imagenet-c-extra, geometric, photometric, occlusion. `clipsyn "
        "catalog perturbations` lists the names. Options follow: :seed=N, :canvas=PIXELS. Repeated "
        "or with commas.",
        flag="--perturb",
        letter="-p",
    )
    prompts: str = setting(
        "auto",
        TEXT,
        "auto (the dataset's own, else known ones), own, clip-benchmark, openai (80 for ImageNet), "
        "simple ('a photo of a {c}.'), or a JSON file.",
    )
    data_root: Path | None = setting(
        None,
        PATH,
        "Where datasets that are given by name lie, and what manifests name outside their folder.",
        variable="CLIPSYN_DATA",
        instead_of_none="none",
    )
    download: bool = setting(False, FLAG, "Let torchvision fetch a dataset that is missing.")
    device: str = setting("auto", TEXT, "auto, cpu, cuda, cuda:N or mps.")
    precision: str = setting(
        "auto", TEXT, "auto (fp32 on a CPU, autocast on a GPU), fp32, bf16, amp_bf16 or amp_fp16."
    )
    batch_size: int | None = setting(
        None, WHOLE, "Images at a time.", least=1, most=MOST, instead_of_none="64; on a GPU 256"
    )
    workers: int | None = setting(
        None, WHOLE, "Decoding threads.", least=1, most=MOST_WORKERS, instead_of_none="one a core"
    )
    shard: str | None = setting(
        None, TEXT, SHARD_HELP.format("store"), instead_of_none="all of the work"
    )
    max_bad: float = setting(
        0.001,
        NUMBER,
        "Share of a split's images that may be impossible to decode.",
        least=0,
        most=1,
    )
    logits: str = setting(
        "clean",
        TEXT,
        "Which cells store logits: clean (those of unperturbed images), all, or none. The others "
        "store predictions, and logits are derived when they are read.",
        choices=("clean", "all", "none"),
    )
    replace: bool = setting(
        False, FLAG, "Make again, instead of refusing, what other weights, images or prompts made."
    )

    def of_any_device(self) -> ExtractSettings:
        """The same for a plan of what is done elsewhere: whoever makes it may have no GPU."""
        return self.replaced(device="cpu", precision="auto")


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
    def megabytes(self) -> dict[str, float]:
        """On disk, by what is stored."""
        return {kind: getattr(self, kind) / 1e6 for kind in self._fields[2:]}

    def columns(self) -> dict[str, float | None]:
        """For tables."""
        sizes = {f"{kind} MB": size for kind, size in self.megabytes.items()}
        gflops = self.gflops if math.isnan(self.gflops) else round(self.gflops)
        columns = {"passes left": self.passes, "GFLOPs": gflops, **sizes}
        return {name: None if math.isnan(value) else value for name, value in columns.items()}

    @property
    def storage(self) -> str:
        total = sum(self.megabytes.values())
        parts = ", ".join(f"{kind} {size:,.1f}" for kind, size in self.megabytes.items())
        return f"{_told(total, 1)} MB to store{'' if math.isnan(total) else f' ({parts})'}"

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
        heads = ("backbone", "width", "GFLOPs an image", "weights")
        rows = [(b.name, b.embed_dim, b.gflops, _place(b.is_here)) for b in self.backbones]
        return _frame([dict(zip(heads, row, strict=True)) for row in rows])

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
        weights = sum(not backbone.is_here for backbone in self.backbones)
        images = [f"{split.dataset}/{split.split}" for split in self.splits if split.missing]
        missing = [f"the weights of {weights} of {len(self.backbones)} backbones"] * (weights > 0)
        if images:
            missing.append(f"the images of {', '.join(images)} (their numbers are the catalogue's)")
        lacking = f"not here: {' and '.join(missing)}. " if missing else ""
        return (
            f"{lacking}No weights were loaded and no images compared: cells count as stored by "
            "their names alone"
        )

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


def _told(number: float, digits: int = 0) -> str:
    return "an unknown number of" if math.isnan(number) else f"{number:,.{digits}f}"
