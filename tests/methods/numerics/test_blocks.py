import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from clipsyn.methods.numerics.blocks import (
    in_blocks,
    products_of_one_thread,
    side_by_side,
    usable_cores,
    work_alone,
)


@pytest.fixture(autouse=True)
def few_values(monkeypatch):
    monkeypatch.setattr("clipsyn.methods.numerics.blocks._BLOCK_VALUES", 5 * 6)


@pytest.mark.parametrize(("rows", "blocks"), [(0, 0), (1, 1), (5, 1), (6, 2), (11, 4), (41, 16)])
def test_blocks_cover_every_row_once(rows, blocks):
    seen = np.zeros(rows, int)
    calls = []

    def work(part):
        seen[part] += 1
        calls.append(part.stop - part.start)

    in_blocks(work, (rows, 2, 3))
    assert (seen == 1).all()
    assert len(calls) == blocks
    assert not calls or max(calls) <= min(5, min(calls) + 1)
    del calls[:]
    in_blocks(work, (rows, 1000))  # never less than a row
    assert len(calls) == rows


def test_what_blocks_give_is_in_their_order():
    parts = in_blocks(lambda rows: np.arange(41)[rows], (41, 2, 3))
    assert np.concatenate(parts).tolist() == list(range(41))
    assert in_blocks(lambda rows: rows, (0, 3)) == []


def threads_of_products():
    return {
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    }


@pytest.mark.parametrize("work_on", [in_blocks, side_by_side])
def test_products_in_blocks_have_one_thread_and_later_as_many_as_before(work_on):
    with threadpool_limits(2):
        seen = work_on(lambda _: threads_of_products(), (40, 2) if work_on is in_blocks else [1, 2])
        assert seen[1:] == seen[:-1] == [{1}] * (len(seen) - 1)
        assert threads_of_products() == {2}


def test_a_caller_that_ends_later_gives_products_their_threads_back():
    first_works, second_works = threading.Event(), threading.Event()

    def first():
        with products_of_one_thread():
            first_works.set()
            assert second_works.wait(60)

    def second():
        with products_of_one_thread():
            second_works.set()
            ended.result(60)

    with threadpool_limits(2):
        with ThreadPoolExecutor(2) as callers:
            ended = callers.submit(first)
            assert first_works.wait(60)
            callers.submit(second).result(60)
        assert threads_of_products() == {2}


def test_blocks_within_blocks_end():
    """As many blocks as there are threads, all of which have blocks of their own."""
    count = 8 * usable_cores()
    seen = np.zeros((count, 50), int)

    def outer(rows):
        def inner(columns):
            seen[rows, columns] += 1

        in_blocks(inner, (50, 30))

    in_blocks(outer, (count, 30))
    assert (seen == 1).all()


def test_blocks_run_in_other_threads_unless_one_works_alone():
    def threads():
        found = set()
        in_blocks(lambda rows: found.add(threading.get_ident()), (40, 30))
        return found, threading.get_ident()

    found, here = threads()
    assert here not in found
    with ThreadPoolExecutor(1, "alone", work_alone) as alone:
        found, there = alone.submit(threads).result()
    assert found == {there}
    assert there != here


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_blocks_go_on_in_a_forked_process():
    in_blocks(lambda rows: None, (40, 30))  # starts the threads
    process = os.fork()
    if not process:
        seen = np.zeros(40, int)

        def work(rows):
            seen[rows] += 1

        in_blocks(work, (40, 30))
        os._exit(0 if (seen == 1).all() else 1)
    assert os.waitpid(process, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity")
def test_cores_are_those_that_the_process_may_use():
    allowed = os.sched_getaffinity(0)
    assert usable_cores() == len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
