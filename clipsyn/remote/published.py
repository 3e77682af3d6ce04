"""A published store as readers see it: listed by its index, its groups brought into the cache.

Only what is read travels: the manifest of a group when it is first looked at, with metadata and
small arrays in it, and of other arrays the chunks that hold the rows asked for, many at a time. A
file is kept when its size and SHA-256 are those of the manifest, whose own SHA-256 the index has.
The cache is a plain folder:

    groups/<SHA-256 of the manifest>/   files of one group, as they are published
    indexes/<SHA-256 of its URL>        the index, or a part, that was read last, and its ETag
    .wip/                               what is being written

A group's folder is called after its content, so it is the same for every store that has the group,
and never old. The manifest is compared with the index again; of chunks the metadata in it have the
checksums. Who removes the folder, or a part of it, only lets it travel again.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from numpy.typing import NDArray

from clipsyn.errors import DamagedStore, StoreError
from clipsyn.names import Location
from clipsyn.remote.index import MOST_INDEX, Entry, Index, parse_part, part_path
from clipsyn.remote.manifest import COLUMN, MANIFEST, Manifest, stamp_of
from clipsyn.remote.transport import FILES, MissingObject, Remote, Span
from clipsyn.store import arrays, files
from clipsyn.store.arrays import Layout
from clipsyn.store.files import INDEX, KINDS, METADATA, WIP, Place, below, folder_name
from clipsyn.store.groups import FileStamp, Tree, replaced_meanwhile

_MOST_KNOWN = 2048  # manifests in memory: each has 256 KB at most, and most have 10
_Result = TypeVar("_Result")
_Save = Callable[[str, bytes], object]  # a file of a group, by its name there


def cache_folder() -> Path:
    """The cache that the environment says, or the user's own."""
    own = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CLIPSYN_CACHE") or Path(own) / "clipsyn")


class Published(Tree):
    """The tree of a store at a URL (`clipsyn.store.groups`), as it was when it was opened."""

    lanes = FILES
    groups = 16

    def __init__(self, location: Location) -> None:
        self._location = location
        self._remote = Remote(location.url)
        self._cache = cache_folder()
        self._index = Index.parse(self._listed(INDEX), self._remote.shown)
        self._unread = {folder_name(name): name for name in self._index.datasets}
        datasets = set(self._unread)
        self._folders: dict[Place, set[str]] = {(): set(KINDS), **{(it,): datasets for it in KINDS}}
        self._entries: dict[Place, Entry] = {}  # both by the parts of a path in the store
        self._manifests: dict[str, Manifest] = {}
        self._lock = Lock()  # of what is forgotten
        self._threads = ThreadPoolExecutor(FILES)
        self._sent: set[str] = set()  # groups whose manifest was sent to this process

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """A worker reads the index again; the cache is the same."""
        return Published, (self._location,)

    def _listed(self, path: str) -> bytes:
        """The index or a part as it is now: the one in the cache, if that is current.

        Raises StoreError where there is none.
        """
        location, known, data = self._location, None, b""
        name = hashlib.sha256(f"{location.url}/{path}".encode()).hexdigest()
        with suppress(OSError, ValueError):
            etag, data = (self._cache / "indexes" / name).read_bytes().split(b"\n", 1)
            known = etag.decode()
        try:
            new, now = self._remote.get(path, known, MOST_INDEX)
        except MissingObject:
            raise StoreError(
                f"{location} is no published store, for it has no {path}: correct the URL, or "
                "publish a store there with `clipsyn push`"
            ) from None
        if known is not None and now == known:
            return data
        self._keep(self._cache / "indexes", name, (now or "").encode() + b"\n" + new)
        return new

    # What there is

    def marker(self, store: Path) -> dict[str, Any]:
        return dict(self._index.store)

    def exists(self, path: Path) -> bool:
        parts = self._looked_up(path)
        return parts in self._entries or parts in self._folders

    def folders(self, path: Path) -> list[str]:
        """Of a kind all datasets: which of them have groups of it their parts say."""
        parts = self._looked_up(path)
        if entry := self._entries.get(parts):
            end, names = f"/{METADATA}", self._metadata(entry).files
            return sorted(name.removesuffix(end) for name in names if name.endswith(end))
        return sorted(self._folders.get(parts, ()))

    def look_in(self, paths: Iterable[Path]) -> None:
        list(self._threads.map(self._read_part, {path.name for path in paths}))

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

    def _entry(self, path: Path) -> Entry | None:
        return self._entries.get(self._looked_up(path))

    def _entries_below(self, path: Path) -> Iterable[Entry]:
        if entry := self._entry(path):
            return [entry]
        names = self._folders.get(below(self._location, path), ())
        return (entry for name in names for entry in self._entries_below(path / name))

    def _looked_up(self, path: Path) -> Place:
        """The parts of a path in the store, for the part of the index that says what is there."""
        parts = below(self._location, path)
        if len(parts) > 1:
            self._read_part(parts[1])
        return parts

    def _read_part(self, folder: str) -> None:
        if dataset := self._unread.get(folder):
            for entry in self._entries_of(dataset).values():
                parts = tuple(entry.name.split("/"))
                self._entries[parts] = entry
                for depth in range(2, len(parts)):
                    self._folders.setdefault(parts[:depth], set()).add(parts[depth])
            self._unread.pop(folder, None)

    def _entries_of(self, dataset: str) -> Mapping[Place, Entry]:
        return parse_part(self._listed(part_path(dataset)), self._remote.shown, dataset)

    # Groups

    def expect(self, paths: Iterable[Path], *, columns: bool = False) -> None:
        """Bring the metadata of all groups at these folders and below them, many at a time."""
        wanted = {entry.name: entry for path in paths for entry in self._entries_below(path)}
        new = [entry for entry in wanted.values() if entry.name not in self._manifests]
        for _ in self._threads.map(self._metadata, new):
            pass  # they are not kept, for memory may not hold all
        if columns:  # what fails is asked for again by who reads it
            spans = [(entry, span) for entry in new for span in self._columns(entry)]
            wait([self._threads.submit(self._take, *it, self._keeping(it[0])) for it in spans])

    def _columns(self, entry: Entry) -> list[list[str]]:
        """What the cache and the manifest lack of the arrays with one number or text a row."""
        manifest, folder = self._metadata(entry), self._folder(entry)
        names = filter(COLUMN.fullmatch, manifest.files.keys() - manifest.inline.keys())
        return manifest.spans(name for name in names if not (folder / name).exists())

    def attributes(self, path: Path) -> Mapping[str, Any]:
        def look(entry: Entry) -> Mapping[str, Any]:
            return arrays.attributes_in(self._metadata(entry).inline[METADATA], path)

        return self._with_group(path, look)

    def read(self, path: Path, array: str, rows: range | None, listed: Layout) -> NDArray[Any]:
        def look(entry: Entry) -> NDArray[Any]:
            return arrays.read(self._cached(entry, array, listed.files(rows)), listed, rows)

        return self._with_group(path, look)

    def copy(self, path: Path, folder: Path, names: Sequence[str]) -> None:
        def save(name: str, data: bytes) -> None:
            (folder / name).write_bytes(data)

        self._with_group(path, lambda entry: self._bring(entry, names, save))

    def damage(self, path: Path, listed: Mapping[str, Layout]) -> list[str]:
        """What lies at the URL now is read, whatever the cache had when this was opened."""

        def found(look: Callable[[Entry], list[str]]) -> list[str]:
            try:
                return self._with_group(path, look)
            except StoreError as error:
                return [str(error)]

        def of_array(array: str, entry: Entry) -> list[str]:
            folder = self._cached(entry, array, [METADATA, *listed[array].files()])
            problems = arrays.damage(folder, listed[array])
            return [problem.replace(str(folder.parent), str(path)) for problem in problems]

        def of_objects(entry: Entry) -> list[str]:
            """What lies there that no reader of the store asks for."""
            if entry.name not in self._sent:
                self._forget(entry, self._manifests.get(entry.name))
            objects = self._metadata(entry).objects
            looks = (partial(self._check_object, it) for it in objects)
            return [it for problems in self._threads.map(found, looks) for it in problems]

        problems = found(of_objects)
        for array in listed:
            problems += found(partial(of_array, array))
        return problems

    def _check_object(self, path: str, entry: Entry) -> list[str]:
        """Of one whose files are in the manifest all is read, of a shard else its index."""
        manifest = self._metadata(entry)
        names, expected = manifest.objects[path], manifest.end_of(path)
        start = sum(manifest.sizes(names))
        span: Span | None = (start, start + len(expected))
        if names[0] in manifest.inline:
            span, expected = None, b"".join([*map(manifest.inline.__getitem__, names), expected])
        if expected and self._get(entry, path, len(expected), span) != expected:
            raise self._altered(entry, path)
        return []

    def _with_group(self, path: Path, look: Callable[[Entry], _Result]) -> _Result:
        """What `look` finds in the group's folder of the cache; once more where that was damaged.

        Messages name the group's own place.
        """
        entry = self._entry(path)
        if entry is None:
            raise DamagedStore(f"{path / METADATA} is missing")
        folder, manifest = self._folder(entry), self._metadata(entry)
        try:
            return look(entry)
        except DamagedStore as error:
            if str(folder) not in str(error):  # of what was sent
                raise
        self._forget(entry, manifest)
        try:
            return look(entry)
        except DamagedStore as error:
            raise DamagedStore(str(error).replace(str(folder), str(path))) from None

    def _metadata(self, entry: Entry) -> Manifest:
        """The manifest of a group, from the cache or from the URL."""
        if manifest := self._manifests.get(entry.name):
            return manifest
        folder = self._folder(entry)
        try:
            manifest = Manifest.parse((folder / MANIFEST).read_bytes(), self._remote.shown, entry)
        except (FileNotFoundError, DamagedStore):
            data = self._get(entry, MANIFEST, files.MOST_METADATA)
            manifest = Manifest.parse(data, self._remote.shown, entry)
            self._sent.add(entry.name)
            self._keep(folder, MANIFEST, data)
        if len(self._manifests) >= _MOST_KNOWN:  # the oldest goes
            self._manifests.pop(next(iter(self._manifests)), None)
        return self._manifests.setdefault(entry.name, manifest)

    # Files

    def _keeping(self, entry: Entry) -> _Save:
        return partial(self._keep, self._folder(entry))

    def _folder(self, entry: Entry) -> Path:
        """Where the files of a group are, once they were brought."""
        return self._cache / "groups" / entry.manifest

    def _cached(self, entry: Entry, array: str, names: Iterable[str]) -> Path:
        """The folder of an array in the cache, when it has these files."""
        at = os.fspath(folder := self._folder(entry) / array)
        # paths would take a millisecond
        missing = [name for name in names if not os.access(f"{at}/{name}", os.F_OK)]
        self._bring(entry, [f"{array}/{name}" for name in missing])
        return folder

    def _bring(self, entry: Entry, names: Sequence[str], save: _Save | None = None) -> None:
        """Save files of a group, from its manifest or from the URL, as they come."""
        manifest, away = self._metadata(entry), list[str]()
        save = save or self._keeping(entry)
        for name in names:
            if name in manifest.inline:
                save(name, manifest.inline[name])
            elif name in manifest.files:
                away.append(name)
            else:
                raise DamagedStore(f"{self._shown(entry, name)} is not listed in its manifest")
        list(self._threads.map(lambda span: self._take(entry, span, save), manifest.spans(away)))

    def _take(self, entry: Entry, span: Sequence[str], save: _Save) -> None:
        """Save neighbours in one object, if they have sizes and SHA-256 of the manifest."""
        manifest = self._metadata(entry)
        path, start = manifest.places[span[0]]
        stamps = [manifest.files[name] for name in span]
        size = sum(manifest.sizes(span))
        asked = (start, start + size) if manifest.end_of(path) else None
        for _ in range(2):  # what was altered on its way may arrive the second time
            sent = BytesIO(self._get(entry, path, size, asked))
            parts = [sent.read(length) for length, _ in stamps]
            if [*map(stamp_of, parts)] == stamps:
                list(map(save, span, parts))
                return
        raise self._altered(entry, path)

    def _get(self, entry: Entry, path: str, most: int, span: Span | None = None) -> bytes:
        """An object of a group, or a span of it.

        Raises StaleCell where the group was replaced, DamagedStore where the object is lost.
        """
        try:
            return self._remote.get(f"{entry.folder}/{path}", most=most, span=span)[0]
        except MissingObject:
            if self._entries_of(entry.place[1]).get(entry.place) != entry:
                raise replaced_meanwhile(self._location, entry.name) from None
            raise DamagedStore(f"{self._shown(entry, path)} is missing") from None

    def _altered(self, entry: Entry, path: str) -> DamagedStore:
        return DamagedStore(f"{self._shown(entry, path)} has other bytes than its manifest lists")

    def _shown(self, entry: Entry, name: str) -> str:
        return f"{self._remote.shown}/{entry.folder}/{name}"

    # The cache, which several processes may use at once

    def _keep(self, at: Path, name: str, data: bytes) -> None:
        """Without waiting for the disk: what a power cut leaves is found by its checksum."""
        file, wip = at / name, self._cache / WIP
        try:
            for folder in (file.parent, wip):
                folder.mkdir(parents=True, exist_ok=True)
            files.write_file(file, data, scratch=wip, synced=False)
        except OSError as error:
            raise StoreError(
                f"the cache {self._cache} cannot be written ({error.strerror}): set CLIPSYN_CACHE "
                "to a folder that can, or remove what is in it"
            ) from error

    def _forget(self, entry: Entry, manifest: Manifest | None) -> None:
        """Remove the group from the cache, in one step, unless a thread has since `manifest`."""
        self._remote.check_online(f"{entry.folder}/{MANIFEST}")
        trash = self._cache / WIP / secrets.token_hex(8)
        with self._lock:
            if self._manifests.get(entry.name) is manifest:
                with suppress(OSError):
                    self._folder(entry).rename(trash)
                    shutil.rmtree(trash)
                self._manifests.pop(entry.name, None)  # afterwards, for others find it there
