"""Captions of a split and their embeddings: written, read, refused, copied, and found damaged."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from clipsyn.errors import (
    ClipsynError,
    DatasetError,
    InputError,
    MissingCell,
    StaleCell,
    UsageError,
)
from clipsyn.exchange import ImportSettings
from clipsyn.exchange.export import export
from clipsyn.exchange.importing import import_files
from clipsyn.remote.push import Push
from clipsyn.show.progress import progress
from clipsyn.store.features import FeatureStore
from clipsyn.store.inventory import cell_rows, describe, remove
from clipsyn.store.merge import plan_merge
from clipsyn.store.samples import CaptionTable, SampleTable
from clipsyn.store.select import choose
from clipsyn.store.writer import CellWriter
from tests.kills import problems

SAMPLES = SampleTable.of("toy", "test", [f"im{row}" for row in range(5)])
TEXTS = [["a cat", "ein Kätzchen"], "a dog", [], ("one", "two", "three"), ["a dog"]]
TABLE = CaptionTable.of(SAMPLES, TEXTS)
PLACE = ("toy", "test", "mine")


def unit(rows: int, width: int = 4) -> np.ndarray:
    values = np.random.default_rng(rows).normal(size=(rows, width))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def write(store: FeatureStore, backbone: str = "mine", texts: Any = TEXTS, **options: Any) -> None:
    with store.writer(SAMPLES, backbone, **options) as cell:
        cell.embeddings(unit(5))
        cell.captions(texts, unit(len(TABLE)), 20)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Captions by two backbones."""
    made = FeatureStore.create(tmp_path / "store", chunk_rows=3)
    for backbone in ("mine", "other"):
        write(made, backbone)
    return made


def test_what_was_written_is_read(store: FeatureStore) -> None:
    table = store.captions("toy", "test")
    assert table.ids == ("im0#0", "im0#1", "im1#0", "im3#0", "im3#1", "im3#2", "im4#0")
    assert table.texts == ("a cat", "ein Kätzchen", "a dog", "one", "two", "three", "a dog")
    assert table.images.tolist() == [0, 0, 1, 3, 3, 3, 4]
    embeddings, scale = store.text_embeddings(*PLACE)
    np.testing.assert_array_equal(embeddings, unit(7).astype(np.float16))
    assert scale == 20
    assert describe(store)["datasets"]["toy/test"]["captions"] == 7
    assert [row["captions"] for row in cell_rows(store)] == [7, 7]
    assert problems(store, deep=True) == []
    before = store.group(store.at("texts", *PLACE)).attributes
    write(store)
    assert store.group(store.at("texts", *PLACE)).attributes == before


def test_zarr_reads_the_groups_and_the_identity_is_as_documented(store: FeatureStore) -> None:
    captions = zarr.open_group(store.at("captions", "toy", "test"), mode="r")
    ids, texts, images = (captions[name][:] for name in ("caption_id", "text", "image"))
    assert (list(texts), list(images)) == ([*TABLE.texts], [0, 0, 1, 3, 3, 3, 4])
    text = zarr.open_group(store.at("texts", *PLACE), mode="r")
    np.testing.assert_array_equal(text["text_embedding"][:], unit(7).astype(np.float16))
    hasher = hashlib.sha256()
    for name, words, row in zip(ids, texts, images, strict=True):
        hasher.update(f"{len(name)}:{name}{len(words)}:{words}".encode())
        hasher.update(int(row).to_bytes(4, "little"))
    assert captions.attrs["identity"]["captions"] == hasher.hexdigest()
    assert text.attrs["identity"]["captions"] == hasher.hexdigest()


@pytest.mark.parametrize(
    ("ids", "texts", "images"),
    [
        ((), (), []),
        (("a", "a"), ("x", "y"), [0, 1]),
        (("a", "b"), ("x", " \n"), [0, 1]),
        (("a", "b"), ("x", "y" * 4097), [0, 1]),
        (("a", "b"), ("x", "\ud800"), [0, 1]),
        (("a", "b"), ("x",), [0, 1]),
        (("a", "b"), ("x", "y"), [0, 5]),
        (("a", "b"), ("x", "y"), [-1, 0]),
    ],
)
def test_captions_that_cannot_be(ids: Any, texts: Any, images: list[int]) -> None:
    with pytest.raises(DatasetError):
        CaptionTable("toy", "test", ids, texts, np.array(images, np.int32)).identity(SAMPLES)


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        (lambda cell: cell.captions(TEXTS[:4], unit(6), 20), DatasetError),
        (lambda cell: cell.captions(TEXTS, unit(6), 20), InputError),
        (lambda cell: cell.captions(TEXTS, 2 * unit(7), 20), InputError),
        (lambda cell: cell.captions(TEXTS, unit(7), 0), InputError),
        (lambda cell: (cell.captions(TEXTS, unit(7, 3), 20), cell.embeddings(unit(5))), InputError),
        (lambda cell: cell.captions(TEXTS, unit(7), 20), UsageError),
    ],
)
def test_what_cannot_be_written_leaves_nothing(
    tmp_path: Path, rows: Callable[[CellWriter], object], error: type[ClipsynError]
) -> None:
    store = FeatureStore.create(tmp_path / "store")
    with pytest.raises(error), store.writer(SAMPLES, "mine") as cell:
        rows(cell)
    assert store.places() == []


def test_other_captions_need_replace_and_leave_those_of_other_backbones_stale(store) -> None:
    others = ["another", *TEXTS[1:4], ["a dog", "a hound"]]
    with pytest.raises(StaleCell) as caught:
        write(store, texts=others)
    assert "captions" in caught.value.fields
    write(store, texts=others, replace=True)
    assert store.captions("toy", "test").texts[0] == "another"
    store.text_embeddings(*PLACE)
    with pytest.raises(StaleCell):
        store.text_embeddings("toy", "test", "other")
    (problem,) = problems(store)
    assert problem.startswith("texts/toy/test/other")


def test_what_is_not_there_is_missing(store: FeatureStore) -> None:
    for place in (("toy", "train"), ("toy", "test", "third")):
        with pytest.raises(MissingCell):
            (store.captions if len(place) == 2 else store.text_embeddings)(*place)


@pytest.mark.parametrize(
    "lost", ["captions/toy/test", "captions/toy/test/text/c.0", "texts/toy/test/mine/zarr.json"]
)
def test_what_is_lost_is_found(store: FeatureStore, lost: str) -> None:
    path = store.path / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = problems(store)
    assert found
    assert all(it.startswith(("captions/", "texts/")) for it in found)


def test_what_was_altered_is_found(store: FeatureStore) -> None:
    chunk = store.at("texts", *PLACE) / "text_embedding" / "c.0.0"
    chunk.write_bytes(bytes([chunk.read_bytes()[0] ^ 1]) + chunk.read_bytes()[1:])
    (problem,) = problems(store)
    assert problem.startswith("texts/toy/test/mine")


def test_they_come_along_with_cells_and_go_with_their_backbone(store: FeatureStore) -> None:
    kinds = {place[0] for place in choose(store.places(), {"backbone": ["mine"]}, "")}
    assert kinds == {"samples", "captions", "texts", "features"}
    gone = choose(store.places(), {"backbone": ["mine"]}, "", sources=False)
    assert {*gone} == {("texts", *PLACE), ("features", "toy", "test", "clean", "mine")}
    remove(store, gone)
    assert problems(store, deep=True) == []


def test_merged_and_published_they_are_the_same(store: FeatureStore, tmp_path: Path) -> None:
    with progress() as quiet:
        plan_merge(tmp_path / "merged", [store.path]).carry_out(quiet)
        plan = Push.plan(store, (tmp_path / "published").as_uri(), {}, replace=False)
        plan.carry_out(quiet)
        plan_merge(tmp_path / "pulled", [tmp_path / "published"]).carry_out(quiet)
    for name in ("merged", "published", "pulled"):
        copy = FeatureStore.open(tmp_path / name)
        assert copy.captions("toy", "test").digest == TABLE.digest
        for ours, theirs in zip(
            store.text_embeddings(*PLACE), copy.text_embeddings(*PLACE), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
        assert [row["captions"] for row in cell_rows(copy)] == [7, 7]
        assert problems(copy, deep=True) == []


def test_other_captions_are_no_merge(store: FeatureStore, tmp_path: Path) -> None:
    other = FeatureStore.create(tmp_path / "other")
    write(other, texts=[*TEXTS[:4], "a hound"])
    with pytest.raises(StaleCell) as caught:
        plan_merge(tmp_path / "merged", [store.path, other.path])
    assert "captions" in caught.value.fields


def test_exported_and_imported_they_are_the_same(store: FeatureStore, tmp_path: Path) -> None:
    """Also where the store has the images in another order."""
    with progress() as quiet:
        export(store, tmp_path / "export", store.keys(), "npz", quiet)
    turned = FeatureStore.create(tmp_path / "turned")
    samples = SampleTable.of("toy", "test", SAMPLES.ids[::-1])
    with turned.writer(samples, "third") as cell:
        cell.embeddings(unit(5))
    import_files(turned.path, [tmp_path / "export"], ImportSettings())
    table = turned.captions("toy", "test")
    assert (table.texts, table.images.tolist()) == (TABLE.texts, [4, 4, 3, 1, 1, 1, 0])
    np.testing.assert_array_equal(
        turned.text_embeddings(*PLACE)[0], store.text_embeddings(*PLACE)[0]
    )
    assert problems(turned, deep=True) == []
    file = tmp_path / "export" / "texts" / "toy" / "test" / "mine.npz"
    with np.load(file) as held:
        arrays = {name: held[name] for name in held.files}
    np.savez(file, **{**arrays, "images": np.array(["im9"] * 7)})
    with pytest.raises(DatasetError):
        import_files(tmp_path / "new", [tmp_path / "export"], ImportSettings())
