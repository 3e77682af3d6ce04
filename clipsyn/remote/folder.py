"""What is read and written of a published store, and a folder that does what a bucket does."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from clipsyn.errors import StoreError
from clipsyn.remote.index import stamp_of
from clipsyn.store import files

_WIP = ".wip"  # as in a store: no part of it
_PATIENCE = 60  # seconds; an index is written in less
_COPIED = 1 << 20  # bytes at a time


class Answer(NamedTuple):
    """The bytes of an object, and a mark that changes with them."""

    data: bytes
    etag: str | None


class Object(NamedTuple):
    """What a listing says of one object."""

    path: str
    bytes: int
    written: float  # seconds since 1970, by the clock of the server


class MissingObject(StoreError):
    """There is no object of that path."""


class Changed(StoreError):
    """The object is another than the writer has seen."""


class Denied(StoreError):
    """Whoever asks lacks the right, or has not said who they are."""


class Folder:
    """The ETag of a file is the SHA-256 of its content."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str, known: str | None, most: int, target: BinaryIO) -> str:
        """Write a file into `target`; returns its ETag."""
        hasher, file = hashlib.sha256(), self._root / path
        try:
            with files.opened(file, most) as (descriptor, _):
                while part := os.read(descriptor, _COPIED):
                    hasher.update(part)
                    target.write(part)
        except (FileNotFoundError, NotADirectoryError):
            raise MissingObject from None
        return hasher.hexdigest()

    def exists(self, path: str) -> bool:
        return (self._root / path).is_file()

    def put(self, path: str, data: bytes) -> None:
        file = self._root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write_file(file, data, scratch=self._scratch())

    def put_if(self, path: str, data: bytes, etag: str | None) -> str:
        with self._locked(path):
            if self._etag(path) != etag:
                raise Changed
            self.put(path, data)
        return hashlib.sha256(data).hexdigest()

    def _etag(self, path: str) -> str | None:
        try:
            return stamp_of(self._root / path)[1]
        except (FileNotFoundError, NotADirectoryError):
            return None

    def delete(self, paths: Sequence[str]) -> None:
        """Remove files, and folders in which nothing is left."""
        for path in paths:
            file = self._root / path
            file.unlink(missing_ok=True)
            with suppress(OSError):  # another file is there, or another process was faster
                for folder in file.relative_to(self._root).parents[:-1]:
                    (self._root / folder).rmdir()

    def list(self, prefix: str) -> Iterator[Object]:
        for folder, names, entries in os.walk(self._root / prefix):
            names[:] = sorted(name for name in names if name != _WIP)
            for name in sorted(entries):
                file = Path(folder) / name
                with suppress(FileNotFoundError):  # removed meanwhile
                    status = file.lstat()
                    path = file.relative_to(self._root).as_posix()
                    yield Object(path, status.st_size, status.st_mtime)

    def _scratch(self) -> Path:
        scratch = self._root / _WIP
        scratch.mkdir(parents=True, exist_ok=True)
        return scratch

    @contextmanager
    def _locked(self, path: str) -> Iterator[None]:
        from filelock import FileLock, Timeout

        file = self._scratch() / f"{path.replace('/', '--')}.lock"
        try:
            with FileLock(file, timeout=_PATIENCE):
                yield
        except Timeout:
            raise Changed from None
