"""Routers of strangers: every place of the description with hostile values, and hostile files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from clipsyn.errors import ClipsynError, DamagedStore
from clipsyn.names import fingerprint
from clipsyn.router.artefact import load_router, save_router
from clipsyn.router.fit import fit_router
from clipsyn.router.predict import predict_store
from clipsyn.store.features import FeatureStore

DESCRIPTION, ARRAYS = "router.json", "router.safetensors"
GONE = object()
VALUES = (
    *(GONE, None, True, -1, 10**400, "", "\ud800", [None], {"x": 1}),
    *({"float": 10**400}, {"tuple": [{}]}),
)


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value; of a list, the first item alone."""
    if path:
        yield path
    inside = content.items() if isinstance(content, dict) else ()
    for key, value in enumerate(content[:1]) if isinstance(content, list) else inside:
        yield from places(value, (*path, key))


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    copy = deepcopy(content)
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    if value is GONE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return copy


def write(folder: Path, content: dict[str, Any]) -> None:
    """With the fingerprint that a forger would give it."""
    content.pop("fingerprint", None)
    try:
        content["fingerprint"] = fingerprint(content)
    except ClipsynError:  # a lone surrogate: no fingerprint of it is possible
        content["fingerprint"] = ""
    (folder / DESCRIPTION).write_text(json.dumps(content))


@pytest.fixture(scope="module")
def whole(_filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, store = tmp_path_factory.mktemp("whole") / "router", FeatureStore.open(_filled)
    router = fit_router(store, "toy", "super-learner", head="tip-adapter")
    save_router(path, router.ensemble, store.pool("toy", "train"), head=router.head)
    return path


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "router")


def test_any_change_of_the_description_works_or_is_an_error_of_ours(tiny_store, folder):
    content = json.loads((folder / DESCRIPTION).read_text())
    for number, path in enumerate(places(content)):
        for value in VALUES[number % 3 :: 3]:  # at each place others
            write(folder, changed(content, path, value))
            with suppress(ClipsynError):
                predict_store(load_router(folder), tiny_store, "toy")


@pytest.mark.parametrize("name", [DESCRIPTION, ARRAYS])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "endless"])
def test_a_file_is_a_regular_one(folder: Path, name: str, kind: str) -> None:
    file = folder / name
    file.rename(folder.parent / name)
    if kind == "link":
        file.symlink_to(folder.parent / name)
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.touch()
        os.truncate(file, 1 << 42)
    with pytest.raises(DamagedStore):
        load_router(folder)


@pytest.mark.parametrize("offsets", [[0, 1 << 40], [0, 0], [8, 0], [0, 1 << 70], ["a", 1], None])
@pytest.mark.parametrize("shape", [[1 << 40], [-1], [1 << 70], ["a"], None, [0]])
def test_arrays_that_declare_something_else(folder: Path, offsets: Any, shape: Any) -> None:
    array = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    header = json.dumps({"classes/fake/one": array}).encode()
    binary = len(header).to_bytes(8, "little") + header + bytes(8)
    (folder / ARRAYS).write_bytes(binary)
    content = json.loads((folder / DESCRIPTION).read_text())
    write(folder, {**content, "arrays": hashlib.sha256(binary).hexdigest()})
    with pytest.raises(DamagedStore):
        load_router(folder)
