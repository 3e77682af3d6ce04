"""The folder on this machine where groups of published stores are kept when they have been read.

    groups/<SHA-256 of the manifest>/   files of one group, as they are published
    indexes/<SHA-256 of the URL>        the index that was read last, and its ETag
    .wip/                               what is being written or removed

A group's folder is called after its content, so it is the same for every store that has the group,
and never old. Files appear under their names when they are whole and have been checked. Nothing
goes by itself: `clipsyn gc --cache` removes it, and who still reads it brings it again.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from clipsyn.errors import StoreError
from clipsyn.names import Location
from clipsyn.remote.folder import MissingObject
from clipsyn.remote.index import INDEX, MOST_INDEX, Index
from clipsyn.remote.transport import Remote
from clipsyn.store import files
from clipsyn.store.listing import rows_of
from clipsyn.text import advised

_ABANDONED = 24 * 3600  # seconds after which nobody is writing a file any more


class CachedGroup(NamedTuple):
    """One group in the cache."""

    digest: str
    bytes: int
    used: float  # seconds since 1970


class Cache:
    """Made when something is kept. Several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._groups = root / "groups"
        self.scratch = root / ".wip"

    @classmethod
    def of_user(cls) -> Cache:
        """The cache that the environment says, or the user's own."""
        own = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return cls(Path(os.environ.get("CLIPSYN_CACHE") or Path(own) / "clipsyn"))

    # Groups

    def folder(self, digest: str) -> Path:
        """Where the files of a group are, once they were brought."""
        return self._groups / digest

    def use(self, digest: str) -> None:
        """Say that a group is read now, if it is there."""
        with suppress(OSError):  # of another user who shares the cache
            os.utime(self.folder(digest))

    def forget(self, digest: str) -> bool:
        """Remove a group, in one step for who reads it; whether all of it is gone."""
        trash = self.scratch / secrets.token_hex(8)
        with suppress(OSError):
            self.scratch.mkdir(exist_ok=True)
            self.folder(digest).rename(trash)
            shutil.rmtree(trash)
            return True
        return False

    def groups(self) -> list[CachedGroup]:
        """Every group, those used last first."""
        found = []
        for entry in files.entries(self._groups):
            with suppress(FileNotFoundError):
                used = entry.stat().st_mtime
                found.append(CachedGroup(entry.name, files.size(Path(entry)), used))
        return sorted(found, key=lambda group: (-group.used, group.digest))

    def prune(self, unused: float) -> list[CachedGroup]:
        """Remove the groups that nobody has read for so many seconds; returns those that went."""
        before = time.time() - unused
        old = [group for group in self.groups() if group.used <= before]
        removed = [group for group in old if self.forget(group.digest)]
        for entry in files.entries(self.scratch):  # of processes that were killed
            with suppress(OSError):
                if entry.stat().st_mtime < time.time() - _ABANDONED:
                    shutil.rmtree(entry) if entry.is_dir() else Path(entry).unlink()
        return removed

    # Indexes

    def index(self, remote: Remote, location: Location) -> Index:
        """The index of a published store: the one that was read last, if that is current.

        Raises StoreError where there is none.
        """
        file = self.root / "indexes" / hashlib.sha256(location.url.encode()).hexdigest()
        try:
            etag, _, data = file.read_bytes().partition(b"\n")
        except OSError:
            etag = data = b""
        known = etag.decode(errors="replace") if data else None
        try:
            answer = remote.get(INDEX, known, MOST_INDEX)
        except MissingObject:
            raise StoreError(
                f"{location} is no published store, for it has no {INDEX}: make it one with "
                f"`{advised('push', 'STORE', location)}`"
            ) from None
        if known and answer.etag == known:
            return Index.parse(data, remote.shown)
        index = Index.parse(answer.data, remote.shown)
        if answer.etag:
            self.write(file, answer.etag.encode() + b"\n" + answer.data)
        return index

    # Files

    def write(self, file: Path, data: bytes) -> None:
        """Without waiting for the disk: what a power cut leaves is found by its checksum."""
        partial = self.scratch / secrets.token_hex(8)
        with self.writing():
            for folder in (file.parent, self.scratch):
                folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            partial.replace(file)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Say what can be done where the cache cannot be written."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"the cache {self.root} cannot be written ({error.strerror}): set CLIPSYN_CACHE to "
                "a folder that can, or make room with `clipsyn gc --cache`"
            ) from error


def rows_at(location: Location) -> list[dict[str, Any]]:
    """`clipsyn.store.inventory.cell_rows` of the store at a URL, in one request."""
    index = Cache.of_user().index(Remote(location.url), location)
    return rows_of(index.entries.values())
