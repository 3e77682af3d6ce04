"""Rows of results made by hand, frames of them, and what their tables say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from clipsyn.evaluation.results.frame import frame
from clipsyn.show.formats import text_of

DASH = "\N{EN DASH}"
BOLD = re.compile(r"\x1b\[1m *(.*?)\x1b\[0m")


def row(
    metric: str,
    value: float,
    backbones: Sequence[str],
    ensemble: str | None = None,
    *,
    off: tuple[float, float] | None = (0.01, 0.02),
    **about: Any,
) -> dict[str, Any]:
    """A row about forty clean birds; off: how far from the value its interval ends."""
    low, high = (value - off[0], value + off[1]) if off else (None, None)
    usual = {"dataset": "birds", "split": "test", "perturbation": "clean", "severity": 0}
    usual |= {"head": "zero-shot", "classes": "all", "prompts": "own", "shots": "0"}
    usual |= {"ensemble": ensemble or ("single" if len(backbones) == 1 else None)}
    usual |= {"metric": metric, "value": value, "backbones": list(backbones)}
    return usual | {"ci_low": low, "ci_high": high, "n": 40, "fingerprint": "f"} | about


def tidy(*rows: Mapping[str, Any], columns: Mapping[str, Any] | None = None) -> pl.DataFrame:
    return frame(map(dict, rows), columns)


def texts(by_name: Mapping[str, Any], *, terminal: bool = False) -> dict[str, str]:
    return {name: text_of(some, terminal=terminal) for name, some in by_name.items()}
