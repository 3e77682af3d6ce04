"""The classes of an import, and the index that a text stands for."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DatasetError
from clipsyn.exchange.importing.parts import NOTHING, Part, short
from clipsyn.methods.numerics.logits import MOST_CLASSES, NO_CLASS, NONE_OF_THEM
from clipsyn.registry import unknown_name

_LOG = logging.getLogger("clipsyn")
_INDEX = re.compile(r"-?\d+(?:\.0*)?")
_NAMES_ONLY = "Its classes are called by numbers: write these, not indices."
_FIRST = "The first import of a dataset decides on its classes: classes=FILE would name them all."


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
