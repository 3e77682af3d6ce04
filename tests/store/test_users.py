"""A store that several users of one group share, or that others may only read."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clipsyn.store.inventory import left_over
from tests.kills import problems

GROUP = 20_000
ANN, BEN = ({"uid": uid, "gid": GROUP, "umask": 0o002} for uid in (20_001, 20_002))
EVE = {"uid": 20_003, "gid": 20_003, "umask": 0o022}  # of another group


# As root does them first, all is imported: another user may not be allowed to read the modules.
COMMANDS = """
import json, os, sys
from click.testing import CliRunner
from clipsyn.cli import main
from tests.kills import problems
user, readable, lines = map(json.loads, sys.argv[1:])
for wrong in (["--help"], ["ls"], ["ls", "/nowhere/at/all"]):
    CliRunner().invoke(main, wrong)
for mine, theirs in zip(readable, lines):
    CliRunner().invoke(main, mine)
os.umask(user["umask"])
os.setgroups([])
os.setgid(user["gid"])
os.setuid(user["uid"])
done = [CliRunner().invoke(main, line) for line in lines]
print(json.dumps([(one.exit_code, one.output, repr(one.exception)) for one in done]))
"""


@pytest.fixture
def clipsyn(forker: Any, tmp_path: Path) -> Callable[..., list[tuple[int, str]]]:
    """Function (user, store, *command lines with STORE in them) -> exit codes and output."""

    def run(user: dict[str, int], store: Path, *lines: str) -> list[tuple[int, str]]:
        own = tmp_path / "own"
        if not own.exists():
            assert forker.run("extract", path=own, names=["fake/one", "fake/two"]) == (0, "")
        asked = [
            [line.replace("STORE", str(where)).split() for line in lines] for where in (own, store)
        ]
        words = [json.dumps(value) for value in (user, *asked)]
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS, *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert done.returncode == 0, done.stderr
        answers = json.loads(done.stdout.splitlines()[-1])
        assert all(fault in ("None", repr(SystemExit(code))) for code, _, fault in answers), answers
        return [(code, output) for code, output, _ in answers]

    return run


def modes(path: Path) -> set[tuple[str, str]]:
    """Kind and mode of all that is in a store, such as ("file", "664")."""
    every = [path, *path.rglob("*")]
    return {
        ("folder" if one.is_dir() else "file", f"{stat.S_IMODE(one.stat().st_mode):o}")
        for one in every
    }


@pytest.mark.parametrize(
    ("umask", "expected"),
    [
        (0o022, {("folder", "755"), ("file", "644")}),
        (0o002, {("folder", "775"), ("file", "664")}),
        (0o077, {("folder", "700"), ("file", "600")}),
    ],
)
@pytest.mark.parametrize("how", ["extract", "merge", "correct"])
def test_the_umask_says_who_may_read_and_write(forker, tmp_path, umask, expected, how):
    user = {"uid": 0, "gid": 0, "umask": umask}
    path = tmp_path / "store"
    assert forker.run("extract", user, path=path) == (0, "")
    if how == "merge":
        assert forker.run("merge", user, into=tmp_path / "lab", stores=[path]) == (0, "")
        path = tmp_path / "lab"
    elif how == "correct":
        assert forker.run("correct", user, path=path, split="test", rounds=1) == (0, "")
    assert modes(path) == expected


# Real users


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the group may write to, and whose files are the group's."""
    if os.getuid() != 0:
        pytest.skip("only root can become other users")
    folder = Path(tempfile.mkdtemp(prefix="clipsyn-users-"))
    os.chown(folder, 0, GROUP)
    folder.chmod(0o2775)
    yield folder
    shutil.rmtree(folder)


def test_two_users_of_a_group_fill_one_store(forker, clipsyn, place):
    """One begins, the other goes on, replaces, corrects and removes what the first has made."""
    path = place / "store"
    assert forker.run("extract", ANN, path=path) == (0, "")
    names = ["fake/one", "fake/two"]
    assert forker.run("extract", BEN, path=path, names=names) == (0, "")
    again = {"path": path, "weights": "x", "replace": True}
    assert forker.run("extract", BEN, **again) == (0, "")
    assert forker.run("correct", BEN, path=path, split="test", rounds=1) == (0, "")
    assert problems(path) == []
    assert {path.stat().st_gid for path in place.rglob("*")} == {GROUP}
    owners = {path.stat().st_uid for path in place.rglob("*")}
    assert owners == {ANN["uid"], BEN["uid"]}
    ((code, said),) = clipsyn(ANN, path, "rm STORE -b fake/two -y")
    assert (code, "removed 9 groups" in said) == (0, True), said
    assert left_over(path) == []


def test_who_may_only_read_reads_all_and_writes_nothing(forker, clipsyn, place):
    path = place / "store"
    assert forker.run("extract", ANN, path=path) == (0, "")
    before = {file: file.stat().st_ctime_ns for file in path.rglob("*")}
    commands = ("ls", "info", "ls --status", "verify", "zeroshot", "gc")
    for code, said in clipsyn(EVE, path, *(f"{command} STORE" for command in commands)):
        assert code == 0, said
    assert {file: file.stat().st_ctime_ns for file in path.rglob("*")} == before
    answers = [
        forker.run("extract", EVE, path=path, names=["fake/two"]),
        forker.run("correct", EVE, path=path, split="test", rounds=1),
        *clipsyn(EVE, path, "rm STORE -b fake/one -y"),
    ]
    for code, said in answers:
        assert code == 1, said
        assert "Permission denied" in said
        assert str(path) in said
        assert "Traceback" not in said
    assert {file: file.stat().st_ctime_ns for file in path.rglob("*")} == before
