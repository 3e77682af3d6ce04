"""Cells made elsewhere in a store, as readers, inventory, verify and rm see them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from clipsyn.errors import MissingCell, StaleCell
from clipsyn.exchange import ImportSettings
from clipsyn.exchange.importing import import_files
from clipsyn.names import FeatureKey
from clipsyn.store import arrays
from clipsyn.store.features import FeatureStore
from clipsyn.store.given import content_digest
from clipsyn.store.inventory import cell_rows, damage
from clipsyn.store.select import groups


def key(backbone: str, perturbation: str = "clean") -> FeatureKey:
    return FeatureKey("toy", "test", perturbation, backbone)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Three kinds of imports; `guess` under fog-3 and fog-10 too, two images each, one a blank."""
    ids = ["a", "b", "c", "d"]
    numbers = {f"n{n}": [float(n), 1.0, 2.0, 3.0] for n in range(3)}
    frames = {
        "guess": pl.DataFrame(
            {"id": ids, "prediction": ["0", "1", "2", ""], "label": [0, 1, 2, 0]}
        ),
        "score": pl.DataFrame({"id": ids, **numbers}),
        "embed": pl.DataFrame({"id": ids, **numbers}),
        "foggy": pl.DataFrame(
            {"id": ids, "severity": [3, 10, 3, 10], "prediction": ["0", "1", "", "2"]}
        ),
    }
    options = {
        "embed": {"kind": "embeddings"},
        "score": {"kind": "logits"},
        "foggy": {"backbone": "guess", "perturbation": "fog"},
    }
    for name, frame in frames.items():
        frame.write_csv(tmp_path / f"{name}.csv")
        wanted = ImportSettings("toy", **options.get(name, {}))
        import_files(tmp_path / "store", [tmp_path / f"{name}.csv"], wanted)
    return FeatureStore.open(tmp_path / "store")


VALUES = {"b": np.arange(6, dtype=np.int32).reshape(2, 3), "a": np.ones(2, np.bool_)}


def test_content_digest_names_types_shapes_and_numbers_count() -> None:
    b, a = VALUES["b"], VALUES["a"]
    others = [
        {"b": b},
        {"c": b, "a": a},
        {"b": b.reshape(3, 2), "a": a},
        {"b": b.view(np.uint32), "a": a},
        {"b": b + 1, "a": a},
    ]
    digests = {content_digest(values) for values in [VALUES, *others]}
    assert len(digests) == 6


def test_reading_each_kind_has_its_arrays(store: FeatureStore) -> None:
    np.testing.assert_array_equal(store.cell(key("guess")).predictions("x"), [0, 1, 2, 65535])
    np.testing.assert_array_equal(store.cell(key("score")).predictions("x"), [2, 0, 0, 0])
    np.testing.assert_array_equal(store.cell(key("score")).logits("x", range(1)), [[0, 1, 2]])
    np.testing.assert_allclose(
        store.cell(key("embed")).embeddings()[0], np.array([0, 1, 2]) / 5**0.5, atol=1e-3
    )
    assert store.cell(key("guess")).valid().tolist() == [True, True, True, False]


def test_reading_what_is_not_there_is_named(store: FeatureStore) -> None:
    for read, name, lacks in (
        (lambda k: store.cell(k).logits("x"), "guess", "predictions, without logits"),
        (lambda k: store.cell(k).embeddings(), "guess", "predictions, without embeddings"),
        (lambda k: store.cell(k).predictions("x"), "embed", "embeddings, without predictions"),
        (lambda k: store.cell(k).embeddings(), "score", "logits, without embeddings"),
    ):
        with pytest.raises(MissingCell, match=rf"{name} was imported as {lacks}"):
            read(key(name))


def test_reading_other_class_names_make_it_stale(store: FeatureStore) -> None:
    store.annotate(replace(store.samples("toy", "test"), class_names=("x", "y", "z")))
    with pytest.raises(StaleCell):
        store.cell(key("guess")).predictions("x")
    assert len(store.cell(key("embed")).embeddings()) == 4


def test_reading_groups_leave_embeddings_out_and_go_by_severity(store, caplog):
    with caplog.at_level("INFO", "clipsyn"):
        found = groups(store, store.keys(), None)
    assert [(where, [k.backbone for k in keys]) for where, keys in found] == [
        (("clean", "imported"), ["guess", "score"]),
        (("fog-3", "imported"), ["guess"]),
        (("fog-10", "imported"), ["guess"]),
    ]
    assert "left out: embed, of which there are embeddings alone" in caplog.text


def test_inventory_rows_count_the_images_of_the_condition(store: FeatureStore) -> None:
    fields = ("perturbation", "backbone", "imported", "images", "bad", "embed")
    assert [tuple(row[name] for name in fields) for row in cell_rows(store)] == [
        ("clean", "embed", "embeddings", 4, 0, 3),
        ("clean", "guess", "predictions", 4, 1, None),
        ("clean", "score", "logits", 4, 0, None),
        ("fog-3", "guess", "predictions", 2, 1, None),
        ("fog-10", "guess", "predictions", 2, 0, None),
    ]


def test_inventory_altered_numbers_are_found(store: FeatureStore, fakes: Any) -> None:
    """With checksums that fit, in the file and in the group: by the digest of the content."""
    path = store.cell(key("guess")).path
    layout = store.group(path).arrays["prediction"]
    values = np.array([1, 1, 2, 65535], np.uint16)
    arrays.write_block(path / "prediction", layout, 0, values)
    place = ("predictions", "toy", "test", "clean", "guess", "imported")
    (problem,) = damage(store, place)
    assert "prediction/c.0 is whole, but another than its group lists" in problem
    attributes = arrays.read_attributes(path)
    there = arrays.listing(path / "prediction", layout).json()
    fakes.rewrite(path, arrays=attributes["arrays"] | {"prediction": there})
    where = "predictions/toy/test/clean/guess/imported"
    content = f"{where}: its arrays do not match the digest of its content"
    assert list(damage(store, place, deep=True)) == [content]
