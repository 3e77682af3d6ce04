"""Shards of published arrays: their chunks one after another, then where each lies, and a crc32c.

Zarr's codec `sharding_indexed` (https://zarr-specs.readthedocs.io, v3) says so in the metadata. So
a large array is a few objects, and other tools read it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from crc32c import crc32c

from clipsyn.errors import DamagedStore
from clipsyn.text import parse_json

_NOWHERE = (1 << 64) - 1  # where a chunk is that a shard has not
_INDEX_OF_SHARDS = {
    "index_location": "end",
    "index_codecs": [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "crc32c"},
    ],
}


def shard_index(sizes: Sequence[int], chunks: int) -> bytes:
    """The end of a shard that has room for so many chunks; the last of an array has fewer."""
    starts = accumulate(sizes, initial=0)
    places = [number for place in zip(starts, sizes, strict=False) for number in place]
    places += [_NOWHERE] * (2 * chunks - len(places))
    index = struct.pack(f"<{2 * chunks}Q", *places)
    return index + crc32c(index).to_bytes(4, "little")


def for_others(metadata: bytes, chunks: int) -> dict[str, Any]:
    """The metadata of an array in shards of so many chunks, from those of one in plain chunks.

    0 chunks: the array is true everywhere, which without an object its fill value says. Raises
    DamagedStore for metadata of no array.
    """
    try:
        array = parse_json(metadata)
        grid = array["chunk_grid"]["configuration"]
        rows, *width = grid["chunk_shape"]
        about = {"chunk_shape": [rows, *width], "codecs": array["codecs"], **_INDEX_OF_SHARDS}
        if not chunks:
            return {**array, "fill_value": True}
        if chunks > 1:
            array["codecs"] = [{"name": "sharding_indexed", "configuration": about}]
            grid["chunk_shape"] = [rows * chunks, *width]
    except (ValueError, LookupError, TypeError) as error:
        raise DamagedStore(f"metadata of an array are damaged: {error!r}") from error
    return dict(array)
