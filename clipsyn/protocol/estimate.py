"""How long an evaluation will take: said before it starts, and corrected by what fits really took.

Each head and ensemble says how many operations a fit takes on a support of a given shape, and how
many it takes on a target (`Estimator.fit_work`, `Estimator.use_work`). Two measurements of a
twentieth of a second say how long operations take on this machine.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from clipsyn.ensembles import ENSEMBLES
from clipsyn.estimator import Shape, Work, from_text
from clipsyn.heads import HEADS
from clipsyn.numerics.blocks import in_blocks
from clipsyn.protocol.plan import Shapes, Task
from clipsyn.registry import Registry
from clipsyn.show.tables import show

_SHORT = 10.0  # seconds; shorter waits need no estimate
_MEASURED = 0.05  # seconds that a rate is measured for
_SMALL = 0.01  # share of the time below which a method has no line of its own
_OTHERS = "others"
_PRIOR = 0.1  # weight of what is expected against what was measured


class Rates(NamedTuple):
    """Seconds that operations take on this machine; see `Work`."""

    product: float
    value: float

    def seconds(self, work: Work) -> float:
        return self.product * work.products + self.value * work.values + work.seconds


def measured_rates() -> Rates:
    """Time a matrix product and a pass over memory, on the cores that fits have too."""
    factors = np.random.default_rng(0).random((2, 768, 768), np.float32)
    product = _seconds(lambda: np.matmul(factors[0], factors[1])) / 768**3
    values, out = np.random.default_rng(0).random((2, 4096, 1024), np.float32)

    def block(rows: slice) -> None:
        np.exp(values[rows], out=out[rows])

    return Rates(product, _seconds(lambda: in_blocks(block, values.shape)) / values.size)


def _seconds(work: Callable[[], object]) -> float:
    """The shortest of several times, since nothing makes a computation faster than it is."""
    work()
    taken: list[float] = []
    end = time.perf_counter() + _MEASURED
    while not taken or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


class Cost(NamedTuple):
    """Seconds that a head or a fit takes; None where the first one has to tell."""

    fit: float | None
    rest: float | None  # targets are read, transformed, combined and measured

    @property
    def all(self) -> float | None:
        return None if self.fit is None or self.rest is None else self.fit + self.rest


class Costs:
    """What the fits of one comparison take on this machine."""

    def __init__(self, shapes: Shapes, rates: Rates) -> None:
        self._shapes = shapes
        self._rates = rates

    def of_head(self, task: Task) -> Cost:
        drawn = self._drawn(task)
        work = _estimator(HEADS, task.head).fit_work(drawn)
        return Cost(self._seconds([work, _read(drawn)]), 0.0)

    def of_fit(self, task: Task, number: int) -> Cost:
        """Of a task's fits the first makes the head transform the targets."""
        fit, head, drawn = task.fits[number], _estimator(HEADS, task.head), self._drawn(task)
        if fit.ensemble is None and len(task.rows) and not head.learns:
            return Cost(0.0, self._seconds([_GAIN] * len(fit.results)))
        ensembles = [_estimator(ENSEMBLES, name) for name in fit.ensembles()]
        rest: list[Work | None] = []
        for target in fit.targets():
            shape = self._shapes.targets[target]
            rest += [_read(shape)] if ensembles or number == 0 else []
            rest += [head.use_work(shape, drawn), _singles(shape)] if number == 0 else []
            for ensemble in ensembles:
                rest += [ensemble.use_work(shape, drawn), _measured(shape)]
        works = [ensemble.fit_work(drawn) for ensemble in ensembles]
        return Cost(self._seconds(works), self._seconds(rest))

    def _drawn(self, task: Task) -> Shape:
        return self._shapes.support._replace(samples=len(task.rows))

    def _seconds(self, works: Iterable[Work | None]) -> float | None:
        total = 0.0
        for work in works:
            if work is None:
                return None
            total += self._rates.seconds(work)
        return total


_GAIN = Work(seconds=0.002)  # of what learns nothing, over another backbone


def _read(shape: Shape) -> Work:
    return Work(values=18 * (shape.logits + shape.samples * shape.width / 2), seconds=0.003)


def _measured(shape: Shape) -> Work:
    """One method is judged, and has its intervals."""
    return Work(80_000 * shape.samples, 16 * shape.samples * shape.classes, 0.006)


def _singles(shape: Shape) -> Work:
    """The resamples are drawn, and the backbones and their oracle measured."""
    return Work(*(1.5 * shape.backbones * part for part in _measured(shape)))


@cache
def _estimator(registry: Registry, text: str) -> Any:
    return from_text(registry, text)


class Kind(NamedTuple):
    """What corrects the expectations of each other: fits of one ensemble on one head.

    Without an ensemble, all that a head needs: it is fitted, and the backbones are measured.
    """

    head: str
    ensemble: str | None


class Estimate:
    """How long the fits that are left will take: as expected, times what others really took."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._fits: Counter[Kind] = Counter()  # that are left
        self._left: defaultdict[Kind, float] = defaultdict(float)  # seconds expected of them
        self._unknown: set[Kind] = set()
        self._done: Counter[Kind] = Counter()
        self._expected: defaultdict[Kind, float] = defaultdict(
            float
        )  # seconds of those that are done
        self._taken: defaultdict[Kind, float] = defaultdict(float)

    def add(self, kind: Kind, cost: Cost, fits: int) -> None:
        self._fits[kind] += fits
        if cost.all is None:
            self._unknown.add(kind)
        else:
            self._left[kind] += cost.all

    def done(self, kind: Kind, cost: Cost, fits: int, seconds: float | None) -> None:
        """seconds: None where there was nothing to do after all."""
        self._fits[kind] -= fits
        self._left[kind] -= cost.all or 0.0
        if seconds is not None:
            self._done[kind] += fits
            self._expected[kind] += cost.all or 0.0
            self._taken[kind] += seconds

    @property
    def left(self) -> float:
        """Seconds."""
        usual = _ratio(
            sum(self._taken.values()), sum(self._expected.values()), sum(self._left.values()), 1.0
        )
        return sum(self._seconds(kind, usual) for kind in self._fits) / self._workers

    def _seconds(self, kind: Kind, usual: float) -> float:
        if kind in self._unknown:
            return self._fits[kind] * self._taken[kind] / max(1, self._done[kind])
        left = max(0.0, self._left[kind])
        return left * _ratio(self._taken[kind], self._expected[kind], left, usual)

    def table(self) -> str:
        """A line a method: fits, seconds of each, and in all; nothing where it is soon over."""
        left = self.left
        if left < _SHORT:
            return ""
        fits: Counter[str] = Counter()
        seconds: defaultdict[str, float] = defaultdict(float)
        for kind, count in self._fits.items():
            name = kind.ensemble or f"{kind.head} (head)"
            large = kind in self._unknown or self._left[kind] >= _SMALL * left * self._workers
            fits[name if large else _OTHERS] += count
            seconds[name if large else _OTHERS] += self._left[kind]
        unknown = {kind.ensemble or f"{kind.head} (head)" for kind in self._unknown}
        order = sorted(fits, key=lambda name: (name == _OTHERS, name in unknown, -seconds[name]))
        rows = []
        for name in order:
            each, total = "its first fit will tell", ""
            if name not in unknown:
                each = duration(seconds[name] / max(1, fits[name]))
                total = duration(seconds[name])
            rows.append({"method": name, "fits": fits[name], "each": each, "in all": total})
        workers = f" by {self._workers} workers" if self._workers > 1 else ""
        title = f"{self._fits.total():,} fits{workers}, in about {duration(left)}"
        return show(rows, title=title, right=["each", "in all"], terminal=False)


def _ratio(taken: float, expected: float, left: float, usual: float) -> float:
    """What fits took, over what was expected: of little weight where much more is left."""
    weight = _PRIOR * left
    return (taken + weight * usual) / (expected + weight) if expected + weight else usual


def duration(seconds: float) -> str:
    """Seconds as text of about two digits: "45 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
