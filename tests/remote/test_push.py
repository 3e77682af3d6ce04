"""Push to a folder: what is sent, what is refused, and what readers of the folder find."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import zarr

from clipsyn.errors import DamagedStore, StaleCell, StoreError, UsageError
from clipsyn.names import Location
from clipsyn.remote import push as pushing
from clipsyn.remote.push import Push
from clipsyn.store import arrays
from clipsyn.store.features import FeatureStore
from tests.kills import flip, problems
from tests.remote.copying import push
from tests.remote.publish import PROBE, objects_of, part_of, read_groups

CELL = {"backbone": ["fake/one"], "perturbation": ["clean"], "split": ["test"]}
FEATURES = "features/toy/test/clean/fake--one"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "published"


def index_of(place: Path) -> dict[tuple[str, ...], dict[str, Any]]:
    groups = read_groups(lambda path: (place / path).read_bytes())
    return {tuple(group["place"]): group for group in groups}


def folder_of(place: Path, path: str = FEATURES) -> Path:
    (folder,) = (place / path).iterdir()
    return folder


def published_files(place: Path) -> dict[str, bytes]:
    """All that is there, but locks."""
    files = (file for file in place.rglob("*") if file.is_file() and ".wip" not in file.parts)
    return {str(file.relative_to(place)): file.read_bytes() for file in files}


def test_layout_is_as_documented(tiny_store: FeatureStore, place: Path) -> None:
    push(tiny_store, place)
    found = published_files(place)
    marker = tiny_store.tree.marker(tiny_store.path)
    index = json.loads(gzip.decompress(found["index.json.gz"]))
    assert index == {"format": "3.0", "store": marker, "datasets": ["toy"]}
    part = json.loads(gzip.decompress(found[part_of("toy")]))
    assert [tuple(group["place"]) for group in part["groups"]] == sorted(index_of(place))
    expected = {PROBE, "index.json.gz", part_of("toy")}
    for each in tiny_store.places():
        folder = tiny_store.at(*each)
        path = str(folder.relative_to(tiny_store.path))
        entry = index_of(place)[each]
        there = f"{path}/{entry['manifest'][:16]}/"
        manifest = found[f"{there}zarr.json"]
        assert hashlib.sha256(manifest).hexdigest() == entry["manifest"]
        files = [file for file in folder.rglob("*") if file.is_file()]
        sizes = {str(file.relative_to(folder)): file.stat().st_size for file in files}
        listed = json.loads(manifest)["attributes"]["published"]["files"]
        assert {name: size for name, (size, _) in listed.items()} == sizes
        assert entry["bytes"] == sum(sizes.values())
        stored = tiny_store.group(folder)
        assert entry["fingerprint"] == stored["fingerprint"]
        assert entry["facts"] == stored.facts
        opened = zarr.open_group(place / there, mode="r")  # one object an array, which is a shard
        assert {**opened.attrs, **stored.attributes} == dict(opened.attrs)
        expected |= {f"{there}zarr.json"}
        for name in stored.arrays:
            values = stored.read(name)
            np.testing.assert_array_equal(opened[name][...], values)
            assert pl.Series(opened[name][...]).to_list() == values.tolist()
            if name != "valid" or not values.all():
                expected |= {f"{there}{name}/{'.'.join(['c', *'0' * values.ndim])}"}
    assert set(found) == expected


def test_index_and_manifests_come_after_what_they_name(tiny_store, place, monkeypatch):
    """At every moment all files of each manifest, and all manifests of the index, are there."""
    written: list[str] = []
    original = pushing.Remote.put

    def put(self: Any, path: str, data: bytes) -> None:
        original(self, path, data)
        written.append(path)
        assert not (place / "index.json.gz").exists()
        for manifest in place.glob("*/*/**/zarr.json"):
            names = objects_of(manifest.read_bytes())
            assert all((manifest.parent / name).exists() for name in names)

    monkeypatch.setattr(pushing.Remote, "put", put)
    push(tiny_store, place)
    assert len(written) == len(published_files(place)) - 3
    assert all((place / group["place"][0]).exists() for group in index_of(place).values())


def test_a_second_store_adds_to_it_and_what_is_there_stays(tiny_store, place, tmp_path, fakes):
    """Its samples and its cell of the same name differ in provenance alone."""
    push(tiny_store, place, CELL)
    before = published_files(place)
    second = fakes.fill(tmp_path / "second", [fakes.Encoder(), fakes.Encoder("fake/three")])
    pushed = push(second, place)
    assert pushed.there == 4
    after = published_files(place)
    assert {name for name in before if after[name] != before[name]} == {part_of("toy")}
    backbones = {names[4] for names in index_of(place) if names[0] == "features"}
    assert backbones == {"fake/one", "fake/three"}


# What is not sent


@pytest.fixture
def other(tmp_path: Path, fakes: Any) -> FeatureStore:
    """A store in which a backbone of a known name has other weights."""
    return fakes.fill(tmp_path / "other", [fakes.Encoder(weights="other")])


def test_other_content_is_refused_with_the_field(tiny_store, other, place):
    push(tiny_store, place)
    before = published_files(place)
    with pytest.raises(StaleCell) as caught:
        push(other, place)
    assert caught.value.fields == ("identity",)
    assert published_files(place) == before


def test_replaced_content_makes_way(tiny_store, other, place):
    push(tiny_store, place)
    before = index_of(place)
    pushed = push(other, place, replace=True)
    assert len(pushed.groups) == len(other.places())
    after = index_of(place)
    changed = {names for names in before if before[names] != after[names]}
    assert {names[0] for names in changed} == {"classes", "features", "logits"}
    assert set(after) == set(before)
    named = {f"{group['manifest'][:16]}/zarr.json" for group in after.values()}
    found = {name for name in published_files(place) if name.endswith("zarr.json")}
    assert {"/".join(name.split("/")[-2:]) for name in found} > named  # what made way stays
    theirs = FeatureStore.open(place).group(Location.of(place.as_uri()) / FEATURES)
    assert theirs["fingerprint"] == other.group(other.path / FEATURES)["fingerprint"]


def test_an_index_that_nobody_would_read_is_refused_before_anything_is_sent(
    tiny_store, place, monkeypatch
):
    monkeypatch.setattr("clipsyn.remote.index.MOST_INDEX", 500)
    with pytest.raises(StoreError):
        push(tiny_store, place)
    assert set(published_files(place)) == {PROBE}


# What is damaged


def lose(file: Path) -> None:
    file.unlink()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("who", "damaging"),
    [
        ("same", (lose, "zarr.json")),
        ("same", (flip, "image_embedding/c.0.0")),
        ("other", (cut, "image_embedding/c.0.0")),
    ],
)
def test_replacing_mends_what_was_damaged(tiny_store, place, fakes, who, damaging):
    """Also from a store whose cell is the same, but was made at another time."""
    push(tiny_store, place, CELL)
    before = published_files(place)
    harm, name = damaging
    harm(folder_of(place) / name)
    another = fakes.fill(place.parent / "second", [fakes.Encoder()])
    store = tiny_store if who == "same" else another
    push(store, place, CELL, replace=True)
    if who == "same":
        assert published_files(place) == before
    there = FeatureStore.open(place)
    assert problems(there) == []
    assert push(store, place, CELL).groups == []


def test_a_flipped_bit_is_not_published(tiny_store: FeatureStore, place: Path) -> None:
    chunk = tiny_store.path / FEATURES / "image_embedding" / "c.1.0"
    flip(chunk)
    with pytest.raises(DamagedStore, match="does not match its checksum"):
        push(tiny_store, place)
    assert not (place / "index.json.gz").exists()


def test_a_chunk_that_no_reader_takes_is_not_published(tiny_store, place, monkeypatch):
    monkeypatch.setattr(arrays, "_LARGEST", 16)
    with pytest.raises(DamagedStore, match="a chunk of"):
        push(tiny_store, place)
    assert not (place / "index.json.gz").exists()


def test_a_store_of_which_a_part_is_lost_is_not_published(tiny_store, place):
    (tiny_store.path / FEATURES / "zarr.json").unlink()
    with pytest.raises(DamagedStore, match="is missing"):
        push(tiny_store, place)
    assert not place.exists()


def test_a_group_replaced_while_it_is_sent_is_not_published(tiny_store, place, monkeypatch):
    """Its manifest was made; then an array gets other values, as a corrected label does."""
    monkeypatch.setattr("clipsyn.remote.manifest._INLINE", 0)
    original = pushing.Remote.put

    def put(self: Any, path: str, data: bytes) -> None:
        if path.startswith(FEATURES):
            values = tiny_store.path / FEATURES / "image_embedding" / "c.0.0"
            values.write_bytes(bytes(len(values.read_bytes())))
        original(self, path, data)

    monkeypatch.setattr(pushing.Remote, "put", put)
    with pytest.raises(StoreError, match="was replaced while it was read"):
        push(tiny_store, place, CELL)
    assert not (place / "index.json.gz").exists()
    assert not list(place.glob(f"{FEATURES}/*/zarr.json"))


# Where it cannot be sent


@pytest.mark.parametrize("url", ["http://lab.org/clip", "https://user:secret@lab.org/clip?key=1"])
def test_http_is_for_readers(tiny_store: FeatureStore, url: str) -> None:
    with pytest.raises(UsageError, match="can only be read") as caught:
        Push.plan(tiny_store, url, {}, replace=False)
    assert "secret" not in str(caught.value)
    assert "key" not in str(caught.value)


def test_a_local_store_is_no_destination(tiny_store, other, fakes):
    before = fakes.contents(other.path)
    with pytest.raises(UsageError, match="`clipsyn pull`"):
        Push.plan(tiny_store, str(other.path), {}, replace=False)
    assert fakes.contents(other.path) == before


# Interrupted


def test_what_was_sent_is_found_again(tiny_store, place, monkeypatch):
    first: set[str] = set()
    sent: list[str] = []
    original: Callable[..., None] = pushing.Remote.put

    def put(self: Any, path: str, data: bytes) -> None:
        if len(sent) == 20 and not first:
            raise KeyboardInterrupt
        sent.append(path)
        original(self, path, data)

    monkeypatch.setattr(pushing.Remote, "put", put)
    with pytest.raises(KeyboardInterrupt):
        push(tiny_store, place)
    first |= set(sent)
    sent.clear()
    assert not (place / "index.json.gz").exists()
    push(tiny_store, place)
    data = [path for path in sent if not path.endswith("zarr.json")]  # these say: in use
    assert len(data) == len(set(data))
    assert not set(data) & first
    files = set(published_files(place)) - {PROBE, "index.json.gz", part_of("toy")}
    assert files == first | set(sent)
