"""Work that several jobs share: what is asked for, and tasks as processes of this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clipsyn.errors import ClusterError, UsageError
from clipsyn.names import MOST_WORKERS
from clipsyn.settings import (
    FLAG,
    NUMBER,
    PAIRS,
    PATH,
    TEXT,
    WHOLE,
    Constraint,
    Settings,
    setting,
)

HERE, LOCAL, SLURM = "here", "local", "slurm"
MOST_JOBS = 1000  # SLURM's own limit of an array, unless MaxArraySize says otherwise
COMMAND = (sys.executable, "-m", "clipsyn")
_OF_A_JOB = {  # names of --slurm that are no options of sbatch
    "gpus": Constraint(WHOLE, least=0, most=64),
    "cpus": Constraint(WHOLE, least=1, most=MOST_WORKERS),
    "memory": Constraint(NUMBER, above=0, most=100_000),  # GB
    # minutes, from 5 on: SLURM may send the signal two and a half before the end
    "time": Constraint(WHOLE, least=5, most=1_000_000),
    "detach": Constraint(FLAG),
}
_LOOK = 0.1  # seconds
_NAMES = {it.value: it.name for it in signal.Signals}  # not of all real-time signals


class ExecutorSettings(Settings):
    """Settings of commands whose work can be shared by several jobs."""

    on: str = setting(
        HERE,
        TEXT,
        "Where the work runs: here, in this process; local, in processes of this machine; slurm, "
        "as an array of SLURM jobs.",
        choices=(HERE, LOCAL, SLURM),
    )
    jobs: int | None = setting(
        None,
        WHOLE,
        "Processes or SLURM jobs that share the work.",
        metavar="N",
        least=1,
        most=MOST_JOBS,
        instead_of_none="needed with --on",
    )
    slurm: dict[str, str] = setting(
        {},
        PAIRS,
        "Of each SLURM job: gpus, cpus, memory in GB, and time in minutes (240), after which it is "
        "queued again and goes on; detach=true does not wait for them; else an option of sbatch, "
        "such as partition=gpu. Repeated or with commas.",
        metavar="NAME=VALUE",
    )
    logs: Path = setting(
        Path("clipsyn-logs"),
        PATH,
        "Folder for a log of each job; every node must see it.",
        metavar="DIRECTORY",
    )

    def _check(self) -> None:
        usual = {name: it.default for name, it in self._declared.items()}
        changed = [name for name in usual if getattr(self, name) != usual[name] and name != "on"]
        if self.on == HERE and changed:
            raise UsageError(f"{changed[0]}=… is for jobs: add on=local or on=slurm")
        if self.on == LOCAL and self.slurm:
            raise UsageError("slurm=… is for SLURM: write on=slurm, or leave it out")
        if self.on != HERE and self.jobs is None:
            raise UsageError(f"on={self.on} needs jobs=…: how many share the work")
        for name in self.slurm:
            self.of_a_job(name)

    @property
    def is_here(self) -> bool:
        return self.on == HERE

    def of_a_job(self, name: str) -> Any:
        """What `slurm` says of gpus, cpus, memory, time or detach; None if it does not."""
        text = self.slurm.get(name)
        if text is None or name not in _OF_A_JOB:
            return None
        try:
            value = json.loads(text)  # a number, true or false
        except ValueError:
            value = text
        return _OF_A_JOB[name].accepted(f"slurm=… {name}", value)

    @property
    def of_sbatch(self) -> dict[str, str]:
        """The other options."""
        return {name: text for name, text in self.slurm.items() if name not in _OF_A_JOB}


@dataclass(frozen=True)
class Task:
    """One share of a job: the words after ``clipsyn``."""

    number: int  # from 1
    of: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"task {self.number} of {self.of}"


@dataclass(frozen=True)
class Ended:
    """How a task ended. failure: in words; empty where it did what it was to do."""

    task: Task
    log: Path
    failure: str = ""
    status: int = 0

    def __str__(self) -> str:
        if not self.failure:
            return f"{self.task} is done"
        reason = f": {said}" if (said := self.reason()) else ""
        return f"{self.task} failed ({self.failure}), {self.log}{reason}"

    def reason(self) -> str:
        """The last error in the log, or its last line that is more than an exit status."""
        try:
            lines = self.log.read_text("utf-8", "replace").splitlines()
        except OSError:
            return ""
        told = [line.strip() for line in lines if line.strip() and "Exited with exit" not in line]
        errors = [line for line in told if line.startswith("Error: ")]
        return (errors or told or [""])[-1].removeprefix("Error: ")


OnTaskEnd = Callable[[Ended], None]


def shares(words: Sequence[str], count: int) -> list[Task]:
    """The tasks that together do what one command with these words does."""
    return [
        Task(number, count, (*words, f"--shard={number}/{count}")) for number in range(1, count + 1)
    ]


def check_all(ended: Sequence[Ended]) -> None:
    """Raise ClusterError, which names them, if tasks have failed."""
    failed = sorted((one for one in ended if one.failure), key=lambda one: one.task.number)
    if not failed:
        return
    statuses = {one.status for one in failed}
    names = ", ".join(str(one.task.number) for one in failed)
    raise ClusterError(
        f"{len(failed)} of {failed[0].task.of} tasks failed: {names} (see above; their logs are "
        f"in {failed[0].log.parent}); what all of them have finished is kept, and the same command "
        "makes the rest",
        statuses.pop() if len(statuses) == 1 else None,
    )


def run_local(tasks: Sequence[Task], folder: Path, on_end: OnTaskEnd) -> None:
    """Run all tasks at once, each with its own cores; returns when all have ended.

    folder: of their logs. Where this is interrupted, all tasks are, and end as they do after
    SIGTERM.
    """
    folder.mkdir(parents=True, exist_ok=True)
    running: dict[subprocess.Popen[bytes], Ended] = {}
    try:
        for task in tasks:
            log = folder / f"task-{task.number}.log"
            running[_started(task, log)] = Ended(task, log)
        while running:
            time.sleep(_LOOK)
            for process in [it for it in running if it.poll() is not None]:
                on_end(_ended(running.pop(process), process.returncode))
    finally:  # none of them outlives an error
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def _started(task: Task, log: Path) -> subprocess.Popen[bytes]:
    # the clipsyn that runs here, wherever it was imported from
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]
    environment = os.environ | _gpu(task) | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*COMMAND, *task.words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
        )
    if hasattr(os, "sched_setaffinity"):  # before Python has started any thread
        os.sched_setaffinity(process.pid, cores_of(task))
    return process


def cores_of(task: Task) -> list[int]:
    """The cores of a task: an equal share, of its own where there are enough."""
    from clipsyn.methods.numerics.blocks import usable_cores  # numpy is nothing for --help

    every = sorted(os.sched_getaffinity(0))
    count = min(max(1, usable_cores() // task.of), len(every))
    first = (task.number - 1) * count
    return [every[(first + nth) % len(every)] for nth in range(count)]


def _gpu(task: Task) -> dict[str, str]:
    """Which of the GPUs that this process sees a task sees: one, the next in turn."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = [str(nth) for nth, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]
    seen = there if visible is None else [it for it in visible.split(",") if it]
    return {"CUDA_VISIBLE_DEVICES": seen[(task.number - 1) % len(seen)]} if seen else {}


def _ended(it: Ended, code: int) -> Ended:
    if code < 0:
        name = _NAMES.get(-code, f"signal {-code}")
        return replace(it, failure=f"killed by {name}", status=1)
    return replace(it, failure=f"exit status {code}" if code else "", status=code)
