"""Routers on disk: complete, the same to the bit, refused when they are not what was written."""

import hashlib
import json
import pickle

import numpy as np
import pytest

from clipsyn.errors import DamagedStore, UnknownName, UnsupportedFormat, UsageError
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.ensembles.base import LogAverage, Router
from clipsyn.methods.heads import HEADS
from clipsyn.names import fingerprint
from clipsyn.router.artefact import load_router, save_router

ARRAYS, DESCRIPTION = "router.safetensors", "router.json"


@pytest.fixture
def folder(tmp_path, support):
    path = tmp_path / "routers" / "mine"
    save_router(path, LogAverage().fit(support), support, shots=8, seed=3)
    return path


def edit(folder, change, *, sign=True):
    """Change the description; `sign` writes the fingerprint that belongs to the change."""
    file = folder / DESCRIPTION
    content = json.loads(file.read_text())
    change(content)
    if sign:
        content.pop("fingerprint", None)
        content["fingerprint"] = fingerprint(content)
    file.write_text(json.dumps(content))


def assert_equal(before, after, pool):
    np.testing.assert_array_equal(before.combine(pool), after.combine(pool), strict=True)
    if isinstance(before.ensemble, Router):
        np.testing.assert_array_equal(before.weights(pool), after.weights(pool), strict=True)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_every_ensemble_predicts_the_same_to_the_bit(name, tmp_path, support, unseen):
    ensemble = ENSEMBLES.load(name)().fit(support)
    before = save_router(tmp_path / "r", ensemble, support)
    after = load_router(tmp_path / "r")
    assert after.method == name
    assert after.ensemble.get_params() == ensemble.get_params()
    assert set(after.ensemble.learned()) == set(ensemble.learned())
    assert_equal(before, after, unseen)


@pytest.mark.parametrize("name", HEADS)
def test_every_head_predicts_the_same_to_the_bit(name, tmp_path, support, unseen):
    head = HEADS.load(name)()
    ensemble = LogAverage().fit(head.fit_transform(support))
    before = save_router(tmp_path / "r", ensemble, support, head=head)
    after = load_router(tmp_path / "r")
    assert type(after.head) is type(head)
    assert after.head.get_params() == head.get_params()
    assert_equal(before, after, unseen)


def test_all_about_it_comes_back(tmp_path, support):
    saved = save_router(tmp_path, LogAverage().fit(support), support, shots=8, seed=3)
    found = load_router(tmp_path)
    assert (found.names, found.class_names) == (support.backbones, support.class_names)
    assert found.prompts == support.provenance["prompts"]
    assert found.support == saved.support
    assert (found.support.shots, found.support.seed, found.support.views) == (8, 3, ("flip",))
    for backbone in found.backbones:
        name, known = backbone.name, support.provenance
        about = known["backbones"][name], known["sources"][name]
        assert (backbone.identity, backbone.source) == about
        np.testing.assert_array_equal(backbone.class_embedding, support.class_embeddings[name])
    assert found.support.accuracy == found.score(support)


def test_it_overwrites_a_router_only_when_told_to(folder, support):
    ensemble = LogAverage().fit(support)
    with pytest.raises(UsageError, match="mine holds a router already: add replace=True"):
        save_router(folder, ensemble, support)
    assert load_router(folder).support.shots == 8
    save_router(folder, ensemble, support, shots=4, replace=True)
    assert load_router(folder).support.shots == 4
    assert [file.name for file in folder.parent.iterdir()] == ["mine"]


@pytest.mark.parametrize("replace", [False, True])
def test_it_never_replaces_anything_else(tmp_path, support, replace):
    (tmp_path / "holiday.jpg").write_bytes(b"irreplaceable")
    for path in (tmp_path, tmp_path / "holiday.jpg"):
        with pytest.raises(UsageError, match="holds something else than a router"):
            save_router(path, LogAverage().fit(support), support, replace=replace)
    assert [file.name for file in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_failure_leaves_the_old_router_and_nothing_half_done(folder, support, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = (folder / DESCRIPTION).read_bytes()
    monkeypatch.setattr("clipsyn.router.artefact.write_file", full)
    with pytest.raises(UsageError, match=r"cannot write .*mine: No space left on device; choose"):
        save_router(folder, LogAverage().fit(support), support, replace=True)
    assert (folder / DESCRIPTION).read_bytes() == before
    assert [file.name for file in folder.parent.iterdir()] == ["mine"]


def test_a_newer_format(folder):
    edit(folder, lambda content: content.update(format="2.0"))
    with pytest.raises(UnsupportedFormat, match=r"has format 2.0, this clipsyn reads 1.0"):
        load_router(folder)


def test_an_edited_description(folder):
    edit(folder, lambda content: content["class_names"].reverse(), sign=False)
    with pytest.raises(DamagedStore, match="is damaged or was edited"):
        load_router(folder)


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_damaged_arrays(damage, folder):
    file = folder / ARRAYS
    data = bytearray(file.read_bytes())
    data[-5] ^= 4
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(data if damage == "flipped" else data[:-1])
    with pytest.raises(DamagedStore, match=r"router\.safetensors (is damaged|cannot be read)"):
        load_router(folder)


class Trap:
    def __reduce__(self):
        return pytest.fail, ("the router was unpickled",)


@pytest.mark.parametrize("payload", [pickle.dumps(Trap()), b"", b"\x00" * 40])
def test_nothing_is_unpickled(payload, folder):
    (folder / ARRAYS).write_bytes(payload)
    digest = hashlib.sha256(payload).hexdigest()
    edit(folder, lambda content: content.update(arrays=digest))
    with pytest.raises(DamagedStore, match="describes no router"):
        load_router(folder)


@pytest.mark.parametrize("name", ["predict", "_combine", "__class__", "fit"])
def test_learned_values_cannot_stand_in_for_code(name, folder):
    edit(folder, lambda content: content["ensemble"]["learned"].update({name: 1}))
    with pytest.raises(DamagedStore, match=f"'{name}' is no learned attribute"):
        load_router(folder)


def test_only_registered_names_are_imported(folder):
    edit(folder, lambda content: content["ensemble"].update(name="os:system"))
    with pytest.raises(UnknownName, match="unknown ensemble 'os:system'"):
        load_router(folder)


@pytest.mark.parametrize(
    "value",
    [object(), {1}, np.array([None], object), float("nan"), np.array([np.inf])],
    ids=["object", "set", "array of objects", "NaN", "array with Inf"],
)
def test_what_cannot_be_written_is_refused(value, tmp_path, support):
    ensemble = LogAverage().fit(support)
    ensemble.centres_ = value
    with pytest.raises(UsageError, match="has learned what cannot be saved"):
        save_router(tmp_path / "r", ensemble, support)
    assert not (tmp_path / "r").exists()


def test_numbers_texts_and_arrays_of_backbones_come_back(tmp_path, support):
    ensemble = LogAverage().fit(support)
    ensemble.count_, ensemble.share_, ensemble.names_ = np.int64(3), np.float32(0.5), ("a", "b")
    ensemble.keys_ = {name: np.arange(3)[::-1] for name in support.backbones}
    save_router(tmp_path / "r", ensemble, support)
    found = load_router(tmp_path / "r").ensemble
    assert (found.count_, found.share_, found.names_) == (3, 0.5, ("a", "b"))
    np.testing.assert_equal(found.keys_, ensemble.keys_)
