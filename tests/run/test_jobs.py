"""Tasks as processes of this machine."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipsyn.run import jobs as jobs_module
from clipsyn.run.jobs import Ended, Task, cores_of, run_local, shares

CODE = """
import os, signal, sys, time
from pathlib import Path
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

    def start(word: str, jobs: int = 3, look: Callable[[], None] = lambda: None):
        told: list[Ended] = []
        monkeypatch.setattr(jobs_module, "COMMAND", (sys.executable, str(tmp_path / "standin.py")))
        run_local(shares([word], jobs), tmp_path / "logs", told.append, look)
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


def test_what_stops_the_launcher_stops_its_tasks(shared: Any, tmp_path: Path) -> None:
    def stop() -> None:
        if all((tmp_path / f"begun-{number}").exists() for number in (1, 2)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shared("wait", 2, look=stop)
    assert all((tmp_path / f"stopped-{number}").exists() for number in (1, 2))
