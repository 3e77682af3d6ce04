"""`clipsyn.store.groups`: a group is read only where it belongs and as it was published."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsyn.errors import DamagedStore, StaleCell
from clipsyn.names import fingerprint
from clipsyn.store import arrays
from clipsyn.store.features import FeatureStore
from clipsyn.store.groups import sealed
from tests.kills import changed, problems, readings


def swap(store: FeatureStore, one: str, other: str) -> None:
    """Swap two folders; where one is missing, the other takes its place."""
    first, second, aside = store.path / one, store.path / other, store.path / "aside"
    for source, target in ((first, aside), (second, first), (aside, second)):
        if source.exists():
            source.rename(target)


_CELLS = ("features", "logits", "predictions")  # of tiny_store: one or the other of the last two
PLACES = {
    "perturbations": [(f"{kind}/toy/test/clean", f"{kind}/toy/test/jpeg-3") for kind in _CELLS],
    "splits": [(f"{kind}/toy/test", f"{kind}/toy/train") for kind in (*_CELLS, "samples")],
}


@pytest.mark.parametrize("name", PLACES)
def test_what_stands_elsewhere_is_refused(tiny_store: FeatureStore, name: str) -> None:
    sound = readings(tiny_store)
    for one, other in PLACES[name]:
        swap(tiny_store, one, other)
    store = FeatureStore.open(tiny_store.path)
    assert changed(sound, readings(store))
    misplaced = [problem for problem in problems(store) if "is what belongs in" in problem]
    assert misplaced
    for problem in misplaced:
        where = problem.split(" in ", 1)[0]
        assert problem.startswith(f"{where} in {store.path} is what belongs in ")
        assert problem.count(where) == 1


def test_backbones_swapped_in_everything_are_refused(tmp_path: Path, fakes: Any) -> None:
    """Weights from a folder have no name in their identity: the place says it."""
    store = fakes.fill(tmp_path / "store", [fakes.Encoder("fake/one"), fakes.Encoder("fake/two")])
    swap(store, "classes/toy/simple/fake--one", "classes/toy/simple/fake--two")
    for kind in ("features", "logits"):
        swap(store, f"{kind}/toy/test/clean/fake--one", f"{kind}/toy/test/clean/fake--two")
    cell = store.cell(fakes.key)
    for read in (cell.embeddings, cell.valid, cell.fingerprint):
        with pytest.raises(DamagedStore, match=r"clean/fake--one in .* belongs in .*fake--two"):
            read()
    with pytest.raises(DamagedStore, match="belongs in"):
        store.class_embeddings("toy", "simple", "fake/one")
    with pytest.raises(DamagedStore, match="belongs in"):
        store.cell(fakes.key).predictions("simple")


def test_a_copy_under_another_name_is_refused(tiny_store: FeatureStore, fakes: Any) -> None:
    cell = tiny_store.at("features", *fakes.key.names)
    shutil.copytree(cell, cell.parent.parent / "jpeg-4" / cell.name)
    with pytest.raises(DamagedStore, match="belongs in features/toy/test/clean/fake--one"):
        tiny_store.cell(replace(fakes.key, perturbation="jpeg-4")).embeddings()


# Attributes


def test_no_bit_of_attributes_is_flipped_unseen(tiny_store: FeatureStore, fakes: Any) -> None:
    """Each answers as before, or says that the store is damaged; never a KeyError."""
    classes = tiny_store.at("classes", "toy", "simple", "fake/one")
    for path in (
        tiny_store.at("samples", "toy", "test"),
        tiny_store.at("features", *fakes.key.names),
        classes,
    ):
        sound = (path / "zarr.json").read_bytes()
        expected = tiny_store.group(path).attributes
        for position in range(sound.index(b"attributes"), len(sound), 7):
            data = bytearray(sound)
            data[position] ^= 1 << (position % 8)
            (path / "zarr.json").write_bytes(data)
            try:
                found = FeatureStore.open(tiny_store.path).group(path).attributes
            except DamagedStore:
                continue
            assert found == expected, (path, position)
        (path / "zarr.json").write_bytes(sound)


def test_another_tool_computes_the_digest(tiny_store: FeatureStore, fakes: Any) -> None:
    """As docs/store.md says: from `zarr.json` and the ends of the chunk files alone."""
    path = tiny_store.at("features", *fakes.key.names)
    attributes = json.loads((path / "zarr.json").read_bytes())["attributes"]
    assert attributes["place"] == ["features", "toy", "test", "clean", "fake/one"]
    chunks = [path / f"image_embedding/c.{block}.0" for block in range(3)]
    ends = [int.from_bytes(chunk.read_bytes()[-4:], "little") for chunk in chunks]
    assert attributes["arrays"]["image_embedding"] == {
        "shape": [20, 12],
        "dtype": "float16",
        "rows": 7,
        "checksums": "".join(f"{end:08x}" for end in ends),
    }
    covered = {key: value for key, value in attributes.items() if key not in ("identity", "digest")}
    assert fingerprint(covered) == attributes["digest"]


def test_what_is_remembered_is_never_old(tiny_store: FeatureStore, fakes: Any) -> None:
    path = tiny_store.at("features", *fakes.key.names)
    for number in range(50):
        attributes = arrays.read_attributes(path)
        arrays.write_attributes(path, sealed({**attributes, "errors": {"im": str(number)}}))
        assert tiny_store.group(path)["errors"] == {"im": str(number)}


# Chunks

CELL = "features/toy/test/clean/fake--one"
CHUNKS = {
    "of two perturbations": (f"{CELL}/image_embedding/c.1.0", CELL.replace("clean", "jpeg-3")),
    "of one array": (f"{CELL}/image_embedding/c.1.0", f"{CELL}/image_embedding/c.0.0"),
    "of logits": (
        "logits/toy/test/clean/fake--one/simple/logit/c.1.0",
        "logits/toy/test/clean/fake--two/simple/logit/c.1.0",
    ),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_swapped_chunks_are_refused_and_named(tiny_store: FeatureStore, name: str) -> None:
    one, other = CHUNKS[name]
    other = other if "/c." in other else other + one.removeprefix(CELL)
    sound = readings(tiny_store)
    swap(tiny_store, one, other)
    store = FeatureStore.open(tiny_store.path)
    found = readings(store)
    assert changed(sound, found)
    assert any(isinstance(answer, DamagedStore) for answer in found.values())
    named = [problem for problem in problems(store) if "another than its group lists" in problem]
    assert {problem.split(":")[0] for problem in named} == {
        str(Path(chunk).parent.parent) for chunk in (one, other)
    }


def test_a_cell_replaced_between_two_reads_is_not_damaged(tiny_store, fakes):
    cell = tiny_store.group(tiny_store.at("features", *fakes.key.names))
    cell.read("valid")
    encoder = fakes.Encoder(weights="others")
    fakes.fill(tiny_store.path, [encoder], [fakes.Source()], replace=True)
    with pytest.raises(StaleCell, match="was replaced while it was read"):
        cell.read("image_embedding")


def test_labels_half_corrected_are_refused_and_mended(tiny_store, monkeypatch):
    table = tiny_store.samples("toy", "test")
    corrected = replace(table, labels=(table.labels + 1) % 3)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(arrays, "write_block", stop)
        with pytest.raises(KeyboardInterrupt):
            tiny_store.annotate(corrected)
    with pytest.raises(DamagedStore, match="another than its group lists"):
        tiny_store.samples("toy", "test")
    tiny_store.annotate(corrected)
    assert np.array_equal(tiny_store.samples("toy", "test").labels, corrected.labels)
    assert problems(tiny_store) == []
