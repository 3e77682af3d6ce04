"""The index and the manifests of a published store, and what is refused of hostile ones."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from clipsyn.errors import DamagedStore, StoreError, UnsupportedFormat
from clipsyn.remote import index as indexes
from clipsyn.remote.index import MOST_INDEX, Entry, Index, dump_part, parse_part
from clipsyn.remote.manifest import Manifest
from clipsyn.store.features import FeatureStore

SHOWN = "s3://lab/clip"
MARKER = {"format": "2.0", "store_id": "ab" * 16, "chunk_rows": 8}
CELL = ("features", "pets", "test", "clean", "ViT-B-32/openai")


def entry(place: tuple[str, ...] = CELL, **changes: Any) -> Entry:
    facts = {"images": 20, "bad": 1, "embed": 12}
    made = {"manifest": "0" * 64, "bytes": 5, "fingerprint": "1" * 64, "content": "2" * 64}
    return Entry(place, **{**made, "facts": facts, **changes})


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def root(**changes: Any) -> bytes:
    """An index as another program writes it."""
    content = {"format": "3.0", "store": MARKER, "datasets": ["pets"], **changes}
    return packed(json.dumps(content).encode())


def document(*groups: dict[str, Any], **changes: Any) -> bytes:
    """A part of it."""
    return packed(json.dumps({"format": "3.0", "groups": groups, **changes}).encode())


def parsed(data: bytes) -> list[Entry]:
    return list(parse_part(data, SHOWN, "pets").values())


def group(**changes: Any) -> dict[str, Any]:
    digests = {"manifest": "0" * 64, "fingerprint": "1" * 64, "content": "2" * 64}
    return {"place": list(CELL), "bytes": 5, **digests, **changes}


def test_index_is_written_as_documented_and_read_again() -> None:
    entries = [entry(), entry(("samples", "pets", "test"), facts={})]
    written = json.loads(gzip.decompress(dump_part(reversed(entries))))
    assert list(written) == ["format", "groups"]
    assert [one["place"][0] for one in written["groups"]] == ["features", "samples"]
    facts = {"images": 20, "bad": 1, "embed": 12}
    assert written["groups"][0] == group(facts=facts)
    assert parsed(dump_part(entries)) == entries
    assert json.loads(gzip.decompress(Index(MARKER, ["pets"]).dumps())) == json.loads(
        gzip.decompress(root())
    )
    assert Index.parse(root(), SHOWN) == Index(MARKER, ["pets"])


@pytest.mark.parametrize("name", ["..", "../../etc/passwd", "/etc", "a\0b", ".wip", "zarr.json"])
def test_no_name_leads_out_of_the_store(name: str) -> None:
    (one,) = parsed(document(group(place=[*CELL[:-1], name])))
    parts = one.folder.split("/")
    assert len(parts) == 6
    assert not any(part.startswith(".") or "\0" in part or part == "zarr.json" for part in parts)


WRONG = [b"", b"\xff\xfe", b'{"format": "3.0"}', packed(b"[]"), packed(b"[" * 100_000)]  # no gzip


@pytest.mark.parametrize(
    "data",
    [
        *WRONG,
        document()[:-9],
        document(group(), group()),
        document(group(place=[])),
        document(group(place=["depths", "pets"])),
        document(group(place=["samples", "cars", "test"])),
        document(group(place=[*CELL[:-1], ""])),
        document(group(place=[*CELL[:-1], 7])),
        document(group(place=[*CELL[:-1], "é" * 200])),
        document(group(manifest="../" * 8)),
        document(group(manifest="A" * 64)),
        document(group(bytes=-1)),
        document(group(bytes=10**30)),
        document(group(facts={"images": "many"})),
        document(group(facts={"imported": 7})),
    ],
)
def test_a_damaged_part_is_refused_in_one_sentence(data: bytes) -> None:
    with pytest.raises(DamagedStore) as caught:
        parsed(data)
    assert str(caught.value).startswith(f"{SHOWN}/index/pets/groups.json.gz is damaged: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        *WRONG,
        root(store=7),
        root(store={"format": "2.0", "chunk_rows": 0}),
        root(store={"format": "2.0", "chunk_rows": 1 << 40}),
        root(datasets=["pets", 7]),
        root(datasets=[""]),
        root(datasets=["é" * 200]),
    ],
)
def test_a_damaged_index_is_refused_in_one_sentence(data: bytes) -> None:
    with pytest.raises(DamagedStore) as caught:
        Index.parse(data, SHOWN)
    assert str(caught.value).startswith(f"{SHOWN}/index.json.gz is damaged: ")
    assert "\n" not in str(caught.value)


def test_a_bomb_takes_no_more_memory_than_an_index_may_have() -> None:
    bomb = packed(bytes(4 * MOST_INDEX))
    tracemalloc.start()
    with pytest.raises(DamagedStore):
        parsed(bomb)
    assert tracemalloc.get_traced_memory()[1] < 3 * MOST_INDEX
    tracemalloc.stop()


def test_no_index_is_written_that_readers_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [entry(), entry(("samples", "pets", "test"))]
    size = len(gzip.decompress(dump_part(entries)))
    monkeypatch.setattr(indexes, "MOST_INDEX", size)
    assert parsed(dump_part(entries)) == entries
    monkeypatch.setattr(indexes, "MOST_INDEX", size - 1)
    with pytest.raises(StoreError):
        dump_part(entries)


@pytest.mark.parametrize("data", [root(format="4.0"), root(store={**MARKER, "format": "3.1"})])
def test_another_major_format_is_refused(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat):
        Index.parse(data, SHOWN)
    with pytest.raises(UnsupportedFormat):
        parsed(document(format="4.0"))


# Manifests


def slow_manifest(folder: Path) -> dict[str, list[Any]]:
    """Size and digest of each file, by another way."""
    found = {}
    for file in folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            name = str(file.relative_to(folder))
            found[name] = [len(content), hashlib.sha256(content).hexdigest()]
    return found


def test_manifest_names_every_file_of_a_group(tiny_store: FeatureStore) -> None:
    groups = tiny_store.places()
    assert {place[0] for place in groups} == {
        "samples",
        "classes",
        "features",
        "logits",
        "predictions",
    }
    for place in groups:
        path = tiny_store.at(*place)
        manifest = Manifest.of_group(tiny_store.group(path))
        written = json.loads(manifest.dumps())["attributes"]["published"]
        assert written["files"] == slow_manifest(path)
        inline = {name: base64.b64decode(text) for name, text in written["inline"].items()}
        assert inline == {name: (path / name).read_bytes() for name in written["files"]}
        assert manifest.size == tiny_store.tree.size(path)


@pytest.mark.parametrize("special", ["link to a file", "dangling", "pipe"])
def test_nothing_but_regular_files_is_listed(tiny_store, tmp_path, special) -> None:
    """A store of a stranger would publish files of the machine."""
    (tmp_path / "key").write_text("secret")
    group = tiny_store.group(tiny_store.path / "features/toy/test/clean/fake--one")
    (chunk := group.path / "valid" / "c.0").unlink()
    if special == "pipe":
        os.mkfifo(chunk)
    else:
        chunk.symlink_to(tmp_path / {"link to a file": "key", "dangling": "none"}[special])
    with pytest.raises(DamagedStore):
        Manifest.of_group(group)


def manifest_of(files: Any, **more: Any) -> tuple[bytes, Entry]:
    """A manifest as another program writes it, and an entry that names it."""
    inline = {"inline": {"zarr.json": base64.b64encode(ATTRIBUTES).decode()}, **more}
    data = json.dumps({"attributes": {"published": {"files": files, **inline}}}).encode()
    try:
        size = sum(stamp[0] for stamp in files.values())
    except (AttributeError, TypeError):
        size = 0
    return data, entry(manifest=hashlib.sha256(data).hexdigest(), bytes=size)


ATTRIBUTES = b"[1, 2]\n"
GOOD = [7, hashlib.sha256(ATTRIBUTES).hexdigest()]


@pytest.mark.parametrize(
    "name",
    [
        "../zarr.json",
        "a/../../b",
        "/etc/passwd",
        "a//b",
        ".hidden",
        "a\\b",
        "C:a",
        "a\0b",
        "x" * 256,
        "\udcff",
        "zarr.json/b",
        "a/" * 40 + "b",
    ],
)
def test_manifest_with_a_name_that_no_group_has_is_refused(name: str) -> None:
    data, named = manifest_of({"zarr.json": GOOD, name: GOOD})
    with pytest.raises(DamagedStore) as caught:
        Manifest.parse(data, SHOWN, named)
    assert str(caught.value).startswith(f"{SHOWN}/{named.folder}/zarr.json is damaged: ")


@pytest.mark.parametrize(
    "files",
    [
        [],
        {"valid/c.0": GOOD},
        {"zarr.json": [7]},
        {"zarr.json": [-7, "a" * 64]},
        {"zarr.json": [2**31, "a" * 64]},
        {"zarr.json": [7, "a" * 64, 7]},
        {"zarr.json": [7, "a"]},
        {"zarr.json": GOOD, "valid/zarr.json": GOOD},  # nowhere
    ],
)
def test_manifest_that_cannot_be_is_refused(files: Any) -> None:
    data, named = manifest_of(files)
    with pytest.raises(DamagedStore):
        Manifest.parse(data, SHOWN, named)


@pytest.mark.parametrize("inline", [[], {}, {"zarr.json": 7}, {"zarr.json": "e30="}, {"c.0": ""}])
def test_content_that_is_not_that_of_the_file_is_refused(inline: Any) -> None:
    data, named = manifest_of({"zarr.json": GOOD})
    assert Manifest.parse(data, SHOWN, named).inline == {"zarr.json": ATTRIBUTES}
    data, named = manifest_of({"zarr.json": GOOD}, inline=inline)
    with pytest.raises(DamagedStore):
        Manifest.parse(data, SHOWN, named)


@pytest.mark.parametrize("shards", [[], {"a": 0}, {"a": 1.5}, {"a": "2"}, {"a": 1 << 40}])
def test_shards_that_cannot_be_are_refused(shards: Any) -> None:
    data, named = manifest_of({"zarr.json": GOOD, "a/c.0": GOOD}, shards=shards)
    with pytest.raises(DamagedStore):
        Manifest.parse(data, SHOWN, named)


def test_neighbours_in_a_shard_are_asked_for_at_once() -> None:
    files = {f"a/c.{number}.0": (1 << 20, "") for number in range(12)} | {"b/c.0": (5, "")}
    manifest = Manifest(files, {}, {"a": 10})
    assert sorted(manifest.objects) == ["a/c.0.0", "a/c.1.0", "b/c.0"]
    assert manifest.places["a/c.9.0"] == ("a/c.0.0", 9 << 20)
    assert manifest.places["a/c.11.0"] == ("a/c.1.0", 1 << 20)
    wanted = [f"a/c.{number}.0" for number in (0, 1, 3, 4, 5, 6, 7, 10)]
    assert [[name.split(".")[1] for name in span] for span in manifest.spans(wanted)] == [
        ["0", "1"],
        ["3", "4", "5", "6"],
        ["7"],
        ["10"],
    ]


@pytest.mark.parametrize(("most", "away"), [(20 * 24 + 12, 0), (20 * 24 + 11, 3)])
def test_large_arrays_stay_out_of_the_manifest(tiny_store, monkeypatch, most, away):
    """One of 20 rows of 12 float16, in three chunks of 7 rows, each with four bytes of checksum."""
    monkeypatch.setattr("clipsyn.remote.manifest._INLINE", most + 24)  # the last is padded
    group = tiny_store.group(tiny_store.path / "features/toy/test/clean/fake--one")
    manifest = Manifest.of_group(group)
    large = {f"image_embedding/c.{number}.0" for number in range(away)}
    assert manifest.files.keys() - manifest.inline.keys() == large


@pytest.mark.parametrize(
    ("more", "size", "problem"),
    [(b" ", 7, "not the one that the index names"), (b"", 8, "7 bytes, not 8")],
)
def test_manifest_of_another_entry_is_refused(more: bytes, size: int, problem: str) -> None:
    data, named = manifest_of({"zarr.json": GOOD})
    with pytest.raises(DamagedStore, match=problem):
        Manifest.parse(data + more, SHOWN, entry(manifest=named.manifest, bytes=size))
