"""Folders of images, against torchvision's ImageFolder and by hand."""

import hashlib
from pathlib import Path

import numpy as np
import open_clip
import pytest
from torchvision.datasets import ImageFolder

from clipsyn.errors import DatasetError
from clipsyn.extract.images import open_source
from clipsyn.images.source import UndecodableImage

ZOO = ("cat/2.png", "cat/10.png", "dog/a.JPG", "dog/B.png", "a-b/x.png", "a/x.png", "Zebra/1.png")


def open_images(folder, split="test"):
    return open_source(f"pics={folder}", split)


def test_order_labels_and_pixels_are_those_of_imagefolder(write_images):
    folder = write_images(*ZOO)
    source, reference = open_images(folder), ImageFolder(str(folder))
    paths = [Path(path).relative_to(folder).as_posix() for path, _ in reference.samples]
    assert list(source.ids) == paths
    assert source.labels.tolist() == reference.targets
    assert source.labels.dtype == np.int32
    assert list(source.class_names) == reference.classes
    for i, (image, _) in enumerate(reference):
        np.testing.assert_array_equal(np.asarray(source.image(i)), np.asarray(image))


def test_digest_is_sha256_of_the_file(write_images):
    folder = write_images("x/1.png", "y/2.png")
    source = open_images(folder)
    for i, sample_id in enumerate(source.ids):
        assert source.digest(i) == hashlib.sha256((folder / sample_id).read_bytes()).digest()


def test_images_without_sub_folders_are_unlabelled(write_images):
    source = open_images(write_images("b.png", "a.webp", "c.bmp"))
    assert source.ids == ("a.webp", "b.png", "c.bmp")
    assert source.labels.tolist() == [-1, -1, -1]
    assert source.class_names == ()


# --- splits ---


def test_a_split_folder_is_used_and_ids_start_below_it(write_images):
    folder = write_images("train/x/1.png", "train/y/1.png", "test/x/2.png", "test/y/3.png")
    assert open_images(folder, "test").ids == ("x/2.png", "y/3.png")
    assert open_images(folder, "train").ids == ("x/1.png", "y/1.png")


def test_a_class_missing_in_one_split_shifts_no_label(write_images):
    folder = write_images("train/a/1.png", "train/b/1.png", "train/c/1.png", "test/c/1.png")
    test, train = open_images(folder, "test"), open_images(folder, "train")
    assert test.class_names == train.class_names == ("a", "b", "c")
    assert test.labels.tolist() == [2]


# --- what is skipped, and what is not ---


def test_hidden_and_other_files_are_skipped_and_counted(write_images):
    other = {"x/.hidden.png": b"", ".git/1.png": b"", "x/notes.txt": b"", "README.md": b""}
    source = open_images(write_images("x/1.png", "y/1.png", other=other))
    assert source.ids == ("x/1.png", "y/1.png")
    assert len(source.notes) == 1
    assert "2 file" in source.notes[0]


def test_a_file_that_vanished_or_cannot_be_read_keeps_its_row(write_images):
    folder = write_images("x/1.png", "x/2.png")
    (folder / "x" / "0.png").symlink_to("nowhere.png")
    source = open_images(folder)
    (folder / "x" / "1.png").unlink()
    (folder / "x" / "2.png").unlink()
    (folder / "x" / "2.png").mkdir()  # read by no one, not even by root
    assert source.ids == ("x/0.png", "x/1.png", "x/2.png")
    for row in range(3):
        assert source.digest(row) == hashlib.sha256(b"").digest()
        with pytest.raises(UndecodableImage):
            source.image(row)


def test_links_are_followed_but_not_in_circles(write_images):
    folder = write_images("x/1.png", root="images")
    elsewhere = write_images("2.png", "sub/3.png", root="elsewhere")
    (folder / "y").symlink_to(elsewhere)
    (folder / "x" / "again.png").symlink_to("1.png")
    (elsewhere / "sub" / "up").symlink_to(elsewhere)
    (folder / "x" / "loop").symlink_to(folder)
    source = open_images(folder)
    assert source.ids == ("x/1.png", "x/again.png", "y/2.png", "y/sub/3.png")
    assert source.digest(0) == source.digest(1)


# --- class names ---


def test_class_names_from_a_text_file(write_images):
    folder = write_images("n01/1.png", "n02/1.png")
    (folder / "classnames.txt").write_text("tench\ngoldfish\n\n")
    source = open_images(folder)
    assert source.class_names == ("tench", "goldfish")
    assert source.notes == ()


def test_class_names_used_twice_are_told_and_stay_apart(write_images):
    other = {"classnames.txt": b"missile\nmissile\nsunglasses"}
    source = open_images(write_images("a/1.png", "b/1.png", "c/1.png", other=other))
    assert source.class_names == ("missile", "missile", "sunglasses")
    assert source.labels.tolist() == [0, 1, 2]
    assert "'missile'" in source.notes[0]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("classnames.txt", "one\ntwo\nthree", "has 3 class names for 2 class folders"),
        ("classnames.txt", "one\n\ntwo", "line 2 is empty"),
        ("classnames.json", '{"n01": "tench"}', "does not name each class"),
    ],
)
def test_class_names_that_do_not_fit(file, content, message, write_images):
    folder = write_images("n01/1.png", "n02/1.png", other={file: content.encode()})
    with pytest.raises(DatasetError, match=message):
        open_images(folder)


def test_folders_of_imagenet_get_open_clips_names(write_images):
    folder = write_images("n01440764/1.png", "n15075141/1.png")
    for i in range(998):  # the ids between do not matter, their number does
        (folder / f"n02{i:06d}").mkdir()
    source = open_images(folder)
    assert list(source.class_names) == list(open_clip.IMAGENET_CLASSNAMES)
    assert source.labels.tolist() == [0, 999]


# --- nothing to read ---


def test_a_folder_of_other_files_is_an_error(write_images):
    folder = write_images(other={"a/readme.txt": b"", "b/table.csv": b""})
    with pytest.raises(DatasetError, match=r"no image .*2 other files.*\.png"):
        open_images(folder)
