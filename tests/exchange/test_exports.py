"""Exports from hostile or careless hands are refused in a sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clipsyn.errors import ClipsynError, DatasetError
from clipsyn.exchange import ImportSettings
from clipsyn.exchange.export import export
from clipsyn.exchange.importing import import_files


@pytest.fixture
def folder(fakes, tiny_store, tmp_path):
    keys = tiny_store.keys(perturbation=["clean"], split=["test"], backbone=["fake/one"])
    export(tiny_store, tmp_path / "export", keys, "npz", fakes.Quiet())
    return tmp_path / "export"


def refused(folder, **settings):
    with pytest.raises(ClipsynError) as error:
        import_files(folder.parent / "new", [folder], ImportSettings(**settings))
    assert not (folder.parent / "new").exists()
    return str(error.value)


def rewritten(folder, about=(), **changed):
    (file,) = folder.glob("toy/**/*.npz")
    with np.load(file) as held:
        arrays = {name: held[name] for name in held.files} | changed
    arrays["clipsyn"] = np.array(json.dumps(json.loads(str(arrays["clipsyn"])) | dict(about)))
    np.savez(file, **{name: values for name, values in arrays.items() if values is not None})


@pytest.mark.parametrize(
    "about",
    [
        {"format": "3.0"},
        {"backbone": 3},
        {"kind": "images"},
        {"class_names": 7},
        {"prompts": 3},
        {"dataset": ""},
    ],
)
def test_what_a_file_says_of_itself_that_cannot_be(folder, about):
    rewritten(folder, about)
    refused(folder)


@pytest.mark.parametrize(
    "changed",
    [
        {"embeddings": None},
        {"valid": np.ones(3, np.bool_)},
        {"ids": np.array(["a"] * 20)},
    ],
)
def test_files_that_do_not_hold_what_they_should(folder, changed):
    rewritten(folder, **changed)
    refused(folder)


def test_an_export_needs_no_options(folder):
    assert "leave dataset=… away" in refused(folder, dataset="mine")
    assert "leave split=… away" in refused(folder, split="train")


def test_other_class_names_are_refused(fakes, folder, tmp_path):
    """Or labels and predictions, which are indices, would mean other classes."""
    store = fakes.fill(tmp_path / "mine", [fakes.Encoder("x")])
    rewritten(folder, {"class_names": store.samples("toy", "test").class_names[::-1]})
    with pytest.raises(DatasetError, match="other classes"):
        import_files(store.path, [folder], ImportSettings())


def test_other_samples_and_labels_are_refused(fakes, folder, tmp_path):
    other = fakes.fill(tmp_path / "fewer", [fakes.Encoder("x")], [fakes.Source(count=12)])
    with pytest.raises(DatasetError, match="8 of its ids are unknown"):
        import_files(other.path, [folder], ImportSettings())
    import_files(other.path, [folder], ImportSettings(intersect=True))
    labels = fakes.Source().labels.copy()
    labels[5] = (labels[5] + 1) % 3
    rewritten(folder, labels=labels)
    same = fakes.fill(tmp_path / "same", [fakes.Encoder("x")])
    with pytest.raises(DatasetError, match=r"1 label is another .*im005"):
        import_files(same.path, [folder], ImportSettings())
