"""Files of what every method predicts for each image, to which rows are added.

A row is one image for one method, fitted on one draw. It is named as the method's results are, and
has their fingerprint.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.errors import UsageError
from clipsyn.evaluation.results import files
from clipsyn.evaluation.results.files import Kind, RowsFile
from clipsyn.evaluation.results.frame import ABOUT, IS_SHOTS, RESULT, Row
from clipsyn.store.samples import SampleTable
from clipsyn.text import foreign, parse_json

PREDICTIONS: dict[str, Any] = {
    **{name: RESULT[name] for name in ABOUT},
    "backbones": pl.String,  # a JSON list, as CSV has it: a list in each row would be large
    "fingerprint": pl.String,  # that of the method's results
    "data": pl.String,  # theirs, as a JSON object
    "sample_id": pl.String,
    "image": pl.UInt64,  # equal for equal images: 64 bits of the content's hash; null if unseen
    "label": pl.Int32,
    "prediction": pl.Int32,
    "confidence": pl.Float32,  # null where there are no probabilities
}


class Predicted(NamedTuple):
    """What one method, fitted on one draw, predicts for the images that count.

    about: the columns `ABOUT`, fingerprint and data, as a row of results has them.
    """

    about: Row
    rows: NDArray[np.integer[Any]]  # (n,) of the sample table
    prediction: NDArray[np.integer[Any]]  # (n,) class index
    confidence: NDArray[np.float32] | None  # (n,)

    def frame(self, samples: SampleTable) -> pl.DataFrame:
        """A row for each image."""
        columns = {
            "sample_id": pl.Series(samples.ids, dtype=pl.String).gather(self.rows),
            "image": pl.Series(_image(samples.content[self.rows])).replace(0, None),
            "label": samples.labels[self.rows],
            "prediction": self.prediction.astype(np.int32),
            "confidence": self.confidence,
        }
        about = _flat(self.about)
        constants = [pl.lit(about[name], PREDICTIONS[name]).alias(name) for name in _CONSTANT]
        varying = {name: PREDICTIONS[name] for name in columns}
        return pl.DataFrame(columns, schema=varying).select(*constants, *columns)


_CONSTANT = [*ABOUT, "fingerprint", "data"]


def _image(content: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(n, 32) -> (n,)"""
    return np.ascontiguousarray(content[:, :8]).view("<u8")[:, 0]


def _flat(about: Row) -> Row:
    """What a row is about, with texts of JSON for what is not flat."""
    return about | {name: json.dumps(about[name], ensure_ascii=False) for name in _TEXTS}


_TEXTS: dict[str, type[Collection[Any]]] = {"backbones": list, "data": dict}


class PredictionsFile(RowsFile):
    """A Parquet file of predictions; files of any size are written with bounded memory."""

    def __init__(self, path: Path | None, *, replace: bool = False) -> None:
        super().__init__(path, KIND, replace=replace)

    def add(self, made: Iterable[tuple[int, Predicted]], samples: Sequence[SampleTable]) -> None:
        """Add what methods predict, but for what is there already.

        made: with each the place of its sample table in `samples`. Raises ConflictingResults for
        other predictions under names that are there.
        """
        new = [(at, one) for at, one in made if one.about["fingerprint"] not in self.known]
        if self.path and new:
            frames = [one.frame(samples[at]) for at, one in new]
            self._take([_flat(one.about) for _, one in new], pl.concat(frames))


def subjects(path: Path) -> pl.DataFrame:
    """What a file has predictions of: a row for each fingerprint.

    Columns: `ABOUT`, data and fingerprint, as results have them, and the number of images. Raises
    UsageError for a file of something else.
    """
    there = files.subjects(path, KIND)
    with foreign(lambda why: UsageError(f"{path} holds no predictions: {why}; {_ANEW}")):
        if wrong := [name for name in _KNOWN if there[name].null_count()]:
            raise ValueError(f"{wrong[0]} is not known everywhere")
        if not there.select(IS_SHOTS.all()).item():
            raise ValueError("shots is no number")
        return there.with_columns(_read(there[name], kind) for name, kind in _TEXTS.items())


def _read(texts: pl.Series, kind: type[Collection[Any]]) -> pl.Series:
    values = [parse_json(text) for text in texts]
    if any(not isinstance(value, kind) or None in value for value in values):
        raise ValueError(f"{texts.name} is no {kind.__name__} of names")
    return pl.Series(texts.name, values, RESULT[texts.name])


def scan(path: Path) -> pl.LazyFrame:
    """All rows of a file; raises as `subjects` does."""
    return files.scan(path, KIND)


KIND = Kind("predictions", PREDICTIONS)
_ANEW = "make it anew with `clipsyn evaluate STORE -o FILE.parquet`"
_KNOWN = (
    *("dataset", "split", "perturbation", "head", "ensemble", "prompts", "classes", "shots"),
    "fingerprint",
)
