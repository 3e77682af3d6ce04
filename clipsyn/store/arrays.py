"""Named arrays in Zarr v3 groups on a file system; the only module that imports zarr.

zarr makes the metadata. Chunks, whole rows in a file each (see `clipsyn.store.layout`), are read
and written without it: zarr-python needs three times as long (`benchmarks/README.md`) and 0.3 s to
import, and a missing chunk, which zarr reads as fill values, is damage to us.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DamagedStore, StoreError
from clipsyn.store import files
from clipsyn.store.layout import (
    TEXT,
    Blocks,
    Layout,
    blocks_of,
    checksum,
    parse_layout,
    read_chunk,
    stored_checksum,
    write_chunk,
)
from clipsyn.store.schema import ArraySpec
from clipsyn.text import parse_json

METADATA = files.METADATA
_READ_THREADS = 4  # two saturate memory on two cores; more help on cold disks


def create_group(
    path: Path,
    specs: Sequence[ArraySpec],
    sizes: Mapping[str, int],
    chunk_rows: int,
    attributes: Mapping[str, Any],
) -> None:
    """Make a group of empty arrays, their shapes looked up from the named dimensions `sizes`."""
    import zarr
    from zarr.codecs import Crc32cCodec

    group = zarr.create_group(store=path, zarr_format=3, attributes=dict(attributes))
    for spec in specs:
        shape = tuple(sizes[dim] for dim in spec.dims)
        first = Blocks(shape[0], chunk_rows).rows if spec.dims[0] == "sample" else shape[0]
        group.create_array(
            spec.name,
            shape=shape,
            chunks=(first, *shape[1:]),
            dtype=str if spec.dtype == TEXT else spec.dtype,
            fill_value=spec.fill,
            dimension_names=spec.dims,
            filters=None,
            compressors=[Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},  # see FLAT_KEYS
            attributes={"description": spec.doc},
        )


def read_attributes(path: Path) -> dict[str, Any]:
    """Of a group; `clipsyn.store.groups` says whether they are what was published."""
    attributes = _metadata(path).get("attributes", {})
    if not isinstance(attributes, dict):
        raise DamagedStore(f"{path / METADATA} is damaged: its attributes are no mapping")
    return attributes


def write_attributes(
    path: Path, attributes: Mapping[str, Any], scratch: Path | None = None
) -> None:
    """Replace all attributes of the group at `path`, atomically."""
    metadata = _metadata(path) | {"attributes": dict(attributes)}
    files.write_file(path / METADATA, json.dumps(metadata, indent=2).encode(), scratch=scratch)


def layout(path: Path, listed: Layout | None = None) -> Layout:
    """The layout of the array at `path`; raises DamagedStore if it is not the one listed."""
    metadata = _metadata(path)
    try:
        spec = parse_layout(metadata)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DamagedStore(f"{path / METADATA} describes no array of a store: {error}") from error
    if listed and (spec.shape, spec.dtype, spec.rows) != (listed.shape, listed.dtype, listed.rows):
        raise DamagedStore(
            f"{path / METADATA} is damaged: an array of {spec.dtype} {spec.shape}, where its group "
            f"lists {listed.dtype} {listed.shape}"
        )
    return listed or spec


def write_block(path: Path, block: int, values: NDArray[Any], scratch: Path | None = None) -> None:
    """Write the rows of one chunk of the array at `path`, durably: rename, then sync."""
    spec = layout(path)
    rows = spec.blocks.range(block)
    if values.shape != (len(rows), *spec.shape[1:]):
        raise ValueError(f"{path}: block {block} is {len(rows)} rows, not {values.shape}")
    write_chunk(path / spec.file(block), np.asarray(values, spec.numpy), spec.rows, scratch)


def read(path: Path, rows: range | None = None, listed: Layout | None = None) -> NDArray[Any]:
    """The array at `path`, or the `rows` of it, checked against its checksums.

    With `listed` it must also be the array that its group lists, block by block. Raises
    DamagedStore for a missing, cut or altered chunk, and for one of another array.
    """
    spec = layout(path, listed)
    rows = range(spec.shape[0]) if rows is None else rows
    out = np.empty((len(rows), *spec.shape[1:]), spec.numpy)
    blocks = blocks_of(rows, spec.rows)

    def fill(block: int) -> None:
        _read_chunk_into(out, rows, path, spec, block)

    if len(blocks) < 2:
        list(map(fill, blocks))
    else:
        with ThreadPoolExecutor(min(_READ_THREADS, len(blocks))) as pool:
            list(pool.map(fill, blocks))
    return out


def listing(path: Path) -> Layout:
    """The entry for an array that this module has written: its layout and all checksums.

    Raises DamagedStore for a missing chunk. Checksums are read from the chunks, not computed.
    """
    spec = layout(path)
    return replace(spec, checksums=tuple(stored_checksum(path / name) for name in spec.files()))


def is_written(path: Path) -> bool:
    """Whether an array is there, with all of its chunks."""
    if not files.exists(path / METADATA):
        return False
    return all(files.exists(path / name) for name in layout(path).files())


def relisted(listed: Layout, values: NDArray[Any]) -> Layout:
    """The list entry of an array of the same layout with other values."""
    parts = map(listed.blocks.range, range(listed.blocks.count))
    sums = (checksum(values[rows.start : rows.stop], listed.rows) for rows in parts)
    return replace(listed, checksums=tuple(sums))


def damage(path: Path, listed: Layout | None = None) -> list[str]:
    """One sentence for every block of the array at `path` that is not what was written."""
    try:
        spec = layout(path, listed)
    except StoreError as error:
        return [str(error)]
    blocks = spec.blocks
    lanes = min(_READ_THREADS, blocks.count)

    def look(lane: int) -> dict[int, str]:
        problems = {}
        chunk = np.empty((spec.rows, *spec.shape[1:]), spec.numpy)
        for block in range(lane, blocks.count, lanes):
            try:  # the same memory again and again: it stays in the cache
                _read_chunk(path, spec, block, chunk)
            except StoreError as error:
                rows = blocks.range(block)
                problems[block] = f"block {block} (rows {rows.start}-{rows.stop - 1}): {error}"
        return problems

    with ThreadPoolExecutor(lanes) as pool:
        problems = {
            block: one for part in pool.map(look, range(lanes)) for block, one in part.items()
        }
    return [problems[block] for block in sorted(problems)]


def group_blocks(path: Path) -> int:
    """How many blocks the arrays of a group have: the most chunks of any of them."""
    return max((layout(path / name).blocks.count for name in array_names(path)), default=0)


def array_names(path: Path) -> list[str]:
    """Names of the arrays in the group at `path`: of a draft, since a group lists its own."""
    return [name for name in files.folders(path) if files.exists(path / name / METADATA)]


def _metadata(path: Path) -> dict[str, Any]:
    file = path / METADATA
    files.check_folder(path)
    try:
        metadata: dict[str, Any] = parse_json(files.read_file(file))
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedStore(f"{file} is missing") from None
    except ValueError as error:
        raise DamagedStore(f"{file} is damaged: {error}") from error
    if not isinstance(metadata, dict):
        raise DamagedStore(f"{file} is damaged: it holds no JSON object")
    return metadata


def _read_chunk_into(out: NDArray[Any], rows: range, path: Path, spec: Layout, block: int) -> None:
    """Copy the part of `rows` in chunk `block` into `out`; a whole chunk is read in place."""
    start = block * spec.rows
    first, last = max(start, rows.start), min(start + spec.rows, rows.stop)
    target = out[first - rows.start : last - rows.start]
    if len(target) == spec.rows:
        _read_chunk(path, spec, block, target)
        return
    chunk = np.empty((spec.rows, *spec.shape[1:]), spec.numpy)
    _read_chunk(path, spec, block, chunk)
    target[...] = chunk[first - start : last - start]


def _read_chunk(path: Path, spec: Layout, block: int, chunk: NDArray[Any]) -> None:
    expected = None if spec.checksums is None else spec.checksums[block]
    read_chunk(path / spec.file(block), chunk, expected, spec.file_bytes)
