"""`clipsyn.store.merge.copy_group`: a group of another store is there as a whole, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsyn.errors import DamagedStore, StaleCell, StoreError
from clipsyn.store import arrays, merge
from clipsyn.store.features import FeatureStore
from clipsyn.store.groups import Group
from clipsyn.store.inventory import collect, left_over
from clipsyn.store.merge import copy_group

CELL = "features/toy/test/clean/fake--one"


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return FeatureStore.create(tmp_path / "into", 8).path


@pytest.fixture
def group(tiny_store: FeatureStore) -> Group:
    return tiny_store.group(tiny_store.path / CELL)


def files_of(group: Path) -> dict[str, bytes]:
    every = [path for path in group.rglob("*") if path.is_file()]
    return {path.relative_to(group).as_posix(): path.read_bytes() for path in every}


def test_a_copy_has_the_bytes_of_the_group(group: Group, into: Path, fakes: Any) -> None:
    for _ in range(2):  # a slower process
        copy_group(group, into)
        assert files_of(into / CELL) == files_of(group.path)
        assert fakes.draft_folders(into) == []
    assert all((into / part / "zarr.json").exists() for part in ("features", "features/toy"))


def test_a_chunk_that_is_not_on_the_list_is_refused(group: Group, into: Path, fakes: Any) -> None:
    """Also one with a checksum of its own that fits, as that of another cell has."""
    arrays.write_block(group.path / "valid", group.arrays["valid"], 0, np.zeros(7, bool))
    with pytest.raises(DamagedStore, match=CELL):
        copy_group(group, into)
    assert not (into / CELL).exists()
    assert fakes.draft_folders(into) == []


def test_a_group_that_is_replaced_meanwhile(group: Group, into: Path, fakes: Any) -> None:
    fakes.fill(group.store, [fakes.Encoder(weights="x")], [fakes.Source()], replace=True)
    with pytest.raises(DamagedStore):
        copy_group(group, into)
    shutil.rmtree(group.path)
    with pytest.raises(DamagedStore):
        copy_group(group, into)
    assert not (into / CELL).exists()
    assert left_over(into) == []


def test_other_content_that_came_meanwhile_stays(group: Group, into: Path, fakes: Any) -> None:
    fakes.fill(into, [fakes.Encoder(weights="x")], [fakes.Source()])
    before = files_of(into / CELL)
    with pytest.raises(StaleCell) as caught:
        copy_group(group, into)
    assert caught.value.fields == ("backbone.weights",)
    assert files_of(into / CELL) == before


@pytest.mark.parametrize("name", ["_sync", "make_groups"])
def test_a_copy_that_is_taken_away_is_never_half_there(
    group: Group, into: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As `gc` does."""
    monkeypatch.setattr(merge, name, lambda *_, **__: collect(into, left_over(into)))
    with pytest.raises(StoreError):
        copy_group(group, into)
    assert not (into / CELL).exists()
