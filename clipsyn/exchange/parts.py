"""What is read of the files of an import before anything is aligned, and which classes it names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DatasetError
from clipsyn.methods.numerics.logits import MOST_CLASSES, NO_CLASS, NONE_OF_THEM
from clipsyn.names import CLEAN, parse_perturbation
from clipsyn.registry import unknown_name
from clipsyn.store.given import Rows, blocks, made_of
from clipsyn.text import LOG, few

NOTHING = frozenset(("", "na", "nan", "none", "null"))  # texts that stand for no value
_SUM = 1e-2  # how far from 1 rounded probabilities of 1,000 classes may sum
_LEAST = np.finfo(np.float32).tiny  # stands for a probability of 0, whose log is no number
INDEX = re.compile(r"-?\d+(?:\.0*)?")
_NAMES_ONLY = "Its classes are called by numbers: write these, not indices."
_FIRST = "The first import of a dataset decides on its classes: classes=FILE would name them all."


Texts = Mapping[str, tuple[NDArray[np.float32], float]]
"""What the classes are to a backbone: by prompt set (class, embed) of unit norm, and the scale."""


class Captions(NamedTuple):
    """The captions of a split, each with the id of its image, and what they are to a backbone."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    images: tuple[str, ...]
    embeddings: NDArray[np.floating[Any]]  # (caption, embed)
    scale: float


@dataclass(frozen=True, eq=False)
class Part:
    """What the files say of one backbone under one perturbation."""

    backbone: str
    perturbation: str  # its label
    kind: str  # predictions, logits or embeddings
    ids: Sequence[str] | None  # None: in the order of the sample table
    values: Rows  # (row,) texts that name classes, or of an export their indices; or
    # (row, class or embed) float32, of an export's embeddings float16
    labels: tuple[str, ...] | NDArray[np.int32] | None  # texts that name classes, or indices
    columns: tuple[str, ...] = ()  # names of the classes of logits, where the file has them
    files: tuple[Path, ...] = ()
    of_condition: bool = False  # the perturbation came from a column: other rows had others
    confidence: NDArray[np.float32] | None = None  # (row,) probability of the predicted class
    prompts: str | None = None  # of the predictions or the class embeddings, where it is known
    texts: Texts = field(default_factory=dict)  # of embeddings
    captions: Captions | None = None  # too

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
    level = "0" if nothing else severity.removesuffix(".0")
    if not level.strip("0"):
        return CLEAN.label
    if not level.isdecimal() or name == CLEAN.label:
        raise DatasetError(
            f"{where}: '{severity}' is no severity of {name}: write whole numbers, of which 0 is "
            "clean, and say of what they are, for instance with perturbation=contrast"
        )
    return parse_perturbation(f"{name}:{level}").label


def as_logits(given: Rows, kind: str, where: str) -> Rows:
    """(row, class) logits of logits or probabilities; of these the logarithm, at least -87.3.

    `auto` takes rows that are all in 0 to 1 and sum to 1 for probabilities. Raises DatasetError for
    probabilities that do not sum to 1, and under `auto` for values that only look like them.
    """
    values, seen, in_range, sums = made_of(given, np.float32, _single), 0, True, True
    for some in blocks(values) if kind != "logits" else ():
        rows = values[some]
        rows = rows[np.isfinite(rows).all(axis=1)]
        seen += len(rows)
        in_range &= bool(((rows >= 0) & (rows <= 1)).all())
        sums &= bool((abs(rows.sum(axis=1, dtype=np.float64) - 1) <= _SUM).all())
    if kind == "logits" or (kind == "auto" and not (in_range and seen)):
        return values
    if not (in_range and sums):
        raise DatasetError(
            f"{where}: probabilities lie in 0 to 1 and sum to 1 in each row, and these do not: "
            "give those of all classes, or say kind=logits if they are none"
        )
    return made_of(values, np.float32, lambda part: np.log(np.maximum(part, _LEAST)))


def _single(values: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what float32 cannot hold is not finite, and counted so
        return values.astype(np.float32, copy=False)


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
        return columns
    widths = {part.values.shape[1] for part in parts if part.kind == "logits"}
    widths |= {len(it) for part in parts for it, _ in part.texts.values()}
    predicted = (text for part in parts if part.kind == "predictions" for text in part.values[:])
    labels = (str(text) for part in parts if part.labels is not None for text in part.labels)
    there = {text for text in chain(labels, predicted) if text.lower() not in NOTHING}
    texts = there - {"-1", NONE_OF_THEM}
    if widths:
        return _numbers(max(widths))
    if not texts:
        return ()
    numbers = {text for text in texts if INDEX.fullmatch(text)}
    if numbers and numbers != texts:
        raise DatasetError(
            f"classes are names and indices at once ({few(sorted(texts))}): give classes=FILE"
        )
    names = _numbers(max(map(float, texts)) + 1) if numbers else tuple(sorted(texts))
    LOG.info(f"classes: the {len(names)} that occur; classes=FILE would name them all")
    return names


def class_indices(
    texts: Iterable[str] | NDArray[Any], names: Sequence[str], where: object
) -> NDArray[np.int64]:
    """Index of each text that names a class or is an index; -1 for a text without a value.

    Numbers, which an export has, are indices whatever classes are called.

    Names win over indices; there are only names where classes are called by numbers other than
    their indices (`have_other_numbers`). Raises DatasetError for an index outside the classes, an
    unknown name (with near matches) and a name that two classes share.
    """
    if isinstance(texts, np.ndarray) and texts.dtype.kind in "iu":
        _check_range(np.unique(texts).tolist(), names, where)
        return texts.astype(np.int64)
    texts = list(texts)
    position = {name: index for index, name in reversed(list(enumerate(names)))}
    names_only, uses = have_other_numbers(names), Counter(names)

    def index_of(text: str) -> int:
        # 3.0 is 3: where one value is missing, others write all as floating point
        number = f"{float(text):.0f}" if INDEX.fullmatch(text) else ""
        if name := next((name for name in (text, number) if name in position), ""):
            if uses[name] > 1:
                raise DatasetError(f"{where}: two classes are called '{name}': give class indices")
            return position[name]
        if text.lower() in NOTHING or number == "-1":
            return -1
        if INDEX.fullmatch(number) and not names_only:
            _check_range([int(number)], names, where)
            return int(number)
        advice = _NAMES_ONLY if names_only else _FIRST
        raise DatasetError(f"{where}: {unknown_name('class', text, set(names), advice)}")

    index = {text: index_of(text) for text in dict.fromkeys(texts)}
    return np.array([index[text] for text in texts], np.int64)


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
    return any(INDEX.fullmatch(name) and name != str(at) for at, name in enumerate(names))


def _check_range(indices: Iterable[int], names: Sequence[str], where: object) -> None:
    """Refuse an index that is none of the classes, if these are known."""
    outside = [value for value in indices if not -1 <= value < len(names)]
    if names and outside:
        raise DatasetError(
            f"{where}: class {min(outside)} is outside 0 to {len(names) - 1}: there are "
            f"{len(names)} classes. {_FIRST}"
        )


def _numbers(count: float) -> tuple[str, ...]:
    if count > MOST_CLASSES:
        raise DatasetError(
            f"there would be {count:,.0f} classes, by the largest of their indices: at most "
            f"{MOST_CLASSES:,} can be stored"
        )
    return tuple(map(str, range(int(count))))
