"""Which source a text stands for."""

import polars as pl
import pytest

from clipsyn.catalog.datasets import collections
from clipsyn.errors import DatasetError, UnknownName, UsageError
from clipsyn.extract.images import open_source


def test_paths_by_what_lies_there(write_images, write_tars, png):
    folder = write_images("a/1.png", "b/1.png")
    (folder.parent / "m.csv").write_text("path\nimages/a/1.png\n")
    tars = write_tars([[("a.png", png())]])
    assert open_source(str(folder), "test").ids == ("a/1.png", "b/1.png")
    assert open_source(str(folder.parent / "m.csv"), "test").ids == ("images/a/1.png",)
    assert open_source(str(tars), "test").ids == ("a",)
    assert open_source(str(tars / "test" / "0.tar"), "test").ids == ("a",)


def test_a_source_is_called_after_its_folder_or_as_it_is_given(write_images, monkeypatch):
    folder = write_images("a/1.png", "b/1.png", root="my=pictures")
    assert open_source(str(folder), "test").name == "my=pictures"
    assert open_source(f"pics={folder}", "test").name == "pics"
    assert open_source(f"{folder}/", "test").name == "my=pictures"
    monkeypatch.chdir(folder)
    assert open_source(".", "test").name == "my=pictures"
    assert open_source("x=.", "test").name == "x"


def test_a_catalogue_name_wins_over_a_folder(write_images, monkeypatch):
    folder = write_images("a/1.png", "b/1.png", root="mnist")
    monkeypatch.chdir(folder.parent)
    with pytest.raises(DatasetError, match="data_root="):
        open_source("mnist", "test")
    source = open_source("./mnist", "test")
    assert source.ids == ("a/1.png", "b/1.png")


@pytest.mark.parametrize("folder", ["wds_vtab-dtd", "vtab-dtd"])
@pytest.mark.parametrize("name", ["dtd", "vtab/dtd", "wds/vtab/dtd"])
def test_a_webdataset_in_the_root_is_preferred(name, folder, write_tars, png):
    members = [("a.png", png()), ("a.cls", b"1")]
    path = write_tars([members], root=folder, classes=("banded", "dotted"), templates=("{c}",))
    source = open_source(name, "test", root=path.parent)
    assert source.name == "vtab/dtd"
    assert source.templates == ("{c}",)
    assert source.class_names == ("banded", "dotted")


@pytest.mark.parametrize("name", ["dtd", "vtab/dtd"])
def test_a_manifest_in_the_root_comes_first(name, write_images, write_tars, png):
    root = write_images("a/1.png", "b/1.png").parent
    lines = ["path,label,split", "images/a/1.png,banded,train", "images/b/1.png,dotted,test"]
    (root / "vtab-dtd.csv").write_text("\n".join(lines))
    write_tars([[("a.png", png()), ("a.cls", b"1")]], root="wds_vtab-dtd", classes=("x", "y"))
    source = open_source(name, "train", root=root)
    assert (source.name, source.ids) == ("vtab/dtd", ("images/a/1.png",))
    assert source.class_names == ("banded", "dotted")
    with pytest.raises(DatasetError, match="no split 'val'; it has test, train"):
        open_source(name, "val", root=root)


def test_a_shipped_dataset(write_tars, png, monkeypatch, tmp_path):
    monkeypatch.setattr("clipsyn.catalog.datasets.data_dir", lambda: tmp_path)
    with pytest.raises(DatasetError, match="eval/emoji-food"):
        open_source("emoji-food", "test")
    write_tars([[("a.png", png()), ("a.cls", b"0")]], root="eval/emoji-food", classes=("apple",))
    source = open_source("emoji-food", "test")
    assert (source.name, len(source)) == ("emoji-food", 1)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", collections()["shipped"])
def test_what_ships_is_what_the_catalogue_says(name, split):
    source = open_source(name, split)
    assert source.notes == ()  # would tell of other counts of images or classes
    assert source.templates
    assert set(source.labels.tolist()) <= set(range(len(source.class_names)))
    assert source.image(len(source) - 1).mode == "RGB"


def test_unknown_names_are_answered_with_near_matches():
    with pytest.raises(UnknownName, match=r"'eurosta'.*did you mean.*eurosat.*no folder or file"):
        open_source("eurosta", "test")
    with pytest.raises(UnknownName, match=r"'vtab/dtdd'.*vtab/dtd"):
        open_source("vtab/dtdd", "test")


@pytest.mark.parametrize("text", ["x=nowhere", "./nowhere", "/no/where", "table.csv"])
def test_a_missing_path(text):
    with pytest.raises(DatasetError, match="there is no folder or file"):
        open_source(text, "test")


@pytest.mark.parametrize("text", ["=path", "name="])
def test_a_name_without_a_path_or_a_path_without_a_name_is_refused(text):
    with pytest.raises(UsageError, match="write NAME=PATH"):
        open_source(text, "test")


def test_images_without_splits_are_one_split_at_a_time(write_images, write_tars, png):
    """Else train and test would be the same images."""
    folder = write_images("cat/1.png", "dog/1.png")
    (folder.parent / "m.csv").write_text("path\nimages/cat/1.png\n")
    tars = write_tars([[("a.png", png())]], nshards=None) / "test"
    rows = pl.DataFrame({"image": [{"bytes": png(), "path": "a"}]})
    rows.write_parquet(folder.parent / "a.parquet")
    for path in (folder, folder.parent / "m.csv", tars, folder.parent / "a.parquet"):
        assert len(open_source(str(path), "train"))
        with pytest.raises(DatasetError, match="clipsyn split"):
            open_source(str(path), "train", alone=False)
