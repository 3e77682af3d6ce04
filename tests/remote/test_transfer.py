"""Threads that stop when one of them fails, and the counting of bytes."""

from __future__ import annotations

import time
from threading import Event

import pytest

from clipsyn.remote.transfer import lanes


def test_no_more_is_begun_after_a_failure() -> None:
    begun: list[int] = []
    failed = Event()

    def file(number: int) -> None:
        begun.append(number)
        if number == 7:
            failed.set()
            raise OSError("the disk is full")
        if failed.is_set():
            time.sleep(0.01)

    def group(first: int) -> None:
        list(files.map(file, range(first, first + 1000)))

    with pytest.raises(OSError, match="the disk is full"), lanes() as (groups, files):
        list(groups.map(group, range(0, 100_000, 1000)))
    assert len(begun) < 20_000
    count = len(begun)
    time.sleep(0.05)
    assert len(begun) == count  # all threads have ended
