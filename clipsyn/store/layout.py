"""How an array lies in its files: rows, chunks, types, and what its group lists of them.

What metadata say is checked here before anything is allocated or counted by it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipsyn.errors import DamagedStore

FLAT_KEYS = {"name": "default", "configuration": {"separator": "."}}
_BITS = (8, 16, 32, 64)
_NUMBERS = {"bool", "float16", "float32", "float64"} | {  # types an array may have, beside texts
    f"{sign}int{bits}" for sign in ("", "u") for bits in _BITS
}
_LONGEST = 1 << 48  # rows, or elements of a row


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
class Listed:
    """The entry for one array in the attributes of a published group."""

    shape: tuple[int, ...]
    dtype: str
    rows: int  # of one block: of one chunk, unless the array was copied in another layout
    checksums: tuple[int, ...]  # of each block, padded: crc32c

    @classmethod
    def parse(cls, value: Any) -> Listed:
        """Parse JSON; raises DamagedStore."""
        try:
            digits = bytes.fromhex(value["checksums"])
            checksums = struct.unpack(f">{len(digits) // 4}I", digits)
            shape, (rows,) = _lengths(value["shape"], least=0), _lengths([value["rows"]], least=1)
            return cls(shape, value["dtype"], rows, checksums)
        except (KeyError, TypeError, ValueError, struct.error) as error:
            raise DamagedStore(f"the list of its arrays is damaged: {error!r}") from error

    def json(self) -> dict[str, Any]:
        digits = struct.pack(f">{len(self.checksums)}I", *self.checksums).hex()
        shape = list(self.shape)
        return {"shape": shape, "dtype": self.dtype, "rows": self.rows, "checksums": digits}


@dataclass(frozen=True)
class Layout:
    """The layout of an array, from its metadata."""

    shape: tuple[int, ...]
    rows: int  # of one chunk
    dtype: np.dtype[Any]  # object for strings
    ours: bool  # written by this module: whole rows, one file a chunk, crc32c
    width: int = 1  # elements of one row
    listed: Listed | None = None  # what its group says of it, if that is to be compared

    @property
    def blocks(self) -> Blocks:
        return Blocks(self.shape[0], self.rows)

    @property
    def is_copy(self) -> bool:
        """Whether the array was copied with other chunks than its group lists."""
        return self.listed is not None and not (self.ours and self.rows == self.listed.rows)

    def expected(self, block: int) -> int | None:
        return self.listed.checksums[block] if self.listed else None


def parse_layout(metadata: Mapping[str, Any]) -> Layout:
    """The layout that the metadata of an array say; whatever is wrong with them is raised."""
    shape = _lengths(metadata["shape"], least=0)
    chunks = _lengths(metadata["chunk_grid"]["configuration"]["chunk_shape"], least=1)
    if not shape or len(shape) != len(chunks):
        raise ValueError(f"chunks {chunks} of an array {shape}")
    codecs = [codec["name"] for codec in metadata["codecs"]]
    endian = metadata["codecs"][0].get("configuration", {}).get("endian", "little")
    text = metadata["data_type"] == "string"
    ours = (
        chunks[1:] == shape[1:]
        and codecs == ["vlen-utf8" if text else "bytes", "crc32c"]
        and endian == "little"
        and metadata["chunk_key_encoding"] == FLAT_KEYS
    )
    if not text and metadata["data_type"] not in _NUMBERS:
        raise ValueError(f"no numbers are {str(metadata['data_type'])[:40]}")
    dtype = np.dtype(object if text else metadata["data_type"])
    return Layout(shape, chunks[0], dtype, ours, math.prod(map(max, shape[1:], chunks[1:])))


def _lengths(values: Any, least: int) -> tuple[int, ...]:
    if not all(type(value) is int and least <= value < _LONGEST for value in values):
        raise ValueError(f"{str(values)[:40]} are no lengths")
    return tuple(values)


def dtype_name(dtype: np.dtype[Any]) -> str:
    return "string" if dtype.hasobject else dtype.name


def blocks_of(rows: range, each: int) -> range:
    """The blocks of so many rows that some rows lie in."""
    return range(rows.start // each, -(-rows.stop // each))
