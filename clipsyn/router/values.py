"""Learned values as JSON beside named arrays, and back, to the bit. Nothing is pickled.

Texts, truth values, None and finite numbers stand in the JSON as they are. Everything else is an
object with one entry that says what it is: ``{"array": NAME}``, ``{"fortran": NAME}`` (its
transpose is stored: BLAS rounds differently for the two memory layouts), ``{"scalar": NAME}`` (a
number with a numpy type), ``{"float": "inf"}``, ``{"tuple": […]}``, ``{"mapping": {…}}``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

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


def read_record(record: type, content: Mapping[str, Any], **others: Any) -> Any:
    """An object of a dataclass, `others` aside from JSON; ValueError for a field of another type.

    The annotations of the class are the schema.
    """
    hints = {name: hint for name, hint in get_type_hints(record).items() if name not in others}
    for name, hint in hints.items():
        if not matches(content[name], hint):
            raise ValueError(f"'{name}' is no {hint}")
    values = {name: content[name] for name in hints}
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return record(**{**values, **lists, **others})


def matches(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation says, to its last item; lists of JSON are tuples."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if hasattr(kind, "__value__"):  # since Python 3.12 numpy's NDArray is an alias
        return matches(value, kind.__value__)
    if kind is UnionType:
        return any(matches(value, option) for option in inner)
    if kind in _NUMBERS:
        whole = not isinstance(value, int) or value.bit_length() < 64
        return isinstance(value, _NUMBERS[kind]) and not isinstance(value, bool) and whole
    if kind is tuple:
        return isinstance(value, tuple | list) and all(matches(item, inner[0]) for item in value)
    if kind in (dict, Mapping):
        return isinstance(value, dict) and all(matches(item, inner[1]) for item in value.values())
    return kind is Any or not isinstance(kind, type) or isinstance(value, kind)


_NUMBERS: dict[Any, type] = {int: Integral, float: Real}  # numpy's too
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
