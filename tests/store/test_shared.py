"""One store and several processes: killed, racing, reading while others write."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from clipsyn.store.features import FeatureStore
from clipsyn.store.inventory import left_over
from tests.kills import killed_again_and_again, problems, unfinished

KILLS = 12
SLOW = 0.001  # seconds that a file costs: a merge of little data ends too soon to be killed


@pytest.fixture(scope="module")
def alice(forker: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shared") / "alice"
    assert forker.run("extract", path=path) == (0, "")
    return path


@pytest.fixture(scope="module")
def bob(forker: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shared") / "bob"
    assert forker.run("extract", path=path, names=["fake/one", "fake/two"]) == (0, "")
    return path


@pytest.fixture
def stores(alice: Path, bob: Path) -> tuple[Path, Path]:
    return alice, bob


def test_a_merge_killed_at_random_moments_ends_in_the_same_bytes(forker, bob, tmp_path, fakes):
    what = {"stores": [bob], "seconds": SLOW}
    begin = time.monotonic()
    assert forker.run("merge", into=tmp_path / "timing", **what) == (0, "")
    lasts = time.monotonic() - begin

    def strike(path: Path, after: float) -> bool:
        return forker.kill("merge", after, into=path, **what)

    path = killed_again_and_again(strike, bob, tmp_path, fakes, kills=KILLS, lasts=lasts)
    assert forker.run("merge", into=path, **what) == (0, "")
    assert fakes.unlike(bob, path) == []
    assert unfinished(path) == []


def test_racing_merges_all_end_well(forker, stores, tmp_path, fakes):
    path, (alice, bob) = tmp_path / "lab", stores
    orders = [[alice, bob], [bob, alice], [bob]]
    processes = [forker.start("merge", into=path, stores=each) for each in orders]
    assert [(forker.wait(process), forker.said(process)) for process in processes] == [(0, "")] * 3
    assert fakes.unlike(bob, path) == []
    assert left_over(path) == []


def test_three_write_while_two_read(forker: Any, bob: Path, tmp_path: Path, fakes: Any) -> None:
    """Extractions of the same and of other cells, a replacement, a merge, corrected labels.

    Whatever a reader gets is whole, or it is told that a command replaces it.
    """
    path = tmp_path / "lab"
    for number, writers in enumerate(
        (
            [
                {"do": "extract", "path": path, "names": ["fake/one"], "seconds": SLOW},
                {
                    "do": "extract",
                    "path": path,
                    "names": ["fake/one", "fake/three"],
                    "seconds": SLOW,
                },
                {"do": "merge", "into": path, "stores": [bob], "seconds": SLOW},
            ],
            [
                {"do": "correct", "path": path, "split": "test", "rounds": 10},
                {"do": "correct", "path": path, "split": "test", "rounds": 10},
                {
                    "do": "extract",
                    "path": path,
                    "names": ["fake/three"],
                    "weights": "x",
                    "replace": True,
                },
            ],
        )
    ):
        done = tmp_path / f"done-{number}"
        how = {"path": path, "until": done, "replacing": number == 1}
        readers = [forker.start("read", **how) for _ in range(2)]
        processes = [forker.start(**writer) for writer in writers]
        assert [(forker.wait(one), forker.said(one)) for one in processes] == [(0, "")] * 3
        done.touch()
        assert [(forker.wait(one), forker.said(one)[-2000:]) for one in readers] == [(0, "")] * 2
    assert problems(path) == []
    assert left_over(path) == []
    assert len(FeatureStore.open(path).keys()) == 12
