"""A chunk of an array as a file: little-endian numbers or length-prefixed UTF-8, then a crc32c."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from clipsyn.errors import DamagedStore
from clipsyn.store import files

_CHECKSUM_BYTES = 4
_LENGTH = struct.Struct("<I")


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
        parts = (_LENGTH.pack(len(text)) + text for text in texts)
        return _LENGTH.pack(len(texts)) + b"".join(parts)
    if padding:
        values = np.concatenate([values, np.zeros((padding, *values.shape[1:]), values.dtype)])
    return _bytes_of(np.ascontiguousarray(values))


def _decode_texts(data: memoryview, out: NDArray[Any]) -> None:
    offset = _LENGTH.size  # past the number of texts
    for row in range(len(out)):
        start = offset + _LENGTH.size
        offset = start + _LENGTH.unpack_from(data, offset)[0]
        out[row] = str(data[start:offset], "utf-8")
