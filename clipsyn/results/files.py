"""Files of results, to which rows are added, and the ensembles in such a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Self

import polars as pl

from clipsyn.errors import ConflictingResults, UsageError
from clipsyn.frames import locked, make_folder_of, write
from clipsyn.registry import unknown_name
from clipsyn.results.frame import NAMES, RESULT, Row
from clipsyn.settings import FULL, Shots, images_of
from clipsyn.store.files import file_at


class ResultsFile:
    """A Parquet file of results, to which rows are added, by several processes if need be.

    Rows are trusted by fingerprint: what is there with the same one is not computed again, and
    results of other inputs under the same names are refused rather than mixed.
    """

    def __init__(self, path: Path | None, *, replace: bool = False) -> None:
        self.path = path
        self.replace = replace
        self.frame = pl.DataFrame(schema=RESULT)
        self.known: set[str] = set()
        self._seen: tuple[int, int] | None = None  # the file whose content `frame` is
        if path:
            make_folder_of(path)
        with self._turn():  # refuses a place that cannot be written to
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows, and write the file: complete, or as it was before.

        What another process has added meanwhile stays, and is not added again.
        """
        new = pl.DataFrame(list(rows), schema=RESULT)
        if new.is_empty():
            return
        with self._turn():
            same = self._of(new, self.frame)
            new = new.join(same, on=[*NAMES, "fingerprint"], how="anti", nulls_equal=True)
            if new.is_empty():
                return
            others = self._of(new, same)
            if not others.is_empty():
                if not self.replace:
                    raise ConflictingResults(self._conflict(others))
                self.frame = self.frame.join(others, on=NAMES, how="anti", nulls_equal=True)
            self.frame = pl.concat([self.frame, new])
            self.known |= set(new["fingerprint"])
            if self.path:
                write(self.frame, parquet=self.path)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Read what other processes have added to the file, and keep them out meanwhile."""
        with locked(self.path) if self.path else nullcontext():
            if self.path and (there := file_at(self.path)) and there != self._seen:
                self.frame = _read(self.path)
                self.known |= set(self.frame["fingerprint"])  # in place: a run holds the same set
            self._seen = None  # if this turn fails, the next one reads
            yield
            self._seen = file_at(self.path) if self.path else None

    @staticmethod
    def _of(new: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows of a frame under the names of new ones."""
        return frame.join(new, on=NAMES, how="semi", nulls_equal=True)

    def _conflict(self, same: pl.DataFrame) -> str:
        row = same.row(0, named=True)
        what = row["ensemble"] or ", ".join(row["backbones"])
        return (
            f"{self.path} already holds {what} on {row['dataset']}/"
            f"{row['split']} ({row['perturbation']}, head {row['head']}) from other features, "
            "labels, prompts or settings, or on other samples (fingerprint): write to another "
            "file, or give replace=True"
        )


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
    rows = _read(path).filter(
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
    images = _images(set(rows["shots"]), shots, line)
    return rows.filter((pl.col("shots") == 0) | pl.col("shots").eq_missing(images))


def _images(there: set[int | None], asked: Shots | None, line: str) -> int | None:
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


def _read(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path, glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UsageError(f"{path} cannot be read as results: {error}") from error
    if set(frame.columns) == {*RESULT} - {"support_prompts"}:
        raise UsageError(
            f"{path} holds results of an earlier version of clipsyn, which had other columns: make "
            "them again with `clipsyn evaluate STORE -o OTHER`"
        )
    if dict(frame.schema) != RESULT:
        raise UsageError(f"{path} holds something else than results: write to another file")
    return frame
