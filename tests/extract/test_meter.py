"""Time and memory of a batch, on this machine and on a made-up GPU."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from clipsyn.extract.measure import Used, measured


def test_seconds_and_memory_of_the_process() -> None:
    start = time.perf_counter()
    result, used = measured(lambda: time.sleep(0.02) or 7, "cpu")
    assert result == 7
    seconds, memory = used()
    assert 0.02 <= seconds <= time.perf_counter() - start
    assert memory["process_memory_mb"] > 20  # an interpreter with torch
    time.sleep(0.02)
    assert used().seconds == seconds


def test_memory_is_the_most_there_has_been() -> None:
    def large() -> None:
        np.ones(40_000_000)  # 320 MB, and gone

    before = measured(lambda: None, "cpu")[1]().memory["process_memory_mb"]
    after = measured(large, "cpu")[1]().memory["process_memory_mb"]
    later = measured(lambda: None, "cpu")[1]().memory["process_memory_mb"]
    assert after >= before
    assert later >= after > 320


def test_where_the_system_does_not_say_there_is_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert measured(lambda: None, "cpu")[1]().memory == {}


class Gpu:
    """As much of `torch.cuda` as is used: a clock that runs behind, and an allocator."""

    def __init__(self) -> None:
        self.clock, self.allocated, self.most, self.waited = 0.0, 500_000_000, 900_000_000, False
        gpu = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at = gpu.clock

            def synchronize(self) -> None:
                gpu.waited = True

            def elapsed_time(self, other: Any) -> float:
                return float(other.at - self.at)

        self.Event = Event

    def allocate(self, size: int) -> None:
        self.allocated += size
        self.most = max(self.most, self.allocated)

    def work(self) -> str:
        self.clock += 250.0
        self.allocate(30_000_000)
        self.allocate(-20_000_000)
        return "done"

    def reset_peak_memory_stats(self) -> None:
        self.most = self.allocated


def test_a_gpu_is_not_waited_for_and_counts_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu()
    fake = SimpleNamespace(
        device=lambda _: torch.inference_mode(),  # any context
        Event=gpu.Event,
        reset_peak_memory_stats=gpu.reset_peak_memory_stats,
        memory_allocated=lambda: gpu.allocated,
        max_memory_allocated=lambda: gpu.most,
    )
    monkeypatch.setattr(torch, "cuda", fake)
    result, used = measured(gpu.work, "cuda:1")
    assert result == "done"
    assert not gpu.waited
    assert used() == Used(0.25, {"peak_memory_mb": 30.0})
    assert gpu.waited
