"""Where cells come from, as their groups say it."""

from __future__ import annotations

import numpy as np
import pytest

from clipsyn.exchange.provenance import made, portable, runs
from clipsyn.names import FeatureKey
from clipsyn.store.features import FeatureStore
from clipsyn.store.samples import SampleTable
from clipsyn.text import recorded


def test_a_cell_knows_the_command_that_made_it(fakes, tmp_path):
    with recorded(["extract", str(tmp_path), "--token", "secret"]):
        store = fakes.fill(tmp_path / "store")
    (cell,) = made(store)
    assert cell["commands"] == [f"clipsyn extract {tmp_path} --token '…'"]
    assert "secret" not in str(fakes.contents(store.path) | cell)
    assert cell["made"] is not None
    assert {name: cell[name] for name in vars(fakes.key)} == vars(fakes.key)


def test_workers_are_put_together(fakes, tmp_path):
    with recorded(["extract", "--shard", "1/2"]):
        fakes.fill_some(tmp_path / "store", 2)
    with recorded(["extract", "--shard", "2/2"]):
        store = fakes.fill(tmp_path / "store")
    (cell,) = made(store)
    assert sorted(cell["commands"]) == [
        "clipsyn extract --shard 1/2",
        "clipsyn extract --shard 2/2",
    ]


def test_cells_from_python_say_that_they_do_not_know(tiny_store, fakes):
    cells = made(tiny_store)
    assert [cell["commands"] for cell in cells] == [[]] * len(cells)
    fakes.rewrite(tiny_store.at("features", *fakes.key.names), provenance=None)
    (old,) = made(FeatureStore.open(tiny_store.path), [fakes.key])
    assert [old[name] for name in ("made", "commands", "versions", "device")] == [
        None,
        [],
        {},
        None,
    ]


def test_weights_and_images_are_those_of_the_identity(tiny_store):
    for cell in made(tiny_store):
        names = ("dataset", "split", "perturbation", "backbone")
        key = FeatureKey(*(cell[name] for name in names))
        group = tiny_store.group(tiny_store.at("features", *key.names))
        table = tiny_store.samples(key.dataset, key.split)
        assert cell["weights"]["sha256"] == group["identity"]["backbone"]["weights"]
        assert (cell["images"]["count"], cell["images"]["samples"]) == (len(table), table.digest)
        assert cell["images"]["licence"] == "CC0"
        assert cell["fingerprint"] == tiny_store.cell(key).fingerprint()


def test_imported_cells_say_files_and_notes(tiny_store):
    table = SampleTable.of("digits", "test", ["a", "b"], [0, 1], ["zero", "one"])
    with recorded(["import"]), tiny_store.writer(table, "mine", made_by="by hand") as cell:
        cell.record(source=[{"file": "mine.csv", "sha256": "0" * 64}])
        cell.predictions(np.array([0, 1]))
    (known,) = made(tiny_store, [FeatureKey("digits", "test", "clean", "mine")])
    assert (known["imported"], known["made_by"]) == ("predictions", "by hand")
    assert known["commands"] == ["clipsyn import"]
    nothing = dict.fromkeys(("source", "sha256", "precision", "licence"))
    assert known["weights"] == {**nothing, "files": ["mine.csv"], "cite": []}


def test_cells_of_one_command_are_one_run(fakes, tmp_path):
    with recorded(["first"]):
        fakes.fill(tmp_path / "store", perturbations=("clean", "jpeg:3"))
    with recorded(["second"]):
        store = fakes.fill(tmp_path / "store", perturbations=("clean", "jpeg:3", "fog:1"))
    found = {
        run[0]["commands"][0]: [cell["perturbation"] for cell in run] for run in runs(made(store))
    }
    assert found == {"clipsyn first": ["clean", "jpeg-3"], "clipsyn second": ["fog-1"]}


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("ViT-B-32/openai", "ViT-B-32/openai"),
        ("hf-hub:org/repo", "hf-hub:org/repo"),
        ("local-dir:/home/alice/secret/run7", "local-dir:run7"),
        ("ViT-B-32@/home/alice/last.pt", "ViT-B-32@last.pt"),
    ],
)
def test_what_is_handed_on_names_no_folders(source, shown):
    assert portable(source) == shown
