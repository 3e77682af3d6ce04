"""Where work runs, as it is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from clipsyn.errors import UsageError
from clipsyn.run.jobs import ExecutorSettings

ONE = {"on": "slurm", "jobs": 1}


def test_by_default_work_runs_in_this_process() -> None:
    assert ExecutorSettings().is_here
    assert not ExecutorSettings(on="local", jobs=2).is_here


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"jobs": 2}, "jobs=… is for jobs: add on=local or on=slurm"),
        ({"slurm": {"partition": "gpu"}}, "slurm=… is for jobs"),
        ({"on": "slurm"}, "on=slurm needs jobs=…"),
        ({"on": "local"}, "on=local needs jobs=…"),
        ({"on": "local", "jobs": 2, "slurm": {"qos": "x"}}, "slurm=… is for SLURM"),
        ({"on": "local", "jobs": 0}, "jobs=… is a whole number from 1 to 1,000"),
        ({"on": "slurm", "jobs": 1001}, "jobs=… is a whole number from 1 to 1,000"),
        ({**ONE, "slurm": {"memory": "0"}}, "slurm=… memory is a number above 0"),
        ({**ONE, "slurm": {"time": "4"}}, "slurm=… time is a whole number from 5 to 1,000,000"),
        ({**ONE, "slurm": {"cpus": "many"}}, "slurm=… cpus is a whole number, not 'many'"),
        ({**ONE, "slurm": {"detach": "1"}}, "slurm=… detach is true or false, not 1"),
        ({"on": "cloud", "jobs": 1}, "unknown on 'cloud'"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        ExecutorSettings(**given)
    assert said in str(raised.value)


def test_options_of_sbatch_are_what_is_left() -> None:
    settings = ExecutorSettings(**ONE, slurm={"gpus": "1", "qos": "long", "detach": "true"})
    assert (settings.of_a_job("gpus"), settings.of_a_job("detach")) == (1, True)
    assert settings.of_a_job("memory") is None
    assert settings.of_sbatch == {"qos": "long"}
