"""Files of what every method predicts for each image, to which rows are added.

A row is one image for one method, fitted on one draw. It is named as the method's results are, and
has their fingerprint.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.documents import parse_json
from clipsyn.errors import UsageError
from clipsyn.results import parts
from clipsyn.results.files import ABOUT, RowsFile
from clipsyn.results.frame import RESULT, Row
from clipsyn.results.kind import Kind
from clipsyn.store.samples import SampleTable

PREDICTIONS: dict[str, Any] = {
    **{name: RESULT[name] for name in ABOUT},
    "backbones": pl.String,  # of a JSON list, as CSV has it: a list in each row would be large
    "fingerprint": pl.String,  # that of the method's results
    "sample_id": pl.String,
    "image": pl.UInt64,  # equal for equal images: 64 bits of the content's hash; null if unseen
    "label": pl.Int32,
    "prediction": pl.Int32,
    "confidence": pl.Float32,  # null where there are no probabilities
}


class Predicted(NamedTuple):
    """What one method, fitted on one draw, predicts for the images that count.

    about: the columns `ABOUT` and fingerprint, as a row of results has them.
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
        about = self.about | {"backbones": _text(self.about["backbones"])}
        constants = [pl.lit(about[name], PREDICTIONS[name]).alias(name) for name in _CONSTANT]
        varying = {name: PREDICTIONS[name] for name in columns}
        return pl.DataFrame(columns, schema=varying).select(*constants, *columns)


_CONSTANT = [*ABOUT, "fingerprint"]


def _image(content: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(n, 32) -> (n,)"""
    return np.ascontiguousarray(content[:, :8]).view("<u8")[:, 0]


def _text(backbones: Sequence[str]) -> str:
    return json.dumps(backbones, ensure_ascii=False)


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
            rows = [one.about | {"backbones": _text(one.about["backbones"])} for _, one in new]
            self._take(rows, pl.concat([one.frame(samples[at]) for at, one in new]))


def subjects(path: Path) -> pl.DataFrame:
    """What a file has predictions of: a row for each fingerprint, `ABOUT` and the number of images.

    What stands beside the file is among them. Raises UsageError for a file of something else.
    """
    there = parts.subjects(path, KIND)
    wrong = [name for name in _KNOWN if there[name].null_count()]
    if wrong or not all(map(_is_list, there["backbones"])):
        raise UsageError(
            f"{path} holds no predictions, for {wrong[0] if wrong else 'backbones'} is not known "
            f"everywhere: make it anew with `{KIND.line}`"
        )
    return there


def scan(path: Path) -> pl.LazyFrame:
    """All rows of a file, with those that stand beside it; raises as `subjects` does."""
    return parts.scan(path, KIND)


KIND = Kind(
    "predictions",
    PREDICTIONS,
    ABOUT,
    "clipsyn evaluate STORE --predictions FILE",
    lambda rows, _: rows,
)
_KNOWN = ("dataset", "split", "perturbation", "head", "prompts", "classes", "fingerprint")


def _is_list(text: str | None) -> bool:
    """Whether it is a JSON list of names."""
    with suppress(ValueError):
        names = parse_json(text or "")
        return isinstance(names, list) and all(isinstance(name, str) for name in names)
    return False
