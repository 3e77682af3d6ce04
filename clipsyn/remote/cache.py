"""The folder on this machine where groups of published stores are kept when they have been read.

    groups/<SHA-256 of the manifest>/   files of one group, as they are published, and `from.json`
    indexes/<SHA-256 of the URL>        the index that was read last, and its ETag

A group's folder is called after its content, so it is the same for every store that has the group,
and never old. Files appear under their names when they are whole and have been checked. Folders
that were not used for longest go first when there is too much; who still reads them brings them
again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipsyn.documents import parse_json
from clipsyn.errors import StoreError, UsageError
from clipsyn.store import files

DEFAULT_SIZE = "20 GB"
_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?b?)", re.IGNORECASE)
_FROM = "from.json"
_PARTIAL, _TRASH = ".partial-", ".trash-"
_ABANDONED = 24 * 3600  # seconds after which nobody is writing a partial file any more


def parse_size(text: str) -> int:
    """Bytes of a size such as 500 MB, 20GB or 1.5 TB; raises UsageError."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise UsageError(f"'{text}' is no size: write it as 500 MB, 20 GB or 1.5 TB")
    unit = match[2].lower()
    return int(float(match[1]) * _UNITS[unit if unit in _UNITS else f"{unit}b"])


@dataclass(frozen=True)
class Kept:
    """One group in the cache."""

    folder: Path
    source: str  # the URL of the store that it came from, and its name there
    name: str
    bytes: int
    used: float  # seconds since 1970


class Cache:
    """Made when something is kept. Several processes may use it at once."""

    def __init__(self, root: Path, most: int) -> None:
        self.root = root
        self.most = most
        self._groups = root / "groups"
        self._used: set[str] = set()  # by this process: not removed by it
        self._unmeasured = most  # bytes that may have been added since the cache was measured

    @classmethod
    def of_user(cls) -> Cache:
        """The cache that the environment says, or the user's own."""
        own = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        root = Path(os.environ.get("CLIPSYN_CACHE") or Path(own) / "clipsyn")
        try:
            size = parse_size(os.environ.get("CLIPSYN_CACHE_SIZE") or DEFAULT_SIZE)
        except UsageError as error:
            raise UsageError(f"CLIPSYN_CACHE_SIZE: {error}") from None
        return cls(root, size)

    # Groups

    def folder(self, digest: str) -> Path:
        """Where the files of a group are, once they were brought; it counts as used now."""
        folder = self._groups / digest
        if digest not in self._used:
            self._used.add(digest)
            with suppress(OSError):  # not there yet, or of another user who shares it
                os.utime(folder)
        return folder

    def keep(self, digest: str, name: str, data: bytes | memoryview) -> None:
        """Write a file of a group, which must have been checked."""
        self._write(self.folder(digest) / name, data)
        self._unmeasured += len(data)

    def label(self, digest: str, source: str, name: str) -> None:
        """Say where a group came from, for `clipsyn cache ls`."""
        label = json.dumps({"store": source, "group": name}).encode()
        self._write(self.folder(digest) / _FROM, label)

    def forget(self, digest: str) -> None:
        """Remove a group, as one of which a file was found damaged."""
        self._remove(self._groups / digest)
        self._used.discard(digest)

    def kept(self) -> list[Kept]:
        """Every group, those used last first."""
        there = [self._look_at(Path(entry)) for entry in files.entries(self._groups)]
        return sorted(filter(None, there), key=lambda kept: (-kept.used, kept.name))

    def _look_at(self, folder: Path) -> Kept | None:
        if folder.name.startswith("."):
            return None
        try:
            label: Any = parse_json((folder / _FROM).read_bytes())
            source, name = str(label["store"]), str(label["group"])
        except (OSError, ValueError, KeyError, TypeError):
            source, name = "", folder.name  # being made, or of a newer clipsyn
        try:
            return Kept(folder, source, name, files.size(folder), folder.stat().st_mtime)
        except FileNotFoundError:
            return None

    def prune(self, most: int, spare: Collection[str] = ()) -> list[Kept]:
        """Remove groups until `most` bytes are left, those not used for longest first.

        Of what `spare` names nothing goes, so more may stay.
        """
        kept, removed = self.kept(), []
        total = sum(one.bytes for one in kept)
        for one in reversed(kept):
            if total <= most:
                break
            if one.folder.name not in spare:
                self._remove(one.folder)
                removed.append(one)
                total -= one.bytes
        self._drop_debris()
        return removed

    def make_room(self) -> None:
        """Keep to the size limit; looked at again when a twentieth of it may have been added."""
        if self._unmeasured * 20 > self.most:
            self.prune(self.most, self._used)
            self._unmeasured = 0

    # Indexes

    def index(self, url: str) -> tuple[str, bytes] | None:
        """ETag and bytes of the index that was read last from a URL."""
        try:
            etag, _, data = self._index(url).read_bytes().partition(b"\n")
        except OSError:
            return None
        return (etag.decode(errors="replace"), data) if etag and data else None

    def keep_index(self, url: str, etag: str, data: bytes) -> None:
        self._write(self._index(url), etag.encode() + b"\n" + data)

    def _index(self, url: str) -> Path:
        return self.root / "indexes" / hashlib.sha256(url.encode()).hexdigest()

    # Files

    def _write(self, file: Path, data: bytes | memoryview) -> None:
        """Without waiting for the disk: what a power cut leaves is found by its checksum."""
        partial = file.parent / f"{_PARTIAL}{secrets.token_hex(4)}"
        try:
            for attempt in range(3):
                file.parent.mkdir(parents=True, exist_ok=True)
                try:
                    partial.write_bytes(data)
                    partial.replace(file)
                    return
                except FileNotFoundError:  # the folder was removed meanwhile
                    if attempt == 2:
                        raise
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise StoreError(
                f"the cache {self.root} cannot be written ({error.strerror}): set CLIPSYN_CACHE to "
                "a folder that can, or make room with `clipsyn cache prune`"
            ) from error

    def _remove(self, folder: Path) -> None:
        """Away in one step, then gone file by file."""
        trash = self._groups / f"{_TRASH}{secrets.token_hex(4)}"
        with suppress(OSError):
            folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)

    def _drop_debris(self) -> None:
        """What processes left that were killed while they removed or wrote."""
        before = time.time() - _ABANDONED
        for path in self._debris():
            with suppress(OSError):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.stat().st_mtime < before:
                    path.unlink()

    def _debris(self) -> Iterator[Path]:
        yield from self._groups.glob(f"{_TRASH}*")
        yield from self.root.glob(f"indexes/{_PARTIAL}*")
        yield from self._groups.glob(f"*/{_PARTIAL}*")
        yield from self._groups.glob(f"*/*/{_PARTIAL}*")
