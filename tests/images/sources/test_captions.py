"""Captions of images in each form that they come in, by hand-made cases."""

import json

import polars as pl
import pytest

from clipsyn.errors import DatasetError
from clipsyn.extract.images import open_source
from clipsyn.images.split import split

COCO = {
    "images": [{"id": 7, "file_name": "1.png"}, {"id": 3, "file_name": "2.png"}],
    "annotations": [
        {"id": 0, "image_id": 3, "caption": "a dog\n"},
        {"id": 1, "image_id": 7, "caption": "a cat"},
        {"id": 2, "image_id": 3, "caption": "ein Hund"},
    ],
}
KARPATHY = {
    "images": [
        {"filename": "1.png", "split": "train", "sentences": [{"raw": "a cat"}]},
        {"filename": "4.png", "filepath": "sub", "split": "test", "sentences": [{"raw": " a pig"}]},
        {"filename": "2.png", "split": "test", "sentences": [{"raw": "x"}, {"raw": "y"}]},
    ]
}
FLICKR = (
    'raw,sentids,split,filename,img_id\n"[""a cat"", ""a, tom""]","[0, 1]",test,1.png,0\n'
    '"[""a dog""]",[2],train,2.png,1\n'
)
ROWS = "path,caption,split\n1.png,a cat,test\n2.png,a dog,test\n1.png,a tom,test\n1.png,no,train\n"
COLUMNS = 'path,label,caption,caption\n1.png,cat,a cat,a tom\n2.png,dog,"a, dog",\n'
LISTS = {"path": ["1.png", "2.png"], "caption": [["a cat", "a tom"], []]}


@pytest.fixture
def opened(write_images):
    """The split of a file of that name, which lies beside images."""

    def write(file, content, split="test", **options):
        path = write_images("1.png", "2.png", "sub/4.png") / file
        if file.endswith(".parquet"):
            pl.DataFrame(content).write_parquet(path)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return open_source(str(path), split, **options)

    return write


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("c.json", COCO, {"1.png": ["a cat"], "2.png": ["a dog", "ein Hund"]}),
        ("k.json", KARPATHY, {"sub/4.png": ["a pig"], "2.png": ["x", "y"]}),
        ("f.csv", FLICKR, {"1.png": ["a cat", "a, tom"]}),
        ("r.csv", ROWS, {"1.png": ["a cat", "a tom"], "2.png": ["a dog"]}),
        ("c.csv", COLUMNS, {"1.png": ["a cat", "a tom"], "2.png": ["a, dog"]}),
        ("l.parquet", LISTS, {"1.png": ["a cat", "a tom"], "2.png": []}),
    ],
)
def test_captions_of_each_image(opened, file, content, expected):
    source = opened(file, content)
    assert dict(zip(source.ids, map(list, source.captions), strict=True)) == expected
    assert source.image(0).size == (12, 9)
    bare = [name for name, texts in expected.items() if not texts]
    assert sum("no caption" in note for note in source.notes) == len(bare)


def test_images_of_json_may_lie_elsewhere(opened, write_images):
    elsewhere = write_images("1.png", "2.png", root="val2017")
    source = opened("annotations.json", COCO, root=elsewhere)
    assert source.place(0)[0] == elsewhere / "1.png"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("none.json", {**COCO, "annotations": [{"image_id": 8, "caption": "of no image"}]}),
        ("file.json", {**COCO, "images": [{"id": 3, "file_name": "9.png"}]}),
        ("out.json", {"images": [{"id": 3, "file_name": "../9.png"}], "annotations": []}),
        ("kind.json", {**COCO, "annotations": [{"image_id": 3, "bbox": []}]}),
        ("type.json", {**COCO, "annotations": [{"image_id": 3, "caption": 5}]}),
        ("empty.json", {"images": [], "annotations": []}),
        ("list.json", [1]),
        ("text.json", "{"),
        ("split.json", {"images": KARPATHY["images"][:1]}),
        ("json.csv", FLICKR.replace('[""a cat""', '[""a cat')),
        ("label.csv", "path,label,caption\n1.png,cat,x\n1.png,dog,y\n"),
        ("gone.csv", "path,caption\n1.png,x\n9.png,y\n"),
    ],
)
def test_what_cannot_be(opened, file, content):
    with pytest.raises(DatasetError):
        opened(file, content)


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ([("a.txt", b"a cat\n\nein Hund \n")], ["a cat", "ein Hund"]),
        ([("a.txt", b"a cat"), ("a.json", b'{"caption": "other"}')], ["a cat"]),
        ([("a.json", b'{"caption": "a cat", "width": 5}')], ["a cat"]),
        ([("a.json", b'{"caption": ["a cat", "a tom"]}')], ["a cat", "a tom"]),
        ([("a.json", b'{"width": 5}')], None),
        ([("a.json", b"[5]")], None),
    ],
)
def test_captions_of_a_webdataset(write_tars, png, beside, expected):
    members = [("a.png", png()), *beside, ("b.png", png(1)), ("b.txt", b"more\n")]
    source = open_source(str(write_tars([members])), "test")
    assert [*map(list, source.captions)] == [expected or [], ["more"]]
    bare = open_source(str(write_tars([members[:2]], root="bare")), "test")
    assert bool(bare.captions) is (expected is not None)


@pytest.mark.parametrize(
    "member", [("b.txt", b"x"), ("a.txt", b"\xff"), ("a.json", b"{"), ("a.txt", b"x" * (1 << 21))]
)
def test_texts_that_do_not_fit_a_webdataset(write_tars, png, member):
    with pytest.raises(DatasetError):
        open_source(str(write_tars([[("a.png", png()), member]])), "test")


@pytest.mark.parametrize("name", ["split.csv", "split.parquet"])
def test_a_division_takes_captions_along(opened, name):
    source = opened("c.csv", COLUMNS.replace("dog", "cat"))
    folder = source.place(0)[0].parent
    split(folder / "c.csv", folder / name)
    parts = [open_source(str(folder / name), side) for side in ("train", "test")]
    found = {id: [*texts] for it in parts for id, texts in zip(it.ids, it.captions, strict=True)}
    assert found == dict(zip(source.ids, map(list, source.captions), strict=True))
