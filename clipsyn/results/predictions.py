"""Files of what every method predicts for each image, to which rows are added.

A row is one image for one method, fitted on one draw. It is named as the method's results are, and
has their fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.errors import ConflictingResults, UsageError
from clipsyn.frames import check_parquet, locked, make_folder_of, write, written_whole
from clipsyn.results.frame import NAMES, RESULT, Row
from clipsyn.store.samples import SampleTable

ABOUT = [name for name in NAMES if name != "metric"]
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


class PredictionsFile:
    """A Parquet file of predictions, to which rows are added, by several processes if need be.

    Rows are trusted by fingerprint, as those of a `clipsyn.results.files.ResultsFile` are. What is
    added stands in a folder beside it, hidden, and is on disk when `add` returns. It is in the file
    after `with`, and if this run is killed, after the next one has begun. Files of any size are
    written with bounded memory.
    """

    def __init__(self, path: Path | None, *, replace: bool = False) -> None:
        self.path = path
        self.replace = replace
        self.known: set[str] = set()
        self._names: dict[tuple[Any, ...], str] = {}  # of what a fingerprint is about -> it
        if path:
            _check_name(path)
            make_folder_of(path)
            self._merge()
            for row in subjects(path).iter_rows(named=True) if path.exists() else ():
                self._remember(row)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._merge()

    def add(self, made: Iterable[tuple[int, Predicted]], samples: Sequence[SampleTable]) -> None:
        """Add what methods predict, but for what is there already.

        made: with each the place of its sample table in `samples`. Raises ConflictingResults for
        other predictions under names that are there.
        """
        if self.path is None:
            return
        new = [(at, one) for at, one in made if one.about["fingerprint"] not in self.known]
        rows = [one.about | {"backbones": _text(one.about["backbones"])} for _, one in new]
        for row in rows:
            self._check(row)
        if not new:
            return
        with locked(self.path):
            if not self.path.exists():
                _clear(self.path)
                write(pl.DataFrame(schema=PREDICTIONS), parquet=self.path)
            frame = pl.concat([one.frame(samples[at]) for at, one in new])
            write(frame, parquet=_next_part(self.path, rows))
        for row in rows:
            self._remember(row)

    def _remember(self, row: Row) -> None:
        self.known.add(row["fingerprint"])
        self._names[_subject(row)] = row["fingerprint"]

    def _check(self, row: Row) -> None:
        if self._names.get(_subject(row), row["fingerprint"]) != row["fingerprint"]:
            if not self.replace:
                raise ConflictingResults(self._conflict(row))
            self.known.discard(self._names[_subject(row)])

    def _conflict(self, row: Row) -> str:
        what = row["ensemble"] or row["backbones"]
        return (
            f"{self.path} already holds predictions of {what} on {row['dataset']}/{row['split']} "
            f"({row['perturbation']}, head {row['head']}) from other features, labels, prompts or "
            "settings, or on other samples (fingerprint): write to another file, or give "
            "replace=True"
        )

    def _merge(self) -> None:
        """Write the file anew with what stands beside it."""
        if self.path is None:
            return
        with locked(self.path):
            if not self.path.exists():
                _clear(self.path)  # what it belonged to is gone
                return
            if _parts(self.path):
                whole = scan(self.path)
                with written_whole(self.path) as file:
                    whole.sink_parquet(file.name)
                _clear(self.path)


def subjects(path: Path) -> pl.DataFrame:
    """What a file has predictions of: a row for each fingerprint, `ABOUT` and the number of images.

    What stands beside the file is among them. Raises UsageError for a file of something else.
    """
    return pl.concat([kept for _, kept, _ in _sources(path)])


def scan(path: Path) -> pl.LazyFrame:
    """All rows of a file, with those that stand beside it; raises as `subjects` does."""
    sources = _sources(path)
    whole = [file for file, _, is_whole in sources if is_whole]
    scans = [pl.scan_parquet(whole, glob=False)] if whole else []
    for file, kept, is_whole in sources:
        if not is_whole:
            wanted = pl.col("fingerprint").is_in(kept["fingerprint"].to_list())
            scans.append(pl.scan_parquet(file, glob=False).filter(wanted))
    return pl.concat(scans)


def _sources(path: Path) -> list[tuple[Path, pl.DataFrame, bool]]:
    """Each file with the subjects that it has the last word on, and whether these are all of it."""
    _check_name(path)
    known: set[str] = set()
    names: set[tuple[Any, ...]] = set()
    found = []
    for file in reversed([path, *_parts(path)]):
        there = _subjects_in(file)
        last = [
            row["fingerprint"] not in known and _subject(row) not in names
            for row in there.iter_rows(named=True)
        ]
        kept = there.filter(pl.Series(last, dtype=pl.Boolean))
        known |= {*kept["fingerprint"]}
        names |= {_subject(row) for row in kept.iter_rows(named=True)}
        found.append((file, kept, all(last)))
    return found[::-1]


def _subjects_in(file: Path) -> pl.DataFrame:
    """The subjects of one file, in order."""
    try:
        check_parquet(file)
        schema = pl.read_parquet_schema(file)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(
            f"{file} cannot be read as predictions: {error}; make such a file with `clipsyn "
            "evaluate STORE --predictions FILE`"
        ) from error
    if dict(schema) != PREDICTIONS:
        raise UsageError(
            f"{file} holds something else than predictions: make such a file with `clipsyn "
            "evaluate STORE --predictions FILE`"
        )
    first = [pl.col(name).first() for name in ABOUT]
    rows = pl.scan_parquet(file, glob=False, row_index_name="row").group_by("fingerprint")
    # as a stream: ten million rows are two gigabytes at once
    found = rows.agg(*first, n=pl.len(), row=pl.col("row").min()).collect(engine="streaming")
    return found.sort("row").select(*ABOUT, "fingerprint", "n")


def _check_name(path: Path) -> None:
    """Raise UsageError for bytes that are no text, which polars does not take for a name."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UsageError(f"the name {path} is not UTF-8: give the file another") from None


def _subject(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ABOUT)


def _folder(path: Path) -> Path:
    return path.parent / f".{path.name}.parts"


def _parts(path: Path) -> list[Path]:
    """What was added to the file and is not in it yet, in order."""
    return sorted(_folder(path).glob("*.parquet"))


def _next_part(path: Path, rows: Iterable[Row]) -> Path:
    """The place of these rows, a name that no other process has."""
    folder = _folder(path)
    folder.mkdir(exist_ok=True)
    digest = hashlib.sha256("".join(row["fingerprint"] for row in rows).encode()).hexdigest()
    return folder / f"{len(_parts(path)):06}-{digest[:16]}.parquet"


def _clear(path: Path) -> None:
    shutil.rmtree(_folder(path), ignore_errors=True)
