"""The experiments of model-vs-human and their conditions, read from `experiments.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


def experiment_of(*names: str) -> str | None:
    """The first of the names that is an experiment's, or starts with one and ``_``."""
    for name in names:
        if (start := name.partition("_")[0]) in _table()["conditions"]:
            return start
    return None


def experiments() -> tuple[str, ...]:
    return tuple(_table()["conditions"])


def conditions(experiment: str) -> Mapping[str, str]:
    """Perturbation label by condition, spelt as by `spelt`; {} for an experiment with one only."""
    labels: Mapping[str, str] = _table()["conditions"][experiment]
    return labels


def categories() -> tuple[str, ...]:
    """The 16 classes of every experiment; some experiments show fewer of them."""
    return tuple(_table()["classes"])


def spelt(condition: str) -> str:
    """A condition as the table writes it: ``True`` is ``true``, ``0.10`` is ``0.1``."""
    try:
        return f"{float(condition):g}"
    except ValueError:
        return condition.lower()


@cache
def _table() -> dict[str, Any]:
    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
