"""Files as others write them, and a store with every kind of cell that there is."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from clipsyn.exchange import ImportSettings
from clipsyn.exchange.importing import import_files
from clipsyn.methods.numerics.logits import NO_CLASS


@pytest.fixture
def write_csv(tmp_path):
    """Function (header, rows, name) -> a CSV file."""

    def write(header, rows, name="mine.csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
        return path

    return write


@pytest.fixture
def bring(tmp_path):
    """Function (files, options) -> what was imported into tmp_path/store, dataset toy."""

    def call(*files, store=None, **options):
        wanted = ImportSettings(**{"dataset": "toy", **options})
        return import_files(store or tmp_path / "store", files, wanted)

    return call


@pytest.fixture(scope="session")
def mixed(fakes, tmp_path_factory):
    """Extracted (with a bad image, two prompt sets) and imported cells of every kind.

    It is read only.
    """
    path = tmp_path_factory.mktemp("mixed") / "store"
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two", size=12, embed_dim=16)]
    sources = [fakes.Source(split="test", bad={3: "cut"}), fakes.Source(split="train", count=11)]
    fakes.fill(path, encoders, sources, ("clean", "jpeg:3"), max_bad=0.5)
    store = fakes.fill(path, encoders, sources, prompts="openai", max_bad=0.5)
    table, rng = store.samples("toy", "test"), np.random.default_rng(0)
    some = rng.random(20) < 0.8
    with store.writer(table, "their-logits") as cell:
        cell.logits(rng.normal(size=(20, 3)).astype(np.float32), some)
    answers = rng.integers(0, 3, 20)
    answers[0] = NO_CLASS
    with store.writer(table, "their-answers") as cell:
        cell.predictions(answers, rng.random(20), some)
    for prompts in ("a", "b/c"):
        with store.writer(table, "of-prompts", prompts=prompts) as cell:
            cell.predictions(rng.integers(0, 3, 20))
    vectors = rng.normal(size=(20, 7))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with store.writer(table, "their-vectors", "fog:2") as cell:
        cell.embeddings(vectors)
    before = fakes.contents(path)
    yield store
    assert fakes.contents(path) == before
