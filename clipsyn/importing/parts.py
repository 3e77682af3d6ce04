"""What is read of its files before anything is aligned."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.catalog.experiments import conditions as conditions_of
from clipsyn.catalog.experiments import spelt
from clipsyn.errors import DatasetError, UsageError
from clipsyn.importing.settings import ImportSettings
from clipsyn.specs import CLEAN, parse_perturbation

NOTHING = frozenset(("", "na", "nan", "none", "null"))  # texts that stand for no value
_SUM = 1e-2  # how far from 1 rounded probabilities of 1,000 classes may sum
_LEAST = np.finfo(np.float32).tiny  # stands for a probability of 0, whose log is no number
_LEVEL = re.compile(r"[A-Za-z]*(\d{1,9})(?:\.0*)?")
_NAME = re.compile(r"[a-z0-9_]+")


class Text(NamedTuple):
    """What the classes are to a backbone, beside its image embeddings."""

    class_embedding: NDArray[np.float32]  # (class, embed) of unit norm
    logit_scale: float
    file: Path

    @property
    def numbers(self) -> tuple[bytes, float]:
        """By which two are the same."""
        return self.class_embedding.tobytes(), self.logit_scale


@dataclass(frozen=True, eq=False)
class Part:
    """What the files say of one backbone under one perturbation."""

    backbone: str
    perturbation: str  # its label
    kind: str  # predictions, logits or embeddings
    ids: tuple[str, ...] | None  # None: in the order of the sample table
    values: NDArray[Any]  # (row,) texts that name classes; or (row, class or embed) float32
    labels: tuple[str, ...] | None  # texts that name classes
    columns: tuple[str, ...] = ()  # names of the classes of logits, where the file has them
    files: tuple[Path, ...] = ()
    of_condition: bool = False  # the perturbation came from a column: other rows had others
    conditions: frozenset[str] = frozenset()  # what a column of conditions or severities says
    confidence: NDArray[np.float32] | None = None  # (row,) probability of the predicted class
    prompts: str | None = None  # of the predictions or the class embeddings, where it is known
    text: Text | None = None  # of embeddings
    experiment: str | None = None  # of model-vs-human, whose conditions are known
    has_categories: bool = False  # its classes are those of model-vs-human
    na_is_wrong: bool = False  # an answer "na" is none of the classes, and counts

    def __str__(self) -> str:
        return f"{self.backbone} ({self.perturbation}, {', '.join(p.name for p in self.files)})"

    @property
    def rows(self) -> int:
        return len(self.values)


def perturbation_label(
    condition: str, wanted: ImportSettings, where: Path, experiment: str | None = None
) -> str:
    """The label of the perturbation that a condition, or a severity, stands for.

    `wanted.conditions` decides; then, unless it has a perturbation, what is known of the
    experiment; else a number N, perhaps after letters (``c30``), is severity N of that one,
    and 0 or nothing is clean.
    """
    condition = condition.strip()
    if condition in wanted.conditions:
        return parse_perturbation(wanted.conditions[condition]).label
    if condition.lower() in NOTHING:
        return CLEAN.label
    known = conditions_of(experiment) if experiment else {}
    if wanted.perturbation == CLEAN.label and spelt(condition) in known:
        return known[spelt(condition)]
    match = _LEVEL.fullmatch(condition)
    if match is None:
        raise DatasetError(
            f"{where}: condition '{condition}' is no whole number: say which perturbation it is, "
            f"conditions=… with {condition}=NAME:1 (or {condition}=clean) in it"
        )
    severity = int(match[1])
    if not severity:
        return CLEAN.label
    name = wanted.perturbation
    if name == CLEAN.label or not _NAME.fullmatch(name):
        raise UsageError(
            f"{where}: condition '{condition}' is a severity, of what? Add perturbation=NAME (a-z, "
            "0-9 and _), for instance perturbation=contrast"
        )
    return parse_perturbation(f"{name}:{severity}").label


def as_logits(values: NDArray[np.float32], kind: str, where: str) -> NDArray[np.float32]:
    """(row, class) logits of logits or probabilities; of these the logarithm, at least -87.3.

    `auto` takes rows that are all in 0 to 1 and sum to 1 for probabilities. Raises DatasetError for
    probabilities that do not sum to 1, and under `auto` for values that only look like them.
    """
    if kind == "logits":
        return values
    finite = np.isfinite(values).all(axis=1)
    rows = values[finite]
    in_range = bool(len(rows)) and rows.min() >= 0 and rows.max() <= 1
    if not in_range and kind == "auto":
        return values
    sums = rows.sum(axis=1, dtype=np.float64)
    wrong = np.flatnonzero(abs(sums - 1) > _SUM)
    if not in_range and len(rows):
        raise DatasetError(
            f"{where}: probabilities lie in 0 to 1, not {rows.min():g} to {rows.max():g}"
        )
    if len(wrong):
        row = int(np.flatnonzero(finite)[wrong[0]])
        advice = " (or are they kind=logits?)" if kind == "auto" else ""
        raise DatasetError(
            f"{where}: the probabilities of {len(wrong):,} rows do not sum to 1 (row {row}: "
            f"{sums[wrong[0]]:.4g}): give those of all classes, or logits{advice}"
        )
    logits: NDArray[np.float32] = np.log(np.maximum(values, _LEAST))
    return logits


def short(names: Sequence[str]) -> str:
    """Names for a message, the first dozen."""
    return ", ".join(names[:12]) + (f", … ({len(names)})" if len(names) > 12 else "")
