"""A published store as readers see it: listed by its index, its groups brought into the cache.

Only what is read travels: the manifest and the metadata of a group when it is first looked at, and
of its arrays the chunks that hold the rows asked for, many at a time. A file is kept when its size
and SHA-256 are those of the manifest, whose own SHA-256 the index has. The cache is a plain folder:

    groups/<SHA-256 of the manifest>/   files of one group, as they are published
    indexes/<SHA-256 of the URL>        the index that was read last, and its ETag
    .wip/                               what is being written or removed

A group's folder is called after its content, so it is the same for every store that has the group,
and never old. What is there of its metadata is compared with the manifest again; of chunks the
metadata have the checksums. Nothing goes by itself: `clipsyn gc --cache` removes it, and who still
reads it brings it again.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeVar

from numpy.typing import NDArray

from clipsyn.errors import DamagedStore, StoreError
from clipsyn.names import Location
from clipsyn.remote.index import INDEX, MANIFEST, MOST_INDEX, Entry, Index, Manifest
from clipsyn.remote.transfer import FILES, bring, is_there
from clipsyn.remote.transport import MissingObject, Remote
from clipsyn.store import arrays, files
from clipsyn.store.groups import FileStamp, Tree, replaced_meanwhile
from clipsyn.store.layout import Layout
from clipsyn.text import advised

_ABANDONED = 24 * 3600  # seconds after which nobody is writing a file any more
_Result = TypeVar("_Result")
_Names = dict[str, Any]  # name of a folder -> those in it


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


class Published(Tree):
    """The tree of a store at a URL (`clipsyn.store.groups`), as it was when it was opened."""

    def __init__(self, location: Location, remote: Remote, index: Index, cache: Cache) -> None:
        self._location = location
        self._remote = remote
        self._index = index
        self._cache = cache
        self._entries = {entry.name: entry for entry in index.entries.values()}
        self._manifests: dict[str, Manifest] = {}
        self._locks: defaultdict[str, Lock] = defaultdict(Lock)  # of groups
        self._threads = ThreadPoolExecutor(FILES)
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

    def read(self, path: Path, array: str, rows: range | None, listed: Layout) -> NDArray[Any]:
        def look(entry: Entry, folder: Path) -> NDArray[Any]:
            self._bring_rows(entry, folder, array, rows, listed)
            return arrays.read(folder / array, rows, listed)

        return self._with_group(path, look)

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
        self, entry: Entry, folder: Path, array: str, rows: range | None, listed: Layout
    ) -> None:
        at = os.fspath(folder / array)  # paths would take a millisecond
        names = [name for name in listed.files(rows) if not os.access(f"{at}/{name}", os.F_OK)]
        self._bring(entry, self._metadata(entry), [f"{array}/{name}" for name in names])

    def _bring(self, entry: Entry, manifest: Manifest, missing: Collection[str]) -> None:
        """Fetch these files into the cache."""
        for name in missing:
            if name not in manifest.files:
                raise DamagedStore(f"{self._shown(entry, name)} is not listed in its manifest")
        fetches = [self._threads.submit(self._fetch, entry, manifest, name) for name in missing]
        for fetch in fetches:
            fetch.result()

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
