"""npz files of numpy's, written and read some rows at a time: they may be larger than memory."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from clipsyn.errors import DatasetError
from clipsyn.store.arrays import BLOCK_BYTES
from clipsyn.store.given import Made, Rows, blocks
from clipsyn.text import foreign

Arrays = Mapping[str, Any]  # arrays of numpy's, or Made
_LARGE = BLOCK_BYTES  # from which on an array is not read at once


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
        file.write(values[rows].tobytes())


def load(path: Path) -> Arrays:
    """The arrays of a file by name; nothing pickled is ever run.

    Of large ones rows are read when they are asked for, best in order, and then their checksums are
    compared, as numpy does it.
    """
    with path.open("rb") as file:  # numpy leaves a damaged archive open
        loaded = np.load(file, allow_pickle=False)
        return {name: _array(path, loaded, name) for name in loaded.files}


def _array(path: Path, loaded: np.lib.npyio.NpzFile, name: str) -> Rows:
    member = loaded.zip.NameToInfo.get(f"{name}.npy") if loaded.zip else None
    if member and member.file_size >= _LARGE and member.compress_type == zipfile.ZIP_STORED:
        with suppress(ValueError):  # numpy reads it, or says why not
            return Member(path, member.filename).rows
    return np.asarray(loaded[name])


class Member:
    """An array in the file, which is read from its beginning on, again and again."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._archive, self._name = path, zipfile.ZipFile(path), name
        self._restart()

    @property
    def rows(self) -> Made:
        return Made(self._shape, self._dtype, self._read)

    def _restart(self) -> None:
        self._file, self._row = self._archive.open(self._name), 0
        major, _ = npy.read_magic(self._file)
        read = npy.read_array_header_1_0 if major == 1 else npy.read_array_header_2_0
        self._shape, turned, self._dtype = read(self._file)
        if turned or self._dtype.hasobject or not self._shape:
            raise ValueError(f"{self._name} is not written row by row")

    def _read(self, rows: slice) -> NDArray[Any]:
        if rows.start < self._row:
            self._file.close()
            self._restart()
        self._take(rows.start - self._row)
        found = self._take(rows.stop - rows.start)
        return np.frombuffer(found, self._dtype).reshape(-1, *self._shape[1:])

    def _take(self, rows: int) -> bytes:
        """The bytes of the next rows."""
        size = rows * self._dtype.itemsize * math.prod(self._shape[1:])
        told = f"{self._path} cannot be read"
        with foreign(lambda reason: DatasetError(f"{told}: {reason}")):
            found = self._file.read(size)
        if len(found) < size:
            raise DatasetError(f"{told}: {self._name} is cut off")
        self._row += rows
        return found
