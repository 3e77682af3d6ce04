"""`clipsyn.extract.blocks`: what each of several workers does."""

import multiprocessing
import os
import platform
from types import SimpleNamespace
from typing import Any

import pytest

from clipsyn.errors import BadImages
from clipsyn.extract import blocks as blocks_module
from clipsyn.extract import run as run_module
from clipsyn.extract.blocks import Claims, blocks
from clipsyn.store import claims as claims_module
from tests.daemons import until

COUNT = 160  # images, of which twenty blocks are made


def numbers(work, shard=(0, 1)):
    return [block.number for block in blocks(work, shard)]


def test_each_worker_begins_at_its_own_place_and_none_leaves_any_out(tmp_path, fakes):
    store = fakes.fill_some(tmp_path, 1)
    work = fakes.planned(store, [fakes.Encoder(), fakes.Encoder("fake/two")], [fakes.Source()])
    assert numbers(work) == [0, 1, 2]
    assert numbers(work, (1, 3)) == [1, 2, 0]
    assert numbers(work, (2, 3)) == [2, 0, 1]
    assert [len(block.cells) for block in blocks(work)] == [1, 2, 2]


@pytest.mark.parametrize("workers", [2, 5])
def test_workers_at_once_make_each_block_once(workers, tmp_path, fakes):
    """Of which some are slow: whoever is free takes the next."""
    whole = fakes.fill(tmp_path / "whole", sources=[fakes.Source(count=COUNT)])
    context = multiprocessing.get_context("fork")
    made = context.Queue()

    def work(number):
        encoder = fakes.Encoder()
        encoder.seconds = 0.01 * (1 + 4 * number)
        fakes.fill(tmp_path / "s", [encoder], [fakes.Source(count=COUNT)], shard=(number, workers))
        made.put((number, sum(encoder.encoded)))

    started = [context.Process(target=work, args=(number,)) for number in range(workers)]
    for process in started:
        process.start()
    counts = dict(made.get(timeout=120) for _ in started)
    for process in started:
        process.join()
    assert sum(counts.values()) == COUNT
    assert fakes.unlike(whole.path, tmp_path / "s") == []
    assert fakes.draft_folders(tmp_path / "s") == []


@pytest.fixture
def waits(monkeypatch):
    """What is called, in order, each time that a worker waits for others."""
    calls: list[Any] = []
    monkeypatch.setattr(run_module, "time", SimpleNamespace(sleep=lambda _: calls.pop(0)()))
    return calls


def claims_of(store):
    return {path.name: path for path in store.glob(".wip/*/claims/*")}


def of_another(store, block):
    """The claim of a process that is alive."""
    claim = next(store.glob(".wip/*/done")).with_name("claims") / str(block)
    claim.write_text(f"{platform.node()} {os.getppid()}")
    return claim


def test_what_a_dead_worker_had_claimed_is_made_when_all_else_is(tmp_path, fakes, waits):
    fakes.fill_some(tmp_path, 1, sources=[fakes.Source(count=40)])
    assert {*claims_of(tmp_path)} == {"0"}  # what was not finished is left to others at once
    claim, encoder, source = of_another(tmp_path, 2), fakes.Encoder(), fakes.Source(count=40)
    waits += [lambda: None, claim.unlink]
    store = fakes.fill(tmp_path, [encoder], [source])
    assert source.decoded[-8:] == [*range(16, 24)]
    assert encoder.encoded == [8] * 4
    assert waits == []
    assert store.keys() == [fakes.key]
    assert fakes.draft_folders(tmp_path) == []


def test_what_another_makes_meanwhile_is_not_made_again(tmp_path, fakes, waits):
    fakes.fill_some(tmp_path, 1)
    claim, encoder = of_another(tmp_path, 1), fakes.Encoder()
    waits += [lambda: (claim.unlink(), fakes.fill(tmp_path))]
    assert fakes.fill(tmp_path, [encoder]).keys() == [fakes.key]
    assert encoder.encoded == [6]


def test_what_is_published_while_it_is_claimed_leaves_nothing(tmp_path, fakes, monkeypatch):
    (cell,) = fakes.planned(fakes.fill_some(tmp_path, 1)).splits[0].cells
    take = claims_module.take

    def late(claim):
        monkeypatch.setattr(claims_module, "take", take)
        fakes.fill(tmp_path)
        claim.parent.parent.mkdir()  # which this worker has seen
        return take(claim)

    monkeypatch.setattr(claims_module, "take", late)
    assert not cell.draft.claim(1)
    assert fakes.draft_folders(tmp_path) == []


def test_a_worker_that_fails_leaves_its_blocks_to_others_at_once(tmp_path, fakes):
    with pytest.raises(BadImages):
        fakes.fill(tmp_path, sources=[fakes.Source(bad={9: "torn"})])
    done = {path.name for path in tmp_path.glob(".wip/*/done/*")}
    assert {*claims_of(tmp_path)} <= done


def test_a_claim_is_renewed_until_the_end(tmp_path, fakes, monkeypatch):
    monkeypatch.setattr(blocks_module, "_RENEW", 0.01)
    work = fakes.planned(fakes.fill_some(tmp_path, 1))
    with Claims() as claims:
        next(claims.take(blocks(work), []))
        claim = claims_of(tmp_path)["1"]
        os.utime(claim, (0, 0))
        until(lambda: claim.stat().st_mtime > 0)
    assert "1" not in claims_of(tmp_path)
