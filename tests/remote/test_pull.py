"""Pull into a store: what is brought, compared and refused."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipsyn.errors import DamagedStore, StaleCell, StoreError
from clipsyn.store.features import FeatureStore
from clipsyn.store.inventory import damage
from clipsyn.store.merge import plan_merge
from tests.kills import problems
from tests.remote.copying import pull, push
from tests.remote.publish import read_groups, write_groups

CELL = {"backbone": ["fake/one"], "perturbation": ["clean"], "split": ["test"]}
FEATURES = "features/toy/test/clean/fake--one"


@pytest.fixture
def place(tiny_store: FeatureStore, tmp_path: Path) -> Path:
    """A folder in which the tiny store is published."""
    push(tiny_store, tmp_path / "published")
    return tmp_path / "published"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "pulled"


def test_everything_is_brought(tiny_store, place, target, fakes):
    (offer,) = pull(place, target).offers
    assert fakes.unlike(tiny_store.path, target) == []
    assert offer.size == sum(tiny_store.tree.size(tiny_store.at(*it)) for it in tiny_store.places())
    assert list((target / ".wip").iterdir()) == []
    assert problems(target, deep=True) == []


def test_a_selection_is_whole(place: Path, target: Path, fakes: Any) -> None:
    pull(place, target, CELL)
    store = FeatureStore.open(target)
    keys = store.keys()
    assert keys == [fakes.key]
    assert store.pool("toy", "test").backbones == ("fake/one",)
    assert problems(target, deep=True) == []


def test_only_what_is_missing_travels(place, target, serve):
    server = serve(place)
    pull(server.url, target, CELL)
    first = {path for path in server.paths() if "index" not in path}
    server.requests.clear()
    pull(server.url, target)
    assert not first & set(server.paths())
    server.requests.clear()
    assert plan_merge(target, [server.url]).offers[0].take == []
    assert server.paths() == ["index.json.gz", "index/toy/groups.json.gz"]


# Refused


def test_a_place_where_nothing_is_published(tmp_path: Path, target: Path) -> None:
    for place in (tmp_path / "nowhere", (tmp_path / "nowhere").as_uri()):
        with pytest.raises(StoreError):
            pull(place, target)
    assert not target.exists()


def test_other_content_is_refused_with_the_field(place: Path, target: Path, fakes: Any) -> None:
    fakes.fill(target, [fakes.Encoder(weights="other")])
    before = fakes.contents(target)
    with pytest.raises(StaleCell) as caught:
        pull(place, target)
    assert "backbone.weights" in caught.value.fields
    assert fakes.contents(target) == before


@pytest.mark.parametrize("comes", ["extracted", "imported"])
def test_a_name_stands_for_one_cell(tiny_store, tmp_path, fakes, comes):
    """Neither a pull nor a push puts an imported cell beside an extracted one of its name."""
    imports = fakes.fill(tmp_path / "imports", [fakes.Encoder("fake/three")])
    with imports.writer(imports.samples("toy", "test"), "fake/one") as cell:
        cell.predictions(np.zeros(20, np.int32))
    new, old = (tiny_store, imports) if comes == "extracted" else (imports, tiny_store)
    push(new, tmp_path / "new")
    push(old, tmp_path / "old")
    before = fakes.contents(old.path), fakes.contents(tmp_path / "old")
    for moved in (lambda: pull(tmp_path / "new", old.path), lambda: push(new, tmp_path / "old")):
        with pytest.raises(StaleCell) as caught:
            moved()
        assert caught.value.fields == ("kind",)
    assert (fakes.contents(old.path), fakes.contents(tmp_path / "old")) == before


def test_an_altered_file_never_becomes_visible(tiny_store, tmp_path, target, serve, monkeypatch):
    monkeypatch.setattr("clipsyn.remote.manifest._INLINE", 0)
    push(tiny_store, tmp_path / "large")
    server = serve(tmp_path / "large")
    server.fail("altered", "features/.*/image_embedding/c", times=100)
    with pytest.raises(DamagedStore):
        pull(server.url, target)
    server.fault = lambda path: None
    assert all(it[0] in ("samples", "classes", "features") for it in groups_of(target))
    for group in groups_of(target):
        assert list(damage(FeatureStore.open(target), group)) == []
    pull(server.url, target)
    assert problems(target, deep=True) == []


def groups_of(path: Path) -> list[Any]:
    return FeatureStore.open(path).places()


def hostile(place: Path, name: str, data: bytes) -> None:
    """Put a file into the manifest, and the manifest into the index, as a publisher may."""
    (folder,) = (place / FEATURES).iterdir()
    old = (folder / "zarr.json").read_bytes()
    manifest = json.loads(old)
    listed = manifest["attributes"]["published"]
    listed["files"][name] = [len(data), hashlib.sha256(data).hexdigest()]
    listed["inline"][name] = base64.b64encode(data).decode()
    (folder / "zarr.json").write_bytes(written := json.dumps(manifest).encode())
    new = hashlib.sha256(written).hexdigest()
    folder.rename(folder.with_name(new[:16]))
    groups = read_groups(lambda path: (place / path).read_bytes())
    for group in groups:
        if group["manifest"] == hashlib.sha256(old).hexdigest():
            group["manifest"] = new
            group["bytes"] = sum(size for size, _ in listed["files"].values())
    write_groups(place, groups)


@pytest.mark.parametrize("name", ["../../../../../escaped", "/tmp/escaped", ".bashrc"])
def test_no_file_is_written_outside_the_store(place: Path, target: Path, name: str) -> None:
    hostile(place, name, b"rm -rf")
    with pytest.raises(DamagedStore, match=r"zarr\.json is damaged"):
        pull(place, target)
    assert not list(target.parent.rglob("*escaped*"))
    assert not (target / FEATURES).exists()


def test_a_group_that_belongs_elsewhere_never_becomes_visible(tiny_store, place, target):
    other = tiny_store.path / "features/toy/test/clean/fake--two"
    hostile(place, "zarr.json", (other / "zarr.json").read_bytes())
    with pytest.raises(DamagedStore, match="belongs in"):
        pull(place, target)
    assert not (target / FEATURES).exists()


# Interrupted, and several at once


def test_several_pull_the_same_at_once(place, target, tiny_store, fakes):
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: pull(place, target), range(4)))
    assert fakes.unlike(tiny_store.path, target) == []
    shutil.rmtree(target / ".wip")
    assert problems(target, deep=True) == []
