"""Routers of strangers: hostile files."""

import hashlib
import json
import os
import shutil

import pytest

from clipsyn.errors import DamagedStore
from clipsyn.names import fingerprint
from clipsyn.router.artefact import load_router, save_router
from clipsyn.router.fit import fit_router
from clipsyn.store.features import FeatureStore

DESCRIPTION, ARRAYS = "router.json", "router.safetensors"


def write(folder, content):
    """With the fingerprint that a forger would give it."""
    content.pop("fingerprint", None)
    content["fingerprint"] = fingerprint(content)
    (folder / DESCRIPTION).write_text(json.dumps(content))


@pytest.fixture(scope="module")
def whole(_filled, tmp_path_factory):
    path, store = tmp_path_factory.mktemp("whole") / "router", FeatureStore.open(_filled)
    router = fit_router(store, "toy", "super-learner", head="tip-adapter")
    save_router(path, router.ensemble, store.pool("toy", "train"), head=router.head)
    return path


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "router")


@pytest.mark.parametrize("field", ["ensemble", "head", "backbones", "n_classes", "support"])
def test_a_description_that_lacks_something(folder, field):
    content = json.loads((folder / DESCRIPTION).read_text())
    write(folder, {name: value for name, value in content.items() if name != field})
    with pytest.raises(DamagedStore):
        load_router(folder)


@pytest.mark.parametrize("name", [DESCRIPTION, ARRAYS])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "endless"])
def test_a_file_is_a_regular_one(folder, name, kind):
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
def test_arrays_that_declare_something_else(folder, offsets, shape):
    array = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    header = json.dumps({"classes/fake/one": array}).encode()
    binary = len(header).to_bytes(8, "little") + header + bytes(8)
    (folder / ARRAYS).write_bytes(binary)
    content = json.loads((folder / DESCRIPTION).read_text())
    write(folder, {**content, "arrays": hashlib.sha256(binary).hexdigest()})
    with pytest.raises(DamagedStore):
        load_router(folder)
