"""What a published store says of itself: the index of its groups, and the manifest of each group.

    index.json.gz                                   all groups; the only object that ever changes
    <kind>/<names…>/<16 hex of its manifest>/…      the files of one group, as in a local store, but
                                                    chunks of an array lie in shards
    <kind>/<names…>/<16 hex>/manifest.json          size and SHA-256 of each, written after them,
                                                    with the content of those that are small

Both come from strangers. So paths are made from names, never read, and what cannot be is refused
before anything of it is used.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Base64Bytes, Field, TypeAdapter, ValidationError

from clipsyn.errors import DamagedStore, StoreError, UsageError
from clipsyn.remote.shards import shard_index, sharded
from clipsyn.store import files
from clipsyn.store.files import KINDS, METADATA, MOST_CHUNK_ROWS, Place, check_format, folder_name
from clipsyn.text import first_problem, one_line, parse_json

INDEX, MANIFEST = "index.json.gz", "manifest.json"
MOST_INDEX = 1 << 27  # bytes of JSON: about 350,000 groups, of which a reader makes 1.5 GB
INDEX_FORMAT = "2.0"
_INLINE = 1 << 16  # bytes of an array whose files a manifest has in it
_SHARD = 1 << 26  # bytes, about
_SPAN = 1 << 22  # bytes that are asked for at once
_MOST_FILE = 1 << 30  # bytes of one file: chunks have a few millions
_FOLDER_DIGITS = 16
_NAME = r"(?!\.)[ -.0-9;-\[\]-~]{1,255}"  # in a path: no backslash, and no colon
_PATH = re.compile(rf"{_NAME}(?:/{_NAME}){{0,31}}")

COLUMN = re.compile(r".+/c\.\d+")  # a chunk of an array with one axis
_CHUNK = re.compile(r"(.+)/c\.(\d{1,15})((?:\.0)*)")  # its array, its number

_MOST_BYTES = 1 << 60  # of a group


def _check_facts(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in facts.items():
        fits = type(value) is int and 0 <= value <= _MOST_BYTES
        if not (type(value) is str if name == "imported" else fits):
            raise ValueError(f"{name} cannot be {str(value)[:70]!r}")
    return facts


_Size = Annotated[int, Field(strict=True, ge=0, le=_MOST_BYTES)]
_Chunks = Annotated[int, Field(strict=True, ge=1, le=MOST_CHUNK_ROWS)]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Stamp = tuple[Annotated[int, Field(strict=True, ge=0, le=_MOST_FILE)], _Digest]  # of a file


@dataclass(frozen=True)
class Entry:
    """What the index says of one group.

    manifest: SHA-256 of the manifest. content: a digest of what readers see of the group, which
    does not depend on when and where it was made. facts: what `ls` shows without opening it. They
    are `images`, `bad` and `embed` (the width, where there are embeddings) of what holds rows,
    `classes` of samples, and `imported`, what an import holds, and what its class embeddings are.
    """

    place: Place
    manifest: _Digest
    bytes: _Size
    fingerprint: _Digest
    content: _Digest
    facts: Annotated[Mapping[str, Any], AfterValidator(_check_facts)] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.place[0]

    @property
    def imported(self) -> bool:
        return "imported" in self.facts

    @property
    def name(self) -> str:
        """The path that the group has in a local store."""
        return "/".join([self.kind, *map(folder_name, self.place[1:])])

    @property
    def folder(self) -> str:
        """The path of its files in the published store: it changes with every byte of them."""
        return f"{self.name}/{self.manifest[:_FOLDER_DIGITS]}"


@dataclass(frozen=True)
class Index:
    """The groups of a published store, by place, and the content of its `clipsyn.json`."""

    store: Mapping[str, Any]
    entries: Mapping[Place, Entry] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes, shown: str) -> Index:
        """Parse index.json.gz of the store at the URL `shown`.

        Raises UnsupportedFormat for another major format, DamagedStore for what is no index.
        """
        with _damage(f"{shown}/{INDEX}"):
            content = parse_json(_inflated(data))
            check_format(f"the index of {shown}", str(content["format"]), INDEX_FORMAT)
            check_format(shown, str(content["store"]["format"]))
            rows = content["store"]["chunk_rows"]
            if type(rows) is not int or not 1 <= rows <= MOST_CHUNK_ROWS:
                raise ValueError(f"a chunk has no {str(rows)[:40]} rows")
            groups = TypeAdapter(list[Entry]).validate_python(content["groups"])
            entries = {entry.place: entry for entry in groups}
            if len(entries) < len(groups):
                raise ValueError("a group stands twice in it")
            for place in entries:
                _check_place(place)
            return cls(content["store"], entries)

    def dumps(self) -> bytes:
        """The same bytes for the same groups; raises StoreError where no reader would take them."""
        groups = [vars(self.entries[place]) for place in sorted(self.entries)]
        content = _compact({"format": INDEX_FORMAT, "store": self.store, "groups": groups})
        if len(content) > MOST_INDEX:
            raise StoreError(
                f"the index of {len(groups):,} groups would have {len(content):,} bytes, and "
                f"readers take {MOST_INDEX:,}: push some of the cells to another place"
            )
        return gzip.compress(content, compresslevel=6, mtime=0)

    def with_entries(self, entries: Iterable[Entry]) -> Index:
        """The index with these entries added, or put in the place of those that are there."""
        added = {entry.place: entry for entry in entries}
        return replace(self, entries={**self.entries, **added})


@dataclass(frozen=True)
class Manifest:
    """The files of one group: path within its folder -> bytes and SHA-256.

    inline: what is in its metadata and small arrays, so that readers need not ask for each.
    shards: array -> how many of its chunks lie in one object at the URL. Any other file is one.
    """

    files: Mapping[str, Stamp]
    inline: Mapping[str, Base64Bytes] = field(default_factory=dict)
    shards: Mapping[str, _Chunks] = field(default_factory=dict)

    @classmethod
    def of_folder(cls, path: Path) -> Manifest:
        """The manifest of the group in a folder.

        Raises StoreError for what cannot be read, is no regular file, or is removed meanwhile.
        """
        try:
            names = sorted(_names_below(path))
            stamps = {name: stamp_of(files.read_file(path / name, _MOST_FILE)) for name in names}
            manifest = cls(stamps, shards=_shards(stamps))
            inline = {name: files.read_file(path / name) for name in manifest.small}
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(
                f"{error.filename} is gone while it was read: run the same command again"
            ) from error
        return replace(manifest, inline=inline)

    @classmethod
    def parse(cls, data: bytes, shown: str, entry: Entry) -> Manifest:
        """Parse the manifest of a group in the store at the URL `shown`.

        Raises DamagedStore if it is not the one of the entry, or has names that no group has.
        """
        where = f"{shown}/{entry.folder}/{MANIFEST}"
        with _damage(where):
            if hashlib.sha256(data).hexdigest() != entry.manifest:
                raise ValueError("it is not the one that the index names")
            manifest = _MANIFESTS.validate_python(parse_json(data))
            _check_names(manifest.files)
            if METADATA not in manifest.inline:
                raise ValueError(f"it has no {METADATA} in it")
            for name, content in manifest.inline.items():
                if manifest.files.get(name) != stamp_of(content):
                    raise ValueError(f"the content of {name[:80]!r} is another than it lists")
            if manifest.size != entry.bytes:
                raise ValueError(f"its files have {manifest.size} bytes, not {entry.bytes}")
            return manifest

    def dumps(self) -> bytes:
        files = {name: self.files[name] for name in sorted(self.files)}
        inline = {name: base64.b64encode(data).decode() for name, data in self.inline.items()}
        return _compact({"files": files, "inline": inline, "shards": self.shards})

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.dumps()).hexdigest()

    @property
    def size(self) -> int:
        return sum(size for size, _ in self.files.values())

    @property
    def small(self) -> list[str]:
        """Metadata, and the files of small arrays, which the manifest has in it when it is sent."""
        sizes = Counter[str]()
        for name, (size, _) in self.files.items():
            sizes[name.rpartition("/")[0]] += size
        return [
            name
            for name in self.files
            if name.rpartition("/")[2] == METADATA or sizes[name.rpartition("/")[0]] <= _INLINE
        ]

    @cached_property
    def places(self) -> Mapping[str, tuple[str, int]]:
        """Of each file the object at the URL that it lies in, and where it begins there."""
        places, ends = dict[str, tuple[str, int]](), Counter[str]()
        for name in sorted(self.files, key=_by_number):
            path = self._object_of(name)
            places[name] = path, ends[path]
            ends[path] += self.files[name][0]
        return places

    @cached_property
    def objects(self) -> Mapping[str, list[str]]:
        """What lies at the URL, and the files in each, one after another."""
        objects: dict[str, list[str]] = {}
        for name, (path, _) in self.places.items():
            objects.setdefault(path, []).append(name)
        return objects

    def _object_of(self, name: str) -> str:
        chunk = _CHUNK.fullmatch(name)
        if not chunk or chunk[1] not in self.shards:
            return name
        return f"{chunk[1]}/c.{int(chunk[2]) // self.shards[chunk[1]]}{chunk[3]}"

    def end_of(self, path: str) -> bytes:
        """What an object has behind its files: of a shard its index."""
        array, names = path.rpartition("/")[0], self.objects[path]
        if array not in self.shards or not _CHUNK.fullmatch(path):
            return b""
        return shard_index([self.files[name][0] for name in names], self.shards[array])

    def object_of(self, path: str, parts: Iterable[bytes]) -> bytes:
        """An object, of its files; metadata say to other readers that there are shards."""
        array, _, name = path.rpartition("/")
        if name == METADATA and array in self.shards:
            return sharded(b"".join(parts), self.shards[array])
        return b"".join([*parts, self.end_of(path)])

    def spans(self, names: Iterable[str]) -> list[list[str]]:
        """These files by what is asked for at once: neighbours in one object."""
        spans, size, end = list[list[str]](), 0, ("", 0)
        for name in sorted(names, key=self.places.__getitem__):
            (path, start), more = self.places[name], self.files[name][0]
            size = size + more if (path, start) == end else _SPAN + 1
            if size > _SPAN:
                spans.append([])
                size = more
            spans[-1].append(name)
            end = path, start + more
        return spans


_MANIFESTS = TypeAdapter(Manifest)


def _by_number(name: str) -> tuple[str, int]:
    """Orders chunks of an array by their number, not by its digits."""
    chunk = _CHUNK.fullmatch(name)
    return (chunk[1], int(chunk[2])) if chunk else (name, 0)


def stamp_of(data: bytes) -> Stamp:
    return len(data), hashlib.sha256(data).hexdigest()


@contextmanager
def _damage(where: str) -> Iterator[None]:
    """Raise DamagedStore, in one sentence, for what cannot be."""
    try:
        yield
    except ValidationError as error:
        raise DamagedStore(f"{where} is damaged: {first_problem(error)}") from None
    except (ValueError, KeyError, TypeError, EOFError, OSError, UsageError, zlib.error) as error:
        lacking = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise DamagedStore(f"{where} is damaged: {lacking}") from error


def _inflated(data: bytes) -> bytes:
    """The JSON in a gzip file, which may be a bomb."""
    with gzip.open(io.BytesIO(data)) as file:
        content = file.read(MOST_INDEX + 1)
    if len(content) > MOST_INDEX:
        raise ValueError(f"it has more than {MOST_INDEX:,} bytes")
    return content


def _shards(stamps: Mapping[str, Stamp]) -> dict[str, int]:
    """Arrays of several chunks that are not large, and how many of these a shard has."""
    chunks: dict[str, list[int]] = {}
    for name, (size, _) in stamps.items():
        if chunk := _CHUNK.fullmatch(name):
            chunks.setdefault(chunk[1], []).append(size)
    fit = {array: min(len(sizes), _SHARD // max(sizes)) for array, sizes in chunks.items()}
    return {array: count for array, count in sorted(fit.items()) if count > 1}


def _check_place(place: Place) -> None:
    """Raise ValueError or UsageError for kind and names that no group of a store has."""
    if not place or not all(place) or len(place) != 1 + len(KINDS.get(place[0], place)):
        raise ValueError(f"{'/'.join(place)!r} is no place of a group")
    for name in place:
        folder_name(name)


def _check_names(names: Iterable[str]) -> None:
    """Raise ValueError for names that would write outside the folder, or over one another."""
    there = set(names)
    for name in there:
        if not _PATH.fullmatch(name) or name == MANIFEST:
            raise ValueError(f"{name[:80]!r} is no file of a group")
        if any(name[: slash.start()] in there for slash in re.finditer("/", name)):
            raise ValueError(f"{name[:80]!r} lies in a file")


def _names_below(folder: Path, prefix: str = "") -> Iterator[str]:
    """Paths of the files of a group; hidden ones are no part of it."""
    for entry in files.entries(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _names_below(folder / entry.name, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}"


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
