"""Progress of long work: bars with rate and time left on a terminal, log lines elsewhere."""

from __future__ import annotations

import itertools
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from clipsyn.text import LOG, cut, printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

LOG_EVERY = 10.0  # seconds
_NORMAL = 80  # columns of a terminal with room for rates
_BESIDE = 58, 39  # columns beside a name: with rates, and without


@dataclass
class _Counter:
    name: str
    total: int
    done: int
    unit: str
    before: int
    start: float
    said: float  # when its last line was

    @property
    def rate(self) -> float:
        return (self.done - self.before) / max(time.monotonic() - self.start, 1e-9)

    @property
    def speed(self) -> str:
        return f"{self.rate:,.{0 if self.rate >= 10 else 1}f} {self.unit}/s"


class Progress:
    """Several counters that advance side by side, in threads too. bars: None for log lines."""

    def __init__(self, unit: str, bars: Bars | None) -> None:
        self._unit, self._bars = unit, bars
        self._running: dict[int, _Counter] = {}
        self._numbers = itertools.count()

    def add(self, name: str, total: int, done: int = 0, *, unit: str | None = None) -> int:
        """A new counter, of the unit of all unless it has its own; returns its number."""
        number: int = next(self._numbers)
        if self._bars:
            width = self._bars.console.width
            short = cut(printable(name), width - _BESIDE[width < _NORMAL])
            number = self._bars.add_task(short, total=total, completed=done, speed="")
        now = time.monotonic()
        self._running[number] = _Counter(name, total, done, unit or self._unit, done, now, now)
        return number

    def advance(self, counter: int, amount: int) -> None:
        """Count."""
        if not (of := self._running.get(counter)):
            return  # finished, perhaps by another thread just now
        of.done += amount
        if self._bars:
            with suppress(KeyError):
                task = cast("TaskID", counter)
                self._bars.update(task, advance=amount, speed=of.speed)
        elif time.monotonic() - of.said >= LOG_EVERY:
            of.said = time.monotonic()
            left = f", {of.speed}, {(of.total - of.done) / of.rate:,.0f} s left" if of.rate else ""
            LOG.info(f"{of.name}: {of.done:,}/{of.total:,}{left}")

    def finish(self, counter: int) -> None:
        """End a counter, however far it counted; later calls for it do nothing."""
        if not (of := self._running.pop(counter, None)):
            return
        if self._bars:
            self._bars.remove_task(cast("TaskID", counter))
        else:
            seconds = time.monotonic() - of.start
            LOG.info(f"{of.name}: {of.done:,} of {of.total:,} {of.unit} in {seconds:.1f} s")


@contextmanager
def progress(unit: str = "images") -> Iterator[Progress]:
    """Bars if standard error is a terminal, else a log line every ten seconds; both at INFO."""
    if not sys.stderr.isatty() or not LOG.isEnabledFor(logging.INFO):
        yield Progress(unit, None)
        return
    with _bars() as bars:
        yield Progress(unit, bars)


def _bars() -> Bars:
    """Bars of one line each: a narrow terminal has no rates."""
    from rich import progress as rich
    from rich.console import Console

    console = Console(stderr=True)
    speed = rich.TextColumn("{task.fields[speed]}", style="cyan", markup=False)
    return rich.Progress(
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(bar_width=12),
        rich.MofNCompleteColumn(),
        *([speed] if console.width >= _NORMAL else []),
        rich.TimeRemainingColumn(),
        console=console,
        transient=True,
    )
