"""Work that several jobs share: where it runs, tasks as processes, and what is said of them."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from clipsyn.errors import ClusterError, UsageError
from clipsyn.evaluation import ProtocolSettings
from clipsyn.run import jobs as jobs_module
from clipsyn.run.jobs import (
    Ended,
    ExecutorSettings,
    Task,
    check_all,
    cores_of,
    evaluated,
    run_local,
    shares,
)

# Where work runs, as it is asked for


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"slurm": {"partition": "gpu"}}, "jobs=…"),
        ({"jobs": 0}, "jobs=…"),
        ({"jobs": 1001}, "jobs=…"),
        ({"jobs": 1, "slurm": {"memory": "0"}}, "memory"),
        ({"jobs": 1, "slurm": {"time": "4"}}, "time"),
        ({"jobs": 1, "slurm": {"cpus": "many"}}, "cpus"),
        ({"jobs": 1, "slurm": {"gpus": "9" * 5000}}, "gpus"),
    ],
)
def test_what_does_not_go_together_is_refused(given, name):
    with pytest.raises(UsageError, match=name):
        ExecutorSettings(**given)


def test_options_of_sbatch_are_what_is_left():
    settings = ExecutorSettings(jobs=1, slurm={"gpus": "1", "qos": "long"})
    assert (settings.of_a_job("gpus"), settings.of_a_job("memory")) == (1, None)


def test_results_that_nobody_may_add_to_are_known_before(tiny_store, tmp_path, monkeypatch):
    (results := tmp_path / "r.parquet").mkdir()
    settings = ProtocolSettings(output=results, shots=(1,))
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != results)
    with pytest.raises(UsageError):
        evaluated(tiny_store, settings, lambda *_: pytest.fail("jobs were submitted"))


# Tasks, and what is said of them when they have ended


def ended_of(number, log, failure="", status=0):
    return Ended(Task(number, 4, ()), log, failure, status)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a\nError: no weights: run x\nsubmitit INFO\n", "no weights: run x"),
        ("Traceback\n  ...\nKilled\n\n", "Killed"),
        ("", ""),
        ("\x1b[2Jb\xff\n", "\x1b[2Jb\xff"),
    ],
)
def test_the_reason_is_the_last_error_in_the_log(text, reason, tmp_path):
    log = tmp_path / "task.log"
    log.write_text(text, "utf-8")
    assert ended_of(1, log, "exit status 1", 1).reason() == reason


@pytest.mark.parametrize(("statuses", "code"), [([3, 3], 3), ([3, 4], 1), ([1, 1], 1)])
def test_failed_tasks_are_named_in_order(statuses, code, tmp_path):
    late, early = (
        ended_of(number, tmp_path / "logs" / "x.log", f"exit status {status}", status)
        for number, status in zip((4, 2), statuses, strict=True)
    )
    with pytest.raises(ClusterError, match=r"2 of 4 tasks failed: 2, 4 ") as raised:
        check_all([late, ended_of(1, tmp_path), early])
    assert raised.value.exit_code == code
    check_all([ended_of(1, tmp_path), ended_of(2, tmp_path)])


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
def shared(tmp_path, monkeypatch):
    """Run tasks of a stand-in for clipsyn that does what its word says."""
    (tmp_path / "standin.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)

    def start(word, jobs=3):
        told: list[Ended] = []
        monkeypatch.setattr(jobs_module, "COMMAND", (sys.executable, str(tmp_path / "standin.py")))
        run_local(shares([word], jobs), tmp_path / "logs", told.append)
        return sorted(told, key=lambda ended: ended.task.number)

    return start


def test_each_task_has_its_share_and_its_log(shared, tmp_path):
    ended = shared("work")
    assert [one.failure for one in ended] == [""] * 3
    assert [one.log for one in ended] == [tmp_path / "logs" / f"task-{n}.log" for n in (1, 2, 3)]
    assert [one.log.read_text().split()[0] for one in ended] == ["1/3", "2/3", "3/3"]


def test_one_that_fails_or_dies_neither_stops_nor_hides_behind_the_others(shared):
    assert [(one.failure, one.status) for one in shared("fail")] == [
        ("exit status 4", 4),
        ("", 0),
        ("", 0),
    ]
    assert [one.failure for one in shared("die9")] == ["", "killed by SIGKILL", ""]


def test_tasks_share_the_gpus_that_are_seen(shared, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7")
    seen = [one.log.read_text().split()[:2] for one in shared("gpus", 3)]
    assert seen == [["1/3", "5"], ["2/3", "GPU-7"], ["3/3", "5"]]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are pinned on Linux alone")
def test_tasks_have_cores_of_their_own_while_there_are_enough(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5, 7, 8})

    def cores(jobs):
        return [cores_of(Task(number, jobs, ())) for number in range(1, jobs + 1)]

    assert cores(2) == [[2, 3], [5, 7]]
    assert cores(5) == [[2], [3], [5], [7], [8]]
    assert cores(7) == [[2], [3], [5], [7], [8], [2], [3]]
    assert cores(1) == [[2, 3, 5, 7, 8]]


def test_what_stops_the_launcher_stops_its_tasks(shared, tmp_path, monkeypatch):
    def sleep(_):
        if all((tmp_path / f"begun-{number}").exists() for number in (1, 2)):
            raise KeyboardInterrupt

    monkeypatch.setattr(jobs_module, "time", SimpleNamespace(sleep=sleep))
    with pytest.raises(KeyboardInterrupt):
        shared("wait", 2)
    assert all((tmp_path / f"stopped-{number}").exists() for number in (1, 2))
