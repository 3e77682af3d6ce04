"""How an array lies in its files: rows, chunks, types, and what its group lists of them.

What metadata say is checked here before anything is allocated or counted by it.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from clipsyn.errors import DamagedStore
from clipsyn.store import files
from clipsyn.store.schema import GROUPS

FLAT_KEYS = {"name": "default", "configuration": {"separator": "."}}
TEXT = "string"
_TYPES = {TEXT, *(spec.dtype for group in GROUPS.values() for spec in group)}
_LONGEST = 1 << 48  # rows, or elements of a row
_LARGEST = 1 << 28  # bytes of a chunk: 1024 rows of 65,534 logits
_PREFIX, _CHECKSUM_BYTES = struct.Struct("<I"), 4  # before a text, after a chunk
_LENGTH, _LONGEST_TEXT = 4, 4096  # bytes: before a text, and of it; names of files are shorter
_AROUND = 8  # bytes of a file beside its rows: the number of texts, the checksum


@dataclass(frozen=True)
class Blocks:
    """`samples` rows cut into equal blocks of at most `chunk_rows`: no chunk is mostly padding."""

    samples: int
    chunk_rows: int

    @property
    def count(self) -> int:
        return math.ceil(self.samples / self.chunk_rows)

    @property
    def rows(self) -> int:
        return math.ceil(self.samples / self.count)

    def range(self, block: int) -> range:
        return range(block * self.rows, min((block + 1) * self.rows, self.samples))


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
        return math.prod(self.shape[1:]) * (_LENGTH if self.dtype == TEXT else self.numpy.itemsize)

    @property
    def file_bytes(self) -> int:
        """The most that the file of a chunk has."""
        each = self.row_bytes + (_LONGEST_TEXT if self.dtype == TEXT else 0)
        return min(self.rows * each, _LARGEST) + _AROUND

    @property
    def blocks(self) -> Blocks:
        return Blocks(self.shape[0], self.rows)

    def files(self, rows: range | None = None) -> list[str]:
        """Names of the files in which rows lie, or all."""
        blocks = range(self.blocks.count) if rows is None else blocks_of(rows, self.rows)
        return [self.file(block) for block in blocks]

    def file(self, block: int) -> str:
        return ".".join(["c", str(block), *["0"] * (len(self.shape) - 1)])


def parse_layout(metadata: Mapping[str, Any]) -> Layout:
    """The layout that the metadata of an array say; ValueError or LookupError if it is not ours."""
    shape, dtype = tuple(metadata["shape"]), metadata["data_type"]
    rows, *width = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    codecs = [codec["name"] for codec in metadata["codecs"]]
    endian = metadata["codecs"][0].get("configuration", {}).get("endian", "little")
    if (
        tuple(width) != shape[1:]
        or codecs != ["vlen-utf8" if dtype == TEXT else "bytes", "crc32c"]
        or endian != "little"
        or metadata["chunk_key_encoding"] != FLAT_KEYS
    ):
        raise ValueError("it is cut, ordered or compressed in another way than docs/store.md says")
    return Layout(shape, dtype, rows)


def blocks_of(rows: range, each: int) -> range:
    """The blocks of so many rows that some rows lie in."""
    return range(rows.start // each, -(-rows.stop // each))


# Chunks as files: little-endian numbers or length-prefixed UTF-8, then a crc32c


def checksum(values: NDArray[Any], rows: int) -> int:
    """The crc32c that the chunk of these values has, padded to `rows`."""
    return int(crc32c(_encode(values, rows - len(values))))


def write_chunk(file: Path, values: NDArray[Any], rows: int, scratch: Path | None = None) -> None:
    """Write the values, padded to `rows` (Zarr chunks are never short), and their checksum."""
    data = _encode(values, rows - len(values))
    checksum_bytes = crc32c(data).to_bytes(_CHECKSUM_BYTES, "little")
    files.write_file(file, data, checksum_bytes, scratch=scratch)


def read_chunk(file: Path, chunk: NDArray[Any], expected: int | None = None, most: int = 0) -> None:
    """Fill `chunk` with the content of `file`, of texts `most` bytes.

    Raises DamagedStore for altered content, or a checksum that is not `expected`.
    """
    text = chunk.dtype == object
    with _opened(file) as (descriptor, size):
        length = size - _CHECKSUM_BYTES
        if text and size > most:
            raise DamagedStore(f"chunk {file} has {size:,} bytes, more than so many texts have")
        data = memoryview(bytearray(max(length, 0))) if text else _bytes_of(chunk)
        stored = bytearray(_CHECKSUM_BYTES)
        if length == data.nbytes:
            os.readv(descriptor, [data, stored])
    if length != data.nbytes:
        raise DamagedStore(f"chunk {file} has {length} bytes instead of {data.nbytes}")
    if (found := crc32c(data)) != int.from_bytes(stored, "little"):
        raise DamagedStore(f"chunk {file} does not match its checksum")
    if expected not in (None, found):
        raise DamagedStore(f"chunk {file} is whole, but another than its group lists")
    if text:
        try:
            _decode_texts(data, chunk)
        except (struct.error, UnicodeDecodeError) as error:
            raise DamagedStore(f"chunk {file} is no list of texts: {error}") from error


def stored_checksum(file: Path) -> int:
    """The checksum at the end of a chunk's file; it is not compared with the content."""
    with _opened(file) as (descriptor, size):
        at = max(0, size - _CHECKSUM_BYTES)
        return int.from_bytes(os.pread(descriptor, _CHECKSUM_BYTES, at), "little")


@contextmanager
def _opened(file: Path) -> Iterator[tuple[int, int]]:
    try:
        with files.reading(file), files.opened(file) as opened:
            yield opened
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedStore(f"chunk {file} is missing") from None


def _bytes_of(values: NDArray[Any]) -> memoryview:
    return values.reshape(-1).view(np.uint8).data


def _encode(values: NDArray[Any], padding: int) -> bytes | memoryview:
    if values.dtype == object:
        texts = [text.encode() for text in values] + [b""] * padding
        parts = (_PREFIX.pack(len(text)) + text for text in texts)
        return _PREFIX.pack(len(texts)) + b"".join(parts)
    if padding:
        values = np.concatenate([values, np.zeros((padding, *values.shape[1:]), values.dtype)])
    return _bytes_of(np.ascontiguousarray(values))


def _decode_texts(data: memoryview, out: NDArray[Any]) -> None:
    offset = _PREFIX.size  # past the number of texts
    for row in range(len(out)):
        start = offset + _PREFIX.size
        offset = start + _PREFIX.unpack_from(data, offset)[0]
        out[row] = str(data[start:offset], "utf-8")
