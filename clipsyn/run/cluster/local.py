"""Tasks as processes of this machine, side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clipsyn.methods.numerics.blocks import usable_cores
from clipsyn.run.cluster.settings import ExecutorSettings
from clipsyn.run.cluster.tasks import Ended, Task, Told

COMMAND = (sys.executable, "-m", "clipsyn")
_LOOK = 0.1  # seconds
_NAMES = {it.value: it.name for it in signal.Signals}  # not of all real-time signals


def run(
    tasks: Sequence[Task],
    settings: ExecutorSettings,
    folder: Path,
    told: Told,
    look: Callable[[], None],
) -> None:
    """Run all tasks at once, each with its own cores; returns when all have ended.

    told: is told of each that has ended. look: called again and again meanwhile. Where this is
    interrupted, all tasks are, and end as they do after SIGTERM.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _processes() as running:
        for task in tasks:
            log = folder / f"task-{task.number}.log"
            running[_started(task, settings, log)] = Ended(task, log)
        while running:
            time.sleep(_LOOK)
            look()
            for process in [it for it in running if it.poll() is not None]:
                told(_ended(running.pop(process), process.returncode))


@contextmanager
def _processes() -> Iterator[dict[subprocess.Popen[bytes], Ended]]:
    """Those that run; none of them outlives an error."""
    running: dict[subprocess.Popen[bytes], Ended] = {}
    try:
        yield running
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def _started(task: Task, settings: ExecutorSettings, log: Path) -> subprocess.Popen[bytes]:
    command = [*COMMAND, *task.words]
    environment = os.environ | _gpus(task, settings.gpus_per_job) | _same_code()
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment
        )
    if hasattr(os, "sched_setaffinity"):  # before Python has started any thread
        os.sched_setaffinity(process.pid, cores_of(task, settings.cpus_per_job))
    return process


def cores_of(task: Task, count: int | None) -> list[int]:
    """The cores of a task: of its own, where there are enough."""
    every = sorted(os.sched_getaffinity(0))
    count = min(count or max(1, usable_cores() // task.of), len(every))
    first = (task.number - 1) * count
    return [every[(first + nth) % len(every)] for nth in range(count)]


def _gpus(task: Task, count: int) -> dict[str, str]:
    """Which GPUs a task sees, of those that this process sees."""
    if not count:
        return {}
    wanted = range((task.number - 1) * count, task.number * count)
    visible = [it for it in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if it]
    seen = [visible[nth % len(visible)] if visible else str(nth) for nth in wanted]
    return {"CUDA_VISIBLE_DEVICES": ",".join(seen)}


def _same_code() -> dict[str, str]:
    """The clipsyn that runs here, wherever it was imported from."""
    root = str(Path(__file__).parents[2])
    return {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}


def _ended(it: Ended, code: int) -> Ended:
    if code < 0:
        return Ended(it.task, it.log, f"killed by {_NAMES.get(-code, f'signal {-code}')}", 1)
    return Ended(it.task, it.log, f"exit status {code}" if code else "", code)
