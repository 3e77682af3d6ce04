"""Parquet files that any number of processes add rows to, without a lock.

A file has an id, in its metadata. What is added to FILE stands in parts, in the hidden folder
`.FILE.ID` beside it. A part holds whole fingerprints. It is written under another name, flushed
to the disk and renamed, to a name that no other process gives: it is there with all of its rows or
not at all, and nobody changes it. Readers take the file and its parts together. By its id a file
that is put in the place of another does not get the parts of that one.

Merging moves the rows of parts into the file. Several processes may do so at once. Nothing is lost,
because no file is ever written over, and none is removed before its rows stand in a later one:

1. The union of the file and its parts is written to a new file in the folder.
2. The file is renamed into the folder. Only one process can take it away; whoever finds that it is
   not the one that was read puts it back and begins anew.
3. The new file is linked to the name of the file, which fails if somebody has put one there. Then
   what was taken away stays, is read like a part, and the merger begins anew.
4. Now what was read is removed: the old file and the parts.

If a merger is killed between 2 and 3, the next process links what was taken away back.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from glob import escape
from io import BytesIO
from itertools import groupby
from pathlib import Path
from random import uniform
from typing import Any, NamedTuple, TypeVar

import polars as pl

from clipsyn.errors import UsageError
from clipsyn.evaluation.results.frame import ABOUT
from clipsyn.evaluation.results.kind import DAMAGE, Kind, conflict, opened, subject_of
from clipsyn.store.files import sync

_KEY = "clipsyn"  # of the id, in the metadata of a whole file
_WHOLE, _PART, _REPLACES = "whole-", ".parquet", "-replaces"  # of names in the folder
_DIGITS = 16  # of an id, in hexadecimal
_TRIES = 200
_LOOKS = 3  # for a file, which a merger may move while it is looked for
_PAUSE = 0.05  # seconds between two of them, at most


_T = TypeVar("_T")


class _Source(NamedTuple):
    """A file that rows are taken from."""

    file: Path
    kept: pl.DataFrame  # the subjects that are taken from it
    is_all: bool  # it has no others


class Parts:
    """A file and what was added to it; see above.

    replace: what is added takes the place of what has the same name.
    """

    def __init__(self, path: Path, kind: Kind, *, replace: bool = False) -> None:
        _check_name(path)
        self.path = path.resolve() if path.is_symlink() else path
        self.kind, self.replace = kind, replace
        self.added = self.merged = 0  # parts by this process
        self._id = ""
        self._token = _token()
        self._name = f"{time.time_ns():020}-{self._token}"

    @property
    def folder(self) -> Path:
        return _folder(self.path, self._id or self._token)

    def add(self, frame: pl.DataFrame) -> None:
        """Write a part; raises UsageError if it cannot be there with all of its rows."""
        buffer = BytesIO()
        frame.write_parquet(buffer)
        name = f"{self._name}-{self.added:06}{_REPLACES if self.replace else ''}{_PART}"

        def write() -> bool:
            self._identify()
            self.folder.mkdir(exist_ok=True)
            self._write(self.folder / name, buffer.getbuffer())
            return True

        self._until(write)
        self.added += 1

    def merge(self) -> None:
        """Move what was added, by whomever, into the file."""
        if _exists(self.path) or self._id:
            self._until(self._merge)
        self.merged = self.added

    def _write(self, part: Path, content: memoryview) -> None:
        partial = part.with_suffix(".partial")
        try:
            with partial.open("xb") as file:
                file.write(content)
            partial.rename(part)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _identify(self) -> None:
        """Find the id of the file, which is made where there is none."""
        if not _exists(self.path):
            self._make()
        there = _id_of(self.path)
        if self._id and self._id != there:
            raise UsageError(
                f"{self.path} was replaced by another file while rows were added to it: they stand "
                f"in {self.folder}"
            )
        self._id = there

    def _make(self) -> None:
        """Make the file, without rows, unless another process is faster."""
        self.folder.mkdir(exist_ok=True)
        try:
            new = self._union([pl.LazyFrame(schema=self.kind.columns)])
            _put(new, self.path)
            new.unlink(missing_ok=True)
        finally:
            with suppress(OSError):  # it has parts
                self.folder.rmdir()

    def _merge(self) -> bool:
        """Try to merge; whether there is nothing left to do."""
        self._identify()
        read, others = stamp(self.path), _others(self.path, self._id)
        if others or not self._id:  # another program wrote it
            self.folder.mkdir(exist_ok=True)
            debris = {file: stamp(file) for file in self.folder.iterdir() if not _is_part(file)}
            sources = _sources(self.path, self.kind, others, replace=self.replace)
            new = self._union(_rows(sources, self.path, self.kind))
            if not self._exchanged(new, read):
                return False
            self._id = self._id or self._token
            unchanged = (file for file, seen in debris.items() if stamp(file) == seen)
            for file in (*others, *unchanged):
                file.unlink(missing_ok=True)
        with suppress(OSError):  # others go on adding to it
            self.folder.rmdir()
        return True

    def _exchanged(self, new: Path, read: object) -> bool:
        """Put a new file in the place of the one that was read; False where that is not there."""
        taken = self.folder / f"{_WHOLE}{_token()}{_PART}"
        try:
            self.path.rename(taken)
            is_done = stamp(taken) == read and _put(new, self.path)
            if is_done or _put(taken, self.path):
                taken.unlink()
            return is_done
        finally:
            new.unlink(missing_ok=True)

    def _union(self, rows: Sequence[pl.LazyFrame]) -> Path:
        """A new file in the folder with all of these rows, in order."""
        new = self.folder / f"{_token()}.new"
        try:
            pl.concat(rows).sink_parquet(new, metadata={_KEY: self._id or self._token})
            sync(new)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        return new

    def _until(self, is_done: Callable[[], bool]) -> None:
        try:
            _undisturbed(self.path, is_done)
        except (OSError, pl.exceptions.ComputeError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error).partition("\n")[0]
            raise UsageError(
                f"cannot write {self.path}: {why or error}; what was added before is kept: see to "
                "that, and run the same command again"
            ) from error


def subjects(path: Path, kind: Kind) -> pl.DataFrame:
    """What a file, with its parts, has rows of: `about`, fingerprint and the number of rows `n`.

    Raises UsageError for a file of something else, and for two of one name.
    """
    return pl.concat([source.kept for source in _all_sources(path, kind)])


def scan(path: Path, kind: Kind) -> pl.LazyFrame:
    """All rows of a file and its parts; raises as `subjects` does."""
    return pl.concat(_rows(_all_sources(path, kind), path, kind))


def collect(path: Path, kind: Kind) -> pl.DataFrame:
    """All rows, as they were at one moment; raises as `subjects` does."""

    def collected() -> pl.DataFrame | None:
        before = stamp(path)
        rows = scan(path, kind).collect()
        return rows if stamp(path) == before else None

    return _undisturbed(path, collected)


def has_parts(path: Path) -> bool:
    """Whether rows of a file stand beside it."""
    return bool(_others(path, _id_of(path)))


def _all_sources(path: Path, kind: Kind) -> list[_Source]:
    _check_name(path)
    return _undisturbed(path, lambda: _sources(path, kind, _others(path, _id_of(path))))


def _undisturbed(path: Path, attempt: Callable[[], _T | None]) -> _T:
    """What an attempt gives, made again where others who merge got in its way."""
    for _ in range(_TRIES):
        before = stamp(path)
        try:
            if (found := attempt()) is not None and found is not False:
                return found
        except FileNotFoundError:  # merged meanwhile, or taken away
            pass
        except (UsageError, *DAMAGE):  # polars opens a file twice: it may have read of two
            if before is not None and stamp(path) == before:
                raise
        time.sleep(uniform(0, _PAUSE))
    raise UsageError(
        f"{path} is written by others all the time, or its folder is gone: run this again"
    )


def _sources(path: Path, kind: Kind, others: list[Path], *, replace: bool = False) -> list[_Source]:
    """The files with the subjects that are taken from each, in the order of their rows."""
    older = [file for file in others if file.name.startswith(_WHOLE)]
    parts = others[: len(others) - len(older)]
    try:
        there = [(file, _subjects(opened(file, path, kind))) for file in (*older, path)]
        there += _subjects_of_parts(parts)
    except DAMAGE as error:
        said = str(error).partition("\n")[0]  # below it polars lists its own steps
        raise UsageError(
            f"{' or a part of it in '.join(map(str, (path, *{file.parent for file in others})))} "
            f"is damaged: {said}; remove it, and make it anew with `{kind.line}`"
        ) from error
    last: dict[Any, str] = {}
    for file, found in there:
        may_replace = replace or file == path or _REPLACES in file.name
        of_file = {subject_of(row): row for row in found.iter_rows(named=True)}
        if len(of_file) < len(found):
            raise UsageError(
                f"{file} has two {kind.what} of one name: make it anew with `{kind.line}`"
            )
        for subject, row in of_file.items():
            earlier = last.get(subject, row["fingerprint"])
            if earlier != row["fingerprint"] and not may_replace:
                raise conflict(path, kind, row)
            last[subject] = row["fingerprint"]
    wanted, sources = {*last.values()}, []
    for file, found in there:
        kept = found.filter(pl.col("fingerprint").is_in(list(wanted)))
        wanted -= {*kept["fingerprint"]}  # the first that has it gives its rows
        sources.append(_Source(file, kept, len(kept) == len(found)))
    return sources


def _rows(sources: Sequence[_Source], path: Path, kind: Kind) -> list[pl.LazyFrame]:
    rows = []
    for is_bulk, several in groupby(sources, lambda one: one.is_all and one.file != path):
        if is_bulk:  # as one scan, since there may be thousands
            rows.append(pl.scan_parquet([one.file for one in several], glob=False))
            continue
        for one in several:
            wanted = pl.col("fingerprint").is_in(one.kept["fingerprint"].to_list())
            every = opened(one.file, path, kind)
            rows.append(every if one.is_all else every.filter(wanted))
    return rows


def _subjects_of_parts(files: Sequence[Path]) -> Iterator[tuple[Path, pl.DataFrame]]:
    if files:
        rows = pl.scan_parquet([*files], glob=False, include_file_paths="file")
        found = _subjects(rows, "file").partition_by("file", as_dict=True, include_key=False)
        for file in files:
            yield file, found[str(file),]


def _subjects(rows: pl.LazyFrame, *by: str) -> pl.DataFrame:
    """A row for each fingerprint, in order; raises UsageError where two have the same names."""
    first = [pl.col(name).first() for name in (*ABOUT, "data")]
    each = rows.with_row_index("row").group_by(*by, "fingerprint")
    # as a stream: ten million rows are two gigabytes at once
    found = each.agg(*first, n=pl.len(), row=pl.col("row").min()).collect(engine="streaming")
    return found.sort("row").select(*by, *ABOUT, "data", "fingerprint", "n")


def _check_name(path: Path) -> None:
    """Raise UsageError for bytes that are no text, which polars does not take for a name."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UsageError(f"the name {path} is not UTF-8: give the file another") from None


def _token() -> str:
    return secrets.token_hex(_DIGITS // 2)


def _folder(path: Path, number: str) -> Path:
    path = path.resolve() if path.is_symlink() else path
    return path.parent / f".{path.name}.{number}"


def _others(path: Path, number: str) -> list[Path]:
    """What stands beside a file: parts in the order of their names, then files taken away."""
    if not number:
        return []
    with suppress(FileNotFoundError):
        return sorted(file for file in _folder(path, number).iterdir() if _is_part(file))
    return []


def _is_part(file: Path) -> bool:
    return file.suffix == _PART


def _id_of(file: Path) -> str:
    """Empty where there is none; raises FileNotFoundError."""
    try:
        found = pl.read_parquet_metadata(file).get(_KEY, "")
    except FileNotFoundError:
        raise
    except (OSError, TypeError, *DAMAGE):
        return ""  # who reads it says what it is
    return found if re.fullmatch(f"[0-9a-f]{{{_DIGITS}}}", found) else ""


def _exists(path: Path) -> bool:
    """Whether there is a file; what a merger has taken away, and was then killed, is put back."""
    folder = f".{escape(path.name)}.{'[0-9a-f]' * _DIGITS}"
    for _ in range(_LOOKS):
        if path.exists():
            return True
        taken = path.parent.glob(f"{folder}/{_WHOLE}*{_PART}")
        with suppress(FileNotFoundError, ValueError):  # another has put it back, or there is none
            _put(max(taken, key=lambda file: file.stat().st_mtime_ns), path)
    return False


def _put(file: Path, path: Path) -> bool:
    """Give a file another name, which it has too; False where the name is taken."""
    try:
        os.link(file, path)
    except FileExistsError:
        return False
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            return False
        file.rename(path)
    return True


def stamp(file: Path) -> tuple[int, ...] | None:
    """What tells a file from all others, whatever its name; None where there is none."""
    with suppress(FileNotFoundError):
        status = file.stat()
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    return None
