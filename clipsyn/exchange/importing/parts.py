"""What is read of its files before anything is aligned."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DatasetError, UsageError
from clipsyn.exchange.importing.settings import ImportSettings
from clipsyn.names import CLEAN, parse_perturbation

NOTHING = frozenset(("", "na", "nan", "none", "null"))  # texts that stand for no value
_SUM = 1e-2  # how far from 1 rounded probabilities of 1,000 classes may sum
_LEAST = np.finfo(np.float32).tiny  # stands for a probability of 0, whose log is no number
_LEVEL = re.compile(r"(\d{1,9})(?:\.0*)?")
_NAME = re.compile(r"[a-z0-9_]+")
_LOG = logging.getLogger("clipsyn")
_CLASSES = ("class_embeddings", "class_embedding", "text_embeddings", "text_features")
_SCALES = ("logit_scale", "scale")
_ROUNDED = 1e-6  # how far rounding to float32 takes a norm from 1
_LOGARITHM = 10  # models have a factor of 14 or more; its logarithm, their parameter, is below 5


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
    values: NDArray[Any]  # (row,) texts that name classes, or of an export their indices; or
    # (row, class or embed) float32, of an export's embeddings float16
    labels: tuple[str, ...] | NDArray[np.int32] | None  # texts that name classes, or indices
    columns: tuple[str, ...] = ()  # names of the classes of logits, where the file has them
    files: tuple[Path, ...] = ()
    of_condition: bool = False  # the perturbation came from a column: other rows had others
    confidence: NDArray[np.float32] | None = None  # (row,) probability of the predicted class
    prompts: str | None = None  # of the predictions or the class embeddings, where it is known
    texts: Mapping[str, Text] = field(default_factory=dict)  # of embeddings, by prompt set

    def __str__(self) -> str:
        return f"{self.backbone} ({self.perturbation}, {', '.join(p.name for p in self.files)})"

    @property
    def form(self) -> tuple[object, ...]:
        """What parts of one cell have in common."""
        texts = tuple((name, text.numbers) for name, text in self.texts.items())
        return self.kind, self.values.shape[1:], self.columns, self.confidence is None, texts

    @property
    def rows(self) -> int:
        return len(self.values)


def severity_label(name: str, severity: str, where: Path, *, of_row: bool) -> str:
    """The label of a severity of the perturbation NAME; 0 is clean, and so is nothing.

    of_row: NAME stands in the same row. It says all where it is clean, or there is no severity.
    """
    nothing = severity.lower() in NOTHING
    if of_row and (nothing or name == CLEAN.label):
        return parse_perturbation(name).label
    level = _LEVEL.fullmatch("0" if nothing else severity)
    if level is None:
        raise DatasetError(
            f"{where}: severity '{severity}' is no whole number: write severities as 0 (clean), 1, "
            "2, …, or a column perturbation with labels such as contrast-2"
        )
    if not int(level[1]):
        return CLEAN.label
    if name == CLEAN.label or not _NAME.fullmatch(name):
        raise UsageError(
            f"{where}: '{severity}' is a severity, of what? Add perturbation=NAME (a-z, 0-9 and _),"
            " for instance perturbation=contrast"
        )
    return parse_perturbation(f"{name}:{int(level[1])}").label


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


def text_of(path: Path, arrays: Mapping[str, NDArray[Any]], wanted: ImportSettings) -> Text | None:
    """The class embeddings among the arrays of a file, with the logit scale; None without any."""
    embeddings = _first(arrays, _CLASSES)
    if embeddings is None:
        return None
    if embeddings.ndim != 2 or embeddings.dtype.kind not in "fiu" or not embeddings.size:
        raise DatasetError(
            f"{path}: class embeddings are numbers (class, embed), not {embeddings.dtype} "
            f"{embeddings.shape}"
        )
    values = embeddings.astype(np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    if not (np.isfinite(norms) & (norms > 0)).all():
        raise DatasetError(f"{path}: class embeddings are finite, and none is of norm 0")
    scale = _scale(path, _first(arrays, _SCALES), wanted)
    unit = values if (abs(norms - 1) < _ROUNDED).all() else values / norms
    return Text(unit.astype(np.float32), scale, path)


def text_beside(path: Path, arrays: Mapping[str, NDArray[Any]], wanted: ImportSettings) -> Text:
    """The class embeddings of a file that holds nothing else, but perhaps the logit scale."""
    if len(arrays) == 1:
        arrays = {_CLASSES[0]: next(iter(arrays.values()))}
    text = text_of(path, arrays, wanted)
    if text is None:
        raise DatasetError(
            f"{path} has no array {_CLASSES[0]}; its arrays are {short(list(arrays))}"
        )
    return text


def _scale(path: Path, inside: NDArray[Any] | None, wanted: ImportSettings) -> float:
    scale = wanted.logit_scale
    if scale is None:
        if inside is None:
            raise UsageError(
                f"{path} has class embeddings without their scale: give logit_scale=…, the factor "
                "of the logits, such as 100 for OpenAI's models"
            )
        if inside.size != 1 or inside.dtype.kind not in "fiu":
            raise DatasetError(
                f"{path}: a logit scale is one number, not {inside.dtype} {inside.shape}"
            )
        scale = float(inside.reshape(-1)[0])
    if scale < _LOGARITHM:
        _LOG.info(
            f"note: logits are {scale:g} times the cosines; if {scale:g} is the logarithm of the "
            f"factor, give logit_scale={np.exp(scale):.4g}"
        )
    return scale


def _first(arrays: Mapping[str, NDArray[Any]], names: Sequence[str]) -> NDArray[Any] | None:
    return next((arrays[name] for name in names if name in arrays), None)
