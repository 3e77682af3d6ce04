"""`clipsyn.store.inventory`: names what is lost, unreadable, or inconsistent with the rest."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from clipsyn.cli import main
from clipsyn.errors import DamagedStore, StoreError
from clipsyn.store import arrays, files
from clipsyn.store.features import FeatureStore
from tests.kills import changed, problems, readings

CELL = "features/toy/test/clean/fake--one"
LOGITS = "logits/toy/test/clean/fake--one"


def run(command: str, store: FeatureStore, *options: str) -> Result:
    return CliRunner().invoke(main, [*command.split(), str(store.path), *options])


@pytest.fixture(autouse=True)
def _nobody_corrects_labels_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = SimpleNamespace(sleep=lambda _: None, time_ns=time.time_ns)
    monkeypatch.setattr("clipsyn.store.features.time", at_once)


LOST = {
    "metadata of features": (f"{CELL}/zarr.json", CELL),
    "features": (CELL, f"{LOGITS}/simple"),
    "metadata of logits": (f"{LOGITS}/simple/zarr.json", f"{LOGITS}/simple"),
    "class embeddings": ("classes/toy/simple/fake--one", f"{LOGITS}/simple"),
    "metadata of classes": (
        "classes/toy/simple/fake--one/zarr.json",
        "classes/toy/simple/fake--one",
    ),
    "metadata of samples": ("samples/toy/test/zarr.json", "samples/toy/test"),
    "samples": ("samples/toy/test", CELL),
}


@pytest.mark.parametrize("name", LOST)
def test_what_is_lost_is_damage_and_no_absence(tiny_store: FeatureStore, name: str) -> None:
    lost, named = LOST[name]
    path = tiny_store.path / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for command in ("zeroshot", "verify", "ls --status"):
        result = run(command, tiny_store)
        assert result.exit_code == 4, (command, result.output)
        assert isinstance(result.exception, SystemExit)
        if command != "zeroshot":
            assert f"{named}: " in result.stdout.replace("damaged: ", "")
    assert run("rm", tiny_store, "-d", "toy", "-y").exit_code == 0
    assert run("verify", tiny_store).exit_code == 0


def test_a_group_inside_another_is_named(tiny_store: FeatureStore) -> None:
    source = tiny_store.path / CELL
    source.rename(source.parent / "fake--two" / "fake--one")
    found = run("verify", tiny_store).stdout
    assert "fake--two: folder fake--one is no part of it" in found


def test_replace_takes_the_place_of_what_is_left(tiny_store: FeatureStore, fakes: Any) -> None:
    (tiny_store.path / CELL / "zarr.json").unlink()
    with pytest.raises(DamagedStore) as caught:
        fakes.fill(tiny_store.path)
    assert "replace=True" in caught.value.__notes__[0]
    fakes.fill(tiny_store.path, replace=True)
    assert run("verify", tiny_store).exit_code == 0


def test_a_group_of_other_weights_is_found(tiny_store, tmp_path, fakes):
    """A group of other weights is put back, whole as it is."""
    other = fakes.fill(tmp_path / "other", [fakes.Encoder(weights="other")])
    classes = "classes/toy/simple/fake--one"
    shutil.rmtree(tiny_store.path / classes)
    shutil.copytree(other.path / classes, tiny_store.path / classes)
    assert run("zeroshot", tiny_store).exit_code == 4
    assert run("verify", tiny_store).exit_code == 4


# Deep


def rewrite(store: FeatureStore, fakes: Any, name: str, values: np.ndarray) -> None:
    """Other numbers in the first block of logits, with all checksums that they need."""
    path = store.path / LOGITS / "simple"
    layouts = store.group(path).arrays
    arrays.write_block(path / name, layouts[name], 0, values)
    listed = {each: arrays.listing(path / each, layouts[each]).json() for each in layouts}
    fakes.rewrite(path, arrays=listed)


def deep(store: FeatureStore) -> list[str]:
    assert problems(store) == []
    return problems(store, deep=True)


def test_deep_computes_logits_and_predictions_again(tiny_store: FeatureStore, fakes: Any) -> None:
    assert deep(tiny_store) == []
    block = range(7)
    logits = tiny_store.cell(fakes.key).logits("simple", block)
    predictions = tiny_store.cell(fakes.key).predictions("simple")[:7]
    rewrite(tiny_store, fakes, "prediction", (predictions + 1) % 3)
    where = f"{LOGITS}/simple: block 0 (rows 0-6): "
    assert deep(tiny_store) == [f"{where}predictions are not the largest logits"]
    rewrite(tiny_store, fakes, "prediction", predictions)
    rewrite(tiny_store, fakes, "logit", np.nextafter(logits, np.float32(np.inf)))
    assert deep(tiny_store) == []  # another order of adding
    rewrite(tiny_store, fakes, "logit", logits + np.float32(0.01))
    assert deep(tiny_store) == [f"{where}logits do not follow from the stored embeddings"]
    assert run("verify", tiny_store, "--deep").exit_code == 4


# Permissions


def test_what_may_not_be_read_is_no_empty_folder(tiny_store, monkeypatch):
    """As any user: the operating system's answer is made up."""
    locked, look = str(tiny_store.path / "features" / "toy" / "test"), os.scandir

    def scandir(path: Any) -> Any:
        if str(path) == locked:
            raise PermissionError(13, "Permission denied", locked)
        return look(path)

    monkeypatch.setattr(files.os, "scandir", scandir)
    with pytest.raises(PermissionError):
        tiny_store.keys()
    assert run("verify", tiny_store).exit_code == 1


# 120 random damages


def spoil(store: Path, random: np.random.Generator) -> str:
    """One accident: what it was."""
    parts = [path for path in sorted(store.rglob("*")) if ".wip" not in path.parts]
    kind = random.choice(["flip", "cut", "delete", "swap", "rename"])
    if kind in ("flip", "cut"):
        parts = [path for path in parts if path.is_file()]
    path = parts[random.integers(len(parts))]
    if kind == "flip":
        data = bytearray(path.read_bytes())
        data[random.integers(len(data))] ^= 1 << random.integers(8)
        path.write_bytes(data)
    elif kind == "cut":
        os.truncate(path, random.integers(path.stat().st_size))
    elif kind == "delete":
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    else:
        alike = [
            other
            for other in parts
            if other.is_dir() == path.is_dir() and len(other.parts) == len(path.parts)
        ]
        other = alike[random.integers(len(alike))]
        if kind == "rename":
            other = other.with_name(f"{other.name}-2")
        aside = store / "aside"
        path.rename(aside)
        if other.exists():
            other.rename(path)
        aside.rename(other)
        return f"{kind} {path.relative_to(store)} {other.relative_to(store)}"
    return f"{kind} {path.relative_to(store)}"


@pytest.mark.parametrize("seed", range(4))
def test_thirty_accidents_give_no_wrong_number_and_are_found(tiny_store, tmp_path, seed):
    sound = readings(tiny_store)
    assert not any(isinstance(answer, StoreError) for answer in sound.values())
    random = np.random.default_rng(seed)
    for number in range(30):
        path = tmp_path / f"spoilt-{number}"
        shutil.copytree(tiny_store.path, path)
        what = spoil(path, random)
        try:
            store = FeatureStore.open(path)
        except StoreError:
            continue
        if changed(sound, readings(store)):
            assert run("verify", store).exit_code == 4, what
        shutil.rmtree(path)
