"""Cost of encoding a batch: how long the device is busy, and the most memory it needs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch

_T = TypeVar("_T")


class Used(NamedTuple):
    seconds: float
    memory: dict[str, float]  # MB by kind; empty where the system does not say


def measured(work: Callable[[], _T], device: torch.device | str) -> tuple[_T, Callable[[], Used]]:
    """The result of work(), and a function that gives its cost, to call when the result is needed.

    A GPU works asynchronously, so the caller's clock would measure only the call. The function
    waits for the GPU, `measured` does not. Kinds of memory:

    - peak_memory_mb, on a GPU: allocated beyond what was there before. It is of one backbone,
      however many are loaded, without its weights.
    - process_memory_mb, elsewhere: the largest resident size of the process so far, with all that
      it holds.
    """
    target = torch.device(device)
    if target.type == "cuda":
        return _on_gpu(work, target)
    begin = time.perf_counter()
    result = work()
    used = Used(time.perf_counter() - begin, _process_memory())
    return result, lambda: used


def _on_gpu(work: Callable[[], _T], device: torch.device) -> tuple[_T, Callable[[], Used]]:
    with torch.cuda.device(device):
        begin: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        begin.record()
        result = work()
        end.record()
        most = torch.cuda.max_memory_allocated()

    def used() -> Used:
        end.synchronize()
        return Used(begin.elapsed_time(end) / 1000, {"peak_memory_mb": (most - before) / 1e6})

    return result, used


def _process_memory() -> dict[str, float]:
    try:
        import resource
    except ImportError:  # Windows
        return {}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"process_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6}
