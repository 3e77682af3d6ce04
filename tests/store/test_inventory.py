"""`clipsyn.store.inventory`: what a store holds, what is damaged, what `rm` removes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from clipsyn.cli import main
from clipsyn.errors import MissingCell
from clipsyn.store import arrays
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import KINDS
from clipsyn.store.inventory import (
    cell_rows,
    damage,
    describe,
    describe_group,
    group_digest,
    remove,
)
from clipsyn.store.select import choose
from tests.kills import flip, problems

CELL = "features/toy/test/clean/fake--one"


def shorten(path: Path) -> None:
    metadata = json.loads(path.read_bytes())
    metadata["shape"][0] -= 1
    path.write_text(json.dumps(metadata))


DAMAGES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "flipped bit": (f"{CELL}/image_embedding/c.1.0", flip, "block 1 (rows 7-13)"),
    "cut chunk": (f"{CELL}/valid/c.2", lambda p: p.write_bytes(b"1"), "block 2 (rows 14-19)"),
    "missing chunk": (f"{CELL}/valid/c.0", Path.unlink, "c.0 is missing"),
    "missing array": (f"{CELL}/valid/zarr.json", Path.unlink, "valid/zarr.json is missing"),
    "array cut short": (
        f"{CELL}/image_embedding/zarr.json",
        shorten,
        "it describes another array",
    ),
    "logits": (
        "logits/toy/train/clean/fake--two/simple/logit/c.1.0",
        flip,
        "logits/toy/train/clean/fake--two/simple: block 1 (rows 6-10)",
    ),
    "predictions": (
        "predictions/toy/train/jpeg-3/fake--two/simple/prediction/c.1",
        flip,
        "predictions/toy/train/jpeg-3/fake--two/simple: block 1 (rows 6-10)",
    ),
    "ids": ("samples/toy/test/sample_id/c.0", flip, "samples/toy/test: block 0"),
}


def test_a_sound_store_has_no_problems(tiny_store: FeatureStore) -> None:
    assert problems(tiny_store) == []
    result = CliRunner().invoke(main, ["verify", str(tiny_store.path)])
    assert result.exit_code == 0
    # 2 samples, 2 classes, 8 features, and of 4 logits, of 4 predictions alone
    assert "20 groups" in result.stdout


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_is_found_and_named(tiny_store: FeatureStore, name: str) -> None:
    file, spoil, words = DAMAGES[name]
    spoil(tiny_store.path / file)
    found = problems(tiny_store)
    assert any(words in problem for problem in found), found
    where = "/".join(file.split("/")[: 1 + len(KINDS[file.split("/")[0]])])
    assert all(problem.startswith(f"{where}: ") for problem in found)
    result = CliRunner().invoke(main, ["verify", str(tiny_store.path)])
    assert result.exit_code == 4
    assert "Traceback" not in result.stderr
    assert words in result.stdout


def test_swapped_ids_with_sound_checksums_are_found(tiny_store: FeatureStore, fakes: Any) -> None:
    path = tiny_store.at("samples", "toy", "train") / "sample_id"
    group = tiny_store.group(path.parent)
    layout = group.arrays["sample_id"]
    ids = arrays.read(path, layout, layout.blocks.range(0))
    arrays.write_block(path, layout, 0, ids[::-1])
    listed = arrays.listing(path, layout).json()
    fakes.rewrite(path.parent, arrays={**group["arrays"], "sample_id": listed})
    assert "samples/toy/train: ids and content hashes do not match the digest" in problems(
        tiny_store
    )


def test_rows_say_what_is_in_each_cell(tiny_store: FeatureStore) -> None:
    rows = cell_rows(tiny_store)
    assert len(rows) == 8
    row = rows[0]
    assert (row["dataset"], row["split"], row["images"], row["embed"]) == ("toy", "test", 20, 12)
    assert row["prompts"] == ["simple"]
    assert row["bad"] == 0
    cell = tiny_store.path / CELL
    logits = tiny_store.path / CELL.replace("features", "logits") / "simple"
    files = [f for folder in (cell, logits) for f in folder.rglob("*") if f.is_file()]
    assert row["bytes"] == sum(file.stat().st_size for file in files)


def test_the_store_describes_itself(tiny_store: FeatureStore) -> None:
    found = describe(tiny_store)
    assert set(found["backbones"]) == {"fake/one", "fake/two"}
    assert found["backbones"]["fake/one"]["source"] == "local-dir:checkpoints/fake/one"
    assert found["backbones"]["fake/one"]["precision"] == "fp32"
    train = found["datasets"]["toy/train"]
    assert (train["images"], train["classes"], train["licence"]) == (11, 3, "CC0")
    group = describe_group(tiny_store, CELL)
    assert group["arrays"]["image_embedding"] == ["float16", 20, 12]
    with pytest.raises(MissingCell, match="has no group features/x"):
        describe_group(tiny_store, "features/x")


def test_what_is_removed_is_gone_and_the_rest_stays(tiny_store: FeatureStore, fakes: Any) -> None:
    before = fakes.contents(tiny_store.path)
    chosen = choose(tiny_store.places(), {"backbone": ["fake/one"]}, "it", sources=False)
    remove(tiny_store, chosen)
    keys = tiny_store.keys()
    assert {key.backbone for key in keys} == {"fake/two"}
    assert problems(tiny_store) == []
    assert fakes.draft_folders(tiny_store.path) == []
    after = fakes.contents(tiny_store.path)
    assert not any("fake--one/" in name for name in after if not name.endswith("one/zarr.json"))
    assert {name for name in before if "fake--one" not in name} <= set(after)
    assert all(after[name] == before[name] for name in after)
    sources = [fakes.Source(), fakes.Source(split="train", count=11)]
    fakes.fill(tiny_store.path, sources=sources, perturbations=["clean", "jpeg:3"])
    assert fakes.contents(tiny_store.path) == before


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_what_changes_while_it_is_verified_is_not_damaged(tiny_store, monkeypatch, how):
    group, path = ("features", "toy", "test", "clean", "fake/one"), tiny_store.path / CELL
    look = arrays.damage

    def look_and_lose(array: Path, listed: Any) -> Any:
        if not (other := tiny_store.path / "other").exists():
            shutil.copytree(path, other)
            shutil.rmtree(path)
            if how == "replaced":
                shutil.copytree(other, path)
                shutil.rmtree(path / "valid")
        return look(array, listed)

    assert list(damage(tiny_store, group)) == []
    monkeypatch.setattr(arrays, "damage", look_and_lose)
    assert list(damage(tiny_store, group)) == []
    monkeypatch.undo()
    if how == "replaced":  # and damaged: the next look says so
        assert list(damage(tiny_store, group)) != []


def test_digests_follow_what_a_reader_sees(tiny_store: FeatureStore, fakes: Any) -> None:
    def digests() -> dict[Path, str]:
        paths = (tiny_store.at(*place) for place in tiny_store.places())
        return {path: group_digest(tiny_store, path) for path in paths}

    before = digests()
    assert len(set(before.values())) == len(before)
    cell = tiny_store.path / CELL
    fakes.rewrite(cell, provenance={"encoder": {"source": "elsewhere"}})
    assert digests() == before
    table = tiny_store.samples("toy", "train")
    tiny_store.annotate(replace(table, labels=table.labels[::-1]))
    changed = {path for path, digest in digests().items() if digest != before[path]}
    assert changed == {tiny_store.at("samples", "toy", "train")}
