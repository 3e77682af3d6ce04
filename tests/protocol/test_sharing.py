"""Jobs of an evaluation, shared by workers that do not know of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from clipsyn.errors import UsageError
from clipsyn.protocol.comparison import Job
from clipsyn.protocol.loop import _comparisons, evaluate
from clipsyn.protocol.settings import ProtocolSettings
from clipsyn.protocol.sharing import _seconds, share
from clipsyn.store.features import FeatureStore

SETTINGS = ProtocolSettings(
    ensembles=("log-avg", "super-learner", "nlc"),
    heads=("zero-shot", "tip-adapter"),
    shots=(1, 2, "full"),
    seeds=2,
)


@pytest.fixture
def work(tiny_store: FeatureStore) -> tuple[list[Job], dict[Any, Any]]:
    comparisons, _ = _comparisons(tiny_store, SETTINGS)
    plans = {one: one.plan() for one in comparisons}
    return [Job(one, task) for one, plan in plans.items() for task in plan.tasks()], plans


def fingerprints(jobs: Sequence[Job]) -> list[str]:
    return [it for job in jobs for it in job.task.fingerprints()]


@pytest.mark.parametrize("workers", [1, 2, 3, 50])
def test_every_job_has_one_worker(work: Any, workers: int) -> None:
    jobs, plans = work
    shared = [share(jobs, plans, (worker, workers)) for worker in range(workers)]
    together = [it for mine in shared for it in fingerprints(mine)]
    assert sorted(together) == sorted(fingerprints(jobs))
    assert len(set(together)) == len(together)


def test_jobs_stay_in_order(work: Any) -> None:
    jobs, plans = work
    places = {id(job): at for at, job in enumerate(jobs)}
    mine = [places[id(job)] for job in share(jobs, plans, (1, 3))]
    assert mine == sorted(mine)


def test_no_worker_has_more_than_its_share_and_one_job(work: Any) -> None:
    """The bound of longest-first division, by hand: the others' mean, and the longest job."""
    from clipsyn.protocol.estimate import Costs, Rates

    jobs, plans = work
    costs = {one: Costs(plan.shapes(), Rates(2e-11, 1e-9)) for one, plan in plans.items()}
    seconds = {id(job): _seconds(costs[job.comparison], job) for job in jobs}
    total, longest = sum(seconds.values()), max(seconds.values())
    for workers in (2, 3, 5):
        for worker in range(workers):
            load = sum(seconds[id(job)] for job in share(jobs, plans, (worker, workers)))
            assert load <= total / workers + longest


def test_a_share_needs_a_file(tiny_store: FeatureStore) -> None:
    with pytest.raises(UsageError, match=r"^shard=… is a share of a file of results: name it by"):
        evaluate(tiny_store, shard="1/2")
    with pytest.raises(UsageError, match=r"^shard=3/2: write I/N"):
        evaluate(tiny_store, shard="3/2", output="r.parquet")
