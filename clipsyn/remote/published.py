"""A published store as readers see it: listed by its index, its groups brought into the cache.

Only what is read travels: the manifest and the metadata of a group when it is first looked at, and
of its arrays the chunks that hold the rows asked for, many at a time. A file is kept when its size
and SHA-256 are those of the manifest, whose own SHA-256 the index has. The cache is a plain folder:

    groups/<SHA-256 of the manifest>/   files of one group, as they are published
    indexes/<SHA-256 of the URL>        the index that was read last, and its ETag
    .wip/                               what is being written

A group's folder is called after its content, so it is the same for every store that has the group,
and never old. What is there of its metadata is compared with the manifest again; of chunks the
metadata have the checksums. Who removes the folder, or a part of it, only lets it travel again.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from numpy.typing import NDArray

from clipsyn.errors import DamagedStore, StoreError
from clipsyn.names import Location
from clipsyn.remote.index import INDEX, MANIFEST, MOST_INDEX, Entry, Index, Manifest, stamp_of
from clipsyn.remote.transport import MissingObject, Remote
from clipsyn.store import arrays
from clipsyn.store.arrays import Layout
from clipsyn.store.files import METADATA
from clipsyn.store.groups import FileStamp, Tree, replaced_meanwhile
from clipsyn.text import advised

FILES = 16  # at a time
_Result = TypeVar("_Result")
_Names = dict[str, Any]  # name of a folder -> those in it


def cache_folder() -> Path:
    """The cache that the environment says, or the user's own."""
    own = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CLIPSYN_CACHE") or Path(own) / "clipsyn")


class Published(Tree):
    """The tree of a store at a URL (`clipsyn.store.groups`), as it was when it was opened."""

    lanes = FILES

    def __init__(self, location: Location) -> None:
        self._location = location
        self._remote = Remote(location.url)
        self._cache = cache_folder()
        self._index = self._current()
        self._entries = {entry.name: entry for entry in self._index.entries.values()}
        self._manifests: dict[str, Manifest] = {}
        self._lock = Lock()  # of what is forgotten
        self._threads = ThreadPoolExecutor(FILES)
        self._checked: set[str] = set()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """A worker reads the index again; the cache is the same."""
        return Published, (self._location,)

    def _current(self) -> Index:
        """The index as it is now: the one in the cache, if that is current.

        Raises StoreError where there is none.
        """
        location, shown = self._location, self._remote.shown
        file = self._cache / "indexes" / hashlib.sha256(location.url.encode()).hexdigest()
        try:
            etag, _, data = file.read_bytes().partition(b"\n")
        except OSError:
            etag = data = b""
        known = etag.decode(errors="replace") if data else None
        try:
            new, now = self._remote.get(INDEX, known, MOST_INDEX)
        except MissingObject:
            raise StoreError(
                f"{location} is no published store, for it has no {INDEX}: make it one with "
                f"`{advised('push', 'STORE', location)}`"
            ) from None
        if known and now == known:
            return Index.parse(data, shown)
        index = Index.parse(new, shown)
        if now:
            self._keep(file, now.encode() + b"\n" + new)
        return index

    # What there is

    def marker(self, store: Path) -> dict[str, Any]:
        return dict(self._index.store)

    def exists(self, path: Path) -> bool:
        return self._below(path) is not None

    def folders(self, path: Path) -> list[str]:
        if entry := self._entry(path):
            ends, names = f"/{METADATA}", self._metadata(entry).files
            return sorted(name.removesuffix(ends) for name in names if name.endswith(ends))
        return sorted(self._below(path) or ())

    def size(self, path: Path) -> int:
        return sum(entry.bytes for entry in self._entries_below(path))

    def seen(self, path: Path) -> FileStamp | None:
        entry = self._entry(path)
        return (int(entry.manifest[:15], 16), 0) if entry else None

    def facts(self, path: Path) -> Mapping[str, Any] | None:
        entry = self._entry(path)
        if entry is None:
            return None
        return {**entry.facts, "fingerprint": entry.fingerprint, "content": entry.content}

    @cached_property
    def _names(self) -> _Names:
        names: _Names = {}
        for name in self._entries:
            below = names
            for part in name.split("/"):
                below = below.setdefault(part, {})
        return names

    def _below(self, path: Path) -> _Names | None:
        below: _Names | None = self._names
        for part in path.relative_to(self._location).parts:
            below = below.get(part) if below is not None else None
        return below

    def _entry(self, path: Path) -> Entry | None:
        return self._entries.get(path.relative_to(self._location).as_posix())

    # Groups

    def expect(self, paths: Iterable[Path]) -> None:
        """Bring the metadata of all groups at these folders and below them, many at a time."""
        wanted = {entry.name: entry for path in paths for entry in self._entries_below(path)}
        new = [entry for entry in wanted.values() if entry.name not in self._manifests]
        if len(new) > 1:
            with ThreadPoolExecutor(FILES) as threads:
                list(threads.map(self._metadata, new))

    def _entries_below(self, path: Path) -> Iterable[Entry]:
        if entry := self._entry(path):
            yield entry
            return
        for name in self._below(path) or ():
            yield from self._entries_below(path / name)

    def attributes(self, path: Path) -> Mapping[str, Any]:
        return self._with_group(path, lambda entry, folder: arrays.read_attributes(folder))

    def read(self, path: Path, array: str, rows: range | None, listed: Layout) -> NDArray[Any]:
        def look(entry: Entry, folder: Path) -> NDArray[Any]:
            self._bring_rows(entry, folder, array, rows, listed)
            return arrays.read(folder / array, listed, rows)

        return self._with_group(path, look)

    def copy(self, path: Path, folder: Path, names: Sequence[str]) -> None:
        def bring(entry: Entry, _: Path) -> None:
            manifest = self._metadata(entry)
            fetched = self._threads.map(lambda name: self._fetch(entry, manifest, name), names)
            for name, data in zip(names, fetched, strict=True):
                (folder / name).write_bytes(data)

        self._with_group(path, bring)

    def damage(self, path: Path, array: str, listed: Layout) -> list[str]:
        """What lies at the URL now is read, once for each group, whatever the cache has of it."""
        entry = self._entry(path)
        if entry and entry.name not in self._checked:
            self._checked.add(entry.name)
            self._forget(entry, self._manifests.get(entry.name))

        def look(entry: Entry, folder: Path) -> list[str]:
            self._bring_rows(entry, folder, array, None, listed)
            problems = arrays.damage(folder / array, listed)
            return [problem.replace(str(folder), str(path)) for problem in problems]

        try:
            return self._with_group(path, look)
        except StoreError as error:
            return [str(error)]

    def _with_group(self, path: Path, look: Callable[[Entry, Path], _Result]) -> _Result:
        """What `look` finds in the group's folder of the cache; once more where that was damaged.

        Messages name the group's own place.
        """
        entry = self._entry(path)
        if entry is None:
            raise DamagedStore(f"{path / METADATA} is missing")
        folder = self._folder(entry)
        manifest = self._metadata(entry)
        try:
            return look(entry, folder)
        except DamagedStore as error:
            if str(folder) not in str(error):  # of what was sent
                raise
        self._forget(entry, manifest)
        try:
            self._metadata(entry)
            return look(entry, folder)
        except DamagedStore as error:
            raise DamagedStore(str(error).replace(str(folder), str(path))) from None

    def _metadata(self, entry: Entry) -> Manifest:
        """The manifest of a group, whose metadata lies in the cache when this returns."""
        if manifest := self._manifests.get(entry.name):
            return manifest
        folder = self._folder(entry)
        kept = folder / MANIFEST
        try:
            manifest = Manifest.parse(kept.read_bytes(), self._remote.shown, entry)
        except (FileNotFoundError, DamagedStore):
            with self._there(entry, MANIFEST):
                data, _ = self._remote.get(f"{entry.folder}/{MANIFEST}")
            manifest = Manifest.parse(data, self._remote.shown, entry)
            self._keep(kept, data)
        names = [name for name in manifest.files if name.rpartition("/")[2] == METADATA]
        for name in names:
            file = folder / name
            if not (file.exists() and stamp_of(file.read_bytes()) == manifest.files[name]):
                self._bring(entry, manifest, name)
        return self._manifests.setdefault(entry.name, manifest)

    # Files

    def _folder(self, entry: Entry) -> Path:
        """Where the files of a group are, once they were brought."""
        return self._cache / "groups" / entry.manifest

    def _bring_rows(
        self, entry: Entry, folder: Path, array: str, rows: range | None, listed: Layout
    ) -> None:
        at, manifest = os.fspath(folder / array), self._metadata(entry)
        # paths would take a millisecond
        missing = [name for name in listed.files(rows) if not os.access(f"{at}/{name}", os.F_OK)]
        list(self._threads.map(lambda n: self._bring(entry, manifest, f"{array}/{n}"), missing))

    def _bring(self, entry: Entry, manifest: Manifest, name: str) -> None:
        self._keep(self._folder(entry) / name, self._fetch(entry, manifest, name))

    def _fetch(self, entry: Entry, manifest: Manifest, name: str) -> bytes:
        """A file of a group, if it has the size and SHA-256 of the manifest."""
        if (stamp := manifest.files.get(name)) is None:
            raise DamagedStore(f"{self._shown(entry, name)} is not listed in its manifest")
        for _ in range(2):  # what was altered on its way may arrive the second time
            with self._there(entry, name):
                data, _etag = self._remote.get(f"{entry.folder}/{name}", most=stamp[0])
            if stamp_of(data) == stamp:
                return data
        raise DamagedStore(f"{self._shown(entry, name)} has other bytes than its manifest lists")

    @contextmanager
    def _there(self, entry: Entry, name: str) -> Iterator[None]:
        """Raise StaleCell where the group was replaced, or DamagedStore where a file is lost."""
        try:
            yield
        except MissingObject:
            if self._current().entries.get(entry.place) != entry:
                raise replaced_meanwhile(self._location, entry.name) from None
            raise DamagedStore(f"{self._shown(entry, name)} is missing") from None

    def _shown(self, entry: Entry, name: str) -> str:
        return f"{self._remote.shown}/{entry.folder}/{name}"

    # The cache, which several processes may use at once

    def _keep(self, file: Path, data: bytes) -> None:
        """Without waiting for the disk: what a power cut leaves is found by its checksum."""
        partial = self._cache / ".wip" / secrets.token_hex(8)
        try:
            for folder in (file.parent, partial.parent):
                folder.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            partial.replace(file)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise StoreError(
                f"the cache {self._cache} cannot be written ({error.strerror}): set CLIPSYN_CACHE "
                "to a folder that can, or remove what is in it"
            ) from error

    def _forget(self, entry: Entry, manifest: Manifest | None) -> None:
        """Remove the group from the cache, in one step, unless a thread has since `manifest`."""
        trash = self._cache / ".wip" / secrets.token_hex(8)
        with self._lock:
            if self._manifests.get(entry.name) is manifest:
                with suppress(OSError):
                    self._folder(entry).rename(trash)
                    shutil.rmtree(trash)
                self._manifests.pop(entry.name, None)  # afterwards, for others find it there
