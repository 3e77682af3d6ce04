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
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import polars as pl

from clipsyn.errors import ConflictingResults, UsageError
from clipsyn.evaluation.results.frame import (
    ABOUT,
    IS_SHOTS,
    NAMES,
    RESULT,
    Row,
    in_order,
    subject,
)
from clipsyn.registry import unknown_name
from clipsyn.settings import SINGLE, UNFITTED, Shots
from clipsyn.show.frames import (
    check_place,
    guarded_output,
    make_folder_of,
    read_parquet,
    scan_parquet,
)
from clipsyn.store.files import sync
from clipsyn.text import advised

DAMAGE = (pl.exceptions.PolarsError, pl.exceptions.PanicException)  # of a Parquet file
_END, _REPLACES = ".parquet", "-replaces.parquet"  # of the name of a part
_LONGEST = 0.25  # seconds that rows wait for others, to be written with them
_MOST = 500  # parts that a run leaves before it puts them together
_TRIES = 20  # to read parts that others put together meanwhile
_MADE_BY = "clipsyn evaluate STORE -o FILE.parquet"
_KNOWN = {"metric", "value", "n"}  # never null
_R = TypeVar("_R")


class Kind(NamedTuple):
    """What such a file holds."""

    what: str
    columns: dict[str, Any]


RESULTS = Kind("results", RESULT)


class RowsFile:
    """A file to which rows are added, by several processes if need be.

    Rows are trusted by fingerprint: what is there with the same one is not computed again, and
    rows of other inputs under the same names are refused rather than mixed, or with `replace` take
    their place. A kill loses what was added within the last quarter of a second, and nothing else.
    """

    def __init__(self, path: Path | None, kind: Kind, *, replace: bool = False) -> None:
        self.path, self.replace = path, replace
        self.known: set[str] = set()
        self._kind = kind
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
            make_folder_of(path)
            check_place(path)
        except UsageError:
            if not path.is_dir():
                raise
            self._remember(subjects(path, kind, replace=replace).iter_rows(named=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self._put_together()

    def _take(self, rows: Sequence[Row], frame: pl.DataFrame) -> None:
        """Add a frame; rows: what its fingerprints are about, none of which is known.

        Raises ConflictingResults for other fingerprints under names that are there.
        """
        for row in rows:
            there = self._names.get(_subject(row), row["fingerprint"])
            if there != row["fingerprint"]:
                if not self.replace:
                    raise _conflict(self.path, self._kind, row)
                self.known.discard(there)
        self._remember(rows)
        self._pending.append(frame)
        if time.monotonic() >= self._write_again:
            self._flush()

    def _remember(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.known.add(row["fingerprint"])
            self._names[_subject(row)] = row["fingerprint"]

    def _flush(self) -> None:
        if self.path is None or not self._pending:
            return
        self._write(pl.concat(self._pending).lazy(), may_replace=self.replace)
        self._pending.clear()
        self._write_again = time.monotonic() + _LONGEST
        if self._written % _MOST == 0:
            self._put_together()

    def _put_together(self) -> None:
        """Write all rows as one part; others may do the same at this moment."""
        if self.path is None or len(parts := _parts(self.path)) < 2:
            return
        may_replace = self.replace or any(part.name.endswith(_REPLACES) for part in parts)
        try:
            rows = _rows(parts, self.path, self._kind, replace=self.replace)
            self._write(rows, may_replace=may_replace, safely=True)
        except (UsageError, FileNotFoundError):
            if parts == _parts(self.path):
                raise
            return  # others have put them together
        for part in parts:
            part.unlink(missing_ok=True)

    def _write(self, rows: pl.LazyFrame, *, may_replace: bool, safely: bool = False) -> None:
        """Write a part; raises UsageError if it cannot be there with all of its rows.

        safely: though the machine stops at this moment.
        """
        assert self.path
        name = f"{self._own}-{self._written:06}{_REPLACES if may_replace else _END}"
        partial = self.path.with_name(f".{secrets.token_hex(8)}.partial")
        with guarded_output(self.path):
            try:
                self.path.mkdir(exist_ok=True)
                rows.sink_parquet(partial)
                if safely:
                    sync(partial)
                partial.rename(self.path / name)
            finally:
                partial.unlink(missing_ok=True)
        self._written += 1


class ResultsFile(RowsFile):
    """Results; in memory without a path."""

    def __init__(self, path: Path | None, *, replace: bool = False) -> None:
        super().__init__(path, RESULTS, replace=replace)

    @property
    def frame(self) -> pl.DataFrame:
        """All rows."""
        self._flush()
        there = [collect(self.path)] if self.path and self.path.exists() else []
        return pl.concat([pl.DataFrame(schema=RESULT), *there, *self._pending])

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows, but those whose fingerprint is known."""
        if new := [row for row in rows if row["fingerprint"] not in self.known]:
            self._take(new, pl.DataFrame(new, schema=RESULT))


def subjects(path: Path, kind: Kind, *, replace: bool = False) -> pl.DataFrame:
    """What a file has rows of: `ABOUT`, data, fingerprint, the number of rows `n`, and its part.

    Raises UsageError for a file of something else, and for two fingerprints of one name, unless
    any part may `replace` those before it.
    """
    return _steadily(
        path, kind, lambda parts: _taken(_scan(parts, path, kind), path, kind, replace)
    )


def scan(path: Path, kind: Kind) -> pl.LazyFrame:
    """All rows of a file, each fingerprint once; raises as `subjects` does."""
    return _steadily(path, kind, lambda parts: _rows(parts, path, kind))


def collect(path: Path) -> pl.DataFrame:
    """All results in a file, as they were at one moment."""
    frame = _steadily(path, RESULTS, lambda parts: _rows(parts, path, RESULTS).collect())
    return _checked(frame, path, {*_KNOWN, *_NAMED})


_NAMED = (
    *("dataset", "split", "perturbation", "head", "ensemble", "backbones", "prompts", "classes"),
    *("shots", "fingerprint"),
)


def _parts(path: Path) -> list[Path]:
    """In the order in which they may replace each other; a single file is its only part."""
    if not path.is_dir():
        return [path]
    parts = sorted(path.glob(f"*{_END}"))
    if not parts and any(path.iterdir()):
        raise UsageError(f"{path} is no folder of Parquet files, as `{_MADE_BY}` makes it")
    return parts


def _steadily(path: Path, kind: Kind, attempt: Callable[[list[Path]], _R]) -> _R:
    """What an attempt gives, made again where others put parts together meanwhile."""
    for _ in range(_TRIES):
        parts = _parts(path)
        try:
            return attempt(parts)
        except (OSError, TypeError, *DAMAGE) as error:  # TypeError: a name that is not UTF-8
            if parts == _parts(path):
                said = str(error).partition("\n")[0]  # below it polars lists its own steps
                raise UsageError(
                    f"{path} cannot be read as {kind.what}, or is damaged: {said}; make it anew "
                    f"with `{_MADE_BY}`"
                ) from error
    raise UsageError(f"{path} is written by others all the time: run this again")


def _scan(parts: Sequence[Path], path: Path, kind: Kind) -> pl.LazyFrame:
    """All rows of parts, with the name of the part."""
    for part in parts:
        scan_parquet(part)  # refuses what is none
    if not parts:
        return pl.LazyFrame(schema=kind.columns | {"part": pl.String})
    rows = pl.scan_parquet([*parts], glob=False, include_file_paths="part")
    if {*rows.collect_schema().names()} != {*kind.columns, "part"}:
        raise UsageError(
            f"{path} holds something else than {kind.what}: make such a file with `{_MADE_BY}`"
        )
    return as_declared(rows.select(*kind.columns, "part"), kind.columns, path)


def _rows(parts: Sequence[Path], path: Path, kind: Kind, *, replace: bool = False) -> pl.LazyFrame:
    rows = _scan(parts, path, kind)
    taken = _taken(rows, path, kind, replace) if len(parts) > 1 else pl.DataFrame()
    if taken.height:
        keys = ["part", "fingerprint"]
        rows = rows.join(taken.lazy().select(keys), on=keys, how="semi", maintain_order="left")
    return rows.drop("part")


def _taken(rows: pl.LazyFrame, path: Path, kind: Kind, replace: bool) -> pl.DataFrame:
    """A row for each fingerprint, with the part that its rows are taken from; see `subjects`."""
    each = rows.with_row_index("row").group_by("part", "fingerprint")
    first = [pl.col(name).first() for name in (*ABOUT, "data")]
    # as a stream: ten million rows are two gigabytes at once
    found = each.agg(*first, n=pl.len(), row=pl.col("row").min()).collect(engine="streaming")
    found, last = found.sort("row"), dict[Any, str]()
    for row in found.iter_rows(named=True):
        about = _subject(row)
        is_other = last.get(about, row["fingerprint"]) != row["fingerprint"]
        if is_other and not (replace or row["part"].endswith(_REPLACES)):
            raise _conflict(path, kind, row)
        last[about] = row["fingerprint"]
    valid = found.filter(pl.col("fingerprint").is_in([*last.values()]))
    return valid.unique("fingerprint", keep="first", maintain_order=True).drop("row")


def as_declared(rows: pl.LazyFrame, columns: Mapping[str, Any], path: Path) -> pl.LazyFrame:
    """Rows whose columns have these types: a text may be a category, and nothing at all null."""
    there = rows.collect_schema()
    for name, dtype in columns.items():
        like = (dtype, pl.Null, *((pl.Categorical, pl.Enum) if dtype == pl.String else ()))
        if there[name] not in like:
            raise UsageError(
                f"{path} is not what it should be: {name} is {there[name]}, not {dtype}"
            )
    other = [name for name, dtype in columns.items() if there[name] != dtype]
    return rows.with_columns(pl.col(name).cast(columns[name]) for name in other)


def _subject(row: Row) -> tuple[Any, ...]:
    """What the rows of one fingerprint are about."""
    return tuple(tuple(it) if isinstance(it := row[name], list) else it for name in ABOUT)


def _conflict(path: Path | None, kind: Kind, row: Row) -> ConflictingResults:
    """Two fingerprints have the names of this row."""
    return ConflictingResults(
        f"{path} already holds {kind.what} of {subject(row)} on {row['dataset']}/{row['split']} "
        f"({row['perturbation']}, head {row['head']}) from other features, labels, prompts or "
        "settings, or on other samples (fingerprint): write to another file, or give replace=True"
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
    if not path.exists():
        raise UsageError(f"{path} does not exist: make it with `{advised(*words)}`")
    rows = collect(path).filter(
        pl.col("metric").is_in(metrics),
        pl.col("classes") == "all",
        ~pl.col("ensemble").is_in([SINGLE, "chance"]),
    )
    if rows.is_empty():
        raise UsageError(
            f"{path} has no {' or '.join(metrics)} of any ensemble over all classes: add some with "
            f"`{advised(*words)}`"
        )
    if head not in rows["head"]:
        hint = f"Looked for in {path}; `{advised(*words, '--heads', head)}` adds it."
        raise unknown_name("head", head, rows["head"].unique(), hint)
    rows = rows.filter(head=head)
    images = shots_asked(set(rows["shots"]), shots, words)
    return rows.filter(pl.col("shots").is_in([UNFITTED, images]))


def read_results(path: Path) -> pl.DataFrame:
    """The rows of a file that `clipsyn evaluate -o`, or another command with `-o`, has written.

    Without columns that an analysis adds. Raises UsageError for a file that holds something else.
    """
    if not path.exists():
        raise UsageError(
            f"{path} does not exist: give a file of results, as `clipsyn zeroshot STORE -o "
            "FILE.parquet` or `clipsyn evaluate STORE -o FILE.parquet` writes it"
        )
    rows = all_rows(path)
    if lacking := ", ".join(sorted(RESULT.keys() - {*rows.columns})):
        raise UsageError(
            f"{path} holds no results, for want of {lacking}: give a file as "
            "`clipsyn zeroshot STORE -o FILE.parquet` writes it"
        )
    return rows.select(*RESULT)


def all_rows(path: Path, hint: str = "") -> pl.DataFrame:
    """The rows of any command's Parquet file.

    Raises UsageError, with the `hint` at its end, for a file that cannot be read.
    """
    if path.is_dir():
        return collect(path)
    try:
        frame = read_parquet(path)
    except (OSError, TypeError, *DAMAGE) as error:
        said = str(error).partition("\n")[0]
        raise UsageError(f"{path} cannot be read as results: {said}{hint}") from error
    return _checked(frame, path, _KNOWN)


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


def _checked(frame: pl.DataFrame, path: Path, known: Collection[str]) -> pl.DataFrame:
    """The frame, if its columns of `RESULT` are what they should be.

    known: columns without null. Raises UsageError.
    """
    here = {name: dtype for name, dtype in RESULT.items() if name in frame.columns}
    frame = as_declared(frame.lazy(), here, path).collect()
    wrong = [f"{name} is null" for name in known if name in here and frame[name].null_count()]
    checks = {what: it.any() for what, it in _WRONG.items() if {*it.meta.root_names()} <= {*here}}
    wrong += [what for what, is_so in frame.select(**checks).to_dict().items() if is_so.sum()]
    if {*frame.columns} == {*RESULT} and frame.select(NAMES).is_duplicated().any():
        wrong.append("two rows have the same names")
    if wrong:
        raise UsageError(f"{path} holds no results: {'; '.join(wrong)}: make it anew")
    return frame


_WRONG = {
    "ci_low is above ci_high": pl.col("ci_low").fill_nan(None) > pl.col("ci_high").fill_nan(None),
    **{f"{name} is negative": pl.col(name) < 0 for name in ("n", "seed")},
    "shots is no number": ~IS_SHOTS,
    "a backbone is null": pl.col("backbones").list.contains(pl.lit(None, pl.String)),
}
