"""Tasks as an array of SLURM jobs, through submitit.

SLURM starts, queues again and cancels them; nothing here does. Whether a job is in the queue is
asked of ``squeue``: submitit asks ``sacct``, and where a cluster keeps no accounts a job that was
killed would never end.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsyn.errors import ClusterError
from clipsyn.run.jobs import Ended, ExecutorSettings, OnTaskEnd, Task

if TYPE_CHECKING:
    from submitit import Job

_MINUTES = 240  # that a job may run
_REQUEUES = 1000  # times that a job may reach its time limit
_SHORTEST, _LONGEST = 1.0, 15.0  # seconds between two looks at the queue
_LATE = 10.0  # seconds after which the result of a job, written on its node, can be seen here
_LOST = "cancelled, killed or out of memory: SLURM ended it"
_RAISED = re.compile(r"^(?:\w+\.)+\w+: (.+)$", re.M)
_STATUS = re.compile(r"exit status (\d+)$")


@dataclass(frozen=True)
class Submitted:
    """A task, and the job that SLURM made of it."""

    task: Task
    job: Job[Any]

    @property
    def log(self) -> Path:
        return Path(self.job.paths.stdout)

    def result(self) -> Ended | None:
        """How the task has ended by itself; None if it has not."""
        if not self.job.paths.result_pickle.exists():
            return None
        error = self.job.exception()
        if error is None:
            return Ended(self.task, self.log)
        said = _RAISED.findall(str(error))
        why = said[-1] if said else "it raised an error"
        status = _STATUS.search(why)
        return Ended(self.task, self.log, why, int(status[1]) if status else 1)


def submit(
    tasks: Sequence[Task],
    call: Callable[[Task], Callable[[], None]],
    settings: ExecutorSettings,
    folder: Path,
) -> list[Submitted]:
    """Put the tasks into the queue; raises ClusterError where SLURM does not take them.

    call: makes what a node calls; it raises if the task fails.
    """
    if shutil.which("sbatch") is None:
        raise ClusterError(
            "there is no sbatch here: run this on a machine that submits to SLURM, or write "
            "on=local"
        )
    import submitit

    executor = submitit.SlurmExecutor(folder, max_num_timeout=_REQUEUES)
    executor.update_parameters(**_parameters(tasks, settings))
    try:
        with executor.batch():
            jobs = [executor.submit(call(task)) for task in tasks]
    except submitit.core.utils.FailedJobError as error:
        said = str(error).strip().splitlines()
        raise ClusterError(f"SLURM did not take the jobs: {said[-1] if said else error}") from error
    return [Submitted(task, job) for task, job in zip(tasks, jobs, strict=True)]


def _parameters(tasks: Sequence[Task], settings: ExecutorSettings) -> dict[str, Any]:
    """What submitit is told; options of the user's own come last, so that they count."""
    more = {"requeue": True, **settings.of_sbatch}
    memory = settings.of_a_job("memory")
    asked = {
        "job_name": f"clipsyn-{tasks[0].words[0]}",
        "time": settings.of_a_job("time") or _MINUTES,
        "cpus_per_task": settings.of_a_job("cpus"),
        "gpus_per_node": settings.of_a_job("gpus") or None,
        "mem": f"{round(1024 * memory)}M" if memory else None,
        "array_parallelism": len(tasks),
    }
    fixed = {"wckey": None, "stderr_to_stdout": True, "additional_parameters": more}
    return {name: value for name, value in asked.items() if value is not None} | fixed


def wait(submitted: Sequence[Submitted], on_end: OnTaskEnd) -> None:
    """Return when all jobs have ended, however often SLURM queues one again meanwhile."""
    running = {one.job.job_id: one for one in submitted}
    gone: dict[str, float] = {}  # since when a job without a result is not in the queue
    pause = _SHORTEST
    while running:
        queued = queued_of(running)
        now = time.monotonic()
        for name, one in list(running.items()):
            ended = one.result()
            if (ended is None or ended.failure) and (queued is None or name in queued):
                gone.pop(name, None)  # SLURM may start it again
                continue
            if ended is None and now - gone.setdefault(name, now) >= _LATE:
                ended = Ended(one.task, one.log, _LOST, 1)
            if ended:
                del running[name]
                on_end(ended)
        if running:
            time.sleep(pause)
            pause = min(1.2 * pause, _LONGEST)


def queued_of(names: Collection[str]) -> set[str] | None:
    """Which of the jobs are waiting or running; None where SLURM does not answer now."""
    arrays = ",".join(sorted({name.partition("_")[0] for name in names}))
    command = ["squeue", "--noheader", "--array", "--jobs", arrays, "--format", "%i"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode == 0:
        return set(asked.stdout.split())
    return set() if "Invalid job id" in asked.stderr else None
