"""Where the work of a command runs."""

from __future__ import annotations

from pathlib import Path

from clipsyn.errors import UsageError
from clipsyn.names import MOST_WORKERS
from clipsyn.settings import FLAG, NUMBER, PAIRS, PATH, TEXT, WHOLE, Settings, setting

HERE, LOCAL, SLURM = "here", "local", "slurm"
MOST_JOBS = 1000  # SLURM's own limit of an array, unless MaxArraySize says otherwise
_LEAST_TIME = 5  # minutes: SLURM may send the signal two and a half before the end
_OF_SLURM = ("memory_per_job", "time", "partition", "slurm", "detach")


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
    gpus_per_job: int = setting(
        0, WHOLE, "GPUs of each job; extract uses one.", least=0, most=64, metavar="N"
    )
    cpus_per_job: int | None = setting(
        None,
        WHOLE,
        "Cores of each job.",
        metavar="N",
        least=1,
        most=MOST_WORKERS,
        instead_of_none="an equal share; what SLURM gives",
    )
    memory_per_job: float | None = setting(
        None,
        NUMBER,
        "GB of memory of each SLURM job.",
        metavar="GB",
        above=0,
        most=100_000,
        instead_of_none="what SLURM gives",
    )
    time: int = setting(
        240,
        WHOLE,
        "Minutes a SLURM job may run; one that needs more is queued again and goes on.",
        metavar="MINUTES",
        least=_LEAST_TIME,
        most=1_000_000,
    )
    partition: str | None = setting(
        None, TEXT, "SLURM's partition.", instead_of_none="SLURM's default"
    )
    slurm: dict[str, str] = setting(
        {},
        PAIRS,
        "Another option of sbatch, such as account=lab. Repeated.",
        metavar="NAME=VALUE",
    )
    logs: Path = setting(
        Path("clipsyn-logs"),
        PATH,
        "Folder for a log of each job; every node must see it.",
        metavar="DIRECTORY",
    )
    detach: bool = setting(False, FLAG, "Submit the SLURM jobs and do not wait for them.")

    def _check(self) -> None:
        usual = {name: it.default for name, it in self._declared.items()}
        changed = [name for name in usual if getattr(self, name) != usual[name] and name != "on"]
        if self.on == HERE and changed:
            raise UsageError(f"{changed[0]}=… is for jobs: add on=local or on=slurm")
        if self.on == LOCAL and (lost := [name for name in changed if name in _OF_SLURM]):
            raise UsageError(f"{lost[0]}=… is for SLURM: write on=slurm, or leave it out")
        if self.on != HERE and self.jobs is None:
            raise UsageError(f"on={self.on} needs jobs=…: how many share the work")

    @property
    def is_here(self) -> bool:
        return self.on == HERE
