"""The index of a published store, a part for each dataset, so that who reads one fetches its part.

    index.json.gz                       which datasets there are; written when one is new
    index/<dataset>/groups.json.gz      all groups of it
    <kind>/<names…>/<16 hex>/…          the files of one group, named by its manifest's SHA-256:
                                        `clipsyn.remote.manifest`

Whatever a group needs is of its dataset, so each part is whole by itself, and none has to agree
with another one. A part is written before the index names it, and is never removed. Each is written
on the condition that nobody has changed it since it was read.

All of it comes from strangers. So paths are made from names, never read, and what cannot be is
refused before anything of it is used.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, ValidationInfo

from clipsyn.errors import DamagedStore, StaleCell, StoreError, UsageError
from clipsyn.remote.transport import FILES, Changed, MissingObject, Remote
from clipsyn.store.files import (
    INDEX,
    KINDS,
    Place,
    check_format,
    check_marker,
    folder_name,
    name_of_folder,
)
from clipsyn.text import first_problem, one_line

PARTS, PART = "index", "groups.json.gz"
FORMAT = "3.0"
MOST_INDEX = 1 << 27  # bytes of JSON: about 350,000 groups of one dataset
_FOLDER_DIGITS = 16
_MOST_BYTES = 1 << 60  # of a group
_TRIES = 50
_MOST_PAUSE = 2.0  # seconds
_PROBE = f"{PARTS}/probe.json"


def _check_format(version: str, where: ValidationInfo) -> str:
    check_format(f"the index of {where.context}", version, FORMAT)
    return version


def _check_facts(facts: Mapping[str, int | str]) -> Mapping[str, int | str]:
    for name, value in facts.items():
        if isinstance(value, str) != (name == "imported"):
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
_Facts = Annotated[Mapping[str, _Size | str], AfterValidator(_check_facts)]
_Format = Annotated[str, AfterValidator(_check_format)]


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
    def name(self) -> str:
        return name_of(self.place)

    @property
    def folder(self) -> str:
        """The path of its files in the published store: it changes with every byte of them."""
        return f"{self.name}/{self.manifest[:_FOLDER_DIGITS]}"


@dataclass(frozen=True)
class Index:
    """The datasets of a published store, and the content of its `clipsyn.json`."""

    format: _Format = field(default=FORMAT, kw_only=True)
    store: Mapping[str, Any]
    datasets: Sequence[str] = ()

    @classmethod
    def parse(cls, data: bytes, shown: str) -> Index:
        """Parse index.json.gz of the store at the URL `shown`.

        Raises UnsupportedFormat for another major format, DamagedStore for what is no index.
        """
        with damage(f"{shown}/{INDEX}"):
            index = _INDEX_JSON.validate_json(_unpacked(data), context=shown)
            check_marker(shown, index.store)
            for name in index.datasets:
                _check_place(("samples", name, "any"))
            return index

    def dumps(self) -> bytes:
        return _packed(vars(self))


@dataclass(frozen=True)
class _Part:
    format: _Format = field(default=FORMAT, kw_only=True)
    groups: list[Entry]


_INDEX_JSON, _PART_JSON = TypeAdapter(Index), TypeAdapter(_Part)


def parse_part(data: bytes | None, shown: str, dataset: str) -> dict[Place, Entry]:
    """The groups of a dataset, by place; none of no part. Raises what `Index.parse` does."""
    if data is None:
        return {}
    with damage(f"{shown}/{part_path(dataset)}"):
        groups = _PART_JSON.validate_json(_unpacked(data), context=shown).groups
        entries = {entry.place: entry for entry in groups}
        if len(entries) < len(groups):
            raise ValueError("a group stands twice in it")
        if other := next((place for place in entries if place[1] != dataset), None):
            raise ValueError(f"{'/'.join(other)!r} is of another dataset")
        return entries


def dump_part(entries: Iterable[Entry]) -> bytes:
    """The same bytes for the same groups; raises StoreError where no reader would take them."""
    groups = [vars(entry) for entry in sorted(entries, key=lambda entry: entry.place)]
    return _packed({"format": FORMAT, "groups": groups})


def name_of(place: Place) -> str:
    """The path that a group has in a local store."""
    return "/".join(map(folder_name, place))


def part_path(dataset: str, file: str = PART) -> str:
    return f"{PARTS}/{folder_name(dataset)}/{file}"


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


def _unpacked(data: bytes) -> bytes:
    """The JSON in a gzip file, which may be a bomb."""
    with gzip.open(io.BytesIO(data)) as file:
        content = file.read(MOST_INDEX + 1)
    if len(content) > MOST_INDEX:
        raise ValueError(f"it has more than {MOST_INDEX:,} bytes")
    return content


def _packed(content: Mapping[str, Any]) -> bytes:
    data = compact(content)
    if len(data) > MOST_INDEX:
        raise StoreError(
            f"a part of the index would have {len(data):,} bytes, and readers take "
            f"{MOST_INDEX:,}: push some of the cells to another place"
        )
    return gzip.compress(data, compresslevel=6, mtime=0)


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# The index of a place that others may write to at the same time


def read_if_there(remote: Remote, path: str) -> tuple[bytes | None, str | None]:
    """The index or a part of it, and its ETag; None where there is none yet."""
    try:
        return remote.get(path, most=MOST_INDEX)
    except MissingObject:
        return None, None


def read_index(remote: Remote) -> Index | None:
    """None where nothing was published yet."""
    data, _ = read_if_there(remote, INDEX)
    return Index.parse(data, remote.shown) if data else None


def read_entries(remote: Remote, datasets: Iterable[str]) -> dict[Place, Entry]:
    """The groups of these datasets, by place."""

    def read(dataset: str) -> dict[Place, Entry]:
        return parse_part(read_if_there(remote, part_path(dataset))[0], remote.shown, dataset)

    with ThreadPoolExecutor(FILES) as threads:
        return {place: it for part in threads.map(read, datasets) for place, it in part.items()}


def datasets_in(remote: Remote) -> set[str]:
    """The datasets that have a part of the index, whether it is named yet or not."""
    folders = (path.split("/")[1] for path in remote.list(PARTS) if path.endswith(f"/{PART}"))
    return set(map(name_of_folder, folders))


def add_to_index(
    remote: Remote,
    marker: Mapping[str, Any],
    entries: Collection[Entry],
    making_way: Collection[str] = (),
) -> None:
    """Write groups into the parts of their datasets.

    A dataset that is new is named when its part is there. Where others write at the same time,
    what they have written stays. Of two that publish the same group the first stays; of two with
    other content under one name the second raises StaleCell. marker: of a store that is new.
    making_way: manifests of groups that others take the place of.
    """
    datasets = {entry.place[1] for entry in entries}

    def add(dataset: str) -> None:
        def change(data: bytes | None) -> bytes | None:
            there = parse_part(data, remote.shown, dataset)
            merged = dict(there)
            for entry in (it for it in entries if it.place[1] == dataset):
                old = merged.setdefault(entry.place, entry)
                if old.manifest in making_way:
                    merged[entry.place] = entry
                elif old.content != entry.content:
                    raise StaleCell(
                        f"{entry.name} in {remote.shown} was published with other content "
                        "meanwhile: run the same command again to see what differs"
                    )
            return None if merged == there else dump_part(merged.values())

        _change(remote, part_path(dataset), change)

    def name(data: bytes | None) -> bytes | None:
        there = Index.parse(data, remote.shown) if data else Index(marker)
        if datasets <= set(there.datasets):
            return None
        return Index(there.store, sorted({*there.datasets, *datasets_in(remote)})).dumps()

    with ThreadPoolExecutor(FILES) as threads:
        list(threads.map(add, datasets))
    _change(remote, INDEX, name)


def _change(remote: Remote, path: str, change: Callable[[bytes | None], bytes | None]) -> None:
    """Write an object as `change` makes it of what is there, unless that has nothing to change.

    That is so, too, where it was written, and the answer was lost.
    """
    for attempt in range(_TRIES):
        there, etag = read_if_there(remote, path)
        if (new := change(there)) is None:
            return
        with suppress(Changed):
            remote.put_if(path, new, etag)
            return
        time.sleep(random.uniform(0, min(_MOST_PAUSE, 0.02 * 2**attempt)))
    raise StoreError(
        f"{remote.shown}/{path} was changed by others {_TRIES} times in a row: run the same "
        "command again, what was sent is kept"
    )


def check_conditions(remote: Remote) -> None:
    """Raise StoreError for a place that writes although the condition of a write is not met."""
    with suppress(Changed):  # it was tried before
        remote.put_if(_PROBE, b"{}", None)
    for etag in (None, '"0"'):
        try:
            remote.put_if(_PROBE, b"{}", etag)
        except Changed:
            continue
        raise StoreError(
            f"{remote.shown} does not heed the conditions of a write, so of two who push at the "
            "same time one would lose cells: push to another place, or to a folder, and copy that"
        )
