"""Named arrays in Zarr v3 groups on a file system; the only module that imports zarr.

zarr makes the metadata and reads any layout but ours. Ours, whole rows in a file a chunk (see
`clipsyn.store.chunks`), is read and written without it: zarr-python needs three times as long for
it (`benchmarks/README.md`) and 0.3 s to import, and a missing chunk, which zarr reads as fill
values, is damage to us.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.documents import parse_json
from clipsyn.errors import DamagedStore, StoreError
from clipsyn.schema import ArraySpec
from clipsyn.store import files
from clipsyn.store.chunks import OF_ANOTHER, checksum, read_chunk, stored_checksum, write_chunk
from clipsyn.store.layout import Blocks, Layout, Listed, blocks_of, dtype_name, parse_layout

METADATA = files.METADATA
_READ_THREADS = 4  # two saturate memory on two cores; more help on cold disks
# What zarr and its codecs raise on damaged metadata and chunks.
_DECODING = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)
_UNASKED = 64 << 20  # bytes that are allocated without a look at the files
_MOST_COMPRESSED = 1000  # of embeddings nothing can be saved, of predictions much


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
            dtype=str if spec.dtype == "str" else spec.dtype,
            fill_value=spec.fill,
            dimension_names=spec.dims,
            filters=None,
            compressors=[Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},  # see FLAT_KEYS
            attributes={"description": spec.doc},
        )


class Attributes(dict[str, Any]):
    """Attributes of a group; one that is missing is damage."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self._path = path

    def __missing__(self, name: str) -> Any:
        raise DamagedStore(f"{self._path / METADATA} lacks the attribute '{name}'")


def read_attributes(path: Path) -> Attributes:
    attributes = _metadata(path).get("attributes", {})
    if not isinstance(attributes, dict):
        raise DamagedStore(f"{path / METADATA} is damaged: its attributes are no mapping")
    return Attributes(path, attributes)


def write_attributes(
    path: Path, attributes: Mapping[str, Any], scratch: Path | None = None
) -> None:
    """Replace all attributes of the group at `path`, atomically."""
    metadata = _metadata(path) | {"attributes": dict(attributes)}
    files.write_file(path / METADATA, json.dumps(metadata, indent=2).encode(), scratch=scratch)


def layout(path: Path, listed: Listed | None = None) -> Layout:
    """The layout of the array at `path`; raises DamagedStore if it is not the one listed."""
    metadata = _metadata(path)
    try:
        spec = parse_layout(metadata)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise DamagedStore(f"{path / METADATA} describes no array: {error!r}") from error
    return _compared(path, spec, listed) if listed else spec


def _compared(path: Path, spec: Layout, listed: Listed) -> Layout:
    there, said = (spec.shape, dtype_name(spec.dtype)), (listed.shape, listed.dtype)
    if there != said or len(listed.checksums) != Blocks(spec.shape[0], listed.rows).count:
        raise DamagedStore(
            f"{path / METADATA} is damaged: an array of {there[1]} {there[0]}, where its group "
            f"lists {said[1]} {said[0]}"
        )
    return replace(spec, listed=listed)


def write_block(path: Path, block: int, values: NDArray[Any], scratch: Path | None = None) -> None:
    """Write the rows of one chunk of the array at `path`, durably: rename, then sync."""
    spec = layout(path)
    rows = spec.blocks.range(block)
    if values.shape != (len(rows), *spec.shape[1:]):
        raise ValueError(f"{path}: block {block} is {len(rows)} rows, not {values.shape}")
    write_chunk(_chunk_path(path, spec, block), np.asarray(values, spec.dtype), spec.rows, scratch)


def read(path: Path, rows: range | None = None, listed: Listed | None = None) -> NDArray[Any]:
    """The array at `path`, or the `rows` of it, checked against its checksums.

    With `listed` it must also be the array that its group lists, block by block. Raises
    DamagedStore for a missing, cut or altered chunk, and for one of another array.
    """
    spec = layout(path, listed)
    rows = range(spec.shape[0]) if rows is None else rows
    _check_files_hold(path, spec, len(rows))
    if listed and spec.is_copy:
        return _read_copy(path, rows, spec, listed)
    return _read_rows(path, rows, spec)


def _check_files_hold(path: Path, spec: Layout, rows: int) -> None:
    """Raise DamagedStore, before memory is taken, for more rows than the files can hold."""
    least = 4 if spec.dtype.hasobject else spec.dtype.itemsize  # a text has its length
    needed = max(rows, spec.rows) * spec.width * least
    if needed <= _UNASKED:
        return
    there = files.size(path)
    if needed > there * (1 if spec.ours else _MOST_COMPRESSED):
        raise DamagedStore(
            f"{path / METADATA} says {spec.shape} in chunks of {spec.rows:,} rows, and its files "
            f"have {there:,} bytes: chunks are missing, or it was altered"
        )


def _read_rows(path: Path, rows: range, spec: Layout) -> NDArray[Any]:
    if not spec.ours:
        return _read_through_zarr(path, rows)
    out = np.empty((len(rows), *spec.shape[1:]), spec.dtype)
    blocks = blocks_of(rows, spec.rows)

    def fill(block: int) -> None:
        _read_chunk_into(out, rows, path, spec, block)

    if len(blocks) < 2:
        for block in blocks:
            fill(block)
    else:
        with ThreadPoolExecutor(min(_READ_THREADS, len(blocks))) as pool:
            for _ in pool.map(fill, blocks):
                pass
    return out


def _read_copy(path: Path, rows: range, spec: Layout, listed: Listed) -> NDArray[Any]:
    """Rows of an array copied in another layout, checked by the checksums of whole blocks."""
    blocks = Blocks(spec.shape[0], listed.rows)
    needed = blocks_of(rows, blocks.rows)
    first, last = needed.start * blocks.rows, min(needed.stop * blocks.rows, spec.shape[0])
    values = _read_rows(path, range(first, last), replace(spec, listed=None))
    for block in needed:
        inside = blocks.range(block)
        part = values[inside.start - first : inside.stop - first]
        if checksum(part, blocks.rows) != listed.checksums[block]:
            raise DamagedStore(f"rows {inside.start}-{inside.stop - 1} of {path} {OF_ANOTHER}")
    return values[rows.start - first : rows.stop - first]


def files_of(path: Path, rows: range | None, listed: Listed | None, most: int) -> list[str] | None:
    """Names of the files in which `rows` of the array at `path` lie; None for another layout.

    Raises DamagedStore for more chunks than `most`.
    """
    spec = layout(path, listed)
    if not spec.ours or spec.is_copy:
        return None
    if spec.blocks.count > most:
        raise DamagedStore(f"{path / METADATA} is damaged: {spec.blocks.count:,} chunks are said")
    rows = range(spec.shape[0]) if rows is None else rows
    return [_chunk_path(path, spec, block).name for block in blocks_of(rows, spec.rows)]


def listing(path: Path) -> Listed:
    """The entry for an array that this module has written: its layout and all checksums.

    Raises DamagedStore for a missing chunk. Checksums are read from the chunks, not computed.
    """
    spec = layout(path)
    chunks = (_chunk_path(path, spec, block) for block in range(spec.blocks.count))
    return Listed(
        spec.shape, dtype_name(spec.dtype), spec.rows, tuple(map(stored_checksum, chunks))
    )


def relisted(listed: Listed, values: NDArray[Any]) -> Listed:
    """The list entry of an array of the same layout with other values."""
    blocks = Blocks(listed.shape[0], listed.rows)
    parts = (blocks.range(block) for block in range(blocks.count))
    sums = (checksum(values[rows.start : rows.stop], blocks.rows) for rows in parts)
    return replace(listed, checksums=tuple(sums))


def damage(path: Path, listed: Listed | None = None) -> list[str]:
    """One sentence for every block of the array at `path` that is not what was written."""
    try:
        spec = layout(path, listed)
        _check_files_hold(path, spec, spec.shape[0] // _MOST_COMPRESSED)
    except StoreError as error:
        return [str(error)]
    ours = spec.ours and not spec.is_copy
    blocks = Blocks(spec.shape[0], listed.rows if listed else spec.rows)
    lanes = min(_READ_THREADS, blocks.count) if ours else 1

    def look(lane: int) -> dict[int, str]:
        problems = {}
        chunk = np.empty((spec.rows, *spec.shape[1:]), spec.dtype) if ours else None
        for block in range(lane, blocks.count, lanes):
            try:
                if chunk is None:
                    read(path, blocks.range(block), listed)
                else:  # the same memory again and again: it stays in the cache
                    read_chunk(_chunk_path(path, spec, block), chunk, spec.expected(block))
            except StoreError as error:
                rows = blocks.range(block)
                problems[block] = f"block {block} (rows {rows.start}-{rows.stop - 1}): {error}"
        return problems

    with ThreadPoolExecutor(max(1, lanes)) as pool:
        problems = {
            block: one for part in pool.map(look, range(lanes)) for block, one in part.items()
        }
    return [problems[block] for block in sorted(problems)]


def differing_blocks(path: Path, values: NDArray[Any], listed: Listed | None) -> list[int]:
    """Blocks of an array that are damaged, or hold something else than `values`."""
    blocks = layout(path).blocks

    def differs(rows: range) -> bool:
        try:
            return not np.array_equal(read(path, rows, listed), values[rows.start : rows.stop])
        except DamagedStore:
            return True

    return [block for block in range(blocks.count) if differs(blocks.range(block))]


def content_digest(values: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over the arrays of a cell, sorted by name: name, type, shape, bytes."""
    hasher = hashlib.sha256()
    for name, array in sorted(values.items()):
        hash_header(hasher, name, array.dtype, array.shape)
        hash_rows(hasher, array)
    return hasher.hexdigest()


def hash_header(hasher: Any, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """What a content digest begins an array with; `hash_rows` goes on, perhaps part by part."""
    hasher.update(f"{name}\0{dtype.name}\0{shape}\0".encode())


def hash_rows(hasher: Any, rows: NDArray[Any]) -> None:
    little = rows.astype(rows.dtype.newbyteorder("<"), order="C", copy=False)
    hasher.update(little.reshape(-1).view("u1").data)


def group_blocks(path: Path) -> int:
    """How many blocks the arrays of a group have: the most chunks of any of them."""
    return max((layout(path / name).blocks.count for name in array_names(path)), default=0)


def array_names(path: Path) -> list[str]:
    """Names of the arrays in the group at `path`."""
    return [name for name in files.folders(path) if files.exists(path / name / METADATA)]


def _metadata(path: Path) -> dict[str, Any]:
    file = path / METADATA
    try:
        metadata: dict[str, Any] = parse_json(files.read_file(file))
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedStore(f"{file} is missing") from None
    except ValueError as error:
        raise DamagedStore(f"{file} is damaged: {error}") from error
    if not isinstance(metadata, dict):
        raise DamagedStore(f"{file} is damaged: it holds no JSON object")
    return metadata


def _chunk_path(path: Path, spec: Layout, block: int) -> Path:
    return path / ".".join(["c", str(block), *["0"] * (len(spec.shape) - 1)])


def _read_chunk_into(out: NDArray[Any], rows: range, path: Path, spec: Layout, block: int) -> None:
    """Copy the part of `rows` in chunk `block` into `out`; a whole chunk is read in place."""
    file, start = _chunk_path(path, spec, block), block * spec.rows
    first, last = max(start, rows.start), min(start + spec.rows, rows.stop)
    target = out[first - rows.start : last - rows.start]
    if len(target) == spec.rows:
        read_chunk(file, target, spec.expected(block))
        return
    chunk = np.empty((spec.rows, *spec.shape[1:]), spec.dtype)
    read_chunk(file, chunk, spec.expected(block))
    target[...] = chunk[first - start : last - start]


def _read_through_zarr(path: Path, rows: range) -> NDArray[Any]:
    import zarr

    try:
        return np.asarray(zarr.open_array(path, mode="r")[rows.start : rows.stop])
    except _DECODING as error:
        raise DamagedStore(f"array {path} cannot be decoded: {error}") from error
