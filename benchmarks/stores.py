"""Stores of made-up CLIPs, by the public writer; and the same numbers as `.npy` files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
import numpy as np
from shapes import Set
from synthetic import SCALE, Encoded, Images

from clipsyn import FeatureStore, SampleTable
from clipsyn.images.perturb import expand
from clipsyn.names import CLEAN, FeatureKey

SEED = 7
PROMPTS = "simple"
SPLITS = ("train", "test")
BLOCK = 1024  # rows written at once
HARDER = 0.7  # that a severity takes from all margins, in logits


@dataclass(frozen=True)
class Split:
    """One split of one set: its sample table, and the images that the backbones see."""

    of: Set
    name: str

    @property
    def number(self) -> int:
        return SPLITS.index(self.name)

    @cached_property
    def images(self) -> Images:
        count = self.of.train if self.name == "train" else self.of.test
        return Images.draw(count, self.of.classes, [SEED, 5, self.number])

    @cached_property
    def table(self) -> SampleTable:
        ids = [f"{self.name}/{row:07}.jpg" for row in range(len(self.images))]
        names = [f"class {number:04}" for number in range(self.of.classes)]
        return SampleTable.of(self.of.name, self.name, ids, self.images.labels, names)


def encoded(one: Set) -> Iterator[Encoded]:
    """The backbones of a set, which see all of its images."""
    for number, backbone in enumerate(one.backbones):
        yield Encoded(backbone, number, one.classes, SEED)


def make_store(path: Path, sets: Sequence[Set]) -> FeatureStore:
    """A store with both splits of all sets; cells that are there already are kept."""
    store = FeatureStore.create(path)
    there = set(store.keys())
    for one in sets:
        for split in (Split(one, name) for name in SPLITS):
            for backbone in encoded(one):
                key = FeatureKey(one.name, split.name, CLEAN.label, backbone.backbone.name)
                if key not in there:
                    write_cell(store, split, backbone)
            click.echo(f"  {one.name}/{split.name}: {len(split.images):,} images", err=True)
    return store


def write_cell(store: FeatureStore, split: Split, backbone: Encoded) -> None:
    """Embeddings, class embeddings and logits of one backbone."""
    with store.writer(split.table, backbone.backbone.name, made_by="benchmarks") as cell:
        cell.classes(PROMPTS, backbone.class_embeddings, SCALE)
        blocks = backbone.blocks(split.images, BLOCK, split.number)
        cell.embeddings(np.concatenate([*blocks]))


def perturb(store: FeatureStore, one: Set) -> None:
    """Predictions of the test images under ImageNet-C's 15 corruptions at five severities."""
    images, samples = Split(one, "test").images, store.samples(one.name, "test")
    there = set(store.keys())
    for backbone in encoded(one):
        name = backbone.backbone.name
        for number, changed in enumerate(expand(["imagenet-c"])):
            if FeatureKey(one.name, "test", changed.label, name) not in there:
                answers = backbone.answers(images, HARDER * changed.severity, number)
                with store.writer(samples, name, changed.label, made_by="benchmarks") as cell:
                    cell.predictions(answers)


def save_plain(store: FeatureStore, one: Set, folder: Path) -> None:
    """One set as `.npy` files, as `plain.py` wants them; kept if they are there."""
    if folder.exists():
        return
    partial = folder.with_suffix(".partial")
    partial.mkdir(exist_ok=True)
    for split, before in (("test", ""), ("train", "train-")):
        np.save(partial / f"{before}labels.npy", store.samples(one.name, split).labels)
        for number, backbone in enumerate(one.backbones):
            key = FeatureKey(one.name, split, CLEAN.label, backbone.name)
            np.save(partial / f"{before}embeddings-{number}.npy", store.cell(key).embeddings())
            np.save(partial / f"{before}logits-{number}.npy", store.cell(key).logits(PROMPTS))
    keys = [FeatureKey(one.name, "test", CLEAN.label, made.name) for made in one.backbones]
    np.save(
        partial / "predictions.npy", np.array([store.cell(k).predictions(PROMPTS) for k in keys])
    )
    partial.rename(folder)
