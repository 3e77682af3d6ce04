"""Work on the rows of a large array: in blocks, on all cores.

numpy lets go of the interpreter's lock while it computes, and takes it back after every call. On
small blocks threads wait for that lock longer than the calls take: weighted cross-entropy over
blocks of 2 MB is no faster on two cores than on one, over blocks of 5 MB it is 1.4 times as fast.
"""

from __future__ import annotations

import math
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

_R = TypeVar("_R")
_T = TypeVar("_T")
_BLOCK_VALUES = 1_250_000  # 5 MB in single precision
_CACHED_VALUES = 1 << 18  # worked on at once by a core: 1 MB

_thread = threading.local()


def in_blocks(work: Callable[[slice], _R], shape: tuple[int, ...]) -> list[_R]:
    """work(rows) for all rows of an array of `shape`, in order.

    The number of blocks is a power of two, so that as many cores end together, and does not depend
    on the machine, so that no rounding does.
    """
    wanted = max(1, math.ceil(math.prod(shape) / _BLOCK_VALUES))
    count = min(shape[0], 1 << (wanted - 1).bit_length())
    return side_by_side(work, equal_slices(shape[0], count) if count else [])


def side_by_side(work: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    """work(item) for all items, each core at others; in order. A single one stays here."""
    if len(items) <= 1 or getattr(_thread, "works_alone", False):
        return [work(item) for item in items]
    with products_of_one_thread():
        return list(_threads().map(work, items))


def in_cache(rows: slice, width: int) -> Iterator[slice]:
    """Parts of `rows`, of `width` numbers each, that stay in a core's cache between passes."""
    step = max(1, _CACHED_VALUES // width)
    for start in range(rows.start, rows.stop, step):
        yield slice(start, min(start + step, rows.stop))


def read_ahead(read: Callable[[_T], _R], items: Iterable[_T], threads: int = 1) -> Iterator[_R]:
    """read(item) for each, in order: the next ones are read in threads while the last is used."""
    with ThreadPoolExecutor(threads, "clipsyn-reading") as pool:
        coming: deque[Future[_R]] = deque()
        for item in items:
            coming.append(pool.submit(read, item))
            if len(coming) > threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def work_alone() -> None:
    """From now on this thread works on its blocks itself: others keep the other cores busy."""
    _thread.works_alone = True


def usable_cores() -> int:
    """Cores that this process may run on: of a cluster's node often a few."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def equal_slices(rows: int, count: int) -> list[slice]:
    """`count` slices, one after the other, that cover `rows` and are as equal as can be."""
    edges = np.linspace(0, rows, count + 1).astype(int).tolist()
    return [slice(start, stop) for start, stop in pairwise(edges)]


def products_of_one_thread() -> Any:
    """A context: threads that share small products mostly wait for each other."""
    return _libraries(len(sys.modules)).limit(limits=1)


@lru_cache(1)
def _libraries(_modules: int) -> Any:
    """Those with threads of their own, which takes 1 ms to find: new ones come with new modules."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@cache
def _threads() -> ThreadPoolExecutor:
    """Kept for the next call: to start and end threads takes as long as a small block."""
    return ThreadPoolExecutor(usable_cores(), "clipsyn-blocks", work_alone)


if hasattr(os, "register_at_fork"):  # a forked process has none of them
    os.register_at_fork(after_in_child=_threads.cache_clear)
