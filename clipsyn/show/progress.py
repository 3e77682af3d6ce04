"""Progress of long work: bars with rate and time left on a terminal, log lines elsewhere."""

from __future__ import annotations

import itertools
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from clipsyn.text import cut, printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_LOG = logging.getLogger("clipsyn")
_LOG_EVERY = 10.0  # seconds
_BAR, _NAME = 24, 12  # characters: of a bar, of a name at least
_NORMAL, _WIDE = 80, 120  # columns of a terminal with room for rates, and for long bars


class Progress(Protocol):
    """Several counters that advance side by side."""

    def add(self, name: str, total: int, done: int = 0, *, unit: str | None = None) -> int:
        """A new counter, of the unit of all unless it has its own; returns its number."""

    def advance(self, counter: int, amount: int) -> None:
        """Count."""

    def finish(self, counter: int) -> None:
        """End a counter, however far it counted; later calls for it do nothing."""


@contextmanager
def progress(unit: str = "images") -> Iterator[Progress]:
    """Bars if standard error is a terminal, else a log line every ten seconds; both at INFO."""
    if not sys.stderr.isatty() or not _LOG.isEnabledFor(logging.INFO):
        yield _Lines(unit)
        return
    with _rich_bars(unit) as bars:
        yield _Bars(bars, unit)


def _rich_bars(unit: str) -> RichProgress:
    """Bars of one line each: a narrow terminal cuts names, a narrower one has no rates."""
    from rich import progress as rich
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    bar = _BAR if console.width >= _WIDE else _BAR // 2
    rate = len(f"99,999 {unit}/s ") if console.width >= _NORMAL else 0
    beside = bar + rate + len("  0:00:00  ")

    class Name(rich.ProgressColumn):
        def render(self, task: rich.Task) -> Text:
            counts = 2 * len(f"{task.total:.0f}/")
            return Text(cut(task.description, max(_NAME, console.width - beside - counts)))

    class Rate(rich.ProgressColumn):
        def render(self, task: rich.Task) -> Text:
            unit = task.fields["unit"]
            return Text(f"{task.speed:,.0f} {unit}/s" if task.speed else "", style="cyan")

    return rich.Progress(
        Name(),
        rich.BarColumn(bar_width=bar),
        rich.MofNCompleteColumn(),
        *([Rate()] if rate else []),
        rich.TimeRemainingColumn(),
        console=console,
        transient=True,
    )


class _Bars:
    def __init__(self, bars: RichProgress, unit: str) -> None:
        self._bars = bars
        self._unit = unit
        self._tasks: list[TaskID] = []

    def add(self, name: str, total: int, done: int = 0, *, unit: str | None = None) -> int:
        unit = unit or self._unit
        task = self._bars.add_task(printable(name), total=total, completed=done, unit=unit)
        self._tasks.append(task)
        return len(self._tasks) - 1

    def advance(self, counter: int, amount: int) -> None:
        with suppress(KeyError):  # finished, perhaps by another thread just now
            self._bars.update(self._tasks[counter], advance=amount)

    def finish(self, counter: int) -> None:
        with suppress(KeyError):
            self._bars.remove_task(self._tasks[counter])


class _Lines:
    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._running: dict[int, _Counter] = {}
        self._numbers = itertools.count()

    def add(self, name: str, total: int, done: int = 0, *, unit: str | None = None) -> int:
        number = next(self._numbers)
        self._running[number] = _Counter(name, total, done, unit or self._unit)
        return number

    def advance(self, counter: int, amount: int) -> None:
        running = self._running.get(counter)
        if running and (line := running.advance(amount)):
            _LOG.info(line)

    def finish(self, counter: int) -> None:
        if running := self._running.pop(counter, None):
            _LOG.info(running.summary())


class _Counter:
    def __init__(self, name: str, total: int, done: int, unit: str) -> None:
        self.name, self.total, self.done, self.unit = name, total, done, unit
        self._at_start = done
        self._start = self._said = time.monotonic()

    def advance(self, amount: int) -> str | None:
        """Count; returns a line when it is time for one."""
        self.done += amount
        now = time.monotonic()
        if now - self._said < _LOG_EVERY:
            return None
        self._said = now
        counted = f"{self.name}: {self.done:,}/{self.total:,}"
        if self.done == self._at_start:
            return counted
        rate = (self.done - self._at_start) / (now - self._start)
        left = (self.total - self.done) / rate
        return f"{counted}, {rate:,.{0 if rate >= 10 else 1}f} {self.unit}/s, {left:,.0f} s left"

    def summary(self) -> str:
        seconds = time.monotonic() - self._start
        return f"{self.name}: {self.done:,} of {self.total:,} {self.unit} in {seconds:.1f} s"
