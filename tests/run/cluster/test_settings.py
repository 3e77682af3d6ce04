"""Where work runs, as it is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from clipsyn.errors import UsageError
from clipsyn.run.cluster.settings import ExecutorSettings


def test_by_default_work_runs_in_this_process() -> None:
    assert ExecutorSettings().is_here
    assert not ExecutorSettings(on="local", jobs=2).is_here


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"jobs": 2}, "jobs=… is for jobs: add on=local or on=slurm"),
        ({"partition": "gpu"}, "partition=… is for jobs"),
        ({"on": "slurm"}, "on=slurm needs jobs=…"),
        ({"on": "local"}, "on=local needs jobs=…"),
        ({"on": "local", "jobs": 2, "time": 5}, "time=… is for SLURM"),
        ({"on": "local", "jobs": 2, "detach": True}, "detach=… is for SLURM"),
        ({"on": "local", "jobs": 2, "slurm": {"qos": "x"}}, "slurm=… is for SLURM"),
        ({"on": "local", "jobs": 0}, "jobs=… is a whole number from 1 to 1,000"),
        ({"on": "slurm", "jobs": 1001}, "jobs=… is a whole number from 1 to 1,000"),
        ({"on": "slurm", "jobs": 1, "memory_per_job": 0}, "memory_per_job=… is a number above 0"),
        ({"on": "slurm", "jobs": 1, "time": 4}, "time=… is a whole number from 5 to 1,000,000"),
        ({"on": "cloud", "jobs": 1}, "unknown on 'cloud'"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        ExecutorSettings(**given)
    assert said in str(raised.value)
