"""A published store is read like the one it was made of, and less of it travels."""

from __future__ import annotations

import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from clipsyn.errors import DamagedStore, StaleCell, StoreError, UnknownName
from clipsyn.exchange.provenance import card
from clipsyn.store.features import FeatureStore
from clipsyn.store.inventory import cell_rows
from clipsyn.store.samples import SampleTable
from clipsyn.store.select import select
from tests.kills import problems
from tests.remote.copying import pull, push
from tests.remote.publish import published, republish
from tests.remote.server import Server

ONE = "features/toy/test/clean/fake--one"
LISTS = ["index.json.gz", "index/toy/groups.json.gz"]


@pytest.fixture
def folder(tiny_store: FeatureStore, tmp_path: Path) -> Path:
    return published(tiny_store.path, tmp_path / "published")


@pytest.fixture
def server(folder, serve) -> Server:
    return serve(folder)


def only(folder: Path, name: str) -> Path:
    """The folder with the files of a group."""
    (there,) = (folder / name).iterdir()
    return there


def test_pools_are_those_of_the_store(tiny_store: FeatureStore, server: Server) -> None:
    there = FeatureStore.open(server.url)
    assert there.keys() == tiny_store.keys()
    for split in ("train", "test"):
        ours, theirs = tiny_store.pool("toy", split), there.pool("toy", split)
        np.testing.assert_array_equal(ours.logits, theirs.logits)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert ours.ids == theirs.ids
        assert ours.origin == theirs.origin
        assert ours.provenance == theirs.provenance
        for name, embeddings in ours.embeddings.items():
            np.testing.assert_array_equal(embeddings, theirs.embeddings[name])


def with_imports(store: FeatureStore) -> None:
    """Add a cell of each kind that can be made elsewhere."""
    samples, rows = store.samples("toy", "test"), np.arange(20) % 3
    with store.writer(samples, "embedded") as cell:
        cell.classes("simple", np.eye(3, 4), scale=100.0)
        cell.embeddings(np.eye(4)[rows])
    with store.writer(samples, "without text") as cell:
        cell.embeddings(np.eye(4)[rows])
    with store.writer(samples, "predicted") as cell:
        cell.predictions(rows, valid=rows > 0)
    for prompts in ("simple", "others"):
        with store.writer(samples, "prompted", prompts=prompts) as cell:
            cell.logits(np.eye(3)[rows])


def test_cells_that_were_made_elsewhere_are_listed(tiny_store, tmp_path):
    with_imports(tiny_store)
    there = FeatureStore.open(published(tiny_store.path, tmp_path / "published"))
    rows, ours = cell_rows(there), cell_rows(tiny_store)
    assert {row["imported"] for row in rows} == {None, "embeddings", "logits", "predictions"}
    for row in (*rows, *ours):
        row.pop("bytes")
    assert rows == ours
    keys = tiny_store.keys()
    for cell, other in zip(map(tiny_store.cell, keys), map(there.cell, keys), strict=True):
        for said in ("imported_as", "has_logits", "has_embeddings", "has_confidences"):
            assert getattr(cell, said) == getattr(other, said)
        assert cell.prompt_sets() == other.prompt_sets()
        assert cell.facts["images"] == other.facts["images"]


def test_a_list_of_cells_is_one_request(tiny_store: FeatureStore, server: Server) -> None:
    rows = cell_rows(FeatureStore.open(server.url))
    assert server.paths() == LISTS
    ours = cell_rows(tiny_store)
    for row in (*rows, *ours):
        assert row.pop("bytes") > 0  # those of folders between are not published
    assert rows == ours


def test_who_reads_one_dataset_fetches_its_part(tiny_store, tmp_path, serve):
    samples = SampleTable.of("other", "test", ["a", "b"], [0, 1], ["x", "y"])
    with tiny_store.writer(samples, "mine") as cell:
        cell.predictions([0, 1])
    server = serve(published(tiny_store.path, tmp_path / "published"))
    store = FeatureStore.open(server.url)
    assert [key.backbone for key in select(store, dataset="o*", split="test")] == ["mine"]
    pull(server.url, tmp_path / "pulled", {"dataset": ["other"]})
    lists = {path for path in server.paths() if "index" in path}
    assert lists == {"index.json.gz", "index/other/groups.json.gz"}
    with pytest.raises(UnknownName, match="did you mean toy"):
        select(store, dataset=["other", "toi"])


def test_what_is_small_travels_with_the_manifest(tiny_store, tmp_path, serve):
    push(tiny_store, tmp_path / "pushed")
    server = serve(tmp_path / "pushed")
    pool = FeatureStore.open(server.url).pool("toy", "test")
    np.testing.assert_array_equal(pool.logits, tiny_store.pool("toy", "test").logits)
    assert len(set(server.paths())) == len(server.paths())
    assert {path.rpartition("/")[2] for path in server.paths()[2:]} == {"zarr.json"}


@pytest.fixture
def sharded(tiny_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to which the store was pushed, of whose arrays each shard has up to two chunks."""
    monkeypatch.setattr("clipsyn.remote.manifest._INLINE", 0)
    monkeypatch.setattr("clipsyn.remote.manifest._SHARD", 2 * 7 * 12 * 2 + 8)
    push(tiny_store, tmp_path / "sharded")
    return tmp_path / "sharded"


@pytest.mark.parametrize("ranges", [True, False])
def test_shards_are_read_by_their_parts(tiny_store, sharded, serve, ranges):
    server = serve(sharded)
    server.ranges = ranges
    store = FeatureStore.open(server.url)
    key = store.keys(split=["test"], perturbation=["clean"])[0]
    part = store.cell(key).embeddings(range(8, 12))  # in the second of three chunks
    np.testing.assert_array_equal(part, tiny_store.cell(key).embeddings(range(8, 12)))
    asked = [headers.get("range") for headers in server.headers if "range" in headers]
    assert asked == ["bytes=172-343"]  # 7 x 12 numbers of two bytes, and a checksum
    ours, theirs = tiny_store.pool("toy", "test"), store.pool("toy", "test")
    np.testing.assert_array_equal(ours.logits, theirs.logits)
    assert ours.ids == theirs.ids
    assert problems(store) == []
    opened = zarr.open_group(only(sharded, ONE), mode="r")["image_embedding"]
    np.testing.assert_array_equal(opened[...], tiny_store.cell(key).embeddings())
    assert opened.shards == (14, 12)


def test_columns_of_a_selection_are_asked_for_at_once(tiny_store, sharded, serve):
    server = serve(sharded)
    server.fail("404", "fake--two/.*/valid/c.0")  # who reads it asks again
    store = FeatureStore.open(server.url)
    keys = select(store, split=["test"])
    server.requests.clear()
    for key in keys:
        ours, theirs = tiny_store.cell(key), store.cell(key)
        np.testing.assert_array_equal(ours.predictions("simple"), theirs.predictions("simple"))
        np.testing.assert_array_equal(ours.valid(), theirs.valid())
    assert {path.rpartition("/")[2] for path in server.paths()} <= {"c.0"}
    assert len(server.paths()) == 1


@pytest.mark.parametrize("name", ["c.0.0", "c.1.0"])
@pytest.mark.parametrize("at", [0, -1])
def test_verify_reads_all_of_a_shard(sharded: Path, name: str, at: int) -> None:
    """Its index, too, which other tools read."""
    file = only(sharded, ONE) / "image_embedding" / name
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)
    (found,) = problems(FeatureStore.open(sharded))
    assert f"image_embedding/{name} has other bytes" in found


def test_a_card_looks_at_one_cell_of_a_backbone(tiny_store: FeatureStore, server: Server) -> None:
    assert card(FeatureStore.open(server.url), "here") == card(tiny_store, "here")
    assert server.paths()
    assert not [path for path in server.paths() if "jpeg-3" in path]


def test_a_second_run_reads_the_index_alone(server: Server) -> None:
    first = FeatureStore.open(server.url).pool("toy", "test")
    assert len(server.paths()) == len(set(server.paths()))  # nothing twice
    server.requests.clear()
    server.statuses.clear()
    again = FeatureStore.open(server.url).pool("toy", "test")
    assert server.paths() == LISTS
    assert server.statuses == [304, 304]
    np.testing.assert_array_equal(first.logits, again.logits)


def test_only_chunks_with_the_rows_asked_for_travel(server: Server) -> None:
    store = FeatureStore.open(server.url)
    key = store.keys(split=["test"], perturbation=["clean"])[0]
    store.cell(key).embeddings(range(8, 12))  # 20 images in chunks of 7: the second
    chunks = [path for path in server.paths() if "/c." in path]
    names = [chunk.rpartition("/")[2] for chunk in chunks]
    assert names == ["c.1.0"]
    assert not any("fake--two" in path for path in server.paths())


def test_a_folder_is_opened_by_path_and_by_url(folder: Path, tiny_store: FeatureStore) -> None:
    expected = tiny_store.pool("toy", "test").logits
    for place in (folder, str(folder), folder.as_uri()):
        store = FeatureStore.open(place)
        assert str(store.path) == folder.as_uri()
        np.testing.assert_array_equal(store.pool("toy", "test").logits, expected)
    local = FeatureStore.open(tiny_store.path.as_uri())  # a store, and none that was published
    assert local.path == tiny_store.path


def test_a_store_travels_to_workers(server: Server) -> None:
    store = FeatureStore.open(server.url.replace("//", "//me:secret@"))
    there = pickle.loads(pickle.dumps(store))
    assert there.path.url == store.path.url
    assert there.keys() == store.keys()


def test_nothing_can_be_written(tiny_store: FeatureStore, server: Server) -> None:
    store = FeatureStore.open(server.url)
    samples = tiny_store.samples("toy", "test")
    for write in (
        lambda: FeatureStore.create(server.url),
        lambda: store.writer(samples, "mine"),
        lambda: store.annotate(samples),
        lambda: store.samples_draft(samples),
    ):
        with pytest.raises(StoreError, match=f"{server.url} is only read: `clipsyn pull"):
            write()


# What goes wrong on the way


@pytest.mark.parametrize("fault", ["503", "cut", "altered"])
def test_a_fault_now_and_then_is_mended(tiny_store, server, fault):
    seen: set[str] = set()

    def every_file_once(path: str) -> str | None:
        first = path not in seen and path != "index.json.gz"
        seen.add(path)
        return fault if first and "image_embedding/c." in path else None

    server.fault = every_file_once
    pool = FeatureStore.open(server.url).pool("toy", "test")
    np.testing.assert_array_equal(pool.logits, tiny_store.pool("toy", "test").logits)


def test_a_file_that_is_another_is_refused_and_not_kept(server: Server, cache: Path) -> None:
    server.fault = lambda path: "altered" if path.endswith("image_embedding/c.1.0") else None
    store = FeatureStore.open(server.url)
    key = store.keys(split=["test"])[0]
    with pytest.raises(DamagedStore, match="other bytes than its manifest lists") as error:
        store.cell(key).embeddings()
    assert f"{server.url}/{'features'}" in str(error.value)
    assert str(cache) not in str(error.value)
    assert not list(cache.rglob("image_embedding/c.1.0"))
    server.fault = lambda path: None
    assert np.isfinite(store.cell(key).embeddings()).all()


def test_a_file_that_is_lost_is_damage(folder: Path, server: Server) -> None:
    (only(folder, ONE) / "image_embedding" / "c.0.0").unlink()
    store = FeatureStore.open(server.url)
    with pytest.raises(DamagedStore, match=r"image_embedding/c\.0\.0 is missing"):
        store.cell(store.keys(split=["test"], perturbation=["clean"])[0]).embeddings()


def test_a_group_replaced_meanwhile_is_said(folder: Path, server: Server) -> None:
    store = FeatureStore.open(server.url)
    (key, *_) = store.keys(split=["test"], perturbation=["clean"])
    republish(folder, ONE)
    with pytest.raises(StaleCell, match="was replaced while it was read: run the same command"):
        store.cell(key).embeddings()
    again = FeatureStore.open(server.url)
    assert len(again.cell(again.keys(split=["test"], perturbation=["clean"])[0]).embeddings()) == 20


def test_what_was_damaged_in_the_cache_is_brought_again(tiny_store, server, cache):
    expected = FeatureStore.open(server.url).pool("toy", "test").logits
    for file in cache.glob("groups/*/*/c.*"):
        file.write_bytes(bytes(file.stat().st_size))
    for file in cache.glob("groups/*/zarr.json"):
        file.write_bytes(b"")
    again = FeatureStore.open(server.url).pool("toy", "test")
    np.testing.assert_array_equal(again.logits, expected)


def test_a_cache_that_is_emptied_meanwhile_is_filled_again(server: Server, cache: Path) -> None:
    store = FeatureStore.open(server.url)
    expected = store.pool("toy", "test").logits
    shutil.rmtree(cache)
    np.testing.assert_array_equal(store.pool("toy", "test").logits, expected)


# verify


@pytest.mark.parametrize("make", [published, lambda store, to: push(FeatureStore.open(store), to)])
def test_verify_reads_what_lies_at_the_url(tiny_store, tmp_path, serve, make):
    make(tiny_store.path, folder := tmp_path / "made")
    server = serve(folder)
    assert problems(FeatureStore.open(server.url)) == []
    assert len(set(server.paths())) == len(server.paths())
    chunk = only(folder, ONE) / "image_embedding" / "c.0.0"  # which the cache has
    chunk.write_bytes(bytes(chunk.stat().st_size))
    found = problems(FeatureStore.open(server.url))
    assert len(found) == 1
    assert "image_embedding/c.0.0 has other bytes than its manifest lists" in found[0]


def test_verify_finds_what_was_published_damaged(server: Server, folder: Path) -> None:
    chunk = only(folder, ONE) / "image_embedding" / "c.0.0"
    chunk.write_bytes(bytes(chunk.stat().st_size))
    republish(folder, ONE)  # the manifest says the damaged bytes
    found = problems(FeatureStore.open(server.url))
    assert len(found) == 1
    assert re.search(f"block 0.*{server.url}/{ONE}/image_embedding/c.0.0 .* checksum", found[0])
