"""`clipsyn.store.cell`: extracted and imported cells answer the same questions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from clipsyn.errors import MissingCell
from clipsyn.importing.settings import ImportSettings
from clipsyn.importing.write import import_files
from clipsyn.specs import FeatureKey
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
    assert cell.counts() == (20, 0)
    assert cell.provenance["encoder"]["source"] == "local-dir:checkpoints/fake/one"
    identity, source = cell.encoder()
    assert identity["weights"]
    assert source == "local-dir:checkpoints/fake/one"


def test_a_store_forwards_to_its_cells(tiny_store: FeatureStore, fakes: Any) -> None:
    cell = tiny_store.cell(fakes.key)
    assert cell.fingerprint() == tiny_store.fingerprint(fakes.key)
    for ours, theirs in (
        (cell.valid(), tiny_store.valid(fakes.key)),
        (cell.embeddings(range(2, 9)), tiny_store.embeddings(fakes.key)[2:9]),
        (cell.logits("simple", range(7)), tiny_store.logits(fakes.key, "simple")[:7]),
        (cell.predictions("simple"), tiny_store.predictions(fakes.key, "simple")),
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_confidences_of_an_extracted_cell_are_in_its_logits(
    tiny_store: FeatureStore, fakes: Any
) -> None:
    with pytest.raises(MissingCell, match=r"was extracted, .* the largest softmax of its logits"):
        tiny_store.confidences(fakes.key, "simple")


def test_a_cell_that_is_not_there_says_so_when_it_is_read(
    tiny_store: FeatureStore, fakes: Any
) -> None:
    cell = tiny_store.cell(replace(fakes.key, backbone="absent"))
    assert (cell.imported_as, cell.prompt_sets()) == (None, [])
    with pytest.raises(MissingCell, match="has no toy/test · clean · absent"):
        cell.valid()


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
def test_an_imported_cell_says_what_it_holds(
    tmp_path: Path, columns: dict[str, Any], kind: str, held: list[bool]
) -> None:
    frame = pl.DataFrame({"id": ["a", "b", "c"], **columns})
    asked = {} if kind == "predictions" else {"kind": kind}
    cell = imported(tmp_path / "store", frame, **asked)
    assert (cell.imported_as, holds(cell)) == (kind, held)
    assert cell.prompt_sets() == ([] if kind == "embeddings" else ["imported"])
    assert cell.counts() == (3, int("prediction" in columns))
    if kind == "embeddings":
        assert cell.encoder() == ({"imported": "mine", "embed": 2}, "mine")
        return
    with pytest.raises(MissingCell, match="was imported: what encoded its images is not known"):
        cell.encoder()
