"""Small image files, and webdatasets packed by hand as CLIP_benchmark's exporter does."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image


def encoded(seed=0, kind="PNG", size=(12, 9)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def png():
    """An encoded image of random pixels, by seed."""
    return encoded


@pytest.fixture
def write_images(tmp_path):
    """Write an image per relative path (other content where given) below a new folder."""

    def write(*names, root="images", other=None):
        folder = tmp_path / root
        folder.mkdir(parents=True, exist_ok=True)
        contents = {name: encoded(i) for i, name in enumerate(names)} | dict(other or {})
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    return write


@pytest.fixture
def write_tars(tmp_path):
    """Write shards of (member name, content) for one split; returns the dataset's folder."""

    def write(shards, *, split="test", root="wds", classes=(), templates=(), nshards=""):
        folder = tmp_path / root / split
        folder.mkdir(parents=True)
        for i, members in enumerate(shards):
            _write_tar(folder / f"{i}.tar", members)
        if nshards is not None:
            (folder / "nshards.txt").write_text(nshards or str(len(shards)))
        if classes:
            (folder.parent / "classnames.txt").write_text("\n".join(classes) + "\n")
        if templates:
            path = folder.parent / "zeroshot_classification_templates.txt"
            path.write_text("\n".join(templates))
        return folder.parent

    return write


def _write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
