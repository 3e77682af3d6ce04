"""Memory of images that all threads share: who would exceed it waits until others are done."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

# Bytes at a time, with room for several large photographs. What is larger than all of it runs
# alone, and readers bound that.
ENCODED, DECODED = "encoded", "decoded"
_MOST = {ENCODED: 1 << 28, DECODED: 5 << 28}

_CHANGED = threading.Condition()
_TAKEN: Counter[str] = Counter()  # of all threads
_THREAD = threading.local()


@contextmanager
def returned() -> Iterator[None]:
    """Around the work on one image: what the thread takes inside is given back at the end."""
    own = _THREAD.own = Counter[str]()
    try:
        yield
    finally:
        _THREAD.own = None
        with _CHANGED:
            _TAKEN.subtract(own)
            _CHANGED.notify_all()


def take(kind: str, size: int) -> None:
    """Wait until `size` bytes are free; outside `returned`, where nothing is given back, never.

    Encoded bytes are taken before decoded ones, and each once an image, so no two threads wait for
    each other.
    """
    own: Counter[str] | None = getattr(_THREAD, "own", None)
    if own is None:
        return
    with _CHANGED:
        _CHANGED.wait_for(
            lambda: own[kind] or not _TAKEN[kind] or _TAKEN[kind] + size <= _MOST[kind]
        )
        _TAKEN[kind] += size
        own[kind] += size
