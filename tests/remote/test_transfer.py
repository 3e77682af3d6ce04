"""Threads that stop when one of them fails, and the counting of bytes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from clipsyn.remote.transfer import Meter, lanes


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


def test_whole_megabytes_are_counted_from_several_threads(fakes: Any) -> None:
    quiet = fakes.Quiet()
    meter = Meter(quiet, "sending", 12_345_678)
    assert quiet.counters == [("sending", 13)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(meter.advance, [1234] * 10_000))
    assert quiet.counts == [12]
    meter.advance(5_678)
    meter.finish()
    assert quiet.counts == [13]
    assert quiet.finished == [0]
