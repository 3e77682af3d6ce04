"""Files of results, to which rows are added, and the ensembles in such a file."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import polars as pl

from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import IS_SHOTS, NAMES, RESULT, UNFITTED, Row, in_order
from clipsyn.evaluation.results.kind import DAMAGE, Kind, as_declared, conflict, subject_of
from clipsyn.evaluation.results.parts import Parts, collect, has_parts, subjects
from clipsyn.registry import unknown_name
from clipsyn.settings import SINGLE, Shots
from clipsyn.show.frames import check_place, make_folder_of, read_parquet
from clipsyn.text import advised

_LONGEST = 0.25  # seconds that rows wait for others, to be written with them
_MOST = 500  # parts that a run leaves before it merges them
_KNOWN = {"metric", "value", "n"}  # never null
_KNOWN_OF_EVALUATE = {
    *_KNOWN,
    "head",
    "ensemble",
    "shots",
    "dataset",
    "split",
    "perturbation",
    "backbones",
    "prompts",
    "classes",
    "fingerprint",
}


class RowsFile:
    """A file to which rows are added, by several processes if need be.

    Rows are trusted by fingerprint: what is there with the same one is not computed again, and
    rows of other inputs under the same names are refused rather than mixed.

    `clipsyn.evaluation.results.parts` says how they are kept. A kill loses what was added within
    the last quarter of a second, and nothing else; they are in the file after `with`, and if this
    run is killed, after the next one has begun.
    """

    def __init__(self, path: Path | None, kind: Kind, *, replace: bool = False) -> None:
        self.path = path
        self.replace = replace
        self.known: set[str] = set()
        self._kind = kind
        self._names: dict[tuple[Any, ...], str] = {}  # of what a fingerprint is about -> it
        self._pending: list[pl.DataFrame] = []
        self._write_again = 0.0  # time.monotonic()
        self._parts = Parts(path, kind, replace=replace) if path else None
        if path and self._parts:
            make_folder_of(path)
            check_place(path)
            self._parts.merge()
            if path.exists():
                self._remember(subjects(path, kind).iter_rows(named=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        if self._parts:
            self._parts.merge()

    def _take(self, rows: Sequence[Row], frame: pl.DataFrame) -> None:
        """Add a frame; rows: what its fingerprints are about, none of which is known.

        Raises ConflictingResults for other fingerprints under names that are there.
        """
        for row in rows:
            there = self._names.get(subject_of(row), row["fingerprint"])
            if there != row["fingerprint"]:
                if not self.replace:
                    assert self.path
                    raise conflict(self.path, self._kind, row)
                self.known.discard(there)
        self._remember(rows)
        self._pending.append(frame)
        if time.monotonic() >= self._write_again:
            self._flush()

    def _remember(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.known.add(row["fingerprint"])
            self._names[subject_of(row)] = row["fingerprint"]

    def _flush(self) -> None:
        if self._parts is None or not self._pending:
            return
        self._parts.add(pl.concat(self._pending))
        self._pending.clear()
        self._write_again = time.monotonic() + _LONGEST


class ResultsFile(RowsFile):
    """A Parquet file of results; in memory without a path."""

    def __init__(self, path: Path | None, *, replace: bool = False) -> None:
        super().__init__(path, RESULTS, replace=replace)

    @property
    def frame(self) -> pl.DataFrame:
        """All rows."""
        self._flush()
        there = [collect(self.path, RESULTS)] if self.path and self.path.exists() else []
        return pl.concat([pl.DataFrame(schema=RESULT), *there, *self._pending])

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows, but those whose fingerprint is known."""
        if new := [row for row in rows if row["fingerprint"] not in self.known]:
            self._take(new, pl.DataFrame(new, schema=RESULT))
            if self._parts and self._parts.added - self._parts.merged >= _MOST:
                self._parts.merge()


RESULTS = Kind(
    "results",
    RESULT,
    "clipsyn evaluate STORE -o FILE",
    lambda rows, path: _checked(rows.collect(), path, _KNOWN_OF_EVALUATE).lazy(),
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
    rows = collect(path, RESULTS).filter(
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
    if path.is_dir() or not path.exists():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(
            f"{path} {what}: give a file of results, as `clipsyn zeroshot STORE -o FILE.parquet` "
            "or `clipsyn evaluate STORE -o FILE.parquet` writes it"
        )
    rows = all_rows(path)
    if lacking := ", ".join(sorted(RESULT.keys() - {*rows.columns})):
        raise UsageError(
            f"{path} holds no results, for want of {lacking}: give a file as "
            "`clipsyn zeroshot STORE -o FILE.parquet` writes it"
        )
    return rows.select(*RESULT)


def all_rows(path: Path, hint: str = "") -> pl.DataFrame:
    """The rows of any command's Parquet file; of evaluate's also those that are not in it yet.

    Raises UsageError, with the `hint` at its end, for a file that cannot be read.
    """
    if has_parts(path):
        return collect(path, RESULTS)
    try:
        frame = read_parquet(path)
    except (OSError, TypeError, *DAMAGE) as error:  # TypeError: a name not UTF-8
        said = str(error).partition("\n")[0]  # below it polars lists its own steps
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
