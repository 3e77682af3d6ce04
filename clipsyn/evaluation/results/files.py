"""Files of results and predictions: folders of Parquet files, to which any process adds.

What is added to FILE.parquet stands in it as a part, a Parquet file of its own. A part holds whole
fingerprints. It is written beside the folder, and renamed to a name that no other process gives: it
is there with all of its rows or not at all, and nobody changes it. At its end a run puts the parts
that it sees together: it writes their rows as another part, and then removes them. So there is no
lock, and a process that is killed at any moment loses nothing that stands in a part. What several
parts hold, as two processes have put the same ones together, is read once.

polars and others read such a folder as one table. clipsyn reads single files as well.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import polars as pl

from clipsyn.errors import ConflictingResults, UsageError
from clipsyn.evaluation.results.frame import (
    ABOUT,
    IS_SHOTS,
    IS_TRANSDUCTIVE,
    NAMES,
    RESULT,
    Row,
    in_order,
    subject,
)
from clipsyn.methods.numerics import Floats, Rows
from clipsyn.registry import unknown_name
from clipsyn.settings import SINGLE, UNFITTED, Shots
from clipsyn.show.files import check_place, guarded_output
from clipsyn.show.frames import read_parquet, scan_parquet
from clipsyn.store.files import sync
from clipsyn.store.samples import SampleTable
from clipsyn.text import LOG, advised

PREDICTIONS: dict[str, Any] = {  # a row is an image for a method that was fitted on a draw
    "fingerprint": pl.String,  # that of the method's results, which say what it is
    "dataset": pl.String,
    "sample_id": pl.String,
    "image": pl.UInt64,  # equal for equal images: 64 bits of the content's hash; null if unseen
    "label": pl.Int32,
    "prediction": pl.Int32,
    "confidence": pl.Float32,  # null where there are no probabilities
}
_DAMAGE = (pl.exceptions.PolarsError, pl.exceptions.PanicException)  # of a Parquet file
_END = ".parquet"  # of the name of a part
_LONGEST = 0.25  # seconds that rows wait for others, to be written with them
_MOST = 500  # parts that a run leaves before it puts them together
_TRIES = 20  # to read parts that others put together meanwhile
_MADE_BY = "clipsyn evaluate STORE -o FILE.parquet"
_R = TypeVar("_R")


def predicted(
    fingerprint: str, samples: SampleTable, rows: Rows, prediction: Rows, confidence: Floats | None
) -> pl.DataFrame:
    """What one method, fitted on one draw, says of the samples that count: as `PREDICTIONS`.

    rows: of the sample table; prediction, confidence: (row,).
    """
    content = np.ascontiguousarray(samples.content[rows, :8])
    columns = {
        "sample_id": pl.Series(list(samples.ids), dtype=pl.String).gather(rows),
        "image": pl.Series(content.view("<u8")[:, 0]).replace(0, None),
        "label": samples.labels[rows],
        "prediction": prediction.astype(np.int32),
        "confidence": confidence,
    }
    schema = {name: PREDICTIONS[name] for name in columns}
    same = {"fingerprint": pl.lit(fingerprint), "dataset": pl.lit(samples.dataset)}
    return pl.DataFrame(columns, schema=schema).with_columns(**same).select(*PREDICTIONS)


class RowsFile:
    """A file to which rows are added, by several processes if need be; without a path, in memory.

    columns: `RESULT` or `PREDICTIONS`. Rows are trusted by fingerprint: what is there with the same
    one is not computed again, and results of other inputs under the same names are refused rather
    than mixed. A kill loses what was added within the last quarter of a second, and nothing else.
    """

    def __init__(self, path: Path | None, columns: Mapping[str, Any] = RESULT) -> None:
        self.path = path
        self.known: set[str] = set()
        self._columns = columns
        self._names: dict[tuple[Any, ...], str] = {}  # of what a fingerprint is about -> it
        self._pending: list[pl.DataFrame] = []
        self._write_again = 0.0  # time.monotonic()
        self._own = f"{time.time_ns():020}-{secrets.token_hex(8)}"  # begins the names of its parts
        self._written = 0
        if path is None:
            return
        if path.is_file():
            raise UsageError(f"{path} is a file, and results are added to a folder: name another")
        try:
            check_place(path)
        except UsageError:
            if not path.is_dir():  # by now
                raise
            first_rows = partial(_first_rows, path=path, columns=columns)
            self._remember(_steadily(path, columns, first_rows))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self._put_together()

    @property
    def frame(self) -> pl.DataFrame:
        """All results."""
        self._flush()
        there = [collect(self.path)] if self.path and self.path.exists() else []
        return pl.concat([pl.DataFrame(schema=self._columns), *there, *self._pending])

    def add(self, rows: pl.DataFrame) -> None:
        """Add rows, but those whose fingerprint is known.

        Raises ConflictingResults for other fingerprints under names that are there.
        """
        new = {*rows["fingerprint"]} - self.known
        if new:
            added = rows.filter(pl.col("fingerprint").is_in(sorted(new)))
            self._remember(added.unique("fingerprint", keep="first", maintain_order=True))
            self._pending.append(added)
            if time.monotonic() >= self._write_again:
                self._flush()

    def _remember(self, first_rows: pl.DataFrame) -> None:
        """The first row of each fingerprint."""
        for row in first_rows.iter_rows(named=True):
            about = tuple(map(str, (row.get(name) for name in ABOUT)))
            if self._columns is RESULT and row["fingerprint"] != self._names.setdefault(
                about, row["fingerprint"]
            ):
                raise _conflict(self.path, row)
            self.known.add(row["fingerprint"])

    def _flush(self) -> None:
        if self.path is None or not self._pending:
            return
        self._write(pl.concat(self._pending).lazy())
        self._pending.clear()
        self._write_again = time.monotonic() + _LONGEST
        if self._written % _MOST == 0:
            self._put_together()

    def _put_together(self) -> None:
        """Write all rows as one part; others may do the same at this moment."""
        if self.path is None or len(parts := _parts(self.path)) < 2:
            return
        try:
            self._write(_rows(parts, self.path, self._columns), safely=True)
        except (UsageError, FileNotFoundError):
            if parts == _parts(self.path):
                raise
            return  # others have put them together
        for part in parts:
            part.unlink(missing_ok=True)

    def _write(self, rows: pl.LazyFrame, *, safely: bool = False) -> None:
        """Write a part; raises UsageError if it cannot be there with all of its rows.

        safely: though the machine stops at this moment.
        """
        assert self.path
        unfinished = self.path.with_name(f".{secrets.token_hex(8)}.partial")
        with guarded_output(self.path):
            try:
                self.path.mkdir(exist_ok=True)
                rows.sink_parquet(unfinished)
                if safely:
                    sync(unfinished)
                unfinished.rename(self.path / f"{self._own}-{self._written:06}{_END}")
            finally:
                unfinished.unlink(missing_ok=True)
        self._written += 1


def ask(path: Path, query: Callable[[pl.LazyFrame], _R]) -> _R:
    """What is asked of the predictions in a file, where each fingerprint stands once."""
    return _steadily(path, PREDICTIONS, lambda parts: query(_rows(parts, path, PREDICTIONS)))


def collect(path: Path) -> pl.DataFrame:
    """All results in a file, as they were at one moment."""
    frame = _steadily(path, RESULT, lambda parts: _rows(parts, path, RESULT).collect())
    return _checked(frame, path, [*_KNOWN, *_NAMED])


_KNOWN = ("metric", "value", "n")  # never null
_NAMED = {*ABOUT, "fingerprint"} - {"severity", "support", "support_prompts", "seed"}


def _parts(path: Path) -> list[Path]:
    """In order; a single file is its only part."""
    if not path.is_dir():
        return [path]
    parts = sorted(path.glob(f"*{_END}"))
    if not parts and any(path.iterdir()):
        raise UsageError(f"{path} is no folder of Parquet files, as `{_MADE_BY}` makes it")
    return parts


def _steadily(path: Path, columns: Mapping[str, Any], attempt: Callable[[list[Path]], _R]) -> _R:
    """What an attempt gives, made again where others put parts together meanwhile."""
    for _ in range(_TRIES):
        parts = _parts(path)
        try:
            return attempt(parts)
        except (OSError, TypeError, *_DAMAGE) as error:  # TypeError: a name that is not UTF-8
            if parts == _parts(path):
                said = str(error).partition("\n")[0]  # below it polars lists its own steps
                raise UsageError(
                    f"{path} cannot be read as {_kind(columns)}, or is damaged: {said}; give the "
                    f"Parquet file that a command wrote, as `{_MADE_BY}` does"
                ) from error
    raise UsageError(f"{path} is written by others all the time: run this again")


def _kind(columns: Mapping[str, Any]) -> str:
    return "results" if columns is RESULT else "predictions"


def _scan(parts: Sequence[Path], path: Path, columns: Mapping[str, Any]) -> pl.LazyFrame:
    """All rows of parts, with the name of the part."""
    for part in parts:
        scan_parquet(part)  # refuses what is none
    if not parts:
        return pl.LazyFrame(schema={**columns, "part": pl.String})
    rows = pl.scan_parquet([*parts], glob=False, include_file_paths="part")
    if {**rows.collect_schema()} != {**columns, "part": pl.String}:
        raise UsageError(
            f"{path} holds something else than {_kind(columns)}: make such a file with `{_MADE_BY}`"
        )
    return rows.select(*columns, "part")


def _rows(parts: Sequence[Path], path: Path, columns: Mapping[str, Any]) -> pl.LazyFrame:
    rows = _scan(parts, path, columns)
    if len(parts) > 1:
        taken = _first_rows(parts, path, columns).lazy().select("part", "fingerprint")
        keys = ["part", "fingerprint"]
        rows = rows.join(taken, on=keys, how="semi", maintain_order="left")
    return rows.drop("part")


def _first_rows(parts: Sequence[Path], path: Path, columns: Mapping[str, Any]) -> pl.DataFrame:
    """A row for each fingerprint: what it is about, and the part that its rows are taken from.

    Raises ConflictingResults for two fingerprints of one name.
    """
    rows = _scan(parts, path, columns).with_row_index("row")
    about = ABOUT if columns is RESULT else []
    first = [pl.col(name).first() for name in (*about, "row")]
    # as a stream: ten million rows are two gigabytes at once
    found = rows.group_by("part", "fingerprint").agg(first).collect(engine="streaming")
    taken = found.sort("row").unique("fingerprint", keep="first", maintain_order=True)
    if about and (twice := taken.filter(taken.select(about).is_duplicated())).height:
        raise _conflict(path, twice.row(0, named=True))
    return taken


def _conflict(path: Path | None, row: Row) -> ConflictingResults:
    """Two fingerprints have the names of this row."""
    return ConflictingResults(
        f"{path} already holds results of {subject(row)} on {row['dataset']}/{row['split']} "
        f"({row['perturbation']}, head {row['head']}) from other features, labels, prompts or "
        "settings, or on other samples (fingerprint): write to another file"
    )


def ensembles_in(
    path: Path, metrics: Sequence[str], head: str, shots: Shots | None, words: Sequence[object]
) -> pl.DataFrame:
    """Rows of a results file about ensembles over all classes, for one head and number of shots.

    shots: images a class, "full" for the whole support, None for the most there are. Ensembles
    that learn nothing are there anyway. words: of the command that adds results to the file.
    Raises UsageError where the file, or a result of that kind, is missing, and UnknownName with
    near matches for a head.
    """
    rows = collect(path).filter(
        pl.col("metric").is_in(metrics),
        pl.col("classes") == "all",
        ~pl.col("ensemble").is_in([SINGLE, "chance"]),
    )
    if apart := rows.filter(IS_TRANSDUCTIVE)["ensemble"].unique().sort().to_list():
        LOG.info("note: %s left out: they see all test images together", ", ".join(apart))
        rows = rows.filter(~IS_TRANSDUCTIVE)
    if rows.is_empty():
        raise UsageError(
            f"{path} has no {' or '.join(metrics)} of any ensemble over all classes: add some with "
            f"`{advised(*words)}`"
        )
    if head not in rows["head"]:
        hint = f"Looked for in {path}; `{advised(*words, '--heads', head)}` adds it."
        raise unknown_name("head", head, rows["head"].unique(), hint)
    rows = rows.filter(head=head)
    images = shots_asked({*rows["shots"]}, shots, words)
    rows = rows.filter(pl.col("shots").is_in([UNFITTED, images]))
    if rows.select("support", "support_prompts").drop_nulls().n_unique() > 1:
        raise UsageError(
            f"{path} has ensembles of several supports or prompt sets: give a file with one"
        )
    return rows


def read_results(path: Path) -> pl.DataFrame:
    """The results in any command's Parquet file, with columns that an analysis adds.

    Raises UsageError for a file that holds something else.
    """
    rows = all_rows(path)
    if lacking := ", ".join(name for name in RESULT if name not in rows.columns):
        raise UsageError(
            f"{path} holds no results, for want of {lacking}: give what a command wrote with "
            "`-o FILE.parquet`"
        )
    return rows


def all_rows(path: Path) -> pl.DataFrame:
    """The rows of any command's Parquet file; raises UsageError for one that cannot be read."""
    if path.is_dir():
        return collect(path)
    if not path.exists():
        raise UsageError(f"{path} does not exist: give a store, or a Parquet file of results")
    return _checked(_steadily(path, RESULT, lambda _: read_parquet(path)), path, _KNOWN)


def shots_asked(there: set[str], asked: Shots | None, words: Sequence[object]) -> str:
    """The shots that are asked for, or the most there are."""
    fitted = sorted(there - {UNFITTED}, key=in_order)
    if asked is None:
        return fitted[-1] if fitted else UNFITTED
    if str(asked) not in fitted:
        known = ", ".join(fitted) or "none"
        raise UsageError(
            f"there are no ensembles with shots={asked}, but with {known}: "
            f"`{advised(*words, '--shots', asked)}` adds them"
        )
    return str(asked)


def _checked(frame: pl.DataFrame, path: Path, known: Sequence[str]) -> pl.DataFrame:
    """The frame, if its columns of `RESULT` are what they should be.

    known: columns without null. Raises UsageError.
    """
    here = {name: dtype for name, dtype in frame.schema.items() if name in RESULT}
    wrong = [f"{name} is {dtype}" for name, dtype in here.items() if dtype != RESULT[name]]
    wrong += [f"{name} is null" for name in known if name in here and frame[name].null_count()]
    if not wrong and "shots" in here and not frame.select(IS_SHOTS.all()).item():
        wrong.append("shots is no number")
    if {*here} == {*RESULT} == {*frame.columns} and frame.select(NAMES).is_duplicated().any():
        wrong.append("two rows have the same names")
    if wrong:
        raise UsageError(f"{path} holds no results: {'; '.join(wrong)}: make it anew")
    return frame
