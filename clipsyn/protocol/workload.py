"""What an evaluation is going to do: how long it takes, and what of it is too long to be done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from clipsyn.protocol.comparison import Comparison, Job
from clipsyn.protocol.estimate import Cost, Costs, Estimate, Kind, Rates, duration, measured_rates
from clipsyn.protocol.plan import FewShotPlan
from clipsyn.protocol.settings import ProtocolSettings
from clipsyn.protocol.study import Batch
from clipsyn.protocol.workers import one_thread


class Part(NamedTuple):
    """A head, or a fit, and what it is expected to take."""

    kind: Kind
    cost: Cost
    fits: int  # 0 for a head


class Workload:
    """The jobs that are left, without the methods of "all" that would take too long.

    plans: of each comparison. settings: as they were given, with "all" where it was said.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        plans: Mapping[Comparison, FewShotPlan],
        settings: ProtocolSettings,
    ) -> None:
        there = dict.fromkeys(job.comparison for job in jobs)
        rates = _rates(settings.workers > 1) if there else Rates(0.0, 0.0)
        self._costs = {one: Costs(plans[one].shapes(), rates) for one in there}
        self._settings = settings
        self.notes: list[str] = []
        dear = {one: self._dear([job for job in jobs if job.comparison == one]) for one in there}
        left = (_without(job, dear[job.comparison]) for job in jobs)
        self.jobs = [job for job in left if job.task.fits]
        self.estimate = Estimate(settings.workers)
        for job in self.jobs:
            for part in self._parts(job):
                self.estimate.add(*part)

    def done(self, job: Job, batch: Batch) -> None:
        """Count what has been done; fits beside their head had nothing to be fitted on."""
        parts = list(self._parts(job))
        if batch.is_head:
            self.estimate.done(*parts[0], batch.seconds)
        for number in batch.fits:
            self.estimate.done(*parts[1 + number], None if batch.is_head else batch.seconds)

    def _parts(self, job: Job) -> Iterator[Part]:
        costs, task = self._costs[job.comparison], job.task
        yield Part(Kind(task.head, None), costs.of_head(task), 0)
        for number, fit in enumerate(task.fits):
            yield Part(Kind(task.head, fit.ensemble), costs.of_fit(task, number), 1)

    def _dear(self, jobs: Sequence[Job]) -> set[str]:
        """Methods of one comparison of which a fit takes longer than the budget, with notes."""
        named = {*self._settings.heads, *self._settings.ensembles}
        longest: dict[str, float] = {}
        for job in jobs:
            for kind, cost, fits in self._parts(job):
                method = kind.ensemble if fits else kind.head
                if method is not None and method not in named and cost.fit is not None:
                    longest[method] = max(cost.fit, longest.get(method, 0.0))
        minutes = self._settings.budget
        dear = {method: one for method, one in longest.items() if one > 60 * minutes}
        for method, seconds in dear.items():
            self.notes.append(
                f"{method} left out of {jobs[0].comparison.cells.dataset}: a fit takes about "
                f"{duration(seconds)}, above budget={minutes:g} minutes; what is asked for by name "
                "is always fitted"
            )
        return set(dear)


def _without(job: Job, methods: set[str]) -> Job:
    fits = () if job.task.head in methods else job.task.fits
    kept = tuple(fit for fit in fits if fit.ensemble not in methods)
    return replace(job, task=replace(job.task, fits=kept))


@cache
def _rates(on_one_thread: bool) -> Rates:
    """Of the threads that a fit has; once in a process, for a machine stays what it is."""
    with one_thread() if on_one_thread else nullcontext():
        return measured_rates()
