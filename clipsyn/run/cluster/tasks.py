"""Tasks: commands that share one job, each with a log, and how they ended."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipsyn.errors import ClusterError
from clipsyn.text import printable

_STATUS_ALONE = re.compile(r"^srun: .*Exited with exit code \d+$")
_READ = 64 << 10  # bytes at the end of a log in which its last words are looked for


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

    def reason(self) -> str:
        """The last error in the log, or its last line that is more than an exit status."""
        last = ""
        for line in _last_lines(self.log):
            if line.startswith("Error: "):
                return line.removeprefix("Error: ")
            if not _STATUS_ALONE.search(line):
                last = last or line
        return last


Told = Callable[[Ended], None]  # is told of each task that has ended


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


def describe(ended: Ended) -> str:
    """One line about a task that has ended."""
    if not ended.failure:
        return f"{ended.task} is done"
    said = f": {reason}" if (reason := ended.reason()) else ""
    return printable(f"{ended.task} failed ({ended.failure}), {ended.log}{said}")


def _last_lines(log: Path) -> Sequence[str]:
    """The lines at the end of a log that say something, the last first."""
    lines: deque[str] = deque()
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _READ))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return lines
    lines.extendleft(line.strip() for line in text.splitlines() if line.strip())
    return lines
