"""How long the fits of an evaluation will take, once the first has been timed."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

_LOG = logging.getLogger("clipsyn")
_SHORT = 10.0  # seconds; shorter waits need no estimate


class Estimate:
    """Says once, after the first task that fits something new, how long the others will take.

    fits: whether each task fits anything, in the order in which they finish. Tasks with more images
    or classes than the first take longer, so the line says how long the first took.
    """

    def __init__(self, fits: Iterable[bool], workers: int) -> None:
        self._left = list(fits)
        self._workers = workers
        self._start = time.monotonic()
        self._is_new = self._has_said = False

    def count(self, *, new: bool, finished: bool) -> None:
        """Told after each batch. new: it has new rows; finished: it was the last of its task."""
        self._is_new |= new
        if not finished:
            return
        fits, now = self._left.pop(0), time.monotonic()
        seconds, rest = now - self._start, sum(self._left) / self._workers
        if fits and self._is_new and not self._has_said:
            self._has_said = True
            if seconds * rest > _SHORT:
                left = f"{sum(self._left)} more like it take about {duration(seconds * rest)}"
                _LOG.info(f"the first fits took {duration(seconds)}: {left}")
        if self._workers == 1:  # side by side, the first tasks of all workers start together
            self._start = now
        self._is_new = False


def duration(seconds: float) -> str:
    """Seconds as text of about two digits: "45 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
