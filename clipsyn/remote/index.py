"""The index of a published store, a part for each dataset, so that who reads one fetches its part.

    index.json.gz                       which datasets there are; written when one is new
    index/<dataset>/groups.json.gz      all groups of it
    <kind>/<names…>/<16 hex>/…          the files of one group, named by its manifest's SHA-256:
                                        `clipsyn.remote.manifest`

Whatever a group needs is of its dataset, so each part is whole by itself, and none has to agree
with another one. A part is written before the index names it, and is never removed.

All of it comes from strangers. So paths are made from names, never read, and what cannot be is
refused before anything of it is used.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from clipsyn.errors import DamagedStore, StoreError, UsageError
from clipsyn.store.files import INDEX, KINDS, Place, check_format, check_marker, folder_name
from clipsyn.text import first_problem, one_line, parse_json

PARTS, _PART = "index", "groups.json.gz"
FORMAT = "3.0"
MOST_INDEX = 1 << 27  # bytes of JSON: about 350,000 groups of one dataset
_FOLDER_DIGITS = 16
_MOST_BYTES = 1 << 60  # of a group


def _check_facts(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, value in facts.items():
        fits = type(value) is int and 0 <= value <= _MOST_BYTES
        if not (type(value) is str if name == "imported" else fits):
            raise ValueError(f"{name} cannot be {str(value)[:70]!r}")
    return facts


def _check_place(place: Place) -> Place:
    """Raise ValueError or UsageError for kind and names that no group of a store has."""
    if not place or not all(place) or len(place) != 1 + len(KINDS.get(place[0], place)):
        raise ValueError(f"{'/'.join(place)!r} is no place of a group")
    for name in place:
        folder_name(name)
    return place


Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Place = Annotated[Place, AfterValidator(_check_place)]
_Size = Annotated[int, Field(strict=True, ge=0, le=_MOST_BYTES)]
_Facts = Annotated[Mapping[str, Any], AfterValidator(_check_facts)]


@dataclass(frozen=True)
class Entry:
    """What the index says of one group.

    manifest: SHA-256 of the manifest. content: a digest of what readers see of the group, which
    does not depend on when and where it was made. facts: what `ls` shows without opening it. They
    are `images`, `bad` and `embed` (the width, where there are embeddings) of what holds rows,
    `classes` of samples, and `imported`, what an import holds, and what its class embeddings are.
    """

    place: _Place
    manifest: Digest
    bytes: _Size
    fingerprint: Digest
    content: Digest
    facts: _Facts = field(default_factory=dict)

    @property
    def imported(self) -> bool:
        return "imported" in self.facts

    @property
    def name(self) -> str:
        """The path that the group has in a local store."""
        kind, *names = self.place
        return "/".join([kind, *map(folder_name, names)])

    @property
    def folder(self) -> str:
        """The path of its files in the published store: it changes with every byte of them."""
        return f"{self.name}/{self.manifest[:_FOLDER_DIGITS]}"


@dataclass(frozen=True)
class Index:
    """The datasets of a published store, and the content of its `clipsyn.json`."""

    store: Mapping[str, Any]
    datasets: Collection[str] = ()

    @classmethod
    def parse(cls, data: bytes, shown: str) -> Index:
        """Parse index.json.gz of the store at the URL `shown`.

        Raises UnsupportedFormat for another major format, DamagedStore for what is no index.
        """
        with damage(f"{shown}/{INDEX}"):
            content = _unpacked(data, shown)
            check_marker(shown, content["store"])
            datasets = _NAMES.validate_python(content["datasets"])
            for name in datasets:
                _check_place(("samples", name, "any"))
            return cls(content["store"], datasets)

    def dumps(self) -> bytes:
        return _packed({"store": self.store, "datasets": sorted(self.datasets)})


def parse_part(data: bytes | None, shown: str, dataset: str) -> dict[Place, Entry]:
    """The groups of a dataset, by place; none of no part. Raises what `Index.parse` does."""
    if data is None:
        return {}
    with damage(f"{shown}/{part_path(dataset)}"):
        groups = _ENTRIES.validate_python(_unpacked(data, shown)["groups"])
        entries = {entry.place: entry for entry in groups}
        if len(entries) < len(groups):
            raise ValueError("a group stands twice in it")
        if other := next((place for place in entries if place[1] != dataset), None):
            raise ValueError(f"{'/'.join(other)!r} is of another dataset")
        return entries


def dump_part(entries: Iterable[Entry]) -> bytes:
    """The same bytes for the same groups; raises StoreError where no reader would take them."""
    return _packed({"groups": [vars(it) for it in sorted(entries, key=lambda it: it.place)]})


_ENTRIES, _NAMES = TypeAdapter(list[Entry]), TypeAdapter(list[str])


def part_path(dataset: str) -> str:
    return f"{PARTS}/{folder_name(dataset)}/{_PART}"


@contextmanager
def damage(where: str) -> Iterator[None]:
    """Raise DamagedStore, in one sentence, for what cannot be."""
    try:
        yield
    except ValidationError as error:
        raise DamagedStore(f"{where} is damaged: {first_problem(error)}") from None
    except (ValueError, KeyError, TypeError, EOFError, OSError, UsageError, zlib.error) as error:
        lacking = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise DamagedStore(f"{where} is damaged: {lacking}") from error


def _unpacked(data: bytes, shown: str) -> Any:
    """The JSON in a gzip file, which may be a bomb."""
    with gzip.open(io.BytesIO(data)) as file:
        content = file.read(MOST_INDEX + 1)
    if len(content) > MOST_INDEX:
        raise ValueError(f"it has more than {MOST_INDEX:,} bytes")
    document = parse_json(content)
    check_format(f"the index of {shown}", str(document["format"]), FORMAT)
    return document


def _packed(content: Mapping[str, Any]) -> bytes:
    data = compact({"format": FORMAT, **content})
    if len(data) > MOST_INDEX:
        raise StoreError(
            f"a part of the index would have {len(data):,} bytes, and readers take "
            f"{MOST_INDEX:,}: push some of the cells to another place"
        )
    return gzip.compress(data, compresslevel=6, mtime=0)


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
