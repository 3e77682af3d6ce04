"""Files of results, to which rows are added, and the ensembles in such a file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import polars as pl

from clipsyn.errors import ConflictingResults, UsageError
from clipsyn.frames import locked, make_folder_of, read_parquet, write
from clipsyn.registry import unknown_name
from clipsyn.results.frame import NAMES, RESULT, Row
from clipsyn.settings import FULL, Shots, images_of
from clipsyn.store.files import file_at

_SHARE = 0.05  # of the time, at most, goes into writing the whole file
_SUBJECT = [name for name in NAMES if name != "metric"]


class ResultsFile:
    """A Parquet file of results, to which rows are added, by several processes if need be.

    Rows are trusted by fingerprint: what is there with the same one is not computed again, and
    results of other inputs under the same names are refused rather than mixed.

    Added rows are on disk when `add` returns. Writing the whole file takes longer than many fits
    do, so that it is written now and then: until the next time, rows stand in a hidden file beside
    it. They are in the whole file after `with`, and if this run is killed, after the next one has
    begun.
    """

    def __init__(self, path: Path | None, *, replace: bool = False) -> None:
        self.path = path
        self.replace = replace
        self.known: set[str] = set()
        self._beside = _Beside(path) if path else None
        self._written = pl.DataFrame(schema=RESULT)
        self._added: list[Row] = []
        self._names: dict[tuple[Any, ...], str] = {}  # of what a fingerprint is about -> it
        self._seen: tuple[int, int] | None = None  # the file whose content is known
        self._write_again = 0.0  # time.monotonic()
        if path:
            make_folder_of(path)
        self._write_what_is_beside()  # refuses a place that cannot be written to

    @property
    def frame(self) -> pl.DataFrame:
        if self._added:
            self._written = pl.concat([self._written, pl.DataFrame(self._added, schema=RESULT)])
            self._added = []
        return self._written

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._write_what_is_beside()

    def _write_what_is_beside(self) -> None:
        with self._turn():
            if self._beside and self._beside.read:
                self._write()

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows; where it raises, the files are as they were before.

        What another process has added meanwhile stays, and is not added again.
        """
        given = list(rows)
        if not given:
            return
        with self._turn():
            new = [row for row in given if row["fingerprint"] not in self.known]
            replaced = self._replace(new)
            self._take(new)
            if self._beside is None or not new:
                return
            if replaced or self._seen is None or time.monotonic() >= self._write_again:
                self._write()
            else:
                self._beside.append(new)

    def _replace(self, new: Sequence[Row]) -> bool:
        """Refuse, or remove, what is there under the names of new rows; whether there was any."""
        if not any(_subject(row) in self._names for row in new):
            return False
        names = pl.DataFrame(new, schema=RESULT)
        others = self.frame.join(names, on=NAMES, how="semi", nulls_equal=True)
        if others.is_empty():
            return False
        if not self.replace:
            raise ConflictingResults(self._conflict(others))
        self._know(self.frame.join(others, on=NAMES, how="anti", nulls_equal=True))
        return True

    def _write(self) -> None:
        assert self.path
        assert self._beside
        start = time.monotonic()
        write(self.frame, parquet=self.path)
        self._beside.clear()
        now = time.monotonic()
        self._write_again = now + (now - start) / _SHARE

    def _know(self, frame: pl.DataFrame) -> None:
        """Take the rows of a frame for all that there are."""
        self._written, self._added = frame, []
        self.known.clear()  # in place: a run holds the same set
        self._names.clear()
        first = frame.unique("fingerprint", maintain_order=True)
        for row in first.iter_rows(named=True):
            self._remember(row)

    def _take(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._remember(row)
            self._added.append(row)

    def _remember(self, row: Row) -> None:
        self.known.add(row["fingerprint"])
        self._names[_subject(row)] = row["fingerprint"]

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Read what other processes have added, and keep them out meanwhile."""
        if self.path is None or self._beside is None:
            yield
            return
        with locked(self.path):
            there = file_at(self.path)
            if there is None:
                self._beside.clear()  # what it belonged to is gone
            elif there != self._seen:
                self._know(_read(self.path))
                self._beside.read = 0
            rows = self._beside.new()
            self._take([row for row in rows if row["fingerprint"] not in self.known])
            self._seen = there
            try:
                yield
            except BaseException:
                self._seen = None  # the next turn reads all
                raise
            self._seen = file_at(self.path)

    def _conflict(self, same: pl.DataFrame) -> str:
        row = same.row(0, named=True)
        what = row["ensemble"] or ", ".join(row["backbones"])
        return (
            f"{self.path} already holds {what} on {row['dataset']}/"
            f"{row['split']} ({row['perturbation']}, head {row['head']}) from other features, "
            "labels, prompts or settings, or on other samples (fingerprint): write to another "
            "file, or give replace=True"
        )


class _Beside:
    """The hidden file of rows that the whole file is to get: a line of JSON for each."""

    def __init__(self, path: Path) -> None:
        self.path = path.parent / f".{path.name}.rows"  # a path may have no name
        self.read = 0  # bytes whose rows are known

    def append(self, rows: Iterable[Row]) -> None:
        lines = "".join(json.dumps(row, default=_plain) + "\n" for row in rows).encode()
        with self.path.open("r+b" if self.path.exists() else "xb", buffering=0) as file:
            file.truncate(self.read)  # without a line that was never finished
            file.seek(self.read)
            file.write(lines)
        self.read += len(lines)

    def new(self) -> list[Row]:
        """Rows that are not known yet, without a line that was never finished."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.read)
                lines = file.read().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        self.read += sum(map(len, lines))
        return [json.loads(line) for line in lines]

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)
        self.read = 0


def _plain(number: Any) -> Any:
    return number.item()  # of numpy


def _subject(row: Row) -> tuple[Any, ...]:
    """What the rows of one fingerprint are about."""
    return tuple(tuple(it) if isinstance(it := row[name], list) else it for name in _SUBJECT)


def ensembles_in(
    path: Path, metrics: Sequence[str], head: str, shots: Shots | None, line: str
) -> pl.DataFrame:
    """Rows of a results file about ensembles over all classes, for one head and number of shots.

    shots: images a class, "full" for the whole support, None for the most there are. Ensembles
    that learn nothing are there anyway. line: the command that adds results to the file.
    Raises UsageError where the file, or a result of that kind, is missing, and UnknownName with
    near matches for a head.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist: make it with `{line}`")
    rows = _read_with_what_is_beside(path).filter(
        pl.col("metric").is_in(metrics),
        pl.col("classes") == "all",
        pl.col("ensemble").is_not_null() & (pl.col("ensemble") != "chance"),
    )
    if rows.is_empty():
        raise UsageError(
            f"{path} has no {' or '.join(metrics)} of any ensemble over all classes: add some with "
            f"`{line}`"
        )
    if head not in rows["head"]:
        hint = f"Looked for in {path}; `{line} --heads {head}` adds it."
        raise unknown_name("head", head, rows["head"].unique(), hint)
    rows = rows.filter(head=head)
    images = images_asked(set(rows["shots"]), shots, line)
    return rows.filter((pl.col("shots") == 0) | pl.col("shots").eq_missing(images))


def read_results(path: Path) -> pl.DataFrame:
    """The rows of a file that `clipsyn evaluate -o`, or a command with `--parquet`, has written.

    Without columns that an analysis adds. Raises UsageError for a file that holds something else.
    """
    if path.is_dir() or not path.exists():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(
            f"{path} {what}: give a file of results, as `clipsyn zeroshot STORE --parquet FILE` or "
            "`clipsyn evaluate STORE -o FILE` writes it"
        )
    rows = all_rows(path)
    if lacking := ", ".join(sorted(RESULT.keys() - {*rows.columns})):
        raise UsageError(
            f"{path} holds no results, for want of {lacking}: give a file as "
            "`clipsyn zeroshot STORE --parquet FILE` writes it"
        )
    return rows.select(*RESULT)


def all_rows(path: Path, hint: str = "") -> pl.DataFrame:
    """The rows of any command's Parquet file; of evaluate's also those that are not in it yet.

    Raises UsageError, with the `hint` at its end, for a file that cannot be read.
    """
    added = pl.DataFrame(_Beside(path).new(), schema=RESULT)  # before it moves into the file
    written = _parquet(path, hint)
    if added.is_empty():
        return written
    return pl.concat([written, added.join(written, on="fingerprint", how="anti")])


def images_asked(there: set[int | None], asked: Shots | None, line: str) -> int | None:
    """The images a class that are asked for, or the most there are; None is the whole support."""
    fitted = sorted(there - {0}, key=lambda shots: (shots is None, shots))
    if asked is None:
        return fitted[-1] if fitted else 0
    if (images := images_of(asked)) not in fitted:
        known = ", ".join(str(shots or FULL) for shots in fitted) or "none"
        raise UsageError(
            f"there are no ensembles with shots={asked}, but with {known}: `{line} --shots "
            f"{asked}` adds them"
        )
    return images


def _read_with_what_is_beside(path: Path) -> pl.DataFrame:
    added = pl.DataFrame(_Beside(path).new(), schema=RESULT)  # before it moves into the file
    written = _read(path)
    return pl.concat([written, added.join(written, on="fingerprint", how="anti")])


def _parquet(path: Path, hint: str = "") -> pl.DataFrame:
    try:
        return read_parquet(path)
    except (OSError, TypeError, pl.exceptions.PolarsError) as error:  # TypeError: a name not UTF-8
        said = str(error).partition("\n")[0]  # below it polars lists its own steps
        raise UsageError(f"{path} cannot be read as results: {said}{hint}") from error


def _read(path: Path) -> pl.DataFrame:
    frame = _parquet(path)
    if set(frame.columns) == {*RESULT} - {"support_prompts"}:
        raise UsageError(
            f"{path} holds results of an earlier version of clipsyn, which had other columns: make "
            "them again with `clipsyn evaluate STORE -o OTHER`"
        )
    if dict(frame.schema) != RESULT:
        raise UsageError(f"{path} holds something else than results: write to another file")
    return frame
