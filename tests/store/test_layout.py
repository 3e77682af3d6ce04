"""Metadata of a stranger: what cannot be is refused before memory is taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsyn.errors import DamagedStore
from clipsyn.store import arrays
from clipsyn.store.features import FeatureStore
from clipsyn.store.layout import Layout
from clipsyn.store.schema import ArraySpec


@pytest.fixture
def array(tmp_path: Path) -> Path:
    """An array of 20 x 4 float32 in chunks of 7 rows."""
    spec = ArraySpec("values", ("sample", "embed"), "float32", 0, "for a test")
    arrays.create_group(tmp_path / "group", [spec], {"sample": 20, "embed": 4}, 7, {})
    path = tmp_path / "group" / "values"
    for block in range(3):
        arrays.write_block(path, block, np.ones((min(7, 20 - 7 * block), 4), np.float32))
    return path


def alter(path: Path, **changes: Any) -> None:
    file = path / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def grid(*chunk: Any) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": list(chunk)}}


def test_texts_beyond_what_the_files_hold_are_damage(tiny_store: FeatureStore) -> None:
    ids = tiny_store.samples_path("toy", "test") / "sample_id"
    alter(ids, shape=[10**9], chunk_grid=grid(10**9))
    with pytest.raises(DamagedStore):
        arrays.read(ids)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [-1, 4]},
        {"shape": [True, 4]},
        {"shape": [2**60, 4]},
        {"shape": 20},
        {"shape": [20]},
        {"chunk_grid": grid(0, 4)},
        {"chunk_grid": grid(7)},
        {"data_type": "object"},
        {"data_type": {"names": ["a"], "formats": ["O"]}},
        {"codecs": ["bytes"]},
        {"codecs": None},
    ],
)
def test_metadata_that_cannot_be_are_damage(array: Path, changes: dict[str, Any]) -> None:
    alter(array, **changes)
    with pytest.raises(DamagedStore, match=r"zarr\.json describes no array"):
        arrays.read(array)


LISTED = {"shape": [20, 4], "dtype": "float32", "rows": 7, "checksums": "00000000" * 3}


@pytest.mark.parametrize(
    "changes",
    [{"rows": 0}, {"rows": "7"}, {"rows": 2.5}, {"shape": [-20, 4]}, {"shape": None}],
)
def test_a_list_of_arrays_that_cannot_be_is_damage(changes: dict[str, Any]) -> None:
    assert Layout.parse(LISTED).rows == 7
    with pytest.raises(DamagedStore, match="the list of its arrays is damaged"):
        Layout.parse(LISTED | changes)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (None, ["c.0.0", "c.1.0", "c.2.0"]),
        (range(7), ["c.0.0"]),
        (range(6, 8), ["c.0.0", "c.1.0"]),
        (range(14, 20), ["c.2.0"]),
        (range(0), []),
    ],
)
def test_rows_lie_in_the_files_that_are_said(
    array: Path, rows: range | None, expected: list[str]
) -> None:
    assert arrays.layout(array).files(rows) == expected
