"""`clipsyn split`: what it says, and that extraction takes what it writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from clipsyn.show.table import NOTHING
from clipsyn.store.features import FeatureStore

Run = Callable[..., Any]


@pytest.fixture
def photos(write_images: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two classes and two images beside them, in the working directory."""
    folder = write_images(count=6)
    for name in ("new.png", "newer.png"):
        (folder / name).write_bytes((folder / "cat" / "0.png").read_bytes() + name.encode())
    monkeypatch.chdir(folder.parent)
    return folder


def test_it_says_what_it_made_and_what_comes_next(clipsyn, photos, read_table):
    result = clipsyn("-q", "split", "photos", "-o", "photos.csv", "--test", "0.34")
    assert result.exit_code == 0, result.output
    assert read_table(result.stdout).rows == [
        {"split": "train", "images": "8", "classes": "2"},
        {"split": "test", "images": "4", "classes": "2"},
        {"split": "unlabelled", "images": "2", "classes": NOTHING},
    ]
    assert result.stdout.splitlines()[-1] == (
        "written to photos.csv: next, `clipsyn extract STORE -d photos.csv -s "
        "train,test,unlabelled`"
    )
    assert result.stderr == ""


def test_its_notes_go_to_standard_error(clipsyn: Run, photos: Path) -> None:
    (photos / "cat" / "copy\x1b[31m.png").write_bytes((photos / "cat" / "0.png").read_bytes())
    result = clipsyn("-q", "split", "photos", "-o", "photos.csv")
    assert result.stderr == (
        "note: copies of other images, left out: 1 (cat/copy\\u001b[31m.png)\n"
    )


def test_what_it_writes_is_extracted(clipsyn: Run, photos: Path, checkpoint: Path) -> None:
    assert clipsyn("split", "photos", "-o", "photos.csv", "--seed", "3").exit_code == 0
    options = ("-d", "photos.csv", "-s", "train,test,unlabelled", "-b", f"local-dir:{checkpoint}")
    result = clipsyn("extract", "store", *options)
    assert result.exit_code == 0, result.output
    store = FeatureStore.open("store")
    written = pl.read_csv("photos.csv")
    for split in ("train", "test", "unlabelled"):
        table = store.samples("photos", split)
        assert table.class_names == ("cat", "dog")
        assert list(table.ids) == written.filter(split=split)["id"].to_list()
    assert clipsyn("zeroshot", "store", "-s", "test").exit_code == 0


def test_refusals_name_flags(fails: Run, clipsyn: Run, photos: Path) -> None:
    clipsyn("split", "photos", "-o", "photos.csv")
    assert fails(2, "split", "photos", "-o", "photos.csv") == (
        "photos.csv is there already: add --replace, or choose another output"
    )
    assert "there is no folder or manifest 'fotos'" in fails(3, "split", "fotos", "-o", "f.csv")
    assert clipsyn("split", "photos", "-o", "photos.csv", "--replace").exit_code == 0
