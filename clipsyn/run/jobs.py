"""Work that several jobs share: tasks as processes of this machine, or as SLURM jobs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsyn.errors import ClusterError, UsageError
from clipsyn.settings import PAIRS, WHOLE, Settings, setting
from clipsyn.show.progress import progress
from clipsyn.text import LOG

if TYPE_CHECKING:
    from polars import DataFrame
    from submitit import Job

    from clipsyn.evaluation import ProtocolSettings
    from clipsyn.extract import ExtractSettings
    from clipsyn.store.features import FeatureStore

MOST_JOBS = 1000  # SLURM's own limit of an array, unless MaxArraySize says otherwise
LOGS = Path("clipsyn-logs")  # in the folder that the command is run in; every node must see it
COMMAND = (sys.executable, "-m", "clipsyn")
# names of --slurm that are no options of sbatch, memory in GB and time in minutes, and the least of
# each: SLURM may send the signal two and a half minutes before the end
_LEAST = {"gpus": 0, "cpus": 1, "memory": 1, "time": 5}
_LOOK = 0.1  # seconds between two looks at processes
_MINUTES = 240  # that a job may run
_REQUEUES = 1000  # times that a job may reach its time limit
_SHORTEST, _LONGEST = 1.0, 15.0  # seconds between two looks at the queue
_LATE = 10.0  # seconds after which the result of a job, written on its node, can be seen here
_ASKED = "JobArrayID:99,State:99,RestartCnt:99,Reason:999"
_LOST = "cancelled, killed or out of memory: SLURM ended it"
_RAISED = re.compile(r"^(?:\w+\.)+\w+: (.+)$", re.M)
_STATUS = re.compile(r"exit status (\d+)$")
_NAMES = {it.value: it.name for it in signal.Signals}  # not of all real-time signals


class ExecutorSettings(Settings):
    """Settings of commands whose work can be shared: in this process, if there are no jobs."""

    jobs: int | None = setting(
        None,
        WHOLE,
        "Processes of this machine, or with --slurm jobs of an array, that share the work.",
        metavar="N",
        least=1,
        most=MOST_JOBS,
        instead_of_none="this process alone",
    )
    slurm: dict[str, str] = setting(
        {},
        PAIRS,
        "Of each SLURM job: gpus, cpus, memory in GB, and time in minutes (240), after which it is "
        "queued again and goes on; else an option of sbatch, such as partition=gpu. Repeated or "
        "with commas.",
        metavar="NAME=VALUE",
        about="jobs",
    )

    def _check(self) -> None:
        for name in _LEAST:
            self.of_a_job(name)

    def of_a_job(self, name: str) -> int | None:
        """What `slurm` says of gpus, cpus, memory or time; None if it does not."""
        text = self.slurm.get(name)
        if text is None:
            return None
        if not text.isdecimal() or len(text) > 9 or int(text) < _LEAST[name]:
            raise UsageError(
                f"slurm=… {name} is a whole number of at least {_LEAST[name]}, not {text:.80}"
            )
        return int(text)


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
Jobs = Callable[[Path, Settings, float], None]  # does what settings ask for, by so many at most


def extracted(
    store: Path, settings: ExtractSettings, jobs: Jobs | None, on_note: Callable[[str], None]
) -> tuple[bool, str]:
    """Extract, by jobs or in this process; whether something was to do, and what was."""
    from clipsyn.extract.work import load_job, run_job

    if jobs:
        return _extracted_by(jobs, store, settings)
    with progress() as counters:
        work = load_job(store, settings, counters)
    for note in work.notes:
        on_note(note)
    if not work.is_needed:
        return False, work.summary()
    LOG.info(work.summary())
    needed = [cell.is_needed for cell in work.cells]
    with progress() as counters:
        run_job(work, counters)
    made = f"{sum(needed):,} of {len(needed):,} cells made"
    return True, made if any(needed) else "labels or class names corrected"


def _extracted_by(jobs: Jobs, store: Path, settings: ExtractSettings) -> tuple[bool, str]:
    from clipsyn.extract.plan import count_parts
    from clipsyn.store.drafts import new_folder

    if not (parts := count_parts(store, settings)):
        return False, "all cells are there by name; only without jobs images are read and compared"
    store.mkdir(parents=True, exist_ok=True)
    new_folder(store).rmdir()  # raises where nobody could write what the jobs make
    jobs(store, settings, parts)
    return True, "by jobs"


def evaluated(
    store: FeatureStore, settings: ProtocolSettings, jobs: Jobs | None = None
) -> DataFrame:
    """The results of an evaluation, by jobs or by this process."""
    from clipsyn.evaluation.loop import count_left, evaluate, gather
    from clipsyn.show.files import check_place

    if jobs:
        if left := count_left(store, settings):
            for file in (settings.output, settings.predictions_file):
                if file and file.is_dir():  # a folder of results, to which jobs add
                    check_place(file / "part")
            jobs(store.path, settings, left)
        return gather(store, settings)
    with progress("fits") as counters:
        return evaluate(store, progress=counters, **vars(settings))


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
    env = os.environ | _gpu(task) | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*COMMAND, *task.words], stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env
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


# As an array of SLURM jobs, through submitit. SLURM starts, queues again and cancels them. Whether
# a job is in the queue is asked of ``squeue``: submitit asks ``sacct``, and where a cluster keeps
# no accounts a job that was killed would never end.


def submit(
    tasks: Sequence[Task],
    call: Callable[[Task], Callable[[], None]],
    settings: ExecutorSettings,
    folder: Path,
) -> dict[str, tuple[Job[Any], Ended]]:
    """Put the tasks into the queue; raises ClusterError where SLURM does not take them.

    Returns each job with what will be said of it, by number. call: makes what a node calls, which
    raises if the task fails.
    """
    if shutil.which("sbatch") is None:
        raise ClusterError("there is no sbatch here: run this where SLURM is, or leave slurm=… out")
    import submitit

    executor = submitit.SlurmExecutor(folder, max_num_timeout=_REQUEUES)
    executor.update_parameters(**_parameters(tasks, settings))
    try:
        with executor.batch():
            jobs = [executor.submit(call(task)) for task in tasks]
    except submitit.core.utils.FailedJobError as error:
        said = str(error).strip().splitlines()
        raise ClusterError(f"SLURM did not take the jobs: {said[-1] if said else error}") from error
    pairs = zip(jobs, tasks, strict=True)
    return {job.job_id: (job, Ended(task, Path(job.paths.stdout))) for job, task in pairs}


def _parameters(tasks: Sequence[Task], settings: ExecutorSettings) -> dict[str, Any]:
    """What submitit is told; options of the user's own come last, so that they count."""
    own = {name: text for name, text in settings.slurm.items() if name not in _LEAST}
    memory = settings.of_a_job("memory")
    asked = {
        "job_name": f"clipsyn-{tasks[0].words[0]}",
        "time": settings.of_a_job("time") or _MINUTES,
        "cpus_per_task": settings.of_a_job("cpus"),
        "gpus_per_node": settings.of_a_job("gpus") or None,
        "mem": f"{memory}G" if memory else None,
        "array_parallelism": len(tasks),
    }
    fixed = {
        "wckey": None,
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True, **own},
    }
    return {name: value for name, value in asked.items() if value is not None} | fixed


def wait(submitted: Mapping[str, tuple[Job[Any], Ended]], on_end: OnTaskEnd) -> None:
    """Return when all jobs have ended, however often SLURM queues one again meanwhile."""
    running = dict(submitted)
    gone: dict[str, float] = {}  # since when a job without a result is not in the queue
    pause, told = _SHORTEST, ""
    while running:
        queued = queued_of(running)
        if queued and told != (told := in_words(queued)):
            LOG.info(f"SLURM: {told}")
        now = time.monotonic()
        for name, (job, it) in list(running.items()):
            ended = _result(job, it)
            if (ended is None or ended.failure) and (queued is None or name in queued):
                gone.pop(name, None)  # SLURM may start it again
                continue
            if ended is None and now - gone.setdefault(name, now) >= _LATE:
                ended = replace(it, failure=_LOST, status=1)
            if ended:
                del running[name]
                on_end(ended)
        if running:
            time.sleep(pause)
            pause = min(1.2 * pause, _LONGEST)


def _result(job: Job[Any], it: Ended) -> Ended | None:
    """How a task has ended by itself; None if it has not."""
    if not job.paths.result_pickle.exists():
        return None
    error = job.exception()
    if error is None:
        return it
    why: str = ("it raised an error", *_RAISED.findall(str(error)))[-1]
    status = _STATUS.search(why)
    return replace(it, failure=why, status=int(status[1]) if status else 1)


def queued_of(names: Collection[str]) -> dict[str, list[str]] | None:
    """State, times queued again and reason of the jobs in the queue; None without an answer."""
    arrays = ",".join(sorted({name.partition("_")[0] for name in names}))
    command = ["squeue", "--noheader", "--array", "--jobs", arrays, "--Format", _ASKED]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode == 0:
        return {name: rest for name, *rest in map(str.split, asked.stdout.splitlines())}
    return {} if "Invalid job id" in asked.stderr else None


def in_words(queued: Mapping[str, Sequence[str]]) -> str:
    """How many jobs wait, and for what, and how often jobs were queued again."""
    waiting = Counter(why for state, _, why, *_ in queued.values() if state == "PENDING")
    again = sum(int(times) for _, times, *_ in queued.values())
    said = [f"{count} of {len(queued)} wait ({why})" for why, count in waiting.items()]
    return ", ".join(said or ["none waits"]) + (f"; queued again: {again}" if again else "")
