"""Image sets as the library `datasets` leaves them on disk, and its own files if it is there."""

import json
import socket

import polars as pl
import pytest

from clipsyn.errors import DatasetError, UnknownName
from clipsyn.extract.images import open_source
from clipsyn.images.archives import HuggingFaceSource
from clipsyn.images.source import UndecodableImage

NAMES = ["cat", "dog"]
FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}}


def table(png, first, count, **columns):
    rows = range(first, first + count)
    images = [{"bytes": png(row), "path": f"im{row}.png"} for row in rows]
    return pl.DataFrame({"image": images, "label": [row % 2 for row in rows], **columns})


def write_parquet(path, frame, features=FEATURES):
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    frame.write_parquet(path, metadata=about)


@pytest.fixture(params=["parquet", "data", "folders", "file"])
def images(request, png, tmp_path):
    """Seven train images in two files, two test images; in every form."""
    train, test = [table(png, 0, 4), table(png, 4, 3)], table(png, 7, 2)
    root = tmp_path / "pets"
    if request.param == "file":
        write_parquet(tmp_path / "pets.parquet", pl.concat(train))
        return tmp_path / "pets.parquet"
    form = {
        "parquet": "{split}-{n:05d}-of-00002.parquet",
        "data": "data/{split}-{n:05d}-of-00002-0123456789abcdef.parquet",
        "folders": "{split}/{n:04d}.parquet",
    }[request.param]
    for split, frames in (("train", train), ("test", [test])):
        for n, frame in enumerate(frames):
            write_parquet(root / form.format(split=split, n=n), frame)
    return root


def test_every_form_gives_the_same_images(images, png):
    source = open_source(str(images), "train")
    assert isinstance(source, HuggingFaceSource)
    assert (source.name, source.split, len(source)) == ("pets", "train", 7)
    assert source.ids == tuple(f"im{row}.png" for row in range(7))
    assert source.labels.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert source.class_names == ("cat", "dog")
    assert [source.read(row) for row in range(7)] == [png(row) for row in range(7)]
    assert source.image(6).size == (12, 9)


def test_ids_are_paths_or_row_numbers(png, tmp_path):
    frame = table(png, 0, 3)
    unnamed = frame.with_columns(
        image=pl.struct(pl.col("image").struct.field("bytes"), path=pl.lit(None, pl.String))
    )
    write_parquet(tmp_path / "a.parquet", unnamed)
    assert open_source(str(tmp_path / "a.parquet"), "x").ids == ("000000", "000001", "000002")
    write_parquet(tmp_path / "b.parquet", pl.concat([frame, frame]))
    assert open_source(str(tmp_path / "b.parquet"), "x").ids[-1] == "000005"


def test_without_features_or_labels(png, tmp_path):
    write_parquet(tmp_path / "a.parquet", table(png, 0, 3), None)
    assert open_source(str(tmp_path / "a.parquet"), "x").class_names == ("0", "1")
    write_parquet(tmp_path / "b.parquet", table(png, 0, 3).drop("label"), None)
    bare = open_source(str(tmp_path / "b.parquet"), "x")
    assert bare.labels.tolist() == [-1, -1, -1]
    assert bare.class_names == ()


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"caption": ["a cat", None, " a dog\n"]}, [["a cat"], [], ["a dog"]]),
        ({"captions": [["a cat", "a tom"], None, []]}, [["a cat", "a tom"], [], []]),
        ({"caption_0": ["a", "b", None], "caption_1": ["c", None, None]}, [["a", "c"], ["b"], []]),
        ({"caption_of_cat": ["a", "b", "c"]}, []),
    ],
)
def test_columns_of_captions_are_read(columns, expected, png, tmp_path):
    write_parquet(tmp_path / "a.parquet", table(png, 0, 3, **columns))
    source = open_source(str(tmp_path / "a.parquet"), "x")
    assert [*source.captions] == expected
    assert source.labels.tolist() == [0, 1, 0]


def test_rows_without_an_image_are_bad_images(png, tmp_path):
    """A path is the table's word, and nothing is read there."""
    (tmp_path / "there.png").write_bytes(png(1))
    images = [{"bytes": b"noise", "path": "a"}, {"bytes": None, "path": "there.png"}]
    pl.DataFrame({"image": images}).write_parquet(tmp_path / "a.parquet")
    source = open_source(str(tmp_path / "a.parquet"), "x")
    for row in (0, 1):
        with pytest.raises(UndecodableImage):
            source.image(row)


@pytest.mark.parametrize("keep", [0, 80, -9])
def test_what_is_damaged_is_said(keep, png, tmp_path):
    write_parquet(tmp_path / "one" / "test.parquet", table(png, 0, 3))
    content = (tmp_path / "one" / "test.parquet").read_bytes()
    (tmp_path / "one" / "test.parquet").write_bytes(content[:keep])
    with pytest.raises(DatasetError):
        open_source(str(tmp_path / "one"), "test")


HOSTILE_COLUMNS = {
    "labels beyond": {"label": pl.Series([0, 2**32 + 1], dtype=pl.Int64)},
    "unsigned labels": {"label": pl.Series([0, 2**64 - 1], dtype=pl.UInt64)},
    "negative labels": {"label": [0, -7]},
    "labels of lists": {"label": [[0], [1]]},
    "labels of texts": {"label": ["cat", "dog"]},
    "captions of numbers": {"caption": [1, 2]},
    "captions of structs": {"captions": [[{"raw": "a cat"}], []]},
    "bytes that are numbers": {"image": [{"bytes": 5_000_000_000, "path": "a"}] * 2},
}


@pytest.mark.parametrize("name", HOSTILE_COLUMNS)
def test_columns_that_ask_for_too_much_are_refused(name, png, tmp_path):
    frame = table(png, 0, 2).with_columns(
        **{column: pl.Series(values) for column, values in HOSTILE_COLUMNS[name].items()}
    )
    write_parquet(tmp_path / "a.parquet", frame, None)
    with pytest.raises(DatasetError):
        open_source(str(tmp_path / "a.parquet"), "x")


def test_a_name_of_the_hub_is_no_path_and_nothing_is_asked_of_the_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(UnknownName):
        open_source("uoft-cs/cifar10", "test")
