"""`clipsyn.store.drafts`: groups that are there as a whole or not at all."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsyn.errors import StaleCell, StoreError
from clipsyn.store import arrays, drafts
from clipsyn.store.drafts import Draft
from clipsyn.store.features import FeatureStore
from clipsyn.store.groups import Group
from clipsyn.store.inventory import collect, left_over
from tests.kills import unfinished

BACKBONE = {"weights": "aa", "precision": "fp32", "preprocess": {}}
IDENTITY = {"format": "2.0", "backbone": BACKBONE, "samples": "s", "pixels": 1}
ROWS, WIDTH = 20, 3


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return FeatureStore.create(tmp_path / "store", 8).path


def draft(store: Path, cell: str = "a", **changes: Any) -> Draft:
    target = store / "features" / "toy" / "test" / "clean" / cell
    sizes = {"sample": ROWS, "embed": WIDTH}
    return Draft(store, target, "features", {**IDENTITY, **changes}, sizes, 8)


def rows_of(draft: Draft, block: int) -> dict[str, np.ndarray]:
    rows = np.array(draft.blocks.range(block))
    embedding = np.repeat(rows[:, None], WIDTH, axis=1).astype(np.float16)
    return {"image_embedding": embedding, "valid": rows % 2 == 0}


def write(draft: Draft, *blocks: int) -> None:
    for block in blocks:
        draft.write(block, rows_of(draft, block), {"block": block})


def publish(draft: Draft, **options: Any) -> bool:
    return draft.publish(lambda notes: {"notes": notes, "provenance": {"encoder": {}}}, **options)


def whole(store: Path) -> Draft:
    """One that is published."""
    one = draft(store)
    write(one, 0, 1, 2)
    publish(one)
    return one


def published(draft: Draft) -> Group:
    return FeatureStore.open(draft.store).group(draft.target)


def test_from_planned_to_published(store: Path) -> None:
    one = draft(store)
    assert (one.pending(), one.is_done(0), one.is_published()) == ([0, 1, 2], False, False)
    assert not list((store / ".wip").iterdir())  # a plan writes nothing
    write(one, 1)
    assert (one.pending(), one.is_done(1), one.is_done(0)) == ([0, 2], True, False)
    assert not publish(one)
    assert not one.target.exists()
    again = draft(store)  # another run finds the same draft
    assert again.pending() == [0, 2]
    write(again, 2, 0)
    assert publish(again)
    assert one.is_published()
    assert one.pending() == []
    assert one.is_done(2)
    embedding = published(one).read("image_embedding")
    assert embedding[:, 0].tolist() == list(range(ROWS))
    attributes = arrays.read_attributes(one.target)
    assert attributes["notes"] == [{"block": 0}, {"block": 1}, {"block": 2}]
    assert attributes["identity"] == IDENTITY
    assert attributes["fingerprint"] == one.fingerprint
    assert attributes["kind"] == "features"
    assert list((store / ".wip").iterdir()) == []
    for folder in (one.target.parent, store / "features", store):
        assert (folder / "zarr.json").is_file()


def test_a_worker_that_lost_leaves_nothing_behind(store: Path) -> None:
    """The faster one publishes after this one has asked whether anybody did."""
    whole(store)
    slower = draft(store)
    slower._open()
    assert len(list((store / ".wip").iterdir())) == 1
    write(slower, 0)
    assert publish(slower)
    assert list((store / ".wip").iterdir()) == []


def test_another_identity_is_stale_and_names_the_field(store: Path) -> None:
    one = whole(store)
    assert one.changes() == []
    other = draft(store, backbone={**BACKBONE, "weights": "bb"})
    assert other.changes() == [("backbone.weights", "aa", "bb")]
    write(other, 0, 1, 2)
    with pytest.raises(StaleCell, match=r"backbone\.weights: aa → bb.*replace=True") as caught:
        publish(other)
    assert caught.value.fields == ("backbone.weights",)
    assert "features/toy/test/clean/a" in str(caught.value)
    assert one.is_published()


def test_replacing_keeps_the_old_until_the_new_is_whole(store: Path) -> None:
    old = whole(store)
    new = draft(store, samples="t")
    write(new, 0, 1)
    assert not publish(new, replace=True)
    assert old.is_published()
    write(new, 2)
    assert publish(new, replace=True)
    assert new.is_published()
    assert not old.is_published()
    assert list((store / ".wip").iterdir()) == []


def test_going_back_to_a_former_identity_starts_afresh(store: Path) -> None:
    """A run that was killed after its rename leaves done-markers without a group."""
    one = draft(store)
    write(one, 0, 1, 2)
    shutil.copytree(one._folder / "done", store / "kept")
    publish(one)
    shutil.rmtree(one.target)
    one._folder.mkdir()
    (store / "kept").rename(one._folder / "done")
    assert one.pending() == [0, 1, 2]
    assert not one.is_done(0)
    assert [left.path for left in left_over(store)] == [one._folder]
    write(one, 0, 1, 2)
    assert publish(one)
    assert published(one).read("image_embedding")[:, 0].tolist() == list(range(ROWS))


# Racing


def race(store: Path, worker: int, barrier: Any) -> None:
    barrier.wait()
    one = draft(store)
    for block in one.pending() if worker % 2 else reversed(one.pending()):
        write(one, block)
        publish(one)


def test_processes_racing_for_one_group_all_end_well(store: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    processes = [context.Process(target=race, args=(store, n, barrier)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    check_race(store)


def check_race(store: Path) -> None:
    one = draft(store)
    assert one.is_published()
    assert published(one).read("image_embedding")[:, 0].tolist() == list(range(ROWS))
    assert publish(one)
    assert list((store / ".wip").iterdir()) == []
    assert not list(store.rglob("*.partial"))


def test_a_draft_that_somebody_deleted_is_no_silent_success(store, monkeypatch):
    one = draft(store)
    write(one, 0)
    shutil.rmtree(one._folder / "group" / "valid")
    with pytest.raises(StoreError):
        write(one, 1)
    assert one.pending() == [1, 2]


@pytest.mark.parametrize("again", [False, True])
def test_what_is_taken_away_while_it_is_made_is_never_half_there(store, monkeypatch, again):
    """As `gc` does; zarr makes a group's folders, also those it has made before."""
    one, make = draft(store), arrays.create_group

    def make_and_lose(path: Path, *rest: Any) -> None:
        make(path, *rest)
        collect(store, left_over(store))
        if again:
            make(path, *rest)

    monkeypatch.setattr(arrays, "create_group", make_and_lose)
    with pytest.raises(StoreError, match=r"is gone, .*: run the same command again"):
        write(one, 0)
    assert list((store / ".wip").iterdir()) == []
    monkeypatch.setattr(arrays, "create_group", make)
    write(one, 0, 1, 2)
    assert publish(one)


@pytest.mark.parametrize("part", ["target", "done"])
def test_half_a_draft_is_a_leftover_and_is_begun_anew(store: Path, part: str) -> None:
    one = draft(store)
    write(one, 0)
    path = one._folder / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert unfinished(store) == []
    assert [left.path for left in left_over(store)] == [one._folder]
    assert one.pending() == [0, 1, 2]
    write(one, 0, 1, 2)
    assert publish(one)


def test_the_old_group_is_there_until_the_new_one_is(store, monkeypatch):
    """Nothing is deleted between the two renames."""
    new = draft(store, samples="t")
    whole(store)
    write(new, 0, 1, 2)
    seen = []
    delete = drafts._delete

    def delete_and_look(path: Path) -> None:
        seen.append(new.is_published())
        delete(path)

    monkeypatch.setattr(drafts, "_delete", delete_and_look)
    publish(new, replace=True)
    assert seen
    assert all(seen)
    assert list((store / ".wip").iterdir()) == []
