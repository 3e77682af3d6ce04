"""Learned values survive JSON and safetensors to the bit, and nothing is pickled."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from clipsyn.router.artefact import _decode as decode
from clipsyn.router.artefact import _encode as encode

RNG = np.random.default_rng(0)


def there_and_back(value: Any) -> Any:
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(encode(value, "x", arrays), allow_nan=False)
    return decode(json.loads(text), load(save(arrays)))


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, -(2**40), 0.1, 1e-300, "", "crème", (), (1, ("a", None), 2.5)],
    ids=repr,
)
def test_plain_values(value: Any) -> None:
    found = there_and_back(value)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_numbers_that_json_has_not(value: float) -> None:
    assert repr(there_and_back(value)) == repr(value)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4", "i8", "u1", "u2", "?"])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (4, 3), (2, 3, 4)], ids=str)
def test_arrays(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.asarray(RNG.normal(size=shape) * 9).astype(dtype)
    found = there_and_back(array)
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()


@pytest.mark.parametrize("scalar", [np.float32(0.1), np.float64(0.1), np.int64(3), np.bool_(True)])
def test_a_number_keeps_its_numpy_type(scalar: np.generic) -> None:
    """Or else float32 arrays that it multiplies would become float64, or the other way round."""
    found = there_and_back(scalar)
    assert type(found) is type(scalar)
    assert found == scalar


def test_the_memory_layout_stays() -> None:
    array = np.asfortranarray(RNG.normal(size=(50, 7)))
    found = there_and_back(array)
    assert found.flags.f_contiguous
    assert not found.flags.c_contiguous
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    "value",
    [object(), [1], {1}, np.array([None, 1], object), np.array(["a"]), np.array([1j]), lambda: 0],
    ids=["object", "list", "set", "objects", "texts", "complex numbers", "function"],
)
def test_what_would_need_pickle_is_refused_by_name(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^centres_/one is a.*cannot be saved"):
        encode({"one": value}, "centres_", {})


@pytest.mark.parametrize(
    "value", [{"pickle": "x"}, {"array": "missing"}, {}, {"array": "a", "scalar": "a"}]
)
def test_other_json_is_an_error(value: Any) -> None:
    with pytest.raises((KeyError, ValueError)):
        decode(value, {"a": np.ones(2)})
