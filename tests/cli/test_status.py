"""`clipsyn ls --watch`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clipsyn.cli.store import describe
from clipsyn.store.features import FeatureStore
from clipsyn.store.unfinished import StoreProgress
from tests.cli.conftest import environment


@pytest.mark.parametrize(
    ("seen", "line"),
    [
        (StoreProgress(0, 0, 0, 0, 0.0), "0 cells finished; nothing is being written"),
        (
            StoreProgress(1200, 3, 4000, 5000, 0.0),
            "1,200 cells finished; 3 groups unfinished, 4,000 of 5,000 blocks done",
        ),
        (
            StoreProgress(7, 1, 40, 100, 0.5),
            "7 cells finished; 1 group unfinished, 40 of 100 blocks done, 30 a minute, "
            "0:02:00 left for these",
        ),
    ],
)
def test_one_line(seen: StoreProgress, line: str) -> None:
    assert describe(seen) == line


def watching(store: Path, *options: str) -> tuple[int, str]:
    """Exit status and output of the command, interrupted after its first line."""
    words = [sys.executable, "-m", "clipsyn", "ls", str(store), "--watch", *options]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    return process.returncode, first.rstrip()


def test_ctrl_c_ends_it_in_order(tiny_store: FeatureStore) -> None:
    cells = len(tiny_store.keys())
    said = f"{cells} cells finished; nothing is being written"
    assert watching(tiny_store.path) == (0, said)


def test_each_look_is_a_line_of_json(tiny_store: FeatureStore) -> None:
    status, line = watching(tiny_store.path, "-o", "-")
    assert status == 0
    cells = len(tiny_store.keys())
    assert json.loads(line) == {"cells": cells, "groups": 0, "done": 0, "blocks": 0, "rate": 0.0}


def test_what_is_no_store_is_refused(fails: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    assert "holds something else" in fails(4, "ls", tmp_path, "--watch")
    said = fails(4, "ls", tmp_path / "no" / "store", "--watch")
    assert said.endswith(f"there is no folder {tmp_path / 'no'}")
