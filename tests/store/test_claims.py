"""`clipsyn.store.claims`: who may begin with what, when others are at work, dead or far away."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clipsyn.store import claims

HERE = platform.node()


def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(
    ("owner", "age", "ours"),
    [
        (lambda: f"{HERE} {os.getpid()}", 0, True),
        (lambda: f"{HERE} {os.getppid()}", 0, False),
        (lambda: f"{HERE} {os.getppid()}", claims.EXPIRES + 1, True),
        (lambda: f"{HERE} 1", 0, False),  # nobody but root may ask it
        (lambda: f"{HERE} {dead()}", 0, True),
        (lambda: f"far.{HERE} {os.getpid()}", 0, False),
        (lambda: f"far.{HERE} {os.getpid()}", claims.EXPIRES - 20, False),
        (lambda: f"far.{HERE} {os.getpid()}", claims.EXPIRES + 1, True),
        (lambda: "", 0, False),  # its owner is about to write it
        (lambda: "", claims.EXPIRES + 1, True),
    ],
)
def test_a_claim_is_that_of_a_worker_who_is_alive(owner, age, ours, tmp_path: Path) -> None:
    claim = tmp_path / "claims" / "3"
    assert claims.take(claim)
    claim.write_text(owner())
    os.utime(claim, (time.time() - age,) * 2)
    assert claims.take(claim) == ours
    assert (claim.read_text() == f"{HERE} {os.getpid()}") == ours
    assert (time.time() - claim.stat().st_mtime < 30) == (ours or not age)


def test_a_claim_that_is_released_while_it_is_read_is_free(tmp_path: Path, monkeypatch) -> None:
    claim = tmp_path / "claims" / "3"
    assert claims.take(claim)
    claim.write_text(f"far.{HERE} 1")
    read = Path.read_text

    def late(path: Path) -> str:
        path.unlink()
        return read(path)

    monkeypatch.setattr(Path, "read_text", late)
    assert claims.take(claim)
    monkeypatch.undo()
    assert claim.read_text() == f"{HERE} {os.getpid()}"
