"""Named arrays in Zarr v3 groups on a file system; the only module that imports zarr.

zarr writes the metadata and everything unusual. Chunks of our own layout (little-endian bytes and a
crc32c, cut along the first axis only) are read and written here: zarr-python needs three times as
long for them (`benchmarks/README.md`), and a missing chunk, which zarr reads as fill values, is
damage to us.
"""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from clipsyn.errors import DamagedStore
from clipsyn.schema import ArraySpec

METADATA = "zarr.json"
PARTIAL = ".partial"
_READ_THREADS = 4  # two saturate memory on two cores; more help on cold disks
_CHECKSUM_BYTES = 4
_FLAT_KEYS = {"name": "default", "configuration": {"separator": "."}}


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
    """What an array's metadata says."""

    shape: tuple[int, ...]
    rows: int  # of one chunk
    dtype: np.dtype[Any]
    flat: bool  # our chunk files: whole rows, all in the array's folder
    plain: bool  # flat, and a chunk is its raw numbers and a crc32c

    @property
    def blocks(self) -> Blocks:
        return Blocks(self.shape[0], self.rows)


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
            chunk_key_encoding={"name": "default", "separator": "."},  # see _FLAT_KEYS
            attributes={"description": spec.doc},
        )


def read_attributes(path: Path) -> dict[str, Any]:
    attributes: dict[str, Any] = _metadata(path).get("attributes", {})
    return attributes


def write_attributes(path: Path, attributes: Mapping[str, Any]) -> None:
    """Replace all attributes of the group at `path`, atomically."""
    metadata = _metadata(path) | {"attributes": dict(attributes)}
    write_file(path / METADATA, json.dumps(metadata, indent=2).encode())


def layout(path: Path) -> Layout:
    metadata = _metadata(path)
    try:
        return _layout(metadata)
    except (KeyError, TypeError, IndexError) as error:
        raise DamagedStore(f"{path / METADATA} describes no array: {error!r}") from error


def _layout(metadata: Mapping[str, Any]) -> Layout:
    shape = tuple(metadata["shape"])
    chunks = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
    codecs = [(c["name"], c.get("configuration", {}).get("endian")) for c in metadata["codecs"]]
    numeric = isinstance(metadata["data_type"], str) and metadata["data_type"] != "string"
    keys = metadata["chunk_key_encoding"]
    flat = chunks[1:] == shape[1:] and keys == _FLAT_KEYS
    raw = codecs in ([("bytes", "little"), ("crc32c", None)], [("bytes", None), ("crc32c", None)])
    dtype = np.dtype(metadata["data_type"] if numeric else object)
    return Layout(shape, chunks[0], dtype, flat, plain=flat and numeric and raw)


def write_block(path: Path, block: int, values: NDArray[Any]) -> None:
    """Write the rows of one chunk of the array at `path`, durably: rename, then sync."""
    spec = layout(path)
    rows = spec.blocks.range(block)
    if values.shape != (len(rows), *spec.shape[1:]):
        raise ValueError(f"{path}: block {block} is {len(rows)} rows, not {values.shape}")
    if not spec.plain:
        _write_through_zarr(path, rows, values)
        return
    chunk = np.ascontiguousarray(values, spec.dtype)
    if len(rows) < spec.rows:  # Zarr chunks are never short: the last one is padded
        chunk = np.concatenate([chunk, np.zeros((spec.rows - len(rows), *spec.shape[1:]), spec.dtype)])
    data = _bytes_of(chunk)
    write_file(_chunk_path(path, spec, block), data, crc32c(data).to_bytes(_CHECKSUM_BYTES, "little"))


def read(path: Path, rows: range | None = None) -> NDArray[Any]:
    """The array at `path`, or the `rows` of it, checked against its checksums.

    Raises DamagedStore for a missing, cut or altered chunk.
    """
    spec = layout(path)
    rows = range(spec.shape[0]) if rows is None else rows
    if not spec.plain:
        return _read_through_zarr(path, rows)
    out = np.empty((len(rows), *spec.shape[1:]), spec.dtype)
    blocks = range(rows.start // spec.rows, -(-rows.stop // spec.rows))

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


def damage(path: Path) -> Iterator[str]:
    """One sentence for every chunk of the array at `path` that is not what was written."""
    try:
        spec = layout(path)
        for block in range(spec.blocks.count):
            try:
                read(path, spec.blocks.range(block))
            except DamagedStore as error:
                yield str(error)
    except DamagedStore as error:
        yield str(error)


def array_names(path: Path) -> list[str]:
    """Names of the arrays in the group at `path`."""
    return sorted(child.parent.name for child in path.glob(f"*/{METADATA}"))


def write_file(path: Path, *buffers: bytes | memoryview) -> None:
    """Write a file so that, after a crash, it is there as a whole or not at all."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        for buffer in buffers:
            _write_all(descriptor, memoryview(buffer))
        os.fsync(descriptor)
    except OSError:
        partial.unlink()
        raise
    finally:
        os.close(descriptor)
    partial.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file, or what was created in or renamed into a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, buffer: memoryview) -> None:
    while buffer.nbytes:
        buffer = buffer[os.write(descriptor, buffer) :]


def _metadata(path: Path) -> dict[str, Any]:
    file = path / METADATA
    try:
        metadata: dict[str, Any] = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise DamagedStore(f"{file} is missing") from None
    except ValueError as error:
        raise DamagedStore(f"{file} is damaged: {error}") from error
    return metadata


def _chunk_path(path: Path, spec: Layout, block: int) -> Path:
    return path / ".".join(["c", str(block), *["0"] * (len(spec.shape) - 1)])


def _bytes_of(values: NDArray[Any]) -> memoryview:
    return memoryview(values.reshape(-1).view(np.uint8))


def _read_chunk_into(
    out: NDArray[Any], rows: range, path: Path, spec: Layout, block: int
) -> None:
    """Copy what chunk `block` has of `rows` into `out`, without a copy where it is all of it."""
    start = block * spec.rows
    first, last = max(start, rows.start), min(start + spec.rows, rows.stop)
    target = out[first - rows.start : last - rows.start]
    if len(target) == spec.rows:
        _read_chunk(_chunk_path(path, spec, block), target)
        return
    chunk = np.empty((spec.rows, *spec.shape[1:]), spec.dtype)
    _read_chunk(_chunk_path(path, spec, block), chunk)
    target[...] = chunk[first - start : last - start]


def _read_chunk(file: Path, chunk: NDArray[Any]) -> None:
    data, checksum = _bytes_of(chunk), bytearray(_CHECKSUM_BYTES)
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        raise DamagedStore(f"chunk {file} is missing") from None
    try:
        size = os.readv(descriptor, [data, checksum])
        excess = os.read(descriptor, 1)
    finally:
        os.close(descriptor)
    if size != data.nbytes + _CHECKSUM_BYTES or excess:
        raise DamagedStore(f"chunk {file} is not {data.nbytes + _CHECKSUM_BYTES} bytes long")
    if crc32c(data) != int.from_bytes(checksum, "little"):
        raise DamagedStore(f"chunk {file} does not match its checksum")


def _read_through_zarr(path: Path, rows: range) -> NDArray[Any]:
    import zarr

    spec = layout(path)
    for block in range(spec.blocks.count if spec.flat else 0):
        if not (chunk := _chunk_path(path, spec, block)).exists():  # zarr would read fill values
            raise DamagedStore(f"chunk {chunk} is missing")
    try:
        return np.asarray(zarr.open_array(path, mode="r")[rows.start : rows.stop])
    except (ValueError, RuntimeError) as error:
        raise DamagedStore(f"array {path} cannot be decoded: {error}") from error


def _write_through_zarr(path: Path, rows: range, values: NDArray[Any]) -> None:
    import zarr

    array = zarr.open_array(path, mode="r+", config={"write_empty_chunks": True})
    array[rows.start : rows.stop] = values
    for written in (*path.iterdir(), path):
        sync(written)
