"""What is read of the files of an import before anything is aligned, and which classes it names."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DatasetError, UsageError
from clipsyn.exchange.settings import ImportSettings
from clipsyn.methods.numerics.logits import MOST_CLASSES, NO_CLASS, NONE_OF_THEM
from clipsyn.names import CLEAN, parse_perturbation
from clipsyn.registry import unknown_name

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
_INDEX = re.compile(r"-?\d+(?:\.0*)?")
_NAMES_ONLY = "Its classes are called by numbers: write these, not indices."
_FIRST = "The first import of a dataset decides on its classes: classes=FILE would name them all."


class Text(NamedTuple):
    """What the classes are to a backbone, beside its image embeddings."""

    class_embedding: NDArray[np.float32]  # (class, embed) of unit norm
    logit_scale: float
    file: Path


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
    rows = values[np.isfinite(values).all(axis=1)]
    in_range = len(rows) == 0 or bool(rows.min() >= 0 and rows.max() <= 1)
    if kind == "logits" or (kind == "auto" and not (in_range and len(rows))):
        return values
    if not in_range or (abs(rows.sum(axis=1, dtype=np.float64) - 1) > _SUM).any():
        raise DatasetError(
            f"{where}: probabilities lie in 0 to 1 and sum to 1 in each row, and these do not: "
            "give those of all classes, or say kind=logits if they are none"
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


# Classes


def class_names(parts: Sequence[Part]) -> tuple[str, ...]:
    """Names of the classes, from the parts alone.

    They are the columns of logits; else the indices of those columns, or of class embeddings; else
    indices up to the largest one, or all names that occur, sorted. A note says where a class that
    never occurs stays unknown.
    """
    named = {part.columns for part in parts if part.kind == "logits" and part.columns}
    if len(named) > 1:
        raise DatasetError("the files have different classes as columns: give classes=FILE")
    if named:
        (columns,) = named
        _check_columns(columns, parts)
        _LOG.info(f"classes, after the columns: {short(columns)}")
        return columns
    widths = {part.values.shape[1] for part in parts if part.kind == "logits"}
    widths |= {len(it.class_embedding) for part in parts for it in part.texts.values()}
    predicted = (text for part in parts if part.kind == "predictions" for text in part.values)
    texts = _classes(chain(_labels(parts), predicted)) - {NONE_OF_THEM}
    if widths:
        return _numbers(max(widths))
    if not texts:
        return ()
    numbers = {text for text in texts if _INDEX.fullmatch(text)}
    if numbers and numbers != texts:
        raise DatasetError(
            f"classes are names and indices at once ({short(sorted(texts))}): give classes=FILE"
        )
    names = _numbers(max(map(float, texts)) + 1) if numbers else tuple(sorted(texts))
    _LOG.info(f"classes: the {len(names)} that occur; classes=FILE would name them all")
    return names


def class_indices(
    texts: Iterable[str] | NDArray[Any], names: Sequence[str], where: object
) -> NDArray[np.int64]:
    """Index of each text that names a class or is an index; -1 for a text without a value.

    Numbers, which an export has, are indices whatever classes are called.

    Names win over indices where all texts are names; there are only names where classes are called
    by numbers other than their indices (`have_other_numbers`). Raises DatasetError for an index
    outside the classes, an unknown name (with near matches) and a name that two classes share.
    """
    if isinstance(texts, np.ndarray) and texts.dtype.kind in "iu":
        _check_range(texts.tolist(), names, where)
        return texts.astype(np.int64)
    texts = list(texts)
    position = {name: index for index, name in reversed(list(enumerate(names)))}
    names_only = have_other_numbers(names)
    called = {  # 3.0 is 3: where one value is missing, others write all as floating point
        text: text if text in position or not _INDEX.fullmatch(text) else f"{float(text):.0f}"
        for text in texts
        if text.lower() not in NOTHING or text in position
    }
    distinct = set(called.values()) - ({"-1"} - position.keys() if names_only else set())
    if distinct <= position.keys():
        uses = Counter(names)
        if shared := next((name for name in distinct if uses[name] > 1), None):
            raise DatasetError(f"{where}: two classes are called '{shared}': give class indices")
        index = {text: position.get(name, -1) for text, name in called.items()}
    elif all(map(_INDEX.fullmatch, distinct)) and not names_only:
        index = {text: int(name) for text, name in called.items()}
        _check_range(index.values(), names, where)
    else:
        unknown = min(distinct - position.keys())
        advice = _NAMES_ONLY if names_only else _FIRST
        raise DatasetError(f"{where}: {unknown_name('class', unknown, set(names), advice)}")
    return np.array([index.get(text, -1) for text in texts], np.int64)


def predicted_indices(
    texts: NDArray[Any], names: Sequence[str], where: object
) -> NDArray[np.int64]:
    """As `class_indices`, and NO_CLASS for an answer that is none of the classes."""
    mark, nothing = (NONE_OF_THEM, "") if texts.dtype == object else (NO_CLASS, -1)
    none = texts == mark
    return np.where(none, NO_CLASS, class_indices(np.where(none, nothing, texts), names, where))


def called(index: int, names: Sequence[str]) -> str:
    """The name of a class, or its index where it has none."""
    return names[index] if index < len(names) else str(index)


def have_other_numbers(names: Sequence[str]) -> bool:
    """Whether a class is called by a number that is not its index: ``1`` to ``102``, say.

    What is written for it could then be the one or the other.
    """
    return any(_INDEX.fullmatch(name) and name != str(at) for at, name in enumerate(names))


def _check_range(indices: Iterable[int], names: Sequence[str], where: object) -> None:
    """Refuse an index that is none of the classes, if these are known."""
    outside = [value for value in indices if not -1 <= value < len(names)]
    if names and outside:
        raise DatasetError(
            f"{where}: class {min(outside)} is outside 0 to {len(names) - 1}: there are "
            f"{len(names)} classes. {_FIRST}"
        )


def _check_columns(columns: Sequence[str], parts: Sequence[Part]) -> None:
    """Refuse columns of numbers that no label calls a class: a confidence is none."""
    labels = _classes(_labels(parts))
    strange = [name for name in columns if name not in labels]
    if strange and labels and not all(map(_INDEX.fullmatch, labels)):
        raise DatasetError(
            f"no label calls the columns {short(strange)} a class: drop what is none, or say with "
            "classes=FILE which classes there are"
        )


def _labels(parts: Sequence[Part]) -> Iterator[str]:
    return (str(text) for part in parts if part.labels is not None for text in part.labels)


def _classes(texts: Iterable[str]) -> set[str]:
    """Those that are there, of what calls classes by name or index."""
    return {text for text in texts if text.lower() not in NOTHING} - {"-1"}


def _numbers(count: float) -> tuple[str, ...]:
    if count > MOST_CLASSES:
        raise DatasetError(
            f"there would be {count:,.0f} classes, by the largest of their indices: at most "
            f"{MOST_CLASSES:,} can be stored"
        )
    return tuple(map(str, range(int(count))))
