"""Files of arrays, numpy's and what is laid out like them: they may be larger than memory.

Nothing pickled is ever run. Rows of a large array are read where they lie, whenever they are asked
for; what is compressed is unpacked into a temporary file first.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import struct
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from clipsyn.errors import DatasetError
from clipsyn.store.arrays import BLOCK_BYTES
from clipsyn.store.given import Made, Rows, blocks
from clipsyn.text import foreign

ARCHIVES = (".npz", ".pt", ".pth")
Arrays = Mapping[str, Any]  # arrays of numpy's, or Made
_LARGE = BLOCK_BYTES  # from which on an array is not read at once
_MOST_HEADER = 1 << 14  # bytes; numpy refuses longer ones
_LENGTHS, _HEADER = struct.Struct("<HH"), 30  # of name and more, which end the header of a member


def save(path: Path, arrays: Arrays) -> None:
    """The file that `np.savez` would write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                _write(member, values)


def _write(file: IO[bytes], values: Rows) -> None:
    if isinstance(values, np.ndarray):
        npy.write_array(file, values, allow_pickle=False)
        return
    about = {"descr": npy.dtype_to_descr(values.dtype), "fortran_order": False}
    npy.write_array_header_1_0(file, about | {"shape": values.shape})
    for rows in blocks(values):
        file.write(np.ascontiguousarray(values[rows]).view(np.uint8).data)


def load(path: Path) -> dict[str, Rows]:
    """The arrays of an npy or npz by name; raises DatasetError for what cannot be read."""
    told = (
        f"{path} cannot be read as plain numpy arrays (%s): pickled objects are never opened; save "
        "numbers and texts with np.save(…, allow_pickle=False)"
    )
    with foreign(lambda reason: DatasetError(told.replace("%s", reason))):
        if path.suffix == ".npy":
            return {path.name: _array(Lying(path))}
        with zipfile.ZipFile(path) as archive:
            return {
                member.filename.removesuffix(".npy"): _array(unpacked(path, archive, member))
                for member in archive.infolist()
            }


class Lying:
    """The bytes of a file from `start` on, open for as long as somebody may read them."""

    def __init__(self, path: Path, start: int = 0) -> None:
        self._start, self._file = start, os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def rows(self, start: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Rows:
        """An array that lies there row by row; a small one is read at once."""
        width = math.prod(shape[1:]) * dtype.itemsize
        start, size = start + self._start, math.prod(shape) * dtype.itemsize
        if os.fstat(self._file).st_size < start + size:
            raise ValueError(f"an array of {size:,} bytes is cut off")

        def read(rows: slice) -> NDArray[Any]:
            out = np.empty((rows.stop - rows.start, *shape[1:]), dtype)
            self.read(start - self._start + rows.start * width, out.reshape(-1).view(np.uint8).data)
            return out

        made = Made(tuple(shape), dtype, read)
        return made if size >= _LARGE else made[:]

    def read(self, start: int, out: memoryview) -> None:
        start += self._start
        while out.nbytes and (count := os.preadv(self._file, [out], start)):
            out, start = out[count:], start + count


def unpacked(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Lying:
    """The content of a member; `digest` says whether that of one that is stored is right.

    Raises ValueError for a compressed one whose checksum is not.
    """
    if member.compress_type == zipfile.ZIP_STORED:
        return Lying(path, _start(path, member))
    with archive.open(member) as content, NamedTemporaryFile(prefix="clipsyn-") as file:
        if member.file_size > shutil.disk_usage(file.name).free:
            raise ValueError(f"{file.name} has no room for {member.file_size:,} bytes")
        shutil.copyfileobj(content, file, 1 << 20)
        file.flush()
        return Lying(Path(file.name))


def _start(path: Path, member: zipfile.ZipInfo) -> int:
    """Where the content of a stored member begins."""
    lengths = bytearray(_LENGTHS.size)
    Lying(path, member.header_offset).read(_HEADER - len(lengths), memoryview(lengths))
    name, more = _LENGTHS.unpack(lengths)
    return member.header_offset + _HEADER + int(name) + int(more)


def digest(path: Path) -> str:
    """SHA-256 of a file, if its stored members have their checksums; DatasetError if one has not.

    Compressed ones were looked at when they were unpacked.
    """
    hasher, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    told = f"{path} is damaged: "
    with foreign(lambda reason: DatasetError(told + reason)), path.open("rb", 0) as file:
        for size, expected in _stretches(path):
            crc, left = 0, size
            while left > 0 and (count := file.readinto(buffer[:left])):
                hasher.update(buffer[:count])
                crc, left = zlib.crc32(buffer[:count], crc), left - count
            if expected not in (None, crc):
                raise ValueError("a member does not match its checksum")
    return hasher.hexdigest()


def _stretches(path: Path) -> Iterator[tuple[int, int | None]]:
    """The lengths of all parts of a file, one after another, and the CRC-32 of stored members."""
    stored, at = [], 0
    if path.suffix in ARCHIVES:
        with zipfile.ZipFile(path) as archive:
            there = (it for it in archive.infolist() if it.compress_type == zipfile.ZIP_STORED)
            stored = [(_start(path, it), it.file_size, it.CRC) for it in there]
    for start, size, crc in sorted(stored):
        yield start - at, None
        yield size, crc
        at = start + size
    yield path.stat().st_size - at, None


def _array(file: Lying) -> Rows:
    """What an npy holds."""
    header = np.empty(_MOST_HEADER, np.uint8)
    file.read(0, header.data)
    stream = BytesIO(header.tobytes())
    major, _ = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
    shape, turned, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if turned:
        return file.rows(stream.tell(), shape[::-1], dtype)[:].T
    if not shape:
        return file.rows(stream.tell(), (1,), dtype)[:].reshape(())
    return file.rows(stream.tell(), shape, dtype)
