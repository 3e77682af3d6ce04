"""`importing.numpy_files`: which array is what, ids and labels."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest

from clipsyn.errors import DatasetError, UsageError
from clipsyn.exchange import ImportSettings, npz
from clipsyn.exchange.arrays import load, part_of
from clipsyn.exchange.importing import import_files
from clipsyn.store.features import FeatureStore

NAMES = ("cat", "dog", "bee")
LOGITS = np.array([[1, 2, 3], [-4, 0, 9]], np.float64)


def read(path, known=NAMES, **options):
    wanted = ImportSettings("toy", **{"row_order": True, **options})
    return part_of(path, load(path), wanted, known)


def npy(folder, values, name="mine.npy"):
    np.save(folder / name, np.asarray(values))
    return folder / name


def test_arrays_as_many_columns_as_classes_are_logits(tmp_path):
    part = read(npy(tmp_path, LOGITS), perturbation="jpeg:3")
    assert (part.backbone, part.perturbation, part.kind) == ("mine", "jpeg-3", "logits")
    assert (part.ids, part.labels, part.values.dtype) == (None, None, np.float32)
    np.testing.assert_array_equal(part.values, LOGITS)


def test_arrays_probabilities_and_embeddings(tmp_path):
    path = npy(tmp_path, [[0.25, 0.75, 0], [0, 0, 1]])
    part = read(path)
    assert part.kind == "logits"
    np.testing.assert_allclose(np.exp(part.values), np.load(path), atol=1e-7)
    part = read(path, kind="embeddings")
    assert part.kind == "embeddings"
    np.testing.assert_array_equal(part.values, np.load(path))


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([2, 0, -1], ["2", "0", "-1"]),
        ([2.0, np.nan, 0.5], ["2", "", "0.5"]),
        (["dog", " na", ""], ["dog", "na", ""]),
        ([b"dog", "crème".encode()], ["dog", "crème"]),
    ],
)
def test_arrays_a_vector_is_predictions(values, texts, tmp_path):
    part = read(npy(tmp_path, values))
    assert part.kind == "predictions"
    assert part.values.tolist() == texts


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.zeros((2, 4)), "auto"),
        (np.zeros((2, 4)), "logits"),
        (np.zeros((2, 3, 1)), "embeddings"),
        (np.array([["a", "b", "c"]]), "logits"),
        (np.zeros((2, 3)), "predictions"),
    ],
)
def test_arrays_what_cannot_be(values, kind, tmp_path):
    with pytest.raises(DatasetError, match="mine"):
        read(npy(tmp_path, values), kind=kind)


def test_arrays_pickles_and_what_is_no_array_are_not_opened(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "b.npz").write_bytes(b"PK it is not")
    for name in ("a.npy", "b.npz"):
        with pytest.raises(DatasetError, match="pickled objects are never opened"):
            read(tmp_path / name)


def test_arrays_a_damaged_archive(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, logits=np.arange(3000.0).reshape(1000, 3))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:200] + b"x" + whole[201:]):
        path.write_bytes(damaged)
        with pytest.raises(DatasetError, match=r"mine\.npz"):
            npz.digest(path)  # as before a cell is published


def test_arrays_what_float32_cannot_hold_is_not_finite(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        part = read(npy(tmp_path, np.array([[1e300, 0, 1]])), kind="logits")
    assert np.isinf(part.values[0, 0])


def test_ids_rows_without_ids_must_be_said_to_be_in_order(tmp_path):
    with pytest.raises(UsageError, match="has no ids"):
        read(npy(tmp_path, LOGITS), row_order=False)


def test_ids_of_another_number(tmp_path):
    for role in ("ids", "labels"):
        np.savez(tmp_path / "mine.npz", logits=LOGITS, **{role: np.array(["a", "b", "c"])})
        with pytest.raises(DatasetError, match=f"2 rows have 3 {role}"):
            read(tmp_path / "mine.npz")


def test_archives_ids_and_labels_inside(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, logits=LOGITS, ids=np.array(["a", "b"]), labels=np.array([0, 2]))
    part = read(path, row_order=False)
    assert (part.kind, part.ids, part.labels) == ("logits", ("a", "b"), ("0", "2"))
    np.testing.assert_array_equal(part.values, LOGITS)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_are_read_in_blocks_once_their_checksums_are_right(save, tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "_LARGE", 1)
    path, ids = tmp_path / "mine.npz", [f"im{row}" for row in range(100)]
    values = np.random.default_rng(0).random((100, 5))
    save(path, ids=ids, embeddings=values, logits=np.asfortranarray(values))
    for kind in ("embeddings", "logits"):
        found = read(path, (), row_order=False, kind=kind).values
        np.testing.assert_array_equal(found[7:90], values.astype(found.dtype)[7:90])
    content = bytearray(path.read_bytes())
    content[content.find(b"embeddings.npy") + 300] ^= 1
    path.write_bytes(content)
    store, wanted = (
        FeatureStore.create(tmp_path / "store"),
        ImportSettings("toy", kind="embeddings"),
    )
    with pytest.raises(DatasetError):
        import_files(store.path, [path], wanted)
    assert store.places() == []


def test_archives_several_kinds_are_chosen_from(tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, logits=LOGITS, embeddings=LOGITS[:, :2])
    with pytest.raises(DatasetError, match=r"several \(logits, embeddings\): choose with kin"):
        read(path)
    assert read(path, kind="embeddings").values.shape == (2, 2)
    with pytest.raises(DatasetError, match="and holds none"):
        read(path, kind="predictions")


# What a header says is held against what there is before numpy makes room for it.


@pytest.mark.parametrize("shape", [(10**6, 10**6), (2**62, 8), (5, 3), (-2, -3)])
def test_declared_sizes_an_array_larger_than_its_file(tmp_path, shape):
    path = tmp_path / "mine.npy"
    path.write_bytes(_header(shape) + bytes(56))  # of the 60 that (5, 3) takes
    with pytest.raises(DatasetError, match=r"mine\.npy cannot be read"):
        read(path, kind="logits")


def _header(shape):
    stream = io.BytesIO()
    about = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, about)
    return stream.getvalue()
