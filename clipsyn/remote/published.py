"""A published store as readers see it: listed by its index, its groups brought into the cache.

Only what is read travels: the manifest and the metadata of a group when it is first looked at, and
of its arrays the chunks that hold the rows asked for, many at a time. A file is kept when its size
and SHA-256 are those of the manifest, whose own SHA-256 the index has. What the cache has of the
metadata is compared with the manifest again, for a cache is a folder like others: of chunks the
metadata of their group have the checksums.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from numpy.typing import NDArray

from clipsyn.errors import DamagedStore, StoreError
from clipsyn.names import Location
from clipsyn.remote.cache import Cache
from clipsyn.remote.folder import MissingObject
from clipsyn.remote.index import MANIFEST, Entry, Index, Manifest
from clipsyn.remote.transfer import FILES, bring, is_there
from clipsyn.remote.transport import Remote
from clipsyn.store import arrays
from clipsyn.store.groups import replaced_meanwhile
from clipsyn.store.layout import Listed
from clipsyn.store.tree import FileStamp

_Result = TypeVar("_Result")
_Names = dict[str, Any]  # name of a folder -> those in it


class Published:
    """The tree of a store at a URL (`clipsyn.store.tree`), as it was when it was opened."""

    def __init__(self, location: Location, remote: Remote, index: Index, cache: Cache) -> None:
        self._location = location
        self._remote = remote
        self._index = index
        self._cache = cache
        self._entries = {entry.name: entry for entry in index.entries.values()}
        self._manifests: dict[str, Manifest] = {}
        self._locks: defaultdict[str, Lock] = defaultdict(Lock)  # of groups
        self._lock = Lock()
        self._running: dict[tuple[str, str], Future[None]] = {}
        self._checked: set[str] = set()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """A worker reads the index again; the cache is the same."""
        return open_published, (self._location,)

    # What there is

    lanes = FILES

    def marker(self, store: Path) -> dict[str, Any]:
        return dict(self._index.store)

    def exists(self, path: Path) -> bool:
        return self._below(path) is not None

    def folders(self, path: Path) -> list[str]:
        if entry := self._entry(path):
            ends, names = f"/{arrays.METADATA}", self._metadata(entry).files
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

    def listed(self) -> Collection[Entry]:
        return self._index.entries.values()

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
                for _ in threads.map(self._metadata, new):
                    pass

    def _entries_below(self, path: Path) -> Iterable[Entry]:
        if entry := self._entry(path):
            yield entry
            return
        for name in self._below(path) or ():
            yield from self._entries_below(path / name)

    def attributes(self, path: Path) -> Mapping[str, Any]:
        return self._with_group(path, lambda entry, folder: arrays.read_attributes(folder))

    def read(self, path: Path, array: str, rows: range | None, listed: Listed) -> NDArray[Any]:
        def look(entry: Entry, folder: Path) -> NDArray[Any]:
            self._bring_rows(entry, folder, array, rows, listed)
            return arrays.read(folder / array, rows, listed)

        return self._with_group(path, look)

    def damage(self, path: Path, array: str, listed: Listed) -> list[str]:
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
            raise DamagedStore(f"{path / arrays.METADATA} is missing")
        folder = self._cache.folder(entry.manifest)
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

    def _forget(self, entry: Entry, manifest: Manifest | None) -> None:
        """Empty the group's folder of the cache, unless another thread has since `manifest`."""
        with self._locks[entry.name]:
            if self._manifests.get(entry.name) is manifest:
                self._manifests.pop(entry.name, None)
                self._cache.forget(entry.manifest)

    def _metadata(self, entry: Entry) -> Manifest:
        """The manifest of a group, whose metadata lies in the cache when this returns."""
        with self._locks[entry.name]:
            if manifest := self._manifests.get(entry.name):
                return manifest
            manifest = self._manifest(entry)
            folder = self._cache.folder(entry.manifest)
            names = [name for name in manifest.files if name.rpartition("/")[2] == arrays.METADATA]
            self._bring(
                entry,
                manifest,
                [name for name in names if not is_there(folder / name, manifest.files[name])],
            )
            self._manifests[entry.name] = manifest
            return manifest

    def _manifest(self, entry: Entry) -> Manifest:
        kept = self._cache.folder(entry.manifest) / MANIFEST
        try:
            manifest = Manifest.parse(kept.read_bytes(), self._remote.shown, entry)
            self._cache.use(entry.manifest)
        except (FileNotFoundError, DamagedStore):
            with self._there(entry, MANIFEST):
                data = self._remote.get(f"{entry.folder}/{MANIFEST}").data
            manifest = Manifest.parse(data, self._remote.shown, entry)
            self._cache.write(kept, data)
        return manifest

    # Files

    def _bring_rows(
        self, entry: Entry, folder: Path, array: str, rows: range | None, listed: Listed
    ) -> None:
        at = os.fspath(folder / array)  # paths would take a millisecond
        names = [name for name in listed.files(rows) if not os.access(f"{at}/{name}", os.F_OK)]
        self._bring(entry, self._metadata(entry), [f"{array}/{name}" for name in names])

    def _bring(self, entry: Entry, manifest: Manifest, missing: Collection[str]) -> None:
        """Fetch these files into the cache."""
        for name in missing:
            if name not in manifest.files:
                raise DamagedStore(f"{self._shown(entry, name)} is not listed in its manifest")
        for future in [self._start(entry, manifest, name) for name in missing]:
            future.result()

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(FILES)

    def _start(self, entry: Entry, manifest: Manifest, name: str) -> Future[None]:
        """Fetch a file in another thread; one that is on its way is not fetched twice."""
        key = entry.manifest, name
        with self._lock:
            if key in self._running:
                return self._running[key]
            future = self._threads.submit(self._fetch, entry, manifest, name)
            self._running[key] = future
        future.add_done_callback(lambda _: self._running.pop(key, None))
        return future

    def _fetch(self, entry: Entry, manifest: Manifest, name: str) -> None:
        file = self._cache.folder(entry.manifest) / name
        path, scratch = f"{entry.folder}/{name}", self._cache.scratch
        with self._cache.writing(), self._there(entry, name):
            bring(self._remote, path, manifest.files[name], file, scratch)

    @contextmanager
    def _there(self, entry: Entry, name: str) -> Iterator[None]:
        """Raise StaleCell where the group was replaced, or DamagedStore where a file is lost."""
        try:
            yield
        except MissingObject:
            now = self._cache.index(self._remote, self._location)
            if now.entries.get(entry.place) != entry:
                raise replaced_meanwhile(self._location, entry.name) from None
            raise DamagedStore(f"{self._shown(entry, name)} is missing") from None

    def _shown(self, entry: Entry, name: str) -> str:
        return f"{self._remote.shown}/{entry.folder}/{name}"


def open_published(location: Location) -> Published:
    """The store at a URL: reads its index, or learns that the one in the cache is current."""
    remote, cache = Remote(location.url), Cache.of_user()
    return Published(location, remote, cache.index(remote, location), cache)
