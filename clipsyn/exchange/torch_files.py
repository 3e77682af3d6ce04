"""One tensor that `torch.save` wrote, read without torch.

Such a file is a zip: ``data.pkl`` tells type, shape and strides, ``data/KEY`` is what they are of.
The pickle is read by an unpickler that knows the names of tensors and no other, so that nothing in
a file is ever run.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from clipsyn.errors import DatasetError
from clipsyn.text import check_pickle, foreign

SUFFIXES = (".pt", ".pth")
_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",  # the upper half of a float32
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
}


def read_tensor(path: Path) -> NDArray[Any]:
    """The tensor as an array of its own type (bfloat16 as float32).

    Raises DatasetError for anything but one dense tensor in torch's zip format.
    """
    with foreign(partial(_no_tensor, path)), zipfile.ZipFile(path) as file:
        (record,) = (name for name in file.namelist() if name.endswith("/data.pkl"))
        _check_sizes(path, file)
        pickled = file.read(record)
        check_pickle(pickled)
        tensor = _Tensors(BytesIO(pickled), file, record.removesuffix("data.pkl")).load()
    if not isinstance(tensor, np.ndarray):
        raise _no_tensor(path, f"it holds a {type(tensor).__name__}")
    return tensor


def _no_tensor(path: Path, reason: str) -> DatasetError:
    return DatasetError(
        f"{path} cannot be read as one tensor of torch's ({reason}): convert it, python -c "
        f"\"import numpy, torch; numpy.save('{path.stem}.npy', torch.load('{path}', "
        'weights_only=True).float().cpu().numpy())"'
    )


def _check_sizes(path: Path, file: zipfile.ZipFile) -> None:
    """Raise ValueError for what is not as large as it says: torch compresses nothing."""
    on_disk = path.stat().st_size
    for member in file.infolist():
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > on_disk:
            raise ValueError(f"{member.filename} would be {member.file_size:,} bytes, compressed")


class _Tensors(pickle.Unpickler):
    def __init__(self, stream: Any, file: zipfile.ZipFile, folder: str) -> None:
        super().__init__(stream)
        self._file = file
        self._folder = folder
        self._values: NDArray[Any] | None = None  # of the one tensor, taken once: a pickle of a
        # hundred bytes may ask for them a million times

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            **{("torch", storage): storage for storage in _STORAGES},
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no tensor")
        return known[module, name]

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        if self._values is not None:
            raise pickle.UnpicklingError("it holds several tensors")
        _, storage, key, *_ = pid
        order = f"{self._folder}byteorder"
        is_big = order in self._file.namelist() and self._file.read(order) == b"big"
        dtype = np.dtype(_STORAGES[storage]).newbyteorder(">" if is_big else "<")
        values = np.frombuffer(self._file.read(f"{self._folder}data/{key}"), dtype)
        self._values = values.astype(dtype.newbyteorder("="), copy=False)
        if storage == "BFloat16Storage":
            self._values = (values.astype(np.uint32) << 16).view(np.float32)
        return self._values

    def _tensor(
        self,
        storage: NDArray[Any],
        offset: int,
        size: Sequence[int],
        stride: Sequence[int],
        *_: Any,
    ) -> NDArray[Any]:
        if storage is not self._values:
            raise pickle.UnpicklingError("it holds several tensors")
        self._values = storage[:0]
        return _copied(storage, offset, size, stride)


def _copied(
    storage: NDArray[Any], offset: int, size: Sequence[int], stride: Sequence[int]
) -> NDArray[Any]:
    """The view of a storage that a tensor is, copied.

    Raises ValueError where it leaves it, and where it has more numbers: a stride of 0 repeats them.
    """
    if math.prod(size) > len(storage):
        raise ValueError(f"{len(storage):,} numbers cannot fill {tuple(size)}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or (0 not in size and last >= len(storage)):
        raise ValueError("its shape does not fit its numbers")
    steps = [step * storage.itemsize for step in stride]
    return as_strided(storage[offset:], tuple(size), steps, writeable=False).copy()
