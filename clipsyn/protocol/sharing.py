"""The jobs of an evaluation, shared by several workers that do not know of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clipsyn.protocol.comparison import Comparison, Job
from clipsyn.protocol.estimate import Costs, Rates
from clipsyn.protocol.plan import FewShotPlan
from clipsyn.shards import WHOLE, Shard

_NOMINAL = Rates(2e-11, 1e-9)  # of no machine in particular: all workers must divide alike
_UNKNOWN = 1.0  # second, of a fit whose length is not known before


def share(jobs: Sequence[Job], plans: Mapping[Comparison, FewShotPlan], shard: Shard) -> list[Job]:
    """One worker's jobs, in their order: the same for every worker, whatever is done already.

    The longest job goes to whoever has the least so far, and so on, by what they are expected to
    take.
    """
    if shard == WHOLE:
        return list(jobs)
    costs = {one: Costs(plan.shapes(), _NOMINAL) for one, plan in plans.items()}
    seconds = [_seconds(costs[job.comparison], job) for job in jobs]
    longest = sorted(range(len(jobs)), key=lambda at: -seconds[at])
    loads = [0.0] * shard[1]
    mine = []
    for at in longest:
        worker = loads.index(min(loads))
        loads[worker] += seconds[at]
        if worker == shard[0]:
            mine.append(at)
    return [jobs[at] for at in sorted(mine)]


def _seconds(costs: Costs, job: Job) -> float:
    parts = [costs.of_head(job.task)]
    parts += [costs.of_fit(job.task, number) for number in range(len(job.task.fits))]
    return sum(_UNKNOWN if part.all is None else part.all for part in parts)
