"""Named arrays in Zarr v3 groups on a file system; the only module that imports zarr.

zarr makes the metadata and reads any layout but ours. Chunks of ours (little-endian numbers or
length-prefixed UTF-8, then a crc32c, cut along the first axis only) are read and written here:
zarr-python needs three times as long for them (`benchmarks/README.md`) and 0.3 s to import, and a
missing chunk, which zarr reads as fill values, is damage to us.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from clipsyn.documents import parse_json
from clipsyn.errors import DamagedStore
from clipsyn.schema import ArraySpec

METADATA = "zarr.json"
PARTIAL = ".partial"
_READ_THREADS = 4  # two saturate memory on two cores; more help on cold disks
_CHECKSUM_BYTES = 4
# What zarr and its codecs raise on damaged metadata and chunks.
_DECODING = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)
_LENGTH = struct.Struct("<I")
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
    dtype: np.dtype[Any]  # object for strings
    ours: bool  # written by this module: whole rows, one file a chunk, crc32c

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
    write_file(path / METADATA, json.dumps(metadata, indent=2).encode(), scratch=scratch)


def layout(path: Path) -> Layout:
    metadata = _metadata(path)
    try:
        return _layout(metadata)
    except (KeyError, TypeError, IndexError) as error:
        raise DamagedStore(f"{path / METADATA} describes no array: {error!r}") from error


def _layout(metadata: Mapping[str, Any]) -> Layout:
    shape = tuple(metadata["shape"])
    chunks = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
    codecs = [codec["name"] for codec in metadata["codecs"]]
    endian = metadata["codecs"][0].get("configuration", {}).get("endian", "little")
    text = metadata["data_type"] == "string"
    ours = (
        chunks[1:] == shape[1:]
        and codecs == ["vlen-utf8" if text else "bytes", "crc32c"]
        and endian == "little"
        and metadata["chunk_key_encoding"] == _FLAT_KEYS
    )
    dtype = np.dtype(object if text else metadata["data_type"])
    return Layout(shape, chunks[0], dtype, ours)


def write_block(path: Path, block: int, values: NDArray[Any], scratch: Path | None = None) -> None:
    """Write the rows of one chunk of the array at `path`, durably: rename, then sync."""
    spec = layout(path)
    rows = spec.blocks.range(block)
    if values.shape != (len(rows), *spec.shape[1:]):
        raise ValueError(f"{path}: block {block} is {len(rows)} rows, not {values.shape}")
    padding = spec.rows - len(rows)  # Zarr chunks are never short: the last one is padded
    data = _encode(np.asarray(values, spec.dtype), padding)
    checksum = crc32c(data).to_bytes(_CHECKSUM_BYTES, "little")
    write_file(_chunk_path(path, spec, block), data, checksum, scratch=scratch)


def read(path: Path, rows: range | None = None) -> NDArray[Any]:
    """The array at `path`, or the `rows` of it, checked against its checksums.

    Raises DamagedStore for a missing, cut or altered chunk.
    """
    spec = layout(path)
    rows = range(spec.shape[0]) if rows is None else rows
    if not spec.ours:
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
        blocks = layout(path).blocks
    except DamagedStore as error:
        yield str(error)
        return
    for block in range(blocks.count):
        rows = blocks.range(block)
        try:
            read(path, rows)
        except DamagedStore as error:
            yield f"block {block} (rows {rows.start}-{rows.stop - 1}): {error}"


def group_blocks(path: Path) -> int:
    """How many blocks the arrays of a group have: the most chunks of any of them."""
    return max((layout(path / name).blocks.count for name in array_names(path)), default=0)


def file_at(path: Path) -> tuple[int, int] | None:
    """Changes when another file takes the place of the one at `path`; None where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns  # numbers alone are used again


def array_names(path: Path) -> list[str]:
    """Names of the arrays in the group at `path`."""
    return sorted(child.parent.name for child in path.glob(f"*/{METADATA}"))


def write_file(path: Path, *buffers: bytes | memoryview, scratch: Path | None = None) -> None:
    """Write a file so that, after a crash, it is there as a whole or not at all.

    Until it is whole it lies in `scratch`, a folder of the same file system, or else beside `path`.
    """
    partial = (scratch or path.parent) / f"{path.name}.{secrets.token_hex(4)}{PARTIAL}"
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        for buffer in buffers:
            _write_all(descriptor, memoryview(buffer))
        os.fsync(descriptor)
    except OSError:
        partial.unlink(missing_ok=True)
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
        metadata: dict[str, Any] = parse_json(file.read_bytes())
    except FileNotFoundError:
        raise DamagedStore(f"{file} is missing") from None
    except ValueError as error:
        raise DamagedStore(f"{file} is damaged: {error}") from error
    if not isinstance(metadata, dict):
        raise DamagedStore(f"{file} is damaged: it holds no JSON object")
    return metadata


def _chunk_path(path: Path, spec: Layout, block: int) -> Path:
    return path / ".".join(["c", str(block), *["0"] * (len(spec.shape) - 1)])


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


def _read_chunk_into(out: NDArray[Any], rows: range, path: Path, spec: Layout, block: int) -> None:
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
    """Fill `chunk` with what `file` holds; raises DamagedStore if that is not what was written."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        raise DamagedStore(f"chunk {file} is missing") from None
    try:
        length = os.fstat(descriptor).st_size - _CHECKSUM_BYTES
        text = chunk.dtype == object
        data = memoryview(bytearray(max(length, 0))) if text else _bytes_of(chunk)
        checksum = bytearray(_CHECKSUM_BYTES)
        if length == data.nbytes:
            os.readv(descriptor, [data, checksum])
    finally:
        os.close(descriptor)
    if length != data.nbytes:
        raise DamagedStore(f"chunk {file} has {length} bytes instead of {data.nbytes}")
    if crc32c(data) != int.from_bytes(checksum, "little"):
        raise DamagedStore(f"chunk {file} does not match its checksum")
    if text:
        try:
            _decode_texts(data, chunk)
        except (struct.error, UnicodeDecodeError) as error:
            raise DamagedStore(f"chunk {file} is no list of texts: {error}") from error


def _read_through_zarr(path: Path, rows: range) -> NDArray[Any]:
    import zarr

    try:
        return np.asarray(zarr.open_array(path, mode="r")[rows.start : rows.stop])
    except _DECODING as error:
        raise DamagedStore(f"array {path} cannot be decoded: {error}") from error
