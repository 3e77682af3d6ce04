"""An error of the operating system is shown as one sentence."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clipsyn.store.features import FeatureStore

EVIL = "evil\x1b[2J\nname\u202e"
SHOWN = "evil\\u001b[2J\\u000aname\\u202e"


def _shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line.replace("clipsyn", f"{sys.executable} -m clipsyn")],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' /dev/full")
@pytest.mark.parametrize("command", ["ls {}", "ls {} -o -", "--help"])
def test_a_full_disk(tiny_store: FeatureStore, command: str) -> None:
    done = _shell(f"clipsyn {command.format(tiny_store.path)} > /dev/full", tiny_store.path)
    assert done.returncode == 1
    assert done.stderr.count("Error: ") == len(done.stderr.splitlines()) == 1
    assert "No space left on device; make room" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' /dev/full")
def test_a_full_disk_for_files_and_errors(tiny_store: FeatureStore) -> None:
    full = tiny_store.path.parent / "full.csv"
    full.symlink_to("/dev/full")
    done = _shell(f"clipsyn zeroshot {tiny_store.path} -o {full}", tiny_store.path)
    assert done.returncode == 2
    assert f"Error: cannot write {full}: No space left on device" in done.stderr
    assert _shell("clipsyn ls nowhere 2> /dev/full", tiny_store.path.parent).returncode == 4


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not enforce ulimit -v")
def test_too_little_memory(tiny_store: FeatureStore) -> None:
    """Of numbers that are there: 4 GB of them, which take no place on a disk."""
    big = np.lib.format.open_memmap(
        tiny_store.path.parent / "big.npy", "w+", np.float32, (1000, 1_000_000)
    )
    assert big.nbytes == 4e9
    options = "--kind logits --row-order -d other"
    done = _shell(
        f"ulimit -v 2000000; clipsyn import new big.npy {options}", tiny_store.path.parent
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: there is not enough memory: ")
    assert len(done.stderr.splitlines()) == 1


REFUSED: list[tuple[BaseException, str]] = [
    (MemoryError(), "not enough memory"),
    (ImportError("x.so: failed to map segment from shared object"), "not enough memory"),
    (RuntimeError("can't start new thread"), "not enough memory"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory"),
    (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: Permission denied; give"),
    (OSError(errno.ENOSPC, "No space left", "a", None, "b"), "a and b: No space left; make room"),
    (UnicodeEncodeError("ascii", "aé", 1, 2, "ordinal"), "'é' cannot be written as ascii: take"),
    (ValueError("embedded null byte"), "NUL character"),
    (OSError(errno.EMFILE, "Too many open files"), "refused: Too many open files; allow more"),
]


@pytest.mark.parametrize(("error", "words"), REFUSED, ids=repr)
def test_what_the_machine_refuses(fails, tiny_store, monkeypatch, error, words):
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr("clipsyn.store.inventory.cell_rows", refuse)
    assert words in fails(1, "ls", tiny_store.path)


@pytest.fixture
def evil_store(tiny_store: FeatureStore) -> FeatureStore:
    """Backbone, dataset, classes and ids of a stranger who means no good."""
    from clipsyn.exchange.importing.settings import ImportSettings
    from clipsyn.exchange.importing.write import import_files

    folder = tiny_store.path.parent
    lines = [f'"{EVIL}{row}","{EVIL}c","{EVIL}c"' for row in range(3)]
    (folder / "mine.csv").write_text("\n".join(["id,prediction,label", *lines]))
    for name in (EVIL, f"[red]{EVIL}"):
        import_files(
            tiny_store.path, [folder / "mine.csv"], ImportSettings(dataset=EVIL, backbone=name)
        )
    return tiny_store


@pytest.mark.parametrize(
    "command",
    [
        "ls",
        "info",
        "ls --status",
        "verify",
        "zeroshot",
        "zeroshot --summary",
        "oracle",
        "diversity",
        "oracle --details",
        "robustness",
        "ls -o -",
        "zeroshot -o -",
        "rm -b *evil*",
    ],
)
def test_names_of_strangers_do_not_steer_the_terminal(clipsyn, evil_store, command):
    name, *options = command.split()
    result = clipsyn(name, evil_store.path, *options)
    assert all(line.isprintable() for line in result.output.splitlines()), result.output
    assert "evil" in result.output or command in ("ls --status", "verify", "robustness")
    if "-o" in options:
        assert EVIL in {row["dataset"] for row in json.loads(result.stdout)}


def test_log_lines_and_errors_are_printable(clipsyn, fails, tiny_store):
    assert SHOWN in fails(2, "zeroshot", tiny_store.path, "-d", EVIL)
    for mistake in (fails(2, "ls", f"--{EVIL}"), fails(2, f"--{EVIL}"), fails(2, EVIL)):
        assert "evil" in mistake
        assert mistake.isprintable()
    assert SHOWN in fails(4, "ls", EVIL)
