"""Fixtures for all tests: stores filled with made-up numbers, without any model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from clipsyn.logits import predictions, zero_shot_logits
from clipsyn.specs import FeatureKey
from clipsyn.store.drafts import Draft
from clipsyn.store.features import FeatureStore
from clipsyn.store.samples import SampleTable

WIDTH = 24


class StoreMaker:
    """Fills a store with cells whose accuracy is roughly what is asked for."""

    def __init__(self, path: Path, chunk_rows: int = 64) -> None:
        self.store = FeatureStore.create(path, chunk_rows)

    def dataset(
        self,
        name: str,
        accuracy: Mapping[str, float],
        *,
        split: str = "test",
        samples: int = 150,
        classes: int = 7,
        labelled: bool = True,
        perturbations: tuple[str, ...] = ("clean",),
        prompts: tuple[str, ...] = ("simple",),
        invalid: tuple[int, ...] = (),
        logits: bool = True,
    ) -> None:
        """Add samples, class embeddings, features and logits; accuracy: backbone -> fraction."""
        rng = np.random.default_rng([samples, classes, *name.encode()])
        labels = rng.integers(0, classes, samples).astype(np.int32)
        ids = tuple(f"{name}/{i}.png" for i in range(samples))
        content = rng.integers(0, 256, (samples, 32), dtype=np.uint8)
        names = tuple(f"class {c}" for c in range(classes))
        shown = labels if labelled else np.full(samples, -1, np.int32)
        table = SampleTable(name, split, ids, shown, content, names)
        self._samples(table)
        for backbone, share in accuracy.items():
            axes = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0][:classes].astype(np.float32)
            for prompt_set in prompts:
                self._classes(name, prompt_set, backbone, axes)
            for perturbation in perturbations:
                key = FeatureKey(name, split, perturbation, backbone)
                loss = 0 if perturbation == "clean" else 0.2
                seen = np.where(
                    rng.random(samples) < share - loss, labels, rng.integers(0, classes, samples)
                )
                features = axes[seen] + 0.1 * rng.normal(size=(samples, WIDTH))
                features /= np.linalg.norm(features, axis=1, keepdims=True)
                self._features(key, table, features.astype(np.float16), invalid)
                for prompt_set in prompts if logits else ():
                    self._logits(key, prompt_set)

    def _samples(self, table: SampleTable) -> None:
        values = {
            "sample_id": np.array(table.ids, object),
            "label": table.labels,
            "content_hash": table.content,
        }
        path = self.store.samples_path(table.dataset, table.split)
        sizes = {"sample": len(table), "byte": 32}
        self._publish(path, "samples", table.identity(), sizes, values, table.attributes())

    def _classes(self, dataset: str, prompts: str, backbone: str, axes: np.ndarray) -> None:
        path = self.store.classes_path(dataset, prompts, backbone)
        names = [f"class {c}" for c in range(len(axes))]
        identity = {"prompts": prompts, "backbone": backbone, "class_names": names}
        sizes = {"class": len(axes), "embed": WIDTH}
        attributes = {"logit_scale": 100.0}
        self._publish(path, "classes", identity, sizes, {"class_embedding": axes}, attributes)

    def _features(
        self, key: FeatureKey, table: SampleTable, features: np.ndarray, invalid: tuple[int, ...]
    ) -> None:
        valid = ~np.isin(np.arange(len(features)), invalid)
        features[~valid] = np.nan
        identity = {**vars(key), "samples": table.digest}
        sizes = {"sample": len(features), "embed": WIDTH}
        values = {"image_embedding": features, "valid": valid}
        self._publish(self.store.features_path(key), "features", identity, sizes, values, {})

    def _logits(self, key: FeatureKey, prompts: str) -> None:
        classes, scale = self.store.class_embeddings(key.dataset, prompts, key.backbone)
        logits = zero_shot_logits(self.store.embeddings(key), classes, scale, self.store.chunk_rows)
        identity = {
            "features": self.store.fingerprint(key),
            "classes": _fingerprint(self.store.classes_path(key.dataset, prompts, key.backbone)),
        }
        sizes = {"sample": len(logits), "class": len(classes)}
        values = {"logit": logits, "prediction": predictions(logits)}
        self._publish(self.store.logits_path(key, prompts), "logits", identity, sizes, values, {})

    def _publish(  # noqa: PLR0917
        self, target, kind, identity, sizes, values, attributes
    ) -> None:
        draft = Draft(self.store.path, target, kind, identity, sizes, self.store.chunk_rows)
        for block in draft.pending():
            rows = draft.blocks.range(block)
            part = slice(rows.start, rows.stop) if "sample" in sizes else slice(None)
            draft.write(block, {name: array[part] for name, array in values.items()}, {})
        assert draft.publish(lambda _: attributes)


def _fingerprint(path: Path) -> str:
    from clipsyn.store import arrays

    return arrays.read_attributes(path)["fingerprint"]


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., StoreMaker]:
    """Makes an empty store to fill: ``make_store().dataset("birds", {"RN50": 0.8})``."""
    return lambda name="store", **options: StoreMaker(tmp_path / name, **options)


@pytest.fixture(scope="session")
def birds(tmp_path_factory) -> FeatureStore:
    """A store of two datasets, three backbones, clean and jpeg-3; two undecodable images."""
    maker = StoreMaker(tmp_path_factory.mktemp("birds") / "store")
    accuracy = {"RN/zoo": 0.5, "ViT-16/zoo": 0.7, "ViT-8/zoo": 0.6}
    maker.dataset("birds", accuracy, perturbations=("clean", "jpeg-3"), invalid=(3, 77))
    maker.dataset("flags", accuracy, classes=4, samples=90)
    return maker.store
