"""`clipsyn.store.inventory`: what dead jobs left goes, what running ones need stays."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from clipsyn.store.features import FeatureStore
from clipsyn.store.inventory import collect, left_over

TARGET = "features/toy/test/clean/fake--three"


@pytest.fixture
def store(tiny_store: FeatureStore, fakes: Any) -> Path:
    """A store with one draft of three blocks, two of them done."""
    fakes.fill_some(tiny_store.path, 2, fakes.Encoder("fake/three"))
    return tiny_store.path


def draft_of(store: Path) -> Path:
    (folder,) = (path for path in (store / ".wip").iterdir() if (path / "target").exists())
    return folder


def test_all_that_is_left_over_is_named(store: Path) -> None:
    (store / ".wip" / "trash-0a" / "group").mkdir(parents=True)
    (store / ".wip" / "trash-0a" / "group" / "c.0").write_bytes(bytes(70))
    (store / ".wip" / "new-0b").mkdir()
    (store / ".wip" / "zarr.json.0c.partial").write_bytes(bytes(9))
    draft, *others = left_over(store)
    assert draft.what == f"{TARGET}, 2 of 3 blocks done"
    files = [path for path in draft_of(store).rglob("*") if path.is_file()]
    assert draft.bytes == sum(path.stat().st_size for path in files)
    of = "of a command that was writing or removing a group"
    assert [(one.what, one.bytes) for one in others] == [
        (f".wip/new-0b, {of}", 0),
        (f".wip/trash-0a, {of}", 70),
        (f".wip/zarr.json.0c.partial, {of}", 9),
    ]


def test_all_that_was_found_is_removed_and_nothing_else(store: Path, fakes: Any) -> None:
    before = fakes.contents(store)
    (store / ".wip" / "trash-0a" / "group").mkdir(parents=True)
    (store / ".wip" / "zarr.json.0c.partial").touch()
    assert collect(store, left_over(store)) == 3
    assert fakes.draft_folders(store) == []
    assert fakes.contents(store) == before
    assert left_over(store) == []
    assert collect(store, []) == 0


def test_what_was_written_last_makes_its_age(store: Path) -> None:
    """However deep it lies, and whatever times its files are given."""
    (draft,) = left_over(store)
    deep = draft_of(store) / "group" / "image_embedding" / "c.9.0"
    time.sleep(0.05)  # clocks of file systems are coarse
    deep.touch()
    os.utime(deep, (0, 0))  # as a copy that keeps the times of an old file
    (again,) = left_over(store)
    assert again.written == deep.stat().st_ctime > draft.written


def test_what_a_job_writes_to_meanwhile_stays(store: Path, fakes: Any) -> None:
    found = left_over(store)
    time.sleep(0.05)  # clocks of file systems are coarse
    (draft_of(store) / "done" / "2").touch()
    assert collect(store, found) == 0
    assert fakes.draft_folders(store) == [draft_of(store).name]


def test_a_damaged_draft_is_named_and_removed(store: Path, fakes: Any) -> None:
    (draft_of(store) / "target").write_bytes(b"")
    (found,) = left_over(store)
    assert found.what.startswith(f".wip/{draft_of(store).name}, ")
    assert collect(store, [found]) == 1
    assert fakes.draft_folders(store) == []


def test_a_link_is_removed_and_what_it_shows_stays(store: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (store / ".wip" / "new-0a").mkdir()
    (store / ".wip" / "new-0a" / "link").symlink_to(kept)
    assert collect(store, left_over(store)) == 2
    assert (kept / "file").exists()
