"""`clipsyn info` and `catalog`."""

import json

import pytest

from clipsyn.catalog.datasets import catalogue
from clipsyn.text import recorded

# `clipsyn info --provenance` and `--bibtex`


@pytest.fixture
def made(fakes, tmp_path):
    """Two backbones under two conditions, the second by another command."""
    store = tmp_path / "store"
    encoders = fakes.two()
    with recorded(["extract", "store", "-b", "fakes"]):
        fakes.fill(store, encoders)
    with recorded(["extract", "store", "-p", "jpeg:3"]):
        fakes.fill(store, encoders, perturbations=["jpeg:3"])
    return store


def test_provenance_lists_each_command_and_what_it_made(clipsyn, made):
    shown = clipsyn("info", made, "--provenance").stdout
    cells = "2 cells: 2 backbones, 1 dataset, 1 perturbation"
    assert f"1. {cells}\n   command: clipsyn extract store -b fakes\n" in shown
    assert f"2. {cells}\n   command: clipsyn extract store -p jpeg:3\n" in shown
    assert "clipsyn 0.1.0" in shown


def test_the_command_line_records_itself(clipsyn, tmp_path):
    (tmp_path / "x.csv").write_text("id,prediction,label\na,cat,cat\nb,dog,cat\n")
    words = ["import", str(tmp_path / "s"), str(tmp_path / "x.csv"), "-d", "d", "-b", "mine"]
    clipsyn(*words)
    (cell,) = json.loads(clipsyn("info", tmp_path / "s", "--provenance", "-o", "-").stdout)
    assert cell["commands"] == [f"clipsyn {' '.join(words)}"]


def test_filters_and_groups_that_cannot_be(fails, made):
    assert "--provenance or --bibtex" in fails(2, "info", made, "-b", "fake/one")
    assert "one of" in fails(2, "info", made, "--provenance", "--bibtex")
    assert "one of" in fails(2, "info", made, "samples/toy/test", "--provenance")
    assert "did you mean" in fails(2, "info", made, "--provenance", "-b", "fake/onee")


def test_cite_prints_bibtex_and_names_what_it_does_not_know(clipsyn, made):
    result = clipsyn("info", made, "--bibtex")
    assert result.stdout.startswith("% for the method\n@inproceedings{")
    assert result.stderr.count("note: no citation is known for the ") == 3
    one = clipsyn("info", made, "--bibtex", "-b", "fake/one", "-p", "clean")
    assert "hendrycks2019corruptions" in result.stdout
    assert "hendrycks2019corruptions" not in one.stdout
    assert "fake/two" not in one.stderr


# `clipsyn catalog`


def test_json_has_aliases_splits_and_warnings(clipsyn):
    result = clipsyn("catalog", "datasets", "-o", "-")
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert list(rows) == [info.name for info in catalogue()]
    assert "dtd" in rows["vtab/dtd"]["aliases"]
    assert rows["vtab/eurosat"]["splits"]["all"] == {"n": 27000, "args": {}}
    assert "no splits" in rows["sun397"]["warning"]
    assert rows["cub"]["where"] == "webdataset"


def test_the_whole_store_and_one_group(clipsyn, fails, tiny_store, fakes):
    path = tiny_store.path
    found = json.loads(clipsyn("info", path).stdout)
    assert found["format"] == "2.0"
    assert set(found["backbones"]) == {"fake/one", "fake/two"}
    assert found["backbones"]["fake/one"]["source"] == "local-dir:checkpoints/fake/one"
    assert found["datasets"]["toy/train"]["images"] == 11
    group = tiny_store.at("features", *fakes.key.names).relative_to(path)
    found = json.loads(clipsyn("info", path, group).stdout)
    assert found["arrays"] == {"image_embedding": ["float16", 20, 12], "valid": ["bool", 20]}
    assert found["fingerprint"] == tiny_store.cell(fakes.key).fingerprint()
    assert f"see `clipsyn ls {path}`" in fails(4, "info", path, "features/yot")
