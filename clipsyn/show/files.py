"""Files and folders that take their place when they are complete, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EISDIR
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from clipsyn.errors import UsageError
from clipsyn.settings import check_outside


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path` when it is complete; a device or pipe as it is.

    Raises UsageError if it cannot be written.
    """
    with guarded_output(path):
        if path.exists() and not path.is_file():
            with path.open("wb") as device:
                yield device
            return
        # a name that no other process has: two that write one file must not write into each other
        partial = path.with_name(f".{secrets.token_hex(8)}.partial")
        try:
            with partial.open("xb") as file:
                yield file
            partial.replace(path)
        finally:
            with suppress(OSError):
                partial.unlink()


@contextmanager
def folder_whole(path: Path) -> Iterator[Path]:
    """A folder that takes the place of `path`, and of what is there, when it is complete.

    Raises UsageError if it cannot be written.
    """
    with guarded_output(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as beside:
            made, old = Path(beside, path.name), Path(beside, "old")
            made.mkdir()
            yield made
            if path.exists():
                path.rename(old)
            try:
                made.rename(path)
            except OSError:
                old.rename(path)
                raise


@contextmanager
def guarded_output(path: Path) -> Iterator[None]:
    """Raise UsageError for a place inside a store or router, and for what the system refuses."""
    check_outside(path)
    try:
        yield
    except Exception as error:
        from polars.exceptions import PolarsError  # its own for a full disk; routers need no polars

        if not isinstance(error, OSError | PolarsError):
            raise
        said = getattr(error, "strerror", None) or error
        raise UsageError(
            f"cannot write {path}: {said}; choose an existing folder with room for it that you may "
            "write to"
        ) from error


def check_place(path: Path) -> None:
    """Make the folder that a file is to be in; raises UsageError unless it can be written there."""
    with guarded_output(path):
        if path.is_dir():
            raise IsADirectoryError(EISDIR, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        is_device = path.exists() and not path.is_file()
        if not os.access(path if is_device else path.parent, os.W_OK):
            raise PermissionError(EACCES, "you may not write there")
