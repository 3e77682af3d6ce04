"""`clipsyn.exchange.arrays`: files that torch wrote, and files that hold no tensor."""

from __future__ import annotations

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from clipsyn.errors import DatasetError
from clipsyn.exchange import npz
from clipsyn.exchange.arrays import read_tensor

torch = pytest.importorskip("torch")


def saved(path, thing, **options):
    torch.save(thing, path / "a.pt", **options)
    return path / "a.pt"


TYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"]


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("least", [1, npz._LARGE], ids=["in blocks", "whole"])
def test_every_type_of_number(name, least, tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "_LARGE", least)
    tensor = (torch.rand(5, 3, generator=torch.Generator().manual_seed(0)) * 9).to(
        getattr(torch, name)
    )
    found = read_tensor(saved(tmp_path, tensor))
    assert isinstance(found, np.ndarray) == (least > 1)
    assert found.dtype == ("float32" if name == "bfloat16" else name)
    np.testing.assert_array_equal(found, tensor.to(torch.float64).numpy())


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(7),
        torch.arange(24).view(6, 4)[1:],
        torch.arange(24).view(2, 3, 4)[:, 1:].permute(2, 0, 1),
        torch.zeros(0, 4),
        torch.tensor(3),
    ],
    ids=["vector", "rows", "transposed", "empty", "number"],
)
def test_any_shape(tensor, tmp_path):
    np.testing.assert_array_equal(read_tensor(saved(tmp_path, tensor)), tensor.numpy())


@pytest.mark.parametrize(
    ("thing", "reason"),
    [
        ({"a": torch.ones(2)}, "holds a dict"),
        ([torch.ones(2)], "holds a list"),
        (torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear, which is no tensor"),
        (torch.ones(2).to_sparse(), "_rebuild_sparse_tensor, which is no tensor"),
        (torch.ones(1).expand(9**9), "does not fit"),
    ],
    ids=["dict", "list", "module", "sparse", "repeated"],
)
def test_what_is_no_dense_tensor(thing, reason, tmp_path):
    with pytest.raises(DatasetError, match=rf"a\.pt cannot be read.*{reason}.*numpy\.save"):
        read_tensor(saved(tmp_path, thing))


class _Evil:
    def __reduce__(self):
        return os.system, ("exit 1",)


class _Named:
    """Pickles as a tensor of these."""

    def __init__(self, *arguments):
        self.arguments = arguments


class _Forger(pickle.Pickler):
    def persistent_id(self, thing):
        return ("storage", torch.FloatStorage, "0", "cpu", 4) if thing == "numbers" else None

    def reducer_override(self, thing):
        if isinstance(thing, _Named):
            return torch._utils._rebuild_tensor_v2, thing.arguments
        return NotImplemented


NUMBERS = np.arange(4, dtype="<f4").tobytes()


def forged(path, thing, numbers=NUMBERS, how=zipfile.ZIP_STORED):
    """A file of torch's form with four numbers, and a pickle of anything."""
    stream = io.BytesIO()
    _Forger(stream, protocol=2).dump(thing)
    with zipfile.ZipFile(path / "a.pt", "w", how) as file:
        file.writestr("a/data.pkl", thing if isinstance(thing, bytes) else stream.getvalue())
        file.writestr("a/data/0", numbers)
    return path / "a.pt"


def test_nothing_in_a_file_is_run(tmp_path):
    with pytest.raises(DatasetError, match="system, which is no tensor"):
        read_tensor(forged(tmp_path, _Evil()))


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (5,), (1,)), (1, (2, 2), (2, 1)), (0, (2,), (-1,)), (-1, (2,), (1,)), (0, (2, 2), (2,))],
)
def test_a_shape_that_leaves_the_numbers(offset, size, stride, tmp_path):
    assert read_tensor(forged(tmp_path, _Named("numbers", 1, (3,), (1,)))).tolist() == [1, 2, 3]
    with pytest.raises(DatasetError, match="cannot be read as one tensor"):
        read_tensor(forged(tmp_path, _Named("numbers", offset, size, stride)))


def test_a_file_that_is_cut(tmp_path):
    path = saved(tmp_path, torch.ones(500))
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DatasetError, match="cannot be read as one tensor"):
        read_tensor(path)
    with pytest.raises(DatasetError, match="No such file"):
        read_tensor(tmp_path / "absent.pt")


def test_a_zip_bomb(tmp_path):
    tensor = _Named("numbers", 0, (4,), (1,))
    assert len(read_tensor(forged(tmp_path, tensor))) == 4
    path = forged(tmp_path, tensor, bytes(10**7), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 20_000
    with pytest.raises(DatasetError, match=r"would be [0-9,]+ bytes, compressed"):
        read_tensor(path)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",
        b"]p99999999999\n.",
        b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b".",
    ],
    ids=["LONG_BINPUT", "PUT", "BYTEARRAY8"],
)
def test_a_pickle_that_takes_all_memory(pickled, tmp_path):
    with pytest.raises(DatasetError, match=r"asks for place|expected 1099511627776 bytes"):
        read_tensor(forged(tmp_path, pickled))
