"""Images into cells: what an extraction is asked for, and what it would do, in tables and words.

Nothing here imports torch. A plan is known before weights are loaded and images read: widths and
costs come from the catalogue and from open_clip's configurations, sizes of datasets that are not
here from the catalogue. What nobody knows is NaN.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from clipsyn.names import CLEAN, MOST, MOST_WORKERS, FeatureKey, Perturbation
from clipsyn.names import HELP as SHARD_HELP
from clipsyn.settings import FLAG, NUMBER, PATH, REQUIRED, TEXT, TEXTS, WHOLE, Settings, setting

PIXELS_VERSION = 1  # raised when the same file would give a backbone other pixels
_T = TypeVar("_T")
_TOGETHER = 5


class ExtractSettings(Settings):
    """Settings of `clipsyn extract`: what to extract and how, as text and numbers."""

    backbones: tuple[str, ...] = setting(
        ("zoo",),
        TEXTS,
        "Of open_clip ARCH/TAG, hf-hub:ORG/REPO, local-dir:PATH or ARCH@CHECKPOINT; "
        "timm:MODEL[:logits][@CHECKPOINT]; hf:ORG/NAME or hf:PATH of transformers; "
        "py:MODULE:FACTORY, a program of yours; each with an optional NAME=. Or a collection "
        "(openai, zoo). Repeated or with commas.",
    )
    datasets: tuple[str, ...] = setting(
        REQUIRED,
        TEXTS,
        "A folder, a .csv or .parquet manifest, a webdataset or an image set of Hugging Face's, "
        "with an optional NAME=; or a name that `clipsyn catalog datasets` lists. Repeated or with "
        "commas.",
    )
    splits: tuple[str, ...] = setting(
        ("test",), TEXTS, "Which part of each dataset. Repeated or with commas."
    )
    perturbations: tuple[str, ...] = setting(
        ("clean",),
        TEXTS,
        "clean; NAME:SEVERITY (1 to 5), for instance jpeg:3; or GROUP:SEVERITY, GROUP (all five) "
        "of imagenet-c, imagenet-c-extra, geometric, photometric, occlusion. `clipsyn "
        "catalog perturbations` lists the names. Options follow: :seed=N, :canvas=PIXELS. Repeated "
        "or with commas.",
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
    )
    download: bool = setting(False, FLAG, "Let torchvision fetch a dataset that is missing.")
    device: str = setting("auto", TEXT, "auto, cpu, cuda, cuda:N or mps.")
    precision: str = setting(
        "auto",
        TEXT,
        "auto is fp32 on a CPU, autocast on a GPU.",
        choices=("auto", "fp32", "bf16", "amp_bf16", "amp_fp16"),
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
    hashes: Path | None = setting(
        None,
        PATH,
        "A folder, new for each run, where workers share the hashes of images, so that each image "
        "is read for them once.",
        instead_of_none="each worker reads all images",
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


def together(perturbations: Iterable[_T]) -> list[list[_T]]:
    """Those that go through a block at once, five at a time: it is decoded once for them."""
    distinct = list(dict.fromkeys(perturbations))
    return [distinct[start : start + _TOGETHER] for start in range(0, len(distinct), _TOGETHER)]


def stores_logits(perturbation: Perturbation, logits: str) -> bool:
    """Whether cells of a perturbation store logits by that setting: clean, all or none."""
    return logits == "all" or (logits == "clean" and perturbation.name == CLEAN.name)


def tune_process_memory() -> None:
    """What must be set before torch is imported; docs/dev/decisions.md says what it gains."""
    import ctypes

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            # glibc: keep freed activations instead of faulting them in anew
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
            libc.mallopt(_M_ARENA_MAX, 1)  # other threads' own arenas give large blocks back


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of malloc.h


class Cost(NamedTuple):
    """What cells take; NaN where one of the numbers is not known."""

    passes: float = 0  # images through a backbone
    gflops: float = 0
    embeddings: float = 0  # megabytes on disk
    answers: float = 0  # those of logits and predictions

    @classmethod
    def sum(cls, costs: Iterable[Cost]) -> Cost:
        return cls(*map(sum, zip(cls(), *costs, strict=True)))

    @property
    def megabytes(self) -> float:
        return self.embeddings + self.answers

    def __str__(self) -> str:
        passes, gflops = _told(self.passes), _told(self.gflops)
        size = f"{_told(self.megabytes, 1)} MB to store"
        return f"{passes} images through a backbone, {gflops} GFLOPs, {size}"


def _told(number: float, digits: int = 0) -> str:
    return "an unknown number of" if math.isnan(number) else f"{number:,.{digits}f}"


class PlannedCell(NamedTuple):
    key: FeatureKey
    images: int | None
    classes: int | None
    cost: Cost


@dataclass(frozen=True)
class Plan:
    """Cells that are asked for, and the keys of those that are there, by their names alone.

    backbones: width, GFLOPs an image and whether its weights are here, by name. missing: why the
    images of a split could not be opened, by DATASET/SPLIT.
    """

    cells: Sequence[PlannedCell]
    done: Collection[FeatureKey]
    backbones: Mapping[str, tuple[int | None, float | None, bool]] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> set[FeatureKey]:
        """Of every cell, done or not."""
        return {cell.key for cell in self.cells}

    def backbone_rows(self) -> list[dict[str, Any]]:
        heads = ("backbone", "width", "GFLOPs an image", "weights")
        return [
            dict(zip(heads, (name, *known, _where(is_here)), strict=True))
            for name, (*known, is_here) in self.backbones.items()
        ]

    def rows(self) -> list[dict[str, Any]]:
        """One for each dataset and split: what is there, what the rest costs."""
        rows: dict[tuple[str, str], list[PlannedCell]] = {}
        for cell in self.cells:
            rows.setdefault((cell.key.dataset, cell.key.split), []).append(cell)
        return [
            {
                "dataset": dataset,
                "split": split,
                "images": cells[0].images,
                "classes": cells[0].classes,
                "cells": len(cells),
                "done": sum(cell.key in self.done for cell in cells),
                "GFLOPs": _known((cost := self.cost(cells)).gflops),
                "MB": _known(cost.megabytes, 1),
                "found": _where(f"{dataset}/{split}" not in self.missing),
            }
            for (dataset, split), cells in rows.items()
        ]

    def cost(self, cells: Iterable[PlannedCell] | None = None) -> Cost:
        """Of the cells, all or these, that are not done."""
        every = self.cells if cells is None else cells
        return Cost.sum(cell.cost for cell in every if cell.key not in self.done)

    def cost_of_answers(self, keys: Collection[FeatureKey]) -> Cost:
        """Of predictions and logits under other prompts, for cells whose embeddings are there."""
        whole = Cost.sum(cell.cost for cell in self.cells if cell.key in keys)
        return whole._replace(passes=0, gflops=0, embeddings=0)

    def summary(self) -> str:
        left = sum(cell.key not in self.done for cell in self.cells)
        return f"{left:,} of {len(self.cells):,} cells to make: {self.cost()}"

    def unchecked(self) -> str:
        """What the plan leaves open."""
        missing = f"The numbers of {', '.join(self.missing)} are the catalogue's. "
        return (
            f"{missing if self.missing else ''}No weights were loaded and no images compared: "
            "cells count as stored by their names alone"
        )


def _known(number: float, digits: int | None = None) -> float | None:
    return None if math.isnan(number) else round(number, digits)


def _where(is_here: bool) -> str:
    return "here" if is_here else "not here"
