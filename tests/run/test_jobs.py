"""Work that several jobs share: where it runs, tasks as processes, and what is said of them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clipsyn.errors import ClusterError, UsageError
from clipsyn.run import jobs as jobs_module
from clipsyn.run.jobs import Ended, ExecutorSettings, Task, check_all, cores_of, run_local, shares

# Where work runs, as it is asked for


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


# Tasks, and what is said of them when they have ended


def ended_of(number: int, log: Path, failure: str = "", status: int = 0) -> Ended:
    return Ended(Task(number, 4, ()), log, failure, status)


def test_each_task_is_the_command_with_its_share() -> None:
    assert [task.words for task in shares(["extract", "s"], 2)] == [
        ("extract", "s", "--shard=1/2"),
        ("extract", "s", "--shard=2/2"),
    ]
    assert [str(task) for task in shares([], 1)] == ["task 1 of 1"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a\nError: no weights: run x\nsubmitit INFO\n", "no weights: run x"),
        ("Error: first\nError: second\n", "second"),
        ("Traceback\n  ...\nKilled\n\n", "Killed"),
        ("no module x\nsrun: error: node7: task 0: Exited with exit code 1\n", "no module x"),
        ("", ""),
        ("\x1b[2Jb\xff\n", "\x1b[2Jb\xff"),
    ],
)
def test_the_reason_is_the_last_error_in_the_log(text: str, reason: str, tmp_path: Path) -> None:
    log = tmp_path / "task.log"
    log.write_text(text, "utf-8")
    assert ended_of(1, log, "exit status 1", 1).reason() == reason


def test_a_log_that_never_was_gives_no_reason(tmp_path: Path) -> None:
    said = str(ended_of(3, tmp_path / "none.log", "killed by SIGKILL", 1))
    assert said == f"task 3 of 4 failed (killed by SIGKILL), {tmp_path / 'none.log'}"


def test_all_done_is_no_error(tmp_path: Path) -> None:
    check_all([ended_of(1, tmp_path), ended_of(2, tmp_path)])
    assert str(ended_of(1, tmp_path)) == "task 1 of 4 is done"


@pytest.mark.parametrize(("statuses", "code"), [([3, 3], 3), ([3, 4], 1), ([1, 1], 1)])
def test_failed_tasks_are_named_in_order(statuses: list[int], code: int, tmp_path: Path) -> None:
    late, early = (
        ended_of(number, tmp_path / "logs" / "x.log", f"exit status {status}", status)
        for number, status in zip((4, 2), statuses, strict=True)
    )
    with pytest.raises(ClusterError, match=r"^2 of 4 tasks failed: 2, 4 \(see above") as raised:
        check_all([late, ended_of(1, tmp_path), early])
    assert raised.value.exit_code == code
    assert str(tmp_path / "logs") in str(raised.value)


# Tasks as processes of this machine


CODE = """
import os, signal, sys, time
from pathlib import Path
from types import SimpleNamespace
what, share = sys.argv[-2], sys.argv[-1].partition("=")[2]
print(share, os.environ.get("CUDA_VISIBLE_DEVICES"), sorted(os.sched_getaffinity(0)), flush=True)
if what.startswith("die") and share.startswith("2/"):
    os.kill(os.getpid(), int(what[3:]))
if what == "wait":
    signal.signal(signal.SIGTERM, lambda *_: (Path(f"stopped-{share[0]}").touch(), sys.exit(130)))
    Path(f"begun-{share[0]}").touch()
    time.sleep(600)
sys.exit(4 if what == "fail" and share.startswith("1/") else 0)
"""


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Ended]]:
    """Run tasks of a stand-in for clipsyn that does what its word says."""
    (tmp_path / "standin.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)

    def start(word: str, jobs: int = 3):
        told: list[Ended] = []
        monkeypatch.setattr(jobs_module, "COMMAND", (sys.executable, str(tmp_path / "standin.py")))
        run_local(shares([word], jobs), tmp_path / "logs", told.append)
        return sorted(told, key=lambda ended: ended.task.number)

    return start


def test_each_task_has_its_share_and_its_log(shared: Any, tmp_path: Path) -> None:
    ended = shared("work")
    assert [one.failure for one in ended] == [""] * 3
    assert [one.log for one in ended] == [tmp_path / "logs" / f"task-{n}.log" for n in (1, 2, 3)]
    assert [one.log.read_text().split()[0] for one in ended] == ["1/3", "2/3", "3/3"]


def test_one_that_fails_or_dies_neither_stops_nor_hides_behind_the_others(shared: Any) -> None:
    assert [(one.failure, one.status) for one in shared("fail")] == [
        ("exit status 4", 4),
        ("", 0),
        ("", 0),
    ]
    assert [one.failure for one in shared("die9")] == ["", "killed by SIGKILL", ""]


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="real-time signals are POSIX's")
def test_a_signal_without_a_name_has_a_number(shared: Any) -> None:
    nameless = signal.SIGRTMIN + 1
    assert shared(f"die{nameless:d}")[1].failure == f"killed by signal {nameless:d}"


def test_tasks_share_the_gpus_that_are_seen(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7")
    seen = [one.log.read_text().split()[:2] for one in shared("gpus", 3)]
    assert seen == [["1/3", "5"], ["2/3", "GPU-7"], ["3/3", "5"]]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are pinned on Linux alone")
def test_tasks_have_cores_of_their_own_while_there_are_enough(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5, 7, 8})

    def cores(jobs: int) -> list[list[int]]:
        return [cores_of(Task(number, jobs, ())) for number in range(1, jobs + 1)]

    assert cores(2) == [[2, 3], [5, 7]]
    assert cores(5) == [[2], [3], [5], [7], [8]]
    assert cores(7) == [[2], [3], [5], [7], [8], [2], [3]]
    assert cores(1) == [[2, 3, 5, 7, 8]]


def test_what_stops_the_launcher_stops_its_tasks(shared, tmp_path, monkeypatch):
    def sleep(_: float) -> None:
        if all((tmp_path / f"begun-{number}").exists() for number in (1, 2)):
            raise KeyboardInterrupt

    monkeypatch.setattr(jobs_module, "time", SimpleNamespace(sleep=sleep))
    with pytest.raises(KeyboardInterrupt):
        shared("wait", 2)
    assert all((tmp_path / f"stopped-{number}").exists() for number in (1, 2))
