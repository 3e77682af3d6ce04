"""`clipsyn extract` names all missing datasets at once, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from clipsyn.catalog.datasets import collections


def test_every_missing_dataset_is_named(clipsyn: Callable[..., Any], tmp_path: Path) -> None:
    line = ("extract", tmp_path / "s", "-b", "openai", "-d", "paper,emoji-food")
    result = clipsyn(*line, "--data-root", tmp_path)
    assert result.exit_code == 3
    names = collections()["paper"]
    assert f"Error: {len(names)} of {len(names) + 1} datasets cannot be read" in result.stderr
    for name in names:
        assert f"note: {name}: " in result.stderr
    assert ", ".join(names) in result.stderr.splitlines()[-1]
    assert "emoji-food" not in result.stderr
    assert not (tmp_path / "s").exists()
