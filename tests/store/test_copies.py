"""`clipsyn.store.copies`: a group of another store is there as a whole, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsyn.errors import DamagedStore, StaleCell, StoreError
from clipsyn.store import arrays, copies, files
from clipsyn.store.copies import GroupCopy
from clipsyn.store.features import FeatureStore
from clipsyn.store.samples import SampleTable
from clipsyn.store.unfinished import left_over, unfinished

CELL = "features/toy/test/clean/fake--one"


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return FeatureStore.create(tmp_path / "into", 8).path


@pytest.fixture
def copy(tiny_store: FeatureStore, into: Path) -> GroupCopy:
    return GroupCopy(tiny_store.group(tiny_store.path / CELL), into)


def files_of(group: Path) -> dict[str, bytes]:
    every = [path for path in group.rglob("*") if path.is_file()]
    return {path.relative_to(group).as_posix(): path.read_bytes() for path in every}


def test_a_copy_has_the_bytes_of_the_group(copy: GroupCopy, into: Path, fakes: Any) -> None:
    copy.publish()
    assert files_of(copy.target) == files_of(copy.source.path)
    assert copy.target == into / CELL
    assert fakes.draft_folders(into) == []
    assert all((into / part / "zarr.json").exists() for part in ("features", "features/toy"))
    copy.publish()  # a slower process
    assert files_of(copy.target) == files_of(copy.source.path)
    assert fakes.draft_folders(into) == []


def test_what_is_being_copied_is_unfinished(
    copy: GroupCopy, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GroupCopy, "_is_sound", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        copy.publish()
    (draft,) = unfinished(into)
    assert (draft.target, draft.done, draft.total) == (CELL, 3, 3)
    assert not copy.target.exists()


def test_it_goes_on_with_the_files_that_are_there(
    copy: GroupCopy, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GroupCopy, "_is_sound", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        copy.publish()
    monkeypatch.undo()
    (copy._group / "image_embedding" / "c.1.0").unlink()
    copied: list[str] = []
    copy_file = files.copy_file

    def note(file: Path, path: Path, scratch: Path, most: int) -> None:
        copied.append(file.name)
        copy_file(file, path, scratch, most)

    monkeypatch.setattr(files, "copy_file", note)
    copy.publish()
    assert copied == ["c.1.0"]
    assert files_of(copy.target) == files_of(copy.source.path)


@pytest.mark.parametrize("content", [b"", bytes(180)])
def test_a_file_that_a_power_cut_has_torn_is_copied_again(
    copy: GroupCopy, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(GroupCopy, "_move_in", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        copy.publish()
    monkeypatch.undo()
    (copy._group / "image_embedding" / "c.1.0").write_bytes(content)
    copy.publish()
    assert files_of(copy.target) == files_of(copy.source.path)


@pytest.mark.parametrize("link", [False, True])
def test_a_chunk_that_is_not_on_the_list_is_refused(
    copy: GroupCopy, into: Path, fakes: Any, link: bool
) -> None:
    """Also one with a checksum of its own that fits, as that of another cell has."""
    other = copy.source.store / CELL.replace("one", "two") / "valid" / "c.0"
    chunk = copy.source.path / "valid" / "c.0"
    values = np.zeros(7, bool)
    arrays.write_block(copy.source.path / "valid", 0, values)
    assert chunk.read_bytes() != other.read_bytes()
    with pytest.raises(DamagedStore, match=f"{CELL} in .* is not as it was written: `clipsyn ver"):
        GroupCopy(copy.source, into, link).publish()
    assert not copy.target.exists()
    assert fakes.draft_folders(into) == []


def test_a_flipped_bit_is_refused(copy: GroupCopy) -> None:
    chunk = copy.source.path / "image_embedding" / "c.1.0"
    content = bytearray(chunk.read_bytes())
    content[5] ^= 4
    chunk.write_bytes(content)
    with pytest.raises(DamagedStore, match="is not as it was written"):
        copy.publish()


def test_a_group_that_is_replaced_meanwhile(copy: GroupCopy, into: Path, fakes: Any) -> None:
    fakes.fill(copy.source.store, [fakes.Encoder(weights="x")], [fakes.Source()], replace=True)
    with pytest.raises(StaleCell, match="was replaced while it was read: run the same command"):
        copy.publish()
    shutil.rmtree(copy.source.path)
    with pytest.raises(StaleCell, match="was replaced while it was read"):
        copy.publish()
    assert not copy.target.exists()
    assert left_over(into) == []


def test_other_content_that_came_meanwhile_stays(copy: GroupCopy, into: Path, fakes: Any) -> None:
    fakes.fill(into, [fakes.Encoder(weights="x")], [fakes.Source()])
    before = files_of(copy.target)
    with pytest.raises(StaleCell, match=r"has come into .* meanwhile \(backbone.weights: ") as e:
        copy.publish()
    assert e.value.fields == ("backbone.weights",)
    assert files_of(copy.target) == before


def test_labels_that_are_being_corrected_are_looked_at_again(
    tiny_store: FeatureStore, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attributes go first: for a moment the labels do not fit the group's list."""
    table = tiny_store.samples("toy", "test")
    known = {"ids": table.ids, "content": table.content, "class_names": table.class_names}
    new = SampleTable("toy", "test", labels=table.labels[::-1].copy(), licence="CC0", **known)
    path = tiny_store.samples_path("toy", "test")
    old = {file.name: file.read_bytes() for file in (path / "label").glob("c.*")}
    tiny_store.annotate(new)
    corrected = {name: (path / "label" / name).read_bytes() for name in old}
    group = tiny_store.group(path)
    for name, content in old.items():
        (path / "label" / name).write_bytes(content)
    rest = copies.discard

    def discard(store: Path, folder: Path) -> None:
        rest(store, folder)
        for name, content in corrected.items():
            (path / "label" / name).write_bytes(content)

    monkeypatch.setattr(copies, "discard", discard)
    GroupCopy(group, into).publish()
    assert FeatureStore.open(into).samples("toy", "test").labels.tolist() == new.labels.tolist()


@pytest.mark.parametrize("times", [1, 9])
def test_a_draft_that_is_taken_away_is_begun_again(
    copy: GroupCopy, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    sync, left = copies._sync, iter(range(times))

    def lose(folder: Path, **how: bool) -> None:
        if next(left, None) is None:
            sync(folder, **how)
        else:
            shutil.rmtree(folder.parent)

    monkeypatch.setattr(copies, "_sync", lose)
    if times > 1:
        with pytest.raises(StoreError, match=r"being copied of .* vanishes again and again"):
            copy.publish()
        assert not copy.target.exists()
    else:
        copy.publish()
        assert files_of(copy.target) == files_of(copy.source.path)


# Links


def test_linked_files_take_no_space_and_are_never_written_through(
    tiny_store: FeatureStore, into: Path
) -> None:
    path = tiny_store.samples_path("toy", "test")
    GroupCopy(tiny_store.group(path), into, link=True).publish()
    target = into / "samples" / "toy" / "test"
    for file in files_of(path):
        assert (target / file).stat().st_ino == (path / file).stat().st_ino
    before = files_of(path)
    store = FeatureStore.open(into)
    table = store.samples("toy", "test")
    known = {"ids": table.ids, "content": table.content, "class_names": table.class_names}
    store.annotate(SampleTable("toy", "test", labels=table.labels[::-1].copy(), **known))
    assert files_of(path) == before
    assert store.samples("toy", "test").labels.tolist() == table.labels[::-1].tolist()


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_where_no_link_can_be_it_is_a_copy(
    copy: GroupCopy, into: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    GroupCopy(copy.source, into, link=True).publish()
    assert files_of(copy.target) == files_of(copy.source.path)


def test_what_else_the_disk_says_is_an_error(
    copy: GroupCopy, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StoreError, match="the disk is full"):
        GroupCopy(copy.source, into, link=True).publish()
