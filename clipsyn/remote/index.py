"""What a published store says of itself: the index of its groups, and the manifest of each group.

    index.json                                      all groups; the only object that ever changes
    <kind>/<names…>/<16 hex of its manifest>/…      the files of one group, as in a local store
    <kind>/<names…>/<16 hex>/manifest.json          size and SHA-256 of each, written after them

Both come from strangers. So paths are made from names, never read, and what cannot be is refused
before anything of it is used.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from clipsyn.documents import one_line, parse_json
from clipsyn.errors import DamagedStore, StoreError, UsageError
from clipsyn.schema import check_format
from clipsyn.store import files
from clipsyn.store.files import METADATA
from clipsyn.store.folders import KINDS, Place, folder_name

INDEX, MANIFEST = "index.json", "manifest.json"
MOST_INDEX, MOST_MANIFEST = 1 << 26, 1 << 28  # bytes: about 150,000 groups, 3 million files
INDEX_FORMAT = "1.0"
_MOST_BYTES = 1 << 60  # of a file, and of a group
_THREADS = 4
_FOLDER_DIGITS = 16
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\:]")
_LONGEST = 255  # bytes of a name
_COUNTS = frozenset(("images", "bad", "embed", "classes"))  # facts that are numbers


@dataclass(frozen=True)
class Entry:
    """What the index says of one group.

    manifest: SHA-256 of the manifest. content: a digest of what readers see of the group, which
    does not depend on when and where it was made. facts: what `ls` shows without opening it. They
    are `images`, `bad` and `embed` (the width, where there are embeddings) of what holds rows,
    `classes` of samples, and `imported`, what an import holds, and what its class embeddings are.
    """

    place: Place
    manifest: str
    bytes: int
    fingerprint: str
    content: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.place[0]

    @property
    def name(self) -> str:
        """The path that the group has in a local store."""
        return "/".join([self.kind, *map(folder_name, self.place[1:])])

    @property
    def folder(self) -> str:
        """The path of its files in the published store: it changes with every byte of them."""
        return f"{self.name}/{self.manifest[:_FOLDER_DIGITS]}"

    def json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Index:
    """The groups of a published store, by place.

    store: the content of its `clipsyn.json`. unknown: entries of kinds that this clipsyn does not
    know; they stay when it writes the index.
    """

    store: Mapping[str, Any]
    entries: Mapping[Place, Entry] = field(default_factory=dict)
    unknown: tuple[Mapping[str, Any], ...] = ()
    format: str = INDEX_FORMAT

    @classmethod
    def parse(cls, data: bytes, shown: str) -> Index:
        """Parse index.json of the store at the URL `shown`.

        Raises UnsupportedFormat for another major format, DamagedStore for what is no index.
        """
        with _damage(f"{shown}/{INDEX}", data, MOST_INDEX):
            content = _mapping(parse_json(data))
            check_format(f"the index of {shown}", _text(content["format"]), INDEX_FORMAT)
            store = _mapping(content["store"])
            check_format(shown, _text(store["format"]))
            if type(store["chunk_rows"]) is not int or store["chunk_rows"] < 1:
                raise ValueError(f"a chunk has no {str(store['chunk_rows'])[:40]} rows")
            entries, unknown = _parsed_entries(content["groups"])
            return cls(store, entries, unknown, content["format"])

    def dumps(self) -> bytes:
        groups = [self.entries[place].json() for place in sorted(self.entries)]
        return _compact(
            {"format": self.format, "store": self.store, "groups": [*groups, *self.unknown]}
        )

    def entry(self, place: Place) -> Entry | None:
        return self.entries.get(place)

    def with_entries(self, entries: Iterable[Entry]) -> Index:
        """The index with these entries added, or put in the place of those that are there."""
        added = {entry.place: entry for entry in entries}
        return replace(self, entries={**self.entries, **added})


@dataclass(frozen=True)
class Manifest:
    """The files of one group: path within its folder -> bytes and SHA-256."""

    files: Mapping[str, tuple[int, str]]

    @classmethod
    def of_folder(cls, path: Path, advance: Callable[[int], None] = lambda _: None) -> Manifest:
        """The manifest of the group in a folder; `advance` is told of bytes that were read.

        Raises StoreError for what cannot be read, or is removed while it is.
        """

        def stamp(name: str) -> tuple[str, tuple[int, str]]:
            with files.reading(path / name), (path / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
            advance(size)
            return name, (size, digest)

        try:
            with files.reading(path), ThreadPoolExecutor(_THREADS) as threads:
                return cls(dict(threads.map(stamp, sorted(_names_below(path)))))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(
                f"{error.filename} is gone while it was read: run the same command again"
            ) from error

    @classmethod
    def parse(cls, data: bytes, shown: str, entry: Entry) -> Manifest:
        """Parse the manifest of a group in the store at the URL `shown`.

        Raises DamagedStore if it is not the one of the entry, or has names that no group has.
        """
        where = f"{shown}/{entry.folder}/{MANIFEST}"
        with _damage(where, data, MOST_MANIFEST):
            if hashlib.sha256(data).hexdigest() != entry.manifest:
                raise ValueError("it is not the one that the index names")
            listed = _mapping(_mapping(parse_json(data))["files"])
            manifest = cls({name: _stamp(stamp) for name, stamp in listed.items()})
            _check_names(manifest.files)
            if manifest.bytes != entry.bytes:
                raise ValueError(f"its files have {manifest.bytes} bytes, not {entry.bytes}")
            return manifest

    def dumps(self) -> bytes:
        return _compact({"files": {name: self.files[name] for name in sorted(self.files)}})

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.dumps()).hexdigest()

    @property
    def bytes(self) -> int:
        return sum(size for size, _ in self.files.values())


@contextmanager
def _damage(where: str, data: bytes, most: int) -> Iterator[None]:
    """Raise DamagedStore, in one sentence, for what cannot be."""
    try:
        if len(data) > most:
            raise ValueError(f"it has {len(data):,} bytes, of {most:,} at most")
        yield
    except (ValueError, KeyError, TypeError, UsageError) as error:
        lacking = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise DamagedStore(f"{where} is damaged: {lacking}") from error


def _parsed_entries(groups: Any) -> tuple[dict[Place, Entry], tuple[Mapping[str, Any], ...]]:
    entries: dict[Place, Entry] = {}
    unknown = []
    if not isinstance(groups, list):
        raise TypeError("its groups are no list")
    for group in map(_mapping, groups):
        kind, *names = map(_text, group["place"])
        if kind not in KINDS:
            unknown.append(group)
            continue
        entry = _parsed_entry((kind, *names), group)
        if entries.setdefault(entry.place, entry) is not entry:
            raise ValueError(f"{entry.name} stands twice in it")
    return entries, tuple(unknown)


def _parsed_entry(place: Place, group: Mapping[str, Any]) -> Entry:
    if len(place) != 1 + len(KINDS[place[0]]) or not all(place):
        raise ValueError(f"{'/'.join(place)!r} is no place of a group")
    digests = {name: _digest(group[name]) for name in ("manifest", "fingerprint", "content")}
    entry = Entry(place, bytes=_size(group["bytes"]), facts=_facts(group), **digests)
    _ = entry.name  # raises UsageError for a name that no file system takes
    return entry


def _facts(group: Mapping[str, Any]) -> Mapping[str, Any]:
    facts = _mapping(group.get("facts", {}))
    for name in _COUNTS & facts.keys():
        _size(facts[name])
    if facts.get("imported") is not None:
        _text(facts["imported"])
    return facts


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{str(value)[:40]!r} is no JSON object")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is no name")
    return value


def _digest(value: Any) -> str:
    if not _DIGEST.fullmatch(_text(value)):
        raise ValueError(f"{value[:70]!r} is no SHA-256")
    return str(value)


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_BYTES:
        raise ValueError(f"{str(value)[:40]} is no number of bytes")
    return value


def _stamp(value: Any) -> tuple[int, str]:
    size, digest = value
    return _size(size), _digest(digest)


def _check_names(names: Iterable[str]) -> None:
    """Raise ValueError for names that would write outside the folder, or over one another."""
    there = set(names)
    if METADATA not in there:
        raise ValueError(f"it lists no {METADATA}")
    for name in there:
        parts = name.split("/")
        if _UNSAFE.search(name) or not all(map(_is_plain, parts)) or name == MANIFEST:
            raise ValueError(f"{name[:80]!r} is no file of a group")
        if any("/".join(parts[:depth]) in there for depth in range(1, len(parts))):
            raise ValueError(f"{name[:80]!r} lies in a file")


def _is_plain(part: str) -> bool:
    return bool(part) and not part.startswith(".") and len(part.encode()) <= _LONGEST


def _names_below(folder: Path, prefix: str = "") -> Iterator[str]:
    """Paths of the files of a group; hidden ones are no part of it."""
    for entry in files.entries(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _names_below(folder / entry.name, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}"


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
