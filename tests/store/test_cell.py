"""`clipsyn.store.cell`: extracted and imported cells answer the same questions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from clipsyn.errors import MissingCell
from clipsyn.exchange import ImportSettings
from clipsyn.exchange.importing import import_files
from clipsyn.names import FeatureKey
from clipsyn.store.cell import Cell
from clipsyn.store.features import FeatureStore

HOLDS = ("has_embeddings", "has_logits", "has_predictions", "has_confidences")


def imported(store: Path, frame: pl.DataFrame, **options: Any) -> Cell:
    """A cell called after what is in it."""
    name = options.pop("backbone", "mine")
    frame.write_csv(store.parent / f"{name}.csv")
    import_files(store, [store.parent / f"{name}.csv"], ImportSettings("toy", **options))
    return FeatureStore.open(store).cell(FeatureKey("toy", "test", "clean", name))


def holds(cell: Cell) -> list[bool]:
    return [getattr(cell, name) for name in HOLDS]


def test_an_extracted_cell_holds_everything(tiny_store: FeatureStore, fakes: Any) -> None:
    cell = tiny_store.cell(fakes.key)
    assert holds(cell) == [True] * 4
    assert cell.imported_as is None
    assert cell.prompt_sets() == ["simple"]
    assert (cell.facts["images"], cell.facts["bad"]) == (20, 0)
    assert cell.group().source == "local-dir:checkpoints/fake/one"
    identity, source = cell.encoder()
    assert identity["weights"]
    assert source == "local-dir:checkpoints/fake/one"


def test_confidences_of_an_extracted_cell_are_in_its_logits(tiny_store, fakes):
    with pytest.raises(MissingCell):
        tiny_store.cell(fakes.key).confidences("simple")


def test_a_cell_that_is_not_there_says_so_when_it_is_read(tiny_store, fakes):
    cell = tiny_store.cell(replace(fakes.key, backbone="absent"))
    assert (cell.imported_as, cell.prompt_sets()) == (None, [])
    with pytest.raises(MissingCell, match="has no toy/test · clean · absent"):
        cell.valid()


@pytest.mark.parametrize("made", ["written", "imported"])
def test_the_same_numbers_are_one_cell_wherever_they_come_from(tiny_store, fakes, tmp_path, made):
    """Extracted, written from Python, or imported from a file: all answer alike."""
    theirs = tiny_store.cell(fakes.key)
    texts, scale = tiny_store.class_embeddings("toy", "simple", fakes.key.backbone)
    images, table = theirs.embeddings(), tiny_store.samples("toy", "test")
    if made == "written":
        with tiny_store.writer(table, "mine") as writer:
            writer.embeddings(images)
            writer.classes("simple", texts, scale)
    else:
        arrays = {"embeddings": images, "class_embeddings": texts, "logit_scale": scale}
        np.savez(tmp_path / "mine.npz", ids=np.array(table.ids), **arrays)
        wanted = ImportSettings("toy", prompts="simple")
        import_files(tiny_store.path, [tmp_path / "mine.npz"], wanted)
    ours = tiny_store.cell(replace(fakes.key, backbone="mine"))
    assert (ours.imported_as, theirs.imported_as) == ("embeddings", None)
    assert holds(ours)[:3] == holds(theirs)[:3] == [True] * 3
    assert ours.prompt_sets() == theirs.prompt_sets()
    assert all(ours.facts[name] == theirs.facts[name] for name in ("images", "bad"))
    # a file's are scaled to unit norm again, which may change the last digit
    close = {"rtol": 0, "atol": 0} if made == "written" else {"rtol": 0, "atol": 0.1}
    np.testing.assert_array_equal(ours.valid(), theirs.valid())
    np.testing.assert_allclose(ours.embeddings(), images, rtol=0, atol=close["atol"] / 100)
    for rows in (None, range(3, 11)):
        logits = ours.logits("simple", rows)
        np.testing.assert_allclose(logits, theirs.logits("simple", rows), **close)
    np.testing.assert_array_equal(ours.predictions("simple"), theirs.predictions("simple"))
    for cell in (ours, theirs):
        with pytest.raises(MissingCell, match="confidences"):
            cell.confidences("simple")
        with pytest.raises(MissingCell, match="other"):
            cell.logits("other")


@pytest.mark.parametrize(
    ("columns", "kind", "held"),
    [
        ({"prediction": ["x", "y", ""]}, "predictions", [False, False, True, False]),
        (
            {"prediction": ["x", "y", ""], "confidence": [0.9, 0.8, None]},
            "predictions",
            [False, False, True, True],
        ),
        ({"x": [1.0, 2.0, 3.0], "y": [2.0, 1.0, 0.0]}, "logits", [False, True, True, True]),
        ({"n0": [1.0, 2.0, 3.0], "n1": [2.0, 1.0, 0.0]}, "embeddings", [True] + [False] * 3),
    ],
)
def test_an_imported_cell_says_what_it_holds(tmp_path, columns, kind, held):
    frame = pl.DataFrame({"id": ["a", "b", "c"], **columns})
    asked = {} if kind == "predictions" else {"kind": kind}
    cell = imported(tmp_path / "store", frame, **asked)
    assert (cell.imported_as, holds(cell)) == (kind, held)
    assert cell.prompt_sets() == ([] if kind == "embeddings" else ["imported"])
    assert (cell.facts["images"], cell.facts["bad"]) == (3, int("prediction" in columns))
    if kind == "embeddings":
        assert cell.encoder() == ({"imported": "mine", "embed": 2}, "mine")
        return
    with pytest.raises(MissingCell, match="was imported: what encoded its images is not known"):
        cell.encoder()
