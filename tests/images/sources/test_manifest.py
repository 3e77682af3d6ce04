"""Manifests, by hand-computed cases."""

import hashlib

import polars as pl
import pytest

from clipsyn.errors import DatasetError
from clipsyn.extract.images import open_source


@pytest.fixture
def manifest(write_images, tmp_path):
    """Open a CSV of the given lines, beside images 1.png to 4.png."""

    def write(*lines, split="test", names="", names_file="table.csv.classnames.txt"):
        folder = write_images("1.png", "2.png", "3.png", "sub/4.png")
        (folder / "table.csv").write_text("\n".join(lines) + "\n")
        if names:
            (folder / names_file).write_text(names)
        return open_source(str(folder / "table.csv"), split)

    return write


def test_named_labels(manifest, tmp_path):
    source = manifest("path,label", "3.png,dog", "sub/4.png,cat", "1.png,dog")
    assert source.name == "table"
    assert source.ids == ("3.png", "sub/4.png", "1.png")  # the manifest's own order
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [1, 0, 1]
    expected = (tmp_path / "images" / "sub" / "4.png").read_bytes()
    assert source.digest(1) == hashlib.sha256(expected).digest()
    assert source.image(1).size == (12, 9)


def test_named_labels_follow_the_order_of_the_class_names(manifest):
    source = manifest("path,label", "1.png,cat", "2.png,dog", names="dog\ncat\nbird")
    assert source.class_names == ("dog", "cat", "bird")
    assert source.labels.tolist() == [1, 0]


def test_numbered_labels(manifest):
    source = manifest("path,label", "1.png,2", "2.png,0", names="a\nb\nc")
    assert source.class_names == ("a", "b", "c")
    assert source.labels.tolist() == [2, 0]
    assert source.notes == ()


def test_numbered_labels_without_names_are_called_by_number_and_told(manifest):
    source = manifest("path,label", "1.png,2", "2.png,0")
    assert source.class_names == ("0", "1", "2")
    assert "no class names given" in source.notes[0]


def test_no_label_column_and_empty_labels(manifest):
    assert manifest("path", "1.png").labels.tolist() == [-1]
    assert manifest("path,label", "1.png,", "2.png,").class_names == ()
    mixed = manifest("path,label", "1.png,cat", "2.png,")
    assert mixed.labels.tolist() == [0, -1]


def test_splits_share_their_classes(manifest):
    lines = ("path,label,split", "1.png,b,test", "2.png,a,train", "3.png,c,train")
    assert manifest(*lines).labels.tolist() == [1]
    train = manifest(*lines, split="train")
    assert train.ids == ("2.png", "3.png")
    assert train.class_names == ("a", "b", "c")


def test_paths_lie_in_the_manifests_folder_or_the_root(manifest, write_images, tmp_path):
    elsewhere = write_images("9.png", root="elsewhere") / "9.png"
    table = tmp_path / "images" / "table.csv"
    for text in (str(elsewhere), "../elsewhere/9.png", "sub/../../elsewhere/9.png"):
        with pytest.raises(DatasetError):
            manifest("path,label", f"{text},x")
        for root in (elsewhere.parent, tmp_path):
            source = open_source(f"birds={table}", "test", root=root)
            assert (source.name, source.ids) == ("birds", (text,))
            assert source.image(0).mode == "RGB"
    inside = manifest("path,label", f"{tmp_path}/images/1.png,x", "sub/../2.png,x")
    assert inside.digest(1) == hashlib.sha256((tmp_path / "images" / "2.png").read_bytes()).digest()
    (tmp_path / "link").symlink_to(tmp_path / "images")
    (tmp_path / "images" / "5.png").symlink_to(elsewhere)
    for text in (f"{tmp_path}/link/1.png", f"{tmp_path}/images/1.png", "5.png"):
        table.write_text(f"path\n{text}\n")
        assert open_source(str(tmp_path / "link" / "table.csv"), "test").image(0).mode == "RGB"


@pytest.mark.parametrize("labels", [[1, 0], [1.0, 0.0], ["b", "a"]])
def test_parquet(labels, write_images):
    folder = write_images("1.png", "2.png")
    frame = pl.DataFrame({"path": ["1.png", "2.png"], "label": labels, "id": [10, 20]})
    frame.write_parquet(folder / "table.parquet")
    source = open_source(str(folder / "table.parquet"), "test")
    assert source.ids == ("10", "20")
    assert source.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (("file,label", "1.png,0"), ""),
        (("path", "1.png", "1.png"), ""),
        (("path,id", "1.png,a", "2.png,a"), ""),
        (("path", "1.png", "8.png", "9.png"), ""),
        (("path,label", "1.png,0", "2.png,2"), "a\nb"),
        (("path,label", "1.png,bird"), "cat\ndog"),
        (("path,label", "1.png,-3"), "a\nb"),
        (("path,split", "1.png,train"), ""),
        (("path,label", ",a", "1.png,b"), ""),
        (("path,id", "1.png,a", "2.png,"), ""),
        (("path,label",), ""),
        (("path,label", "1.png,0", "2.png,65534"), ""),  # the most is 65533
        (("path,label", "1.png,4294967297"), ""),
        (("path,label", "1.png,99999999999999999999999"), "a\nb"),
        (("path,label", "1.png,0"), "\n".join(map(str, range(65_535)))),
    ],
)
def test_bad_manifests(lines, names, manifest):
    with pytest.raises(DatasetError):
        manifest(*lines, names=names)


def test_as_many_classes_as_predictions_tell_apart(manifest):
    assert len(manifest("path,label", "1.png,0", "2.png,65533").class_names) == 65_534


@pytest.mark.parametrize("column", ["path", "label", "split", "id"])
def test_columns_of_lists(column, write_images):
    folder = write_images("1.png")
    table = pl.DataFrame({"path": ["1.png"], column: [["1.png"]]})
    table.write_parquet(folder / "table.parquet")
    with pytest.raises(DatasetError):
        open_source(str(folder / "table.parquet"), "test")


def test_a_manifest_that_is_no_table(tmp_path):
    for name, content in (("a.csv", b""), ("b.parquet", b"not parquet"), ("c.csv", b"path\n\xff")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DatasetError, match=r"cannot be read|do not exist|is damaged"):
            open_source(str(tmp_path / name), "test")
