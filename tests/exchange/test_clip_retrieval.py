"""Embeddings as clip-retrieval writes them, and tables with a list in each cell."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from clipsyn.errors import DatasetError
from clipsyn.exchange import ImportSettings
from clipsyn.exchange.importing import import_files
from clipsyn.names import FeatureKey
from clipsyn.store.features import FeatureStore

KEY = FeatureKey("mine", "test", "clean", "ViT")


def unit(rows, width=6):
    values = np.random.default_rng(rows).normal(size=(rows, width))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture
def folder(tmp_path):
    """Twelve parts, as of a large run: part 10 comes after part 9, not after 1."""
    path = tmp_path / "ViT"
    for part in range(12):
        write(path, part, unit(part + 1), [f"{part}/{row}.jpg" for row in range(part + 1)])
    return path


def write(path, part, embeddings, ids, **more):
    for name in ("img_emb", "metadata"):
        (path / name).mkdir(parents=True, exist_ok=True)
    np.save(path / "img_emb" / f"img_emb_{part}.npy", embeddings)
    frame = pl.DataFrame(
        {"image_path": ids, "caption": [f"a photo {name}" for name in ids], **more}
    )
    frame.write_parquet(path / "metadata" / f"metadata_{part:02d}.parquet")


def imported(folder, **settings):
    import_files(folder.parent / "store", [folder], ImportSettings("mine", **settings))
    return FeatureStore.open(folder.parent / "store")


def test_rows_are_found_in_the_order_of_the_parts(folder):
    store = imported(folder)
    expected = np.concatenate([unit(part + 1) for part in range(12)])
    assert (
        store.cell(KEY).embeddings().tobytes() == expected.tobytes()
    )  # float16 of unit norm is kept
    assert store.samples("mine", "test").ids[1] == "1/0.jpg"


def test_labels_and_other_columns_can_be_named(tmp_path):
    write(
        tmp_path / "ViT",
        0,
        unit(3),
        ["a", "b", "c"],
        key=["x", "y", "z"],
        kind=["cat", "dog", "cat"],
    )
    store = imported(tmp_path / "ViT", columns={"id": "key", "label": "kind"})
    table = store.samples("mine", "test")
    assert (table.ids, table.class_names) == (("x", "y", "z"), ("cat", "dog"))
    assert table.labels.tolist() == [0, 1, 0]


def test_what_cannot_be_is_said(folder):
    def refused(**settings):
        with pytest.raises(DatasetError):
            imported(folder, **settings)

    refused(kind="logits")
    refused(columns={"id": "nope"})
    (folder / "img_emb" / "img_emb_11.npy").unlink()
    refused()
    np.save(folder / "img_emb" / "img_emb_11.npy", unit(12, 5))
    refused()
    np.save(folder / "img_emb" / "img_emb_11.npy", unit(12))
    (folder / "metadata" / "metadata_03.parquet").write_bytes(b"noise")
    refused()


@pytest.mark.parametrize("dtype", [pl.Array(pl.Float32, 6), pl.List(pl.Float64)])
def test_a_table_may_have_an_embedding_in_each_cell(tmp_path, dtype):
    rows = unit(4).astype(np.float32)
    values = pl.Series("embedding", [*rows.tolist()[:3], None], dtype=dtype)
    frame = pl.DataFrame({"id": list("abcd"), "embedding": values, "label": [0, 1, 0, 1]})
    frame.write_parquet(tmp_path / "ViT.parquet")
    store = imported(tmp_path / "ViT.parquet")
    assert store.cell(KEY).embeddings()[:3].tobytes() == unit(4)[:3].tobytes()
    assert store.cell(KEY).valid().tolist() == [True, True, True, False]


def test_lists_of_several_lengths_or_columns_are_refused(tmp_path):
    path = tmp_path / "x.parquet"
    pl.DataFrame({"id": ["a", "b"], "embedding": [[1.0], [1.0, 0.0]]}).write_parquet(path)
    with pytest.raises(DatasetError, match="not of one length"):
        imported(path)
    pl.DataFrame({"id": ["a"], "one": [[1.0]], "two": [[1.0]]}).write_parquet(path)
    with pytest.raises(DatasetError, match="several columns of lists"):
        imported(path)
