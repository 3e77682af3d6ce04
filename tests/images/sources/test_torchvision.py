"""Catalogue datasets through torchvision, on miniature copies of their layouts on disk."""

import hashlib
import inspect
import json
import socket
import struct

import numpy as np
import open_clip
import pytest
import torch
from torchvision import datasets

from clipsyn.catalog.datasets import catalogue, find_dataset
from clipsyn.errors import DatasetError
from clipsyn.extract.images import open_source
from clipsyn.images.source import UndecodableImage


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a source opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("clipsyn.catalog.datasets._benchmark_json", lambda file: {})


def open_in(root, name, split="test"):
    return open_source(name, split, root=root)


def write_mnist(root, pixels, labels):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        images = struct.pack(">HBBIII", 0, 8, 3, *pixels.shape) + pixels.tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        packed = struct.pack(">HBBI", 0, 8, 1, len(labels)) + bytes(labels)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(packed)


def test_an_array_dataset(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    write_mnist(tmp_path, pixels, [7, 0, 9])
    source = open_in(tmp_path, "MNIST")
    assert (source.name, source.split) == ("mnist", "test")
    assert source.ids == ("000000", "000001", "000002")
    assert source.labels.tolist() == [7, 0, 9]
    assert source.class_names == tuple("0123456789")
    np.testing.assert_array_equal(
        np.asarray(source.image(1)), np.repeat(pixels[1][..., None], 3, 2)
    )
    assert source.digest(1) == hashlib.sha256(b"L 28x28\n" + pixels[1].tobytes()).digest()
    assert any("3 images where its test split usually has 10,000" in note for note in source.notes)


def test_clevr_counts_start_at_three(tmp_path, png):
    base = tmp_path / "clevr" / "CLEVR_v1.0"
    (base / "images" / "val").mkdir(parents=True)
    (base / "scenes").mkdir()
    scenes = []
    for i, count in enumerate((3, 10)):
        name = f"CLEVR_val_{i:06d}.png"
        (base / "images" / "val" / name).write_bytes(png(i))
        scenes.append({"image_filename": name, "objects": [{}] * count})
    (base / "scenes" / "CLEVR_val_scenes.json").write_text(json.dumps({"scenes": scenes}))
    source = open_in(tmp_path, "clevr")
    assert sorted(source.class_names[i] for i in source.labels) == ["ten", "three"]


def test_imagenet_names_are_open_clips(write_images):
    root = write_images("imagenet/val/n01/a.JPEG", "imagenet/val/n02/b.JPEG")
    meta = ({"n01": ("tench", "Tinca tinca"), "n02": ("goldfish",)}, ["n01", "n02"])
    torch.save(meta, root / "imagenet" / "meta.bin")
    source = open_in(root, "imagenet")
    assert source.name == "imagenet1k"
    assert list(source.class_names) == list(open_clip.IMAGENET_CLASSNAMES)
    assert source.labels.tolist() == [0, 1]
    assert any("'missile'" in note and "'sunglasses'" in note for note in source.notes)


def test_caltech_has_categories_instead_of_classes(write_images):
    base = "caltech101/101_ObjectCategories"
    root = write_images(f"{base}/Faces_easy/image_0001.jpg", f"{base}/ant/image_0001.jpg")
    (root / "caltech101" / "Annotations").mkdir()
    (root / base / "BACKGROUND_Google").mkdir()
    source = open_in(root, "caltech101", "all")
    assert source.class_names == ("Faces easy", "ant")
    assert source.labels.tolist() == [0, 1]


def test_a_bad_image_keeps_its_row(write_images):
    base = "eurosat/2750/Forest"
    root = write_images(f"{base}/1.jpg", other={f"{base}/0.jpg": b"text"})
    source = open_in(root, "eurosat", "all")
    with pytest.raises(UndecodableImage, match="damaged"):
        source.image(0)
    assert source.digest(0) == hashlib.sha256(b"").digest()
    assert source.image(1).size == (12, 9)


# --- what is not there ---


@pytest.mark.parametrize("name", ["eurosat", "sun397", "caltech101"])
def test_no_split_is_made_up(name, tmp_path):
    with pytest.raises(DatasetError, match=r"has no split 'test' in torchvision; it has all"):
        open_in(tmp_path, name, "test")


@pytest.mark.parametrize("name", ["cub", "resisc45"])
def test_what_torchvision_does_not_have(name, tmp_path):
    with pytest.raises(
        DatasetError, match=f"in torchvision; it has none.*wds_.*{find_dataset(name).get[:9]}"
    ):
        open_in(tmp_path, name)


TORCHVISION = [info for info in catalogue() if info.torchvision]
REQUESTS = [
    (i.name, s) for i in TORCHVISION for s, split in i.splits.items() if split.args is not None
]


@pytest.mark.parametrize(("name", "split"), REQUESTS)
def test_every_request_is_one_that_torchvision_takes(name, split, tmp_path):
    """Against an empty root each ends in 'not found' and the way to get it, nothing else."""
    info = find_dataset(name)
    offered = inspect.signature(getattr(datasets, info.torchvision)).parameters
    assert set(info.splits[split].args or {}) <= set(offered)
    with pytest.raises(DatasetError, match="how to get it") as caught:
        open_in(tmp_path, name, split)
    assert "Unknown value" not in str(caught.value)
    assert info.get in str(caught.value)
    assert list(tmp_path.rglob("*.*")) == []


def test_images_that_torchvision_opens_are_rasters(write_images):
    """It asks PIL for any format, and one of them is a program."""
    root = write_images(*(f"eurosat/2750/{name}/1.jpg" for name in ("A", "B")), root="data")
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    (root / "eurosat" / "2750" / "A" / "1.jpg").write_bytes(program)
    source = open_in(root, "vtab/eurosat", "all")
    assert source.image(1).mode == "RGB"
    with pytest.raises(UndecodableImage):
        source.image(0)
