"""Stores of made-up CLIPs, written block by block; and the same numbers as `.npy` files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
import numpy as np
from shapes import Made, Set
from synthetic import SCALE, Encoded, Images

from clipsyn.numerics.logits import predictions, zero_shot_logits
from clipsyn.schema import IDENTITY_VERSION
from clipsyn.specs import CLEAN, FeatureKey, Identity
from clipsyn.store.drafts import Draft
from clipsyn.store.features import FeatureStore
from clipsyn.store.samples import SampleTable

SEED = 7
PROMPTS = "simple"
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Split:
    """One split of one set: its sample table, and the images that the backbones see."""

    of: Set
    name: str

    @cached_property
    def images(self) -> Images:
        count = self.of.train if self.name == "train" else self.of.test
        return Images.draw(count, self.of.classes, [SEED, 5, SPLITS.index(self.name)])

    @cached_property
    def table(self) -> SampleTable:
        ids = tuple(f"{self.name}/{row:07}.jpg" for row in range(len(self.images)))
        digests = b"".join(hashlib.sha256(f"{self.of.name}/{id_}".encode()).digest() for id_ in ids)
        content = np.frombuffer(digests, np.uint8).reshape(-1, 32)
        names = tuple(f"class {number:04}" for number in range(self.of.classes))
        return SampleTable(self.of.name, self.name, ids, self.images.labels, content, names)


@dataclass(frozen=True)
class Cell:
    """What one backbone says of one split, written as an extraction writes it."""

    store: FeatureStore
    split: Split
    backbone: Made
    number: int

    def write(self) -> None:
        """Embeddings and logits, block by block; nothing where they are there already."""
        features, logits = self._features(), self._logits()
        if logits.is_published():
            return
        classes = self._classes()
        classes.write(0, {"class_embedding": self._encoded.class_embeddings}, {})
        classes.publish(lambda _: {"logit_scale": SCALE, "provenance": self._provenance})
        rows = len(features.blocks.range(0))
        found = self._encoded.blocks(self.split.images, rows, SPLITS.index(self.split.name))
        for block, embeddings in enumerate(found):
            valid = np.ones(len(embeddings), bool)
            features.write(block, {"image_embedding": embeddings, "valid": valid}, {})
            scores = zero_shot_logits(
                embeddings, self._encoded.class_embeddings, SCALE, rows=len(embeddings)
            )
            logits.write(block, {"logit": scores, "prediction": predictions(scores)}, {})
        features.publish(lambda _: {"errors": {}, "provenance": self._provenance})
        logits.publish(lambda _: {})

    @cached_property
    def _encoded(self) -> Encoded:
        return Encoded(self.backbone, self.number, self.split.of.classes, SEED)

    @property
    def _encoder(self) -> Identity:
        return {
            "architecture": self.backbone.name.split("/")[0],
            "pretrained": "openai",
            "model": {"embed_dim": self.backbone.width, "quick_gelu": True},
            "weights": hashlib.sha256(self.backbone.name.encode()).hexdigest(),
            "precision": "fp32",
            "preprocess": {"size": [224, 224]},
        }

    @property
    def _provenance(self) -> Identity:
        return {"encoder": {"source": self.backbone.name}}

    @property
    def _key(self) -> FeatureKey:
        return FeatureKey(self.split.of.name, self.split.name, CLEAN.label, self.backbone.name)

    def _classes(self) -> Draft:
        table, store = self.split.table, self.store
        identity: Identity = {
            "format": IDENTITY_VERSION,
            "backbone": self._encoder,
            "dataset": table.dataset,
            "class_names": list(table.class_names),
            "prompts": {"name": PROMPTS, "templates": ["a photo of a {c}."], "per_class": {}},
        }
        path = store.classes_path(table.dataset, PROMPTS, self.backbone.name)
        sizes = {"class": len(table.class_names), "embed": self.backbone.width}
        return store.draft(path, "classes", identity, sizes)

    def _features(self) -> Draft:
        identity: Identity = {
            **self.split.table.identity(),
            "backbone": self._encoder,
            "perturbation": CLEAN.identity(),
            "pixels": 1,
        }
        sizes = {"sample": len(self.split.table), "embed": self.backbone.width}
        return self.store.draft(self.store.features_path(self._key), "features", identity, sizes)

    def _logits(self) -> Draft:
        identity: Identity = {
            "format": IDENTITY_VERSION,
            "features": self._features().fingerprint,
            "classes": self._classes().fingerprint,
            "prompts": PROMPTS,
        }
        sizes = {"sample": len(self.split.table), "class": self.split.of.classes}
        path = self.store.logits_path(self._key, PROMPTS)
        return self.store.draft(path, "logits", identity, sizes)


def make_store(path: Path, sets: Sequence[Set]) -> FeatureStore:
    """A store with both splits of all sets; what is there already is kept."""
    store = FeatureStore.create(path)
    for one in sets:
        for split in (Split(one, name) for name in SPLITS):
            table = split.table
            store.samples_draft(table).fill(table.arrays(), table.attributes())
            click.echo(f"  {table.name}: {len(table):,} images", err=True)
            for number, backbone in enumerate(one.backbones):
                Cell(store, split, backbone, number).write()
    return store


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
            np.save(partial / f"{before}embeddings-{number}.npy", store.embeddings(key))
            np.save(partial / f"{before}logits-{number}.npy", store.logits(key, PROMPTS))
    keys = [FeatureKey(one.name, "test", CLEAN.label, made.name) for made in one.backbones]
    np.save(partial / "predictions.npy", np.array([store.predictions(k, PROMPTS) for k in keys]))
    partial.rename(folder)
