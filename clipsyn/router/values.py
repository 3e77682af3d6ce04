"""Learned values as JSON beside named arrays, and back, to the bit. Nothing is pickled.

Texts, truth values, None and finite numbers stand in the JSON as they are. Everything else is an
object with one entry that says what it is: ``{"array": NAME}``, ``{"fortran": NAME}`` (its
transpose is stored: BLAS rounds differently for the two memory layouts), ``{"scalar": NAME}`` (a
number with a numpy type), ``{"float": "inf"}``, ``{"tuple": […]}``, ``{"mapping": {…}}``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

_NUMERIC = "biuf"  # kinds of numpy types that safetensors holds


def encode(value: Any, name: str, arrays: Arrays) -> Any:
    """`value` as JSON; its arrays go into `arrays`, under `name` or below it.

    Raises TypeError for what cannot be written without pickle.
    """
    if isinstance(value, np.ndarray | np.generic):
        return _encode_numbers(value, name, arrays)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, tuple):
        return {"tuple": [encode(v, f"{name}/{i}", arrays) for i, v in enumerate(value)]}
    if isinstance(value, Mapping):
        return {"mapping": {str(k): encode(v, f"{name}/{k}", arrays) for k, v in value.items()}}
    raise TypeError(f"{name} is a {type(value).__name__}, which cannot be saved")


def decode(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """What `encode` was given; raises KeyError, TypeError or ValueError for other JSON."""
    if isinstance(value, list):
        raise TypeError("a list stands where a number, a text or an array belongs")
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    return _DECODERS[kind](content, arrays)


_DECODERS: dict[str, Callable[[Any, Mapping[str, NDArray[Any]]], Any]] = {
    "array": lambda name, arrays: arrays[name],
    "fortran": lambda name, arrays: arrays[name].T,
    "scalar": lambda name, arrays: arrays[name][()],
    "float": lambda text, _: float(text),
    "tuple": lambda items, arrays: tuple(decode(item, arrays) for item in items),
    "mapping": lambda items, arrays: {key: decode(item, arrays) for key, item in items.items()},
}


def _encode_numbers(
    value: NDArray[Any] | np.generic, name: str, arrays: Arrays
) -> dict[str, str] | str:
    if isinstance(value, np.str_):
        return str(value)
    if value.dtype.kind not in _NUMERIC:
        raise TypeError(f"{name} is an array of {value.dtype}, which cannot be saved")
    array = np.asarray(value)
    transposed = array.flags.f_contiguous and not array.flags.c_contiguous
    arrays[name] = np.asarray(array.T if transposed else array, order="C")
    if isinstance(value, np.generic):
        return {"scalar": name}
    return {"fortran" if transposed else "array": name}
