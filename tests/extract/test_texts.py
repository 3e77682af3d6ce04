"""Class embeddings in a store: parts of the texts are kept, whatever ends a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsyn.errors import DamagedStore
from clipsyn.extract import encoder as seam
from clipsyn.store.features import FeatureStore

CLASSES = tuple(f"bird {number} {'x' * (number % 7)}" for number in range(30))
TEMPLATES = tuple(f"{number} of {{c}}" for number in range(4))
TEXTS = len(CLASSES) * len(TEMPLATES)


class Stop(Exception):
    """Stands for whatever ends a run early."""


class Stopping:
    """An encoder that is stopped when it begins with its n-th part of the texts."""

    def __init__(self, encoder: Any, parts: int) -> None:
        self.encoder, self.left = encoder, parts

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def encode_text(self, texts: Any) -> np.ndarray:
        if not self.left:
            raise Stop
        self.left -= 1
        return self.encoder.encode_text(texts)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seam, "TEXT_PART", 16)


@pytest.fixture
def source(fakes: Any) -> Any:
    return fakes.Source(class_names=CLASSES, templates=TEMPLATES, count=10)


def embedding(store: FeatureStore) -> bytes:
    (prompts,) = {names[1] for names, _ in store.groups("classes")}
    return store.class_embeddings("toy", prompts, "fake/one")[0].tobytes()


@pytest.fixture
def whole(fakes: Any, source: Any, tmp_path: Path) -> bytes:
    return embedding(fakes.fill(tmp_path / "whole", sources=[source]))


@pytest.mark.parametrize("parts", [0, 5])
def test_an_interruption_loses_no_more_than_a_part(fakes, source, whole, tmp_path, parts):
    first, second = fakes.Encoder(), fakes.Encoder()
    with pytest.raises(Stop):
        fakes.fill(tmp_path / "s", [Stopping(first, parts)], [source])
    assert len(first.texts) == 16 * parts
    quiet = fakes.Quiet()
    store = fakes.fill(tmp_path / "s", [second], [source], progress=quiet)
    assert len(second.texts) == TEXTS - 16 * parts
    assert not set(first.texts) & set(second.texts)
    assert embedding(store) == whole
    assert fakes.draft_folders(tmp_path / "s") == []
    (at,) = [n for n, (name, _) in enumerate(quiet.counters) if name.startswith("fake/one: ")]
    assert quiet.counters[at][1] == quiet.counts[at] == TEXTS


def test_a_damaged_part_is_named(fakes: Any, source: Any, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        fakes.fill(tmp_path, [Stopping(fakes.Encoder(), 2)], [source])
    kept = next(tmp_path.glob(".wip/*/kept/*"))
    kept.write_bytes(kept.read_bytes()[:-5] + b"12345")
    with pytest.raises(DamagedStore, match="does not match its checksum"):
        fakes.fill(tmp_path, sources=[source])


def test_another_worker_may_finish_at_any_moment(fakes, source, whole, tmp_path):
    """It encodes, publishes and clears up while this one is in the middle of a part."""
    slow = fakes.Encoder()
    encode = slow.encode_text

    def encode_text(texts: Any) -> np.ndarray:
        if len(slow.texts) == 32:
            fakes.fill(tmp_path / "s", sources=[source])
        return encode(texts)

    slow.encode_text = encode_text
    store = fakes.fill(tmp_path / "s", [slow], [source])
    assert len(slow.texts) == 48  # and none after the other has published
    assert embedding(store) == whole
    assert fakes.draft_folders(tmp_path / "s") == []


def test_workers_begin_at_different_texts(fakes: Any, source: Any, tmp_path: Path) -> None:
    encoders = [fakes.Encoder() for _ in range(3)]
    for number, encoder in enumerate(encoders):
        with pytest.raises(Stop):
            fakes.fill(tmp_path, [Stopping(encoder, 2)], [source], shard=(number, 3))
    texts = [text for encoder in encoders for text in encoder.texts]
    assert len(texts) == len(set(texts)) == 6 * 16
