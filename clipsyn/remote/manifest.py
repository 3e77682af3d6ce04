"""The manifest of a published group: its files, and in which objects at the URL they lie.

It is the metadata of the group in Zarr. Other tools find in it what they expect, the attributes and
consolidated metadata of the arrays. One more attribute, `published`, lists the files of the group
as a local store has them, with the content of those that are small. Beside it lie only chunks, of a
large array in shards: one after another, then where each lies, and a crc32c, as Zarr's codec
`sharding_indexed` has them (https://zarr-specs.readthedocs.io, v3).

A manifest comes from strangers, so what cannot be is refused before anything of it is used.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Annotated, Any

import numpy as np
from crc32c import crc32c
from pydantic import Base64Bytes, Field, TypeAdapter

from clipsyn.remote.index import Digest, Entry, compact, damage
from clipsyn.store import files
from clipsyn.store.files import METADATA, MOST_CHUNK_ROWS
from clipsyn.store.groups import Group, replaced_meanwhile
from clipsyn.text import parse_json

MANIFEST = METADATA
_PUBLISHED, _VALID = "published", "valid"
_INLINE = 1 << 16  # bytes of an array whose files a manifest has in it
_SHARD = 1 << 26  # bytes, about
_SPAN = 1 << 22  # bytes that are asked for at once
_MOST_FILE = 1 << 30  # bytes of one file: chunks have a few millions
_NOWHERE = (1 << 64) - 1  # where a chunk is that a shard has not
_INDEX_OF_SHARDS = {
    "index_location": "end",
    "index_codecs": [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "crc32c"},
    ],
}
COLUMN = re.compile(r"\w+/c\.\d+")  # a chunk of an array with one axis

_Chunks = Annotated[int, Field(strict=True, ge=0, le=MOST_CHUNK_ROWS)]
_File = Annotated[str, Field(pattern=r"^([0-9A-Za-z_]{1,99}/)?(zarr\.json|c(\.[0-9]{1,15}){1,9})$")]
Stamp = tuple[Annotated[int, Field(strict=True, ge=0, le=_MOST_FILE)], Digest]  # of a file


@dataclass(frozen=True)
class Manifest:
    """The files of one group: path within its folder -> bytes and SHA-256.

    inline: what is in its metadata and small arrays, so that readers need not ask for each.
    shards: array -> how many of its chunks lie in one object at the URL; 1 where nothing is said, 0
    of an array of truth, all true, which has no object.
    """

    files: Mapping[_File, Stamp]
    inline: Mapping[str, Base64Bytes] = field(default_factory=dict)
    shards: Mapping[str, _Chunks] = field(default_factory=dict)

    @classmethod
    def of_group(cls, group: Group) -> Manifest:
        """The manifest of a group that is whole.

        Raises StoreError for what cannot be read, is no regular file, or is removed meanwhile.
        """
        stamps, inline = dict[str, Stamp](), dict[str, bytes]()
        for name in group.files:
            try:
                data = files.read_file(group.path / name, _MOST_FILE)
            except (FileNotFoundError, NotADirectoryError):
                raise replaced_meanwhile(group.store, group.name) from None
            stamps[name] = stamp_of(data)
            if name.endswith(METADATA) or len(data) <= _INLINE:
                inline[name] = data
        manifest, shards = cls(stamps), dict[str, int]()
        for array, names in manifest.chunks.items():
            sizes = manifest.sizes(names)
            for name in names if sum(sizes) > _INLINE else ():
                inline.pop(name, None)
            if (count := min(len(names), _SHARD // max(sizes))) > 1:
                shards[array] = count
        if f"{_VALID}/c.0" in inline and group.read(_VALID).all():
            shards[_VALID] = 0
        return cls(stamps, inline, shards)

    @classmethod
    def parse(cls, data: bytes, shown: str, entry: Entry) -> Manifest:
        """Parse the manifest of a group in the store at the URL `shown`.

        Raises DamagedStore if it is not the one of the entry, or has names that no group has.
        """
        with damage(f"{shown}/{entry.folder}/{MANIFEST}"):
            if hashlib.sha256(data).hexdigest() != entry.manifest:
                raise ValueError("it is not the one that the index names")
            manifest = _MANIFESTS.validate_python(parse_json(data)["attributes"][_PUBLISHED])
            for name in {METADATA, *(manifest.files.keys() - manifest.places.keys())}:
                if name not in manifest.inline:
                    raise ValueError(f"it has no {name[:80]} in it")
            for name, content in manifest.inline.items():
                if manifest.files.get(name) != stamp_of(content):
                    raise ValueError(f"the content of {name[:80]!r} is another than it lists")
            if manifest.size != entry.bytes:
                raise ValueError(f"its files have {manifest.size} bytes, not {entry.bytes}")
            return manifest

    def dumps(self) -> bytes:
        """As it is published; raises DamagedStore for metadata that are none."""
        inline = {name: base64.b64encode(data).decode() for name, data in self.inline.items()}
        listed = {"files": self.files, "inline": inline, "shards": self.shards}
        with damage(METADATA):
            known = {it: parse_json(self.inline[f"{it}/{METADATA}"]) for it in self.chunks}
            for array, about in known.items():
                _tell_others(about, self.shards.get(array, 1))
            group = parse_json(self.inline[METADATA])
            group["attributes"] = {**group["attributes"], _PUBLISHED: listed}
            arrays = {"kind": "inline", "must_understand": False, "metadata": known}
            return compact({**group, "consolidated_metadata": arrays})

    @property
    def size(self) -> int:
        return sum(self.sizes(self.files))

    def sizes(self, names: Iterable[str]) -> list[int]:
        return [self.files[name][0] for name in names]

    @cached_property
    def chunks(self) -> Mapping[str, list[str]]:
        """Files of each array, by number."""
        chunks: dict[str, list[str]] = {}
        for name in sorted(self.files, key=lambda name: (len(name), name)):
            array, _, file = name.rpartition("/")
            if file != METADATA:
                chunks.setdefault(array, []).append(name)
        return chunks

    @cached_property
    def objects(self) -> Mapping[str, list[str]]:
        """What lies at the URL beside the manifest, and the files in each, one after another."""
        return {
            names[start // count]: names[start : start + count]
            for array, names in self.chunks.items()
            if (count := self.shards.get(array, 1))
            for start in range(0, len(names), count)
        }

    @cached_property
    def places(self) -> Mapping[str, tuple[str, int]]:
        """Of each chunk the object at the URL that it lies in, and where it begins there."""
        return {
            name: (path, start)
            for path, names in self.objects.items()
            for name, start in zip(names, accumulate(self.sizes(names), initial=0), strict=False)
        }

    def end_of(self, path: str) -> bytes:
        """What an object has behind its files: of a shard its index."""
        count = self.shards.get(path.rpartition("/")[0], 1)
        return _shard_index(self.sizes(self.objects[path]), count) if count > 1 else b""

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


def stamp_of(data: bytes) -> Stamp:
    return len(data), hashlib.sha256(data).hexdigest()


def _shard_index(sizes: Sequence[int], chunks: int) -> bytes:
    """The end of a shard that has room for so many chunks; the last of an array has fewer."""
    places = np.full((chunks, 2), _NOWHERE, "<u8")
    places[: len(sizes)] = np.transpose([[0, *accumulate(sizes[:-1])], sizes])
    return (index := places.tobytes()) + crc32c(index).to_bytes(4, "little")


def _tell_others(array: dict[str, Any], chunks: int) -> None:
    """Make metadata of an array in plain chunks those of one in shards of so many chunks.

    0 chunks: the array is true everywhere, which without an object its fill value says.
    """
    if not chunks:
        array["fill_value"] = True
    if chunks > 1:
        grid = array["chunk_grid"]["configuration"]
        about = {"chunk_shape": grid["chunk_shape"], "codecs": array["codecs"], **_INDEX_OF_SHARDS}
        array["codecs"] = [{"name": "sharding_indexed", "configuration": about}]
        rows, *width = grid["chunk_shape"]
        grid["chunk_shape"] = [rows * chunks, *width]
