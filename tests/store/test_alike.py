"""`clipsyn.store.overlap`: classes with equal embeddings are found and named."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from clipsyn.analyses.accuracy import zeroshot
from clipsyn.analyses.diversity import diversity
from clipsyn.analyses.oracle import oracle
from clipsyn.evaluation.loop import evaluate
from clipsyn.exchange import ImportSettings
from clipsyn.exchange.importing import import_files
from clipsyn.report import ReportSettings
from clipsyn.report.evidence import gather
from clipsyn.report.page import caveats
from clipsyn.store.features import FeatureStore
from clipsyn.store.overlap import alike, alike_notes


def unit(classes: int, embed: int = 16) -> np.ndarray:
    rows = np.random.default_rng(1).normal(size=(classes, embed))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_pairs_as_comparing_all_with_all(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = unit(60)[generator.integers(0, 45, 60)]
    rows = rows + generator.uniform(-4e-6, 4e-6, rows.shape).astype(np.float32)
    equal = (np.abs(rows[:, None].astype(float) - rows) <= 1e-5).all(axis=2)
    expected = [(int(equal[at].argmax()), at) for at in range(60) if equal[at].argmax() < at]
    assert alike(rows) == expected


@pytest.fixture
def store(fakes: SimpleNamespace, tmp_path: Path) -> FeatureStore:
    """Two of three classes have one name, hence one prompt."""
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two")]
    sources = [
        fakes.Source(split=split, class_names=("crane", "cat", "crane"))
        for split in ("train", "test")
    ]
    return fakes.fill(tmp_path / "store", encoders, sources)


@pytest.mark.parametrize("command", [zeroshot, oracle, evaluate])
def test_is_said_once_with_every_accuracy(command, store, caplog):
    with caplog.at_level(logging.INFO, "clipsyn"):
        if command is evaluate:
            evaluate(store, ensembles=["log-avg"])
        else:
            command(store)  # type: ignore[operator]
    said = [line for line in caplog.messages if "told apart" in line]
    assert len(said) == 1
    assert "2 of 3 classes cannot be told apart by fake/one, fake/two" in said[0]
    assert "crane = crane" in said[0]


def test_equal_predictions_are_named_once_by_each_command(tiny_store, tmp_path, caplog):
    ids, names = (
        tiny_store.samples("toy", "test").ids,
        tiny_store.samples("toy", "test").class_names,
    )
    for backbone, shift in (("one", 0), ("two", 0), ("three", 1)):
        lines = [f"{name},{names[(row + shift) % 3]}" for row, name in enumerate(ids)]
        (tmp_path / f"{backbone}.csv").write_text("\n".join(["id,prediction", *lines]))
    files = [tmp_path / f"{backbone}.csv" for backbone in ("one", "two", "three")]

    def evidence() -> None:
        shown = gather(tiny_store, ReportSettings(output=tmp_path / "page.html"))
        caplog.clear()
        for note in caveats(shown)["notes"]:
            logging.getLogger("clipsyn").info(note)

    for command in (
        lambda: import_files(tiny_store.path, files, ImportSettings(dataset="toy")),
        lambda: oracle(tiny_store),
        lambda: diversity(tiny_store),
        evidence,
    ):
        caplog.clear()
        with caplog.at_level(logging.INFO, "clipsyn"):
            command()
        said = [line for line in caplog.messages if "have the same prediction" in line]
        assert len(said) == 1
        assert "one and two have the same prediction for every image of test" in said[0]


def test_a_backbone_that_was_extracted_twice(fakes: SimpleNamespace, tmp_path: Path) -> None:
    encoders = [fakes.Encoder(name, weights="w") for name in ("fake/a", "fake/b")]
    store = fakes.fill(tmp_path / "store", [*encoders, fakes.Encoder("fake/c")])
    notes = list(alike_notes(store, "toy", "simple", ["fake/a", "fake/b", "fake/c"]))
    assert [note[:47] for note in notes] == [
        "toy: fake/a and fake/b have the same image embed"[:47]
    ]
    assert list(alike_notes(store, "toy", "simple", ["fake/a", "fake/c"])) == []
