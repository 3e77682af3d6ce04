"""Named arrays in Zarr v3 groups on a file system; the only module that imports zarr.

zarr makes the metadata. Chunks, whole rows in a file each, are read and written without it:
zarr-python needs three times as long (`benchmarks/README.md`) and 0.3 s to import, and a missing
chunk, which zarr reads as fill values, is damage to us. How an array lies in its files is known
from the list of its group, and checked before anything is allocated by it.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from clipsyn.errors import DamagedStore, StoreError
from clipsyn.store import files
from clipsyn.store.files import GROUPS, METADATA, ArraySpec
from clipsyn.text import parse_json

if TYPE_CHECKING:
    from clipsyn.store.given import Rows

TEXT = "string"
_TYPES = {TEXT, *(spec.dtype for group in GROUPS.values() for spec in group)}
_LONGEST = 1 << 48  # rows, or elements of a row
_LARGEST = 1 << 28  # bytes of a chunk: 1024 rows of 65,534 logits
_WIDEST = 4  # bytes of an element of an array of several columns
_WRITTEN = 1 << 24  # of a chunk where one process writes all rows: a file takes 10 ms to sync
BLOCK_BYTES = 1 << 26  # of what is worked on at once
_CHECKSUM_BYTES = 4  # after a chunk
LONGEST_TEXT = 4096  # bytes; names of files are shorter
_READ_THREADS = 4  # two saturate memory on two cores; more help on cold disks


@dataclass(frozen=True)
class Blocks:
    """`samples` rows in blocks of at most `chunk_rows`, as equal as multiples of `unit` can be."""

    samples: int
    chunk_rows: int
    unit: int = 1

    @classmethod
    def of(
        cls, specs: Iterable[ArraySpec], sizes: Mapping[str, int], chunk_rows: int, most: int
    ) -> Blocks:
        """Of a group: so that readers take the largest chunk of every array.

        A block is so many rows that matrix products take at once, at most `chunk_rows`; where one
        process writes all, some of these, at most `most` rows.
        """
        rows = sizes.get("sample", sizes.get("caption", 1))  # other groups are one block
        width = _WIDEST * max(math.prod(sizes[dim] for dim in spec.dims[1:]) for spec in specs)
        unit = cls(rows, max(1, min(chunk_rows, _LARGEST // width))).rows
        return cls(rows, max(unit, min(most, _WRITTEN // width)), unit)

    @property
    def _units(self) -> int:
        return math.ceil(self.samples / self.unit)

    @property
    def count(self) -> int:
        return math.ceil(self._units / (self.chunk_rows // self.unit))

    @property
    def rows(self) -> int:
        return self.unit * math.ceil(self._units / self.count)

    def range(self, block: int) -> range:
        return range(block * self.rows, min((block + 1) * self.rows, self.samples))


def spans(rows: int, unit: int, row_bytes: int) -> list[range]:
    """Ranges of rows that cover all of them in order: multiples of `unit`, of `BLOCK_BYTES` at most
    where one unit is not larger.
    """
    step = unit * max(1, BLOCK_BYTES // (unit * row_bytes))
    return [range(start, min(start + step, rows)) for start in range(0, rows, step)]


@dataclass(frozen=True)
class Layout:
    """How an array is cut: whole rows, so many a chunk, one file a chunk with its crc32c."""

    shape: tuple[int, ...]
    dtype: str  # Zarr's name of it
    rows: int  # of one chunk
    checksums: tuple[int, ...] | None = None  # of each chunk, where a published group lists them

    def __post_init__(self) -> None:
        """Raise ValueError for lengths that are none, and for chunks that memory may not hold."""
        lengths = (*self.shape, self.rows)
        if not all(type(length) is int and 1 <= length < _LONGEST for length in lengths):
            raise ValueError(f"{str(lengths)[:40]} are no lengths")
        if self.dtype not in _TYPES or not self.shape:
            raise ValueError(f"no array of a store is {str(self.dtype)[:40]} {self.shape}")
        if self.rows * self.row_bytes > _LARGEST:
            raise ValueError(f"a chunk of {self.rows:,} rows of {self.row_bytes:,} bytes")

    @classmethod
    def of(cls, spec: ArraySpec, sizes: Mapping[str, int], rows: int) -> Layout:
        """Of a new array, its shape looked up from the named dimensions `sizes`."""
        shape = tuple(sizes[dim] for dim in spec.dims)
        cut = spec.dims[0] in ("sample", "caption")
        return cls(shape, spec.dtype, rows if cut else shape[0])

    @classmethod
    def parse(cls, value: Any) -> Layout:
        """The entry for an array in the attributes of a published group; raises DamagedStore."""
        try:
            digits = bytes.fromhex(value["checksums"])
            checksums = struct.unpack(f">{len(digits) // 4}I", digits)
            listed = cls(tuple(value["shape"]), value["dtype"], value["rows"], checksums)
            if len(checksums) != listed.blocks.count:
                raise ValueError(f"{len(checksums):,} checksums of {listed.blocks.count:,} chunks")
        except (KeyError, TypeError, ValueError, struct.error) as error:
            raise DamagedStore(f"the list of its arrays is damaged: {error!r}") from error
        return listed

    def json(self) -> dict[str, Any]:
        """What `parse` reads."""
        sums = self.checksums or ()
        digits = struct.pack(f">{len(sums)}I", *sums).hex()
        shape = list(self.shape)
        return {"shape": shape, "dtype": self.dtype, "rows": self.rows, "checksums": digits}

    @property
    def numpy(self) -> np.dtype[Any]:
        """Its type in memory: object for strings."""
        return np.dtype(object if self.dtype == TEXT else self.dtype)

    @property
    def row_bytes(self) -> int:
        """Of one row, at least: a text has its length alone."""
        return math.prod(self.shape[1:]) * (4 if self.dtype == TEXT else self.numpy.itemsize)

    @property
    def blocks(self) -> Blocks:
        return Blocks(self.shape[0], self.rows, self.rows)

    def files(self, rows: range | None = None) -> list[str]:
        """Names of the files in which rows lie, or all."""
        blocks = range(self.blocks.count) if rows is None else _blocks_of(rows, self.rows)
        return [self.file(block) for block in blocks]

    def file(self, block: int) -> str:
        return ".".join(["c", str(block), *["0"] * (len(self.shape) - 1)])

    def part(self, values: Rows, block: int) -> NDArray[Any]:
        """The rows of a block."""
        rows = self.blocks.range(block)
        return values[rows.start : rows.stop]


# Groups and their metadata


def create_group(
    path: Path, arrays: Sequence[tuple[ArraySpec, Layout]], attributes: Mapping[str, Any]
) -> None:
    """Make a group of empty arrays."""
    import zarr
    from zarr.codecs import Crc32cCodec

    group = zarr.create_group(store=path, zarr_format=3, attributes=dict(attributes))
    for spec, layout in arrays:
        group.create_array(
            spec.name,
            shape=layout.shape,
            chunks=(layout.rows, *layout.shape[1:]),
            dtype=str if spec.dtype == TEXT else spec.dtype,
            fill_value=spec.fill,
            dimension_names=spec.dims,
            filters=None,
            compressors=[Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},
            attributes={"description": spec.doc},
        )


def read_attributes(path: Path) -> dict[str, Any]:
    """Of a group; `clipsyn.store.groups` says whether they are what was published."""
    return _attributes(_metadata(path), path)


def attributes_in(content: bytes, path: Path) -> dict[str, Any]:
    """The same, of the content of the metadata of the group at `path`."""
    return _attributes(_parsed(content, path / METADATA), path)


def _attributes(metadata: Mapping[str, Any], path: Path) -> dict[str, Any]:
    attributes = metadata.get("attributes", {})
    if not isinstance(attributes, dict):
        raise DamagedStore(f"{path / METADATA} is damaged: its attributes are no mapping")
    return attributes


def write_attributes(
    path: Path, attributes: Mapping[str, Any], scratch: Path | None = None
) -> None:
    """Replace all attributes of the group at `path`, atomically."""
    metadata = _metadata(path) | {"attributes": dict(attributes)}
    files.write_file(path / METADATA, json.dumps(metadata, indent=2).encode(), scratch=scratch)


def _metadata(path: Path) -> dict[str, Any]:
    file = path / METADATA
    try:
        return _parsed(files.read_file(file), file)
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedStore(f"{file} is missing") from None


def _parsed(content: bytes, file: Path) -> dict[str, Any]:
    try:
        metadata: dict[str, Any] = parse_json(content)
    except ValueError as error:
        raise DamagedStore(f"{file} is damaged: {error}") from error
    if not isinstance(metadata, dict):
        raise DamagedStore(f"{file} is damaged: it holds no JSON object")
    return metadata


def write_block(
    path: Path,
    layout: Layout,
    block: int,
    values: NDArray[Any],
    scratch: Path | None = None,
    *,
    synced: bool = True,
) -> None:
    """Write the rows of one chunk of the array at `path`, as `files.write_file` does."""
    if values.shape != (rows := len(layout.blocks.range(block)), *layout.shape[1:]):
        raise ValueError(f"{path}: block {block} is {rows} rows, not {values.shape}")
    data = encoded(np.asarray(values, layout.numpy), layout.rows)
    files.write_file(path / layout.file(block), *data, scratch=scratch, synced=synced)


def read(path: Path, layout: Layout, rows: range | None = None) -> NDArray[Any]:
    """The array at `path`, or the `rows` of it, checked against its checksums.

    Raises DamagedStore for a missing, cut or altered chunk, and for one of another array.
    """
    rows = range(layout.shape[0]) if rows is None else rows
    out = np.empty((len(rows), *layout.shape[1:]), layout.numpy)

    def fill(block: int) -> None:
        start = block * layout.rows
        first, last = max(start, rows.start), min(start + layout.rows, rows.stop)
        target = out[first - rows.start : last - rows.start]
        if len(target) == layout.rows:  # a whole chunk is read in place
            _read_block(path, layout, block, target)
        else:
            chunk = np.empty((layout.rows, *layout.shape[1:]), layout.numpy)
            _read_block(path, layout, block, chunk)
            target[...] = chunk[first - start : last - start]

    blocks = _blocks_of(rows, layout.rows)
    if len(blocks) < 2:
        list(map(fill, blocks))
    else:
        with ThreadPoolExecutor(min(_READ_THREADS, len(blocks))) as pool:
            list(pool.map(fill, blocks))
    return out


def listing(path: Path, layout: Layout) -> Layout:
    """The layout of an array that this module has written, with all checksums.

    Raises DamagedStore for a missing chunk. Checksums are read from the chunks, not computed.
    """
    return replace(layout, checksums=tuple(_stored_sum(path / name) for name in layout.files()))


def relisted(listed: Layout, values: NDArray[Any]) -> Layout:
    """The list entry of an array of the same layout with other values."""
    parts = (listed.part(values, block) for block in range(listed.blocks.count))
    sums = (int.from_bytes(encoded(part, listed.rows)[1], "little") for part in parts)
    return replace(listed, checksums=tuple(sums))


def damage(path: Path, layout: Layout) -> list[str]:
    """One sentence for every block of the array at `path` that is not what was written.

    And one for metadata by which other readers would find another array.
    """

    def look(lane: int) -> list[tuple[int, str]]:
        problems, chunk = [], np.empty((layout.rows, *layout.shape[1:]), layout.numpy)
        for block in range(lane, layout.blocks.count, lanes):
            try:  # the same memory again and again: it stays in the cache
                _read_block(path, layout, block, chunk)
            except StoreError as error:
                rows = layout.blocks.range(block)
                problems.append((block, f"(rows {rows.start}-{rows.stop - 1}): {error}"))
        return problems

    try:
        found = _metadata(path)
        shape, grid = tuple(found["shape"]), found["chunk_grid"]["configuration"]["chunk_shape"]
        there = shape, found["data_type"], tuple(grid)
        if there != (layout.shape, layout.dtype, (layout.rows, *layout.shape[1:])):
            return [f"{path / METADATA} is damaged: it describes another array than is listed"]
    except (StoreError, LookupError, TypeError) as error:
        return [f"{path / METADATA} is damaged: {error}"]
    lanes = min(_READ_THREADS, layout.blocks.count)
    if lanes == 1:  # a thread takes longer than most
        return [f"block {block} {problem}" for block, problem in look(0)]
    with ThreadPoolExecutor(lanes) as pool:
        problems = sorted(it for lane in pool.map(look, range(lanes)) for it in lane)
    return [f"block {block} {problem}" for block, problem in problems]


def _blocks_of(rows: range, each: int) -> range:
    """The blocks of so many rows that some rows lie in."""
    return range(rows.start // each, -(-rows.stop // each))


def _read_block(path: Path, layout: Layout, block: int, chunk: NDArray[Any]) -> None:
    expected = None if layout.checksums is None else layout.checksums[block]
    read_chunk(path / layout.file(block), chunk, expected)


# Chunks as files: little-endian numbers or length-prefixed UTF-8, then a crc32c


def encoded(values: NDArray[Any], rows: int) -> tuple[bytes | memoryview, bytes]:
    """The values, padded to `rows` (Zarr chunks are never short), and their checksum."""
    text, padding = values.dtype == object, rows - len(values)
    if padding:
        fill = np.full((padding, *values.shape[1:]), "" if text else 0, values.dtype)
        values = np.concatenate([values, fill])
    data = bytes(_texts().encode(values)) if text else bytes_of(values)
    return data, crc32c(data).to_bytes(_CHECKSUM_BYTES, "little")


def read_chunk(file: Path, chunk: NDArray[Any], expected: int | None = None) -> None:
    """Fill `chunk` with the content of `file`.

    Raises DamagedStore for altered content, or a checksum that is not `expected`.
    """
    text = chunk.dtype == object
    try:
        with file.open("rb", buffering=0) as stream:
            length = os.fstat(stream.fileno()).st_size - _CHECKSUM_BYTES
            if text and length > (len(chunk) + 1) * LONGEST_TEXT:
                raise DamagedStore(f"chunk {file} has {length:,} bytes, more than so many texts")
            data = memoryview(bytearray(max(length, 0))) if text else bytes_of(chunk)
            if length != data.nbytes:
                raise DamagedStore(f"chunk {file} has {length} bytes instead of {data.nbytes}")
            stored = bytearray(_CHECKSUM_BYTES)
            os.readv(stream.fileno(), [data, stored])
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise DamagedStore(f"chunk {file} is missing") from None
    if (found := crc32c(data)) != int.from_bytes(stored, "little"):
        raise DamagedStore(f"chunk {file} does not match its checksum")
    if expected not in (None, found):
        raise DamagedStore(f"chunk {file} is whole, but another than its group lists")
    if text:
        try:
            if int.from_bytes(data[:4], "little") != len(chunk):
                raise ValueError("so many texts are in no chunk")
            _texts().decode(data, out=chunk)
        except ValueError as error:
            raise DamagedStore(f"chunk {file} is no list of texts: {error}") from error


def _stored_sum(file: Path) -> int:
    """The checksum at the end of a chunk's file; it is not compared with the content."""
    try:
        with file.open("rb") as stream:
            stream.seek(-_CHECKSUM_BYTES, os.SEEK_END)
            return int.from_bytes(stream.read(), "little")
    except OSError as error:  # one that is too short, too
        raise DamagedStore(f"chunk {file} is missing") from error


def bytes_of(values: NDArray[Any]) -> memoryview:
    """Of numbers, as they lie in a chunk: of an array in row order its own."""
    little = values.astype(values.dtype.newbyteorder("<"), order="C", copy=False)
    return little.reshape(-1).view(np.uint8).data


def _texts() -> Any:
    """What writes and reads texts: in C, for there may be millions."""
    from numcodecs.vlen import VLenUTF8

    return VLenUTF8()
