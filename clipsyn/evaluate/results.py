"""The tidy frame of results: one row a number.

Every command that measures something gives these columns.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import polars as pl

from clipsyn.metrics import Score
from clipsyn.stats import Interval

RESULT = {
    "dataset": pl.String,
    "split": pl.String,
    "perturbation": pl.String,  # its label: clean, jpeg-3, jpeg-3-seed1
    "severity": pl.Int32,
    "head": pl.String,
    "ensemble": pl.String,  # null for a backbone on its own; "oracle"; "chance"
    "backbones": pl.String,  # joined by "+"
    "prompts": pl.String,
    "shots": pl.Int32,
    "seed": pl.Int32,
    "metric": pl.String,
    "value": pl.Float64,  # a fraction
    "ci_low": pl.Float64,
    "ci_high": pl.Float64,
    "n": pl.Int64,
    "fingerprint": pl.String,
}
Row = dict[str, Any]


class Measured(NamedTuple):
    metric: str
    score: Score
    interval: Interval | None
