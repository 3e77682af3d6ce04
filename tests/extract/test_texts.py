"""Class embeddings in a store: parts of the texts are kept, whatever ends a run."""

import pytest

from clipsyn.errors import DamagedStore
from clipsyn.extract import encoder as seam

CLASSES = tuple(f"bird {number} {'x' * (number % 7)}" for number in range(30))
TEMPLATES = tuple(f"{number} of {{c}}" for number in range(4))
TEXTS = len(CLASSES) * len(TEMPLATES)
CAPTIONS = [[f"{at} of {row} {'x' * (at % 7)}" for at in range(TEXTS // 10)] for row in range(10)]


class Stop(Exception):
    """Stands for whatever ends a run early."""


class Stopping:
    """An encoder that is stopped when it begins with its n-th part of the texts."""

    def __init__(self, encoder, parts):
        self.encoder, self.left = encoder, parts

    def __getattr__(self, name):
        return getattr(self.encoder, name)

    def encode_text(self, texts):
        if not self.left:
            raise Stop
        self.left -= 1
        return self.encoder.encode_text(texts)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(seam, "TEXT_PART", 16)


@pytest.fixture(params=["classes", "captions"])
def source(fakes, request):
    if request.param == "captions":
        return fakes.Source(class_names=(), captions=CAPTIONS, count=10)
    return fakes.Source(class_names=CLASSES, templates=TEMPLATES, count=10)


def embedding(store):
    for names, _ in store.groups("classes"):
        return store.class_embeddings(*names)[0].tobytes()
    return store.text_embeddings("toy", "test", "fake/one")[0].tobytes()


@pytest.fixture
def whole(fakes, source, tmp_path):
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


def test_a_damaged_part_is_named(fakes, source, tmp_path):
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

    def encode_text(texts):
        if len(slow.texts) == 32:
            fakes.fill(tmp_path / "s", sources=[source])
        return encode(texts)

    slow.encode_text = encode_text
    store = fakes.fill(tmp_path / "s", [slow], [source])
    assert len(slow.texts) == 48  # and none after the other has published
    assert embedding(store) == whole
    assert fakes.draft_folders(tmp_path / "s") == []


def test_workers_begin_at_different_texts(fakes, source, tmp_path):
    encoders = [fakes.Encoder() for _ in range(3)]
    for number, encoder in enumerate(encoders):
        with pytest.raises(Stop):
            fakes.fill(tmp_path, [Stopping(encoder, 2)], [source], shard=(number, 3))
    texts = [text for encoder in encoders for text in encoder.texts]
    assert len(texts) == len(set(texts)) == 6 * 16
