"""CoOp's few-shot files: found by path, and never run."""

from __future__ import annotations

import json
import pickle
import sys
import types

import numpy as np
import pytest

from clipsyn.errors import DatasetError
from clipsyn.protocol.coop import read_indices
from clipsyn.store.samples import SampleTable

IDS = ("cats/a.jpg", "cats/b.jpg", "dogs/a.jpg", "dogs/c.jpg")


@pytest.fixture
def samples() -> SampleTable:
    labels = np.array([0, 0, 1, 1], np.int32)
    return SampleTable("pets", "train", IDS, labels, np.zeros((4, 32), np.uint8), ("cat", "dog"))


@pytest.fixture
def datum(monkeypatch):
    """Dassl's class under its own name, for the time of pickling."""
    names = ["dassl", "dassl.data", "dassl.data.datasets", "dassl.data.datasets.base_dataset"]
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))

    class Datum:
        def __init__(self, impath: str, label: int) -> None:
            self._impath, self._label, self._domain, self._classname = impath, label, 0, "x"

    Datum.__module__, Datum.__qualname__ = names[-1], "Datum"
    sys.modules[names[-1]].Datum = Datum
    return Datum


def write(folder, items, datum, name="shot_1-seed_2.pkl"):
    folder.mkdir(parents=True, exist_ok=True)
    content = {"train": [datum(*item) for item in items], "val": []}
    (folder / name).write_bytes(pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL))


def test_images_are_found_by_the_end_of_their_path(tmp_path, samples, datum, monkeypatch):
    items = [("/data/pets/images/dogs/a.jpg", 1), ("/data/pets/images/cats/b.jpg", 0)]
    write(tmp_path / "split_fewshot", items, datum)
    monkeypatch.delitem(sys.modules, "dassl.data.datasets.base_dataset")
    found = read_indices(tmp_path, samples, [(1, 2)])
    assert found[1, 2].tolist() == [1, 2]


@pytest.mark.parametrize("place", ["", "pets", "pets/split_fewshot", "split_fewshot"])
def test_the_folder_may_be_above_or_for_each_dataset(tmp_path, samples, datum, place):
    write(tmp_path / place, [("cats/a.jpg", 5)], datum)  # labels of another order are fine
    assert read_indices(tmp_path, samples, [(1, 2)])[1, 2].tolist() == [0]


def test_json_works_too_and_suffixes_may_be_missing(tmp_path, samples):
    content = {"train": [["x/dogs/c.png", 1, "dog"], ["cats/a", 0, "cat"]]}
    (tmp_path / "shot_1-seed_0.json").write_text(json.dumps(content))
    assert read_indices(tmp_path, samples, [(1, 0)])[1, 0].tolist() == [0, 3]


def test_the_files_of_cross_modal_adaptation_are_read(tmp_path, samples):
    data = [{"impath": "pets/dogs/a.jpg", "label": 7, "classname": "dog"}]
    content = {"train": {"indices": [2], "data": data}, "val": {"indices": [], "data": []}}
    (tmp_path / "shot_1-seed_1.json").write_text(json.dumps(content))
    assert read_indices(tmp_path, samples, [(1, 1)])[1, 1].tolist() == [2]


class Evil:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_code_in_a_file_does_not_run(tmp_path, samples, capsys):
    content = pickle.dumps({"train": [Evil()], "val": []})
    (tmp_path / "shot_1-seed_1.pkl").write_bytes(content)
    with pytest.raises(DatasetError, match=r"no few-shot file of CoOp: it holds builtins\.print"):
        read_indices(tmp_path, samples, [(1, 1)])
    assert capsys.readouterr().out == ""


def test_other_classes_are_refused(tmp_path, samples, datum):
    write(tmp_path, [("cats/a.jpg", 0), ("dogs/a.jpg", 0)], datum)
    with pytest.raises(DatasetError, match=r"dogs/a\.jpg has CoOp's label 0"):
        read_indices(tmp_path, samples, [(1, 2)])


def test_what_is_not_there_is_named(tmp_path, samples, datum):
    with pytest.raises(DatasetError, match=r"no shot_K-seed_S\.pkl or \.json for pets"):
        read_indices(tmp_path, samples, [(1, 2)])
    write(tmp_path, [("birds/a.jpg", 0)], datum)
    with pytest.raises(DatasetError, match=r"no shot_4-seed_2\.pkl: give .* shot_1-seed_2\.pkl"):
        read_indices(tmp_path, samples, [(4, 2)])
    with pytest.raises(DatasetError, match=r"birds/a\.jpg is not among the images of pets/train"):
        read_indices(tmp_path, samples, [(1, 2)])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        pickle.dumps([1]),
        pickle.dumps({"a": 1}),
        b"\x80\x04\x95" + b"\xff" * 8,  # a frame larger than any memory
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0f",  # bytes of that kind
        b"\x80\x02(lh\x05.",  # refers to what is not there
    ],
)
def test_foreign_files_are_one_sentence(tmp_path, samples, content):
    (tmp_path / "shot_1-seed_1.pkl").write_bytes(content)
    with pytest.raises(DatasetError, match=r"shot_1-seed_1\.pkl is no few-shot file of CoOp"):
        read_indices(tmp_path, samples, [(1, 1)])


def test_a_folder_in_place_of_a_file_is_one_sentence(tmp_path, samples):
    (tmp_path / "shot_1-seed_1.pkl").mkdir()
    with pytest.raises(DatasetError, match=r"no few-shot file of CoOp: .*directory"):
        read_indices(tmp_path, samples, [(1, 1)])


@pytest.mark.parametrize("image", ["/", "", ".", "..", "//", "a/.."])
def test_a_path_without_a_name_is_no_image(tmp_path, samples, datum, image):
    write(tmp_path, [(image, 0)], datum)
    with pytest.raises(DatasetError, match="is not among the images of pets/train"):
        read_indices(tmp_path, samples, [(1, 2)])


def test_labels_that_are_no_numbers_are_one_sentence(tmp_path, samples, datum):
    write(tmp_path, [("cats/a.jpg", float("inf"))], datum)
    with pytest.raises(DatasetError, match="is no few-shot file of CoOp"):
        read_indices(tmp_path, samples, [(1, 2)])
