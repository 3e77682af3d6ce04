"""Tasks, and what is said of them when they have ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipsyn.errors import ClusterError
from clipsyn.run.jobs import Ended, Task, check_all, describe, shares


def ended(number: int, log: Path, failure: str = "", status: int = 0) -> Ended:
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
        (
            "a\nsrun: error: node7: task 0: Out Of Memory\n",
            "srun: error: node7: task 0: Out Of Memory",
        ),
        ("", ""),
        ("x" * 100_000 + "\nError: late\n", "late"),
        ("\x1b[2Jb\xff\n", "\x1b[2Jb\xff"),
    ],
)
def test_the_reason_is_the_last_error_in_the_log(text: str, reason: str, tmp_path: Path) -> None:
    log = tmp_path / "task.log"
    log.write_text(text, "utf-8")
    assert ended(1, log, "exit status 1", 1).reason() == reason


def test_a_log_that_never_was_gives_no_reason(tmp_path: Path) -> None:
    said = describe(ended(3, tmp_path / "none.log", "killed by SIGKILL", 1))
    assert said == f"task 3 of 4 failed (killed by SIGKILL), {tmp_path / 'none.log'}"


def test_no_control_character_of_a_log_reaches_the_terminal(tmp_path: Path) -> None:
    log = tmp_path / "task.log"
    log.write_text("Error: \x1b[2Jgone\n")
    assert "\x1b" not in describe(ended(1, log, "exit status 3", 3))


def test_all_done_is_no_error(tmp_path: Path) -> None:
    check_all([ended(1, tmp_path), ended(2, tmp_path)])
    assert describe(ended(1, tmp_path)) == "task 1 of 4 is done"


@pytest.mark.parametrize(("statuses", "code"), [([3, 3], 3), ([3, 4], 1), ([1, 1], 1)])
def test_failed_tasks_are_named_in_order(statuses: list[int], code: int, tmp_path: Path) -> None:
    late, early = (
        ended(number, tmp_path / "logs" / "x.log", f"exit status {status}", status)
        for number, status in zip((4, 2), statuses, strict=True)
    )
    with pytest.raises(ClusterError, match=r"^2 of 4 tasks failed: 2, 4 \(see above") as raised:
        check_all([late, ended(1, tmp_path), early])
    assert raised.value.exit_code == code
    assert str(tmp_path / "logs") in str(raised.value)
