"""Progress of all jobs on a store, as its files show it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clipsyn.store.unfinished import Watch, unfinished


def test_a_store_that_is_not_there_yet_has_nothing(tmp_path: Path) -> None:
    seen = Watch(tmp_path / "s").look(0.0)
    assert (seen.cells, seen.groups, seen.done, seen.blocks, seen.left) == (0, 0, 0, 0, None)


def test_blocks_of_a_group_count_until_it_is_published_and_after(
    tmp_path: Path, fakes: Any
) -> None:
    source, store = fakes.Source(count=40), tmp_path / "s"  # 5 blocks of 8
    watch = Watch(store)
    fakes.fill(store, sources=[source], shard=(0, 2))  # blocks 0, 2, 4
    seen = watch.look(100.0)
    assert (seen.cells, seen.groups, seen.done, seen.blocks) == (0, 1, 3, 5)
    assert seen.left is None
    fakes.fill(store, sources=[source], shard=(1, 2))
    seen = watch.look(104.0)
    assert unfinished(store) == []
    assert (seen.cells, seen.groups, seen.done, seen.blocks) == (1, 0, 5, 5)
    assert seen.rate == pytest.approx(0.5)  # 2 blocks in 4 seconds
    assert seen.left == 0


def test_time_left_is_that_of_the_blocks_that_are_known(tmp_path: Path, fakes: Any) -> None:
    source, store = fakes.Source(count=80), tmp_path / "s"  # 10 blocks
    watch = Watch(store)
    fakes.fill(store, sources=[source], shard=(0, 10))
    watch.look(0.0)
    fakes.fill(store, sources=[source], shard=(1, 10))
    fakes.fill(store, sources=[source], shard=(2, 10))
    seen = watch.look(10.0)
    assert (seen.done, seen.blocks) == (3, 10)
    assert seen.left == pytest.approx(7 / 0.2)  # 2 blocks in 10 seconds
