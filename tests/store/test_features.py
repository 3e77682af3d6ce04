"""`clipsyn.store.features`: cells found by name, trusted by fingerprint."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsyn.cli.make import extract
from clipsyn.errors import (
    MissingCell,
    StaleCell,
    StoreError,
    UnsupportedFormat,
)
from clipsyn.names import FeatureKey
from clipsyn.store import arrays
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import is_vacant
from clipsyn.store.inventory import collect, left_over

# Opening and making


def test_a_store_is_made_once_and_opened_after(tmp_path: Path) -> None:
    made = FeatureStore.create(tmp_path / "new" / "store", 5)
    again = FeatureStore.create(tmp_path / "new" / "store", 99)
    assert (made.chunk_rows, again.chunk_rows) == (5, 5)
    assert made.tree.marker(made.path)["store_id"] == again.tree.marker(again.path)["store_id"]
    assert FeatureStore.open(str(made.path)).keys() == []


@pytest.mark.parametrize("place", ["folder", "folder/file"])
def test_a_store_is_not_opened_or_made_among_other_things(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("mine")
    for use in (FeatureStore.open, FeatureStore.create):
        with pytest.raises(StoreError):
            use(tmp_path / place)
    assert not (tmp_path / "folder" / "clipsyn.json").exists()


def test_a_store_is_made_in_what_a_killed_run_left(tmp_path: Path) -> None:
    (tmp_path / ".wip").mkdir()
    (tmp_path / ".wip" / "clipsyn.json.0a0b.partial").write_bytes(b"{")
    assert is_vacant(tmp_path)
    store = FeatureStore.create(tmp_path)
    assert not is_vacant(tmp_path)
    assert collect(store.path, left_over(store.path)) == 1
    assert not list(tmp_path.rglob("*.partial"))


def test_a_newer_format_is_refused_and_a_newer_minor_one_read(tmp_path: Path) -> None:
    marker = FeatureStore.create(tmp_path).tree.marker(FeatureStore.create(tmp_path).path)
    (tmp_path / "clipsyn.json").write_text(json.dumps(marker | {"format": "2.7", "more": True}))
    FeatureStore.open(tmp_path)
    (tmp_path / "clipsyn.json").write_text(json.dumps(marker | {"format": "20.1"}))
    with pytest.raises(UnsupportedFormat, match="pip install --upgrade"):
        FeatureStore.open(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"format": "1.0"}'])
def test_a_damaged_marker_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "clipsyn.json").write_text(content)
    with pytest.raises(UnsupportedFormat, match=r"clipsyn\.json cannot be read"):
        FeatureStore.open(tmp_path)


# Finding


def test_keys_are_sorted_and_filtered(tiny_store: FeatureStore) -> None:
    keys = tiny_store.keys()
    assert keys == sorted(keys)
    assert len(keys) == len(set(keys)) == 8
    assert tiny_store.keys(split=["train"], perturbation={"clean"}) == [
        FeatureKey("toy", "train", "clean", "fake/one"),
        FeatureKey("toy", "train", "clean", "fake/two"),
    ]
    assert len(tiny_store.keys(backbone=["fake/one", "absent"])) == 4
    assert tiny_store.keys(dataset=[]) == []
    assert tiny_store.keys(dataset=["absent"]) == []


# Missing


def command_in(message: str) -> list[str]:
    """The `clipsyn extract` line of an error, checked to be one that the command line takes."""
    (line,) = re.findall(r"`(clipsyn extract [^`]*)`", message)
    program, verb, *arguments = shlex.split(line)
    assert (program, verb) == ("clipsyn", "extract")
    context = extract.make_context("extract", list(arguments))
    assert context.params["datasets"]
    return arguments


def test_a_missing_cell_says_which_command_makes_it(tiny_store: FeatureStore, fakes: Any) -> None:
    key = FeatureKey("toy", "test", "jpeg-5", "fake/one")
    with pytest.raises(MissingCell, match="has no toy/test · jpeg-5 · fake/one") as caught:
        tiny_store.cell(key).embeddings()
    arguments = command_in(str(caught.value))
    assert arguments[0] == str(tiny_store.path)
    assert "fake/one=local-dir:checkpoints/fake/one" in arguments
    assert arguments[-1] == "jpeg-5"
    cell = tiny_store.cell(key)
    for read in (cell.valid, cell.fingerprint):
        with pytest.raises(MissingCell):
            read()
    for derive in (cell.logits, cell.predictions):
        with pytest.raises(MissingCell):
            derive("simple")


def test_a_shipped_backbone_goes_by_its_name_wherever_it_lies(tmp_path: Path, fakes: Any) -> None:
    store = fakes.fill(tmp_path / "store", [fakes.Encoder("tiny-RN/zoo")])
    with pytest.raises(MissingCell) as caught:
        store.samples("toy", "val")
    assert command_in(str(caught.value))[1:3] == ["--backbones", "tiny-RN/zoo"]


# Stale


def test_a_cell_of_other_samples_is_stale(tiny_store: FeatureStore, fakes: Any) -> None:
    path = tiny_store.at("samples", "toy", "test")
    identity = arrays.read_attributes(path)["identity"]
    fakes.rewrite(path, identity=identity | {"samples": "0" * 64})
    cell = tiny_store.cell(fakes.key)
    for read in (cell.embeddings, cell.valid, cell.fingerprint):
        with pytest.raises(StaleCell, match=r"\(samples\)") as caught:
            read()
        assert caught.value.fields == ("samples",)
        assert command_in(str(caught.value))[-1] == "--replace"


@pytest.mark.parametrize("name", ["features", "classes"])
def test_logits_of_other_features_or_classes_are_stale(tiny_store, fakes, name):
    path = {
        "features": tiny_store.at("features", *fakes.key.names),
        "classes": tiny_store.at("classes", "toy", "simple", "fake/one"),
    }[name]
    identity = arrays.read_attributes(path)["identity"]
    fakes.rewrite(path, identity=identity | {"more": "of it"})
    for read in (tiny_store.cell(fakes.key).logits, tiny_store.cell(fakes.key).predictions):
        with pytest.raises(StaleCell, match=rf"\({name}\)") as caught:
            read("simple")
        assert caught.value.fields == (name,)
        command_in(str(caught.value))


def test_embeddings_of_other_weights_are_never_multiplied(tiny_store, fakes):
    """A store without logits, in which one split alone was made again with other weights."""
    shutil.rmtree(tiny_store.path / "logits")
    encoder = fakes.Encoder(weights="others")
    fakes.fill(tiny_store.path, [encoder], [fakes.Source("toy", "train", 11)], replace=True)
    shutil.rmtree(tiny_store.path / "logits")
    new, old = FeatureKey("toy", "train", "clean", "fake/one"), fakes.key
    for read in ("logits", "predictions"):
        assert len(getattr(tiny_store.cell(new), read)("simple")) == 11
        with pytest.raises(StaleCell) as it:
            getattr(tiny_store.cell(old), read)("simple")
        assert it.value.fields == ("backbone.weights",)
        assert command_in(str(it.value))[-1] == "--replace"


@pytest.mark.parametrize("stored", [True, False])
def test_logits_under_other_class_names_are_stale(tiny_store, fakes, stored):
    if not stored:
        shutil.rmtree(tiny_store.path / "logits")
    table = tiny_store.samples("toy", "test")
    tiny_store.annotate(replace(table, class_names=("dog", "cat", "crème brûlée")))
    for read in (tiny_store.cell(fakes.key).logits, tiny_store.cell(fakes.key).predictions):
        with pytest.raises(StaleCell, match=r"\(class_names\)") as caught:
            read("simple")
        assert caught.value.fields == ("class_names",)


# Reading and correcting


def test_logits_are_scaled_cosines(tiny_store: FeatureStore) -> None:
    keys = tiny_store.keys()
    for key in keys:
        classes, scale = tiny_store.class_embeddings("toy", "simple", key.backbone)
        images = tiny_store.cell(key).embeddings().astype(np.float64)
        logits = tiny_store.cell(key).logits("simple")
        assert logits.dtype == np.float32
        assert np.allclose(logits, scale * images @ classes.T.astype(np.float64), atol=1e-4)
        assert (tiny_store.cell(key).predictions("simple") == logits.argmax(axis=1)).all()


def test_derived_logits_have_the_bits_of_stored_ones(tiny_store: FeatureStore) -> None:
    keys = tiny_store.keys()
    stored = {
        key: (tiny_store.cell(key).logits("simple"), tiny_store.cell(key).predictions("simple"))
        for key in keys
    }
    shutil.rmtree(tiny_store.path / "logits")
    for key, (logits, predictions) in stored.items():
        assert tiny_store.cell(key).logits("simple").tobytes() == logits.tobytes()
        assert tiny_store.cell(key).predictions("simple").tobytes() == predictions.tobytes()


def test_labels_are_corrected_in_place(tiny_store: FeatureStore, fakes: Any) -> None:
    table = tiny_store.samples("toy", "test")
    labels = table.labels.copy()
    labels[[0, 19]] = 2
    before = fakes.contents(tiny_store.path)
    tiny_store.annotate(replace(table, labels=labels, metric="mean_per_class_recall"))
    corrected = tiny_store.samples("toy", "test")
    assert corrected.labels.tolist() == labels.tolist()
    assert corrected.metric == "mean_per_class_recall"
    assert corrected.digest == table.digest
    after = fakes.contents(tiny_store.path)
    changed = {name for name in after if after[name] != before.get(name)}
    folder = "samples/toy/test"
    assert changed == {f"{folder}/zarr.json", f"{folder}/label/c.0"}
    tiny_store.cell(fakes.key).embeddings()
