"""What arrays in npy and npz say of their size, against what there is, before any is read.

A header of a hundred bytes may declare a million times a million numbers, which numpy would first
make room for; and a small archive may hold gigabytes of zeros.
"""

from __future__ import annotations

import math
import os
import zipfile
from tokenize import TokenError
from typing import IO

from numpy.lib import format as npy

from clipsyn.show.frames import most_bytes


def check_declared(file: IO[bytes]) -> None:
    """Raise ValueError for an npy or npz with an array larger than its content; rewinds `file`.

    What is neither is left for numpy to refuse.
    """
    start = file.read(len(npy.MAGIC_PREFIX))
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if start == npy.MAGIC_PREFIX:
        _check_array(file, size)
    elif start.startswith(b"PK"):
        _check_archive(file, size)
    file.seek(0)


def _check_archive(file: IO[bytes], on_disk: int) -> None:
    with zipfile.ZipFile(file) as archive:
        declared = sum(member.file_size for member in archive.infolist())
        if declared > most_bytes(on_disk):
            raise ValueError(
                f"it has {declared:,} bytes of {on_disk:,} compressed, which no measured numbers "
                "come to: write it with np.savez, uncompressed"
            )
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                with archive.open(member) as stream:
                    _check_array(stream, member.file_size)


def _check_array(file: IO[bytes], size: int) -> None:
    version = npy.read_magic(file)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"format {version[0]}.{version[1]} is for records, which are no matrix")
    try:
        shape, _, dtype = readers[version](file)
    except (RecursionError, SyntaxError, TokenError) as error:  # the header is Python's syntax
        raise ValueError(f"its header cannot be read: {error}") from error
    declared, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or (declared > there and not dtype.hasobject):
        raise ValueError(
            f"it declares {dtype} {shape}, {declared:,} bytes, and {max(there, 0):,} follow"
        )
