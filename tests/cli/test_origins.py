"""`clipsyn info --provenance` and `--bibtex`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipsyn.text import recorded


@pytest.fixture
def path(fakes, tmp_path: Path) -> Path:
    """Two backbones under two conditions, the second by another command."""
    store = tmp_path / "store"
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two", size=12, embed_dim=16)]
    with recorded(["extract", "store", "-b", "fakes"]):
        fakes.fill(store, encoders)
    with recorded(["extract", "store", "-p", "jpeg:3"]):
        fakes.fill(store, encoders, perturbations=["jpeg:3"])
    return store


def test_provenance_lists_each_command_and_what_it_made(clipsyn, path):
    shown = clipsyn("info", path, "--provenance").stdout
    cells = "2 cells: 2 backbones, 1 dataset, 1 perturbation"
    assert f"1. {cells}\n   clipsyn extract store -b fakes\n" in shown
    assert f"2. {cells}\n   clipsyn extract store -p jpeg:3\n" in shown
    assert " UTC" in shown
    assert "clipsyn 0.1.0" in shown


def test_tables_name_weights_and_images(clipsyn, path, read_table):
    shown = clipsyn("info", path, "--provenance").stdout
    weights, images = read_table(shown), read_table(shown, 1)
    assert weights.row("fake/one")["weights from"] == "local-dir:one"
    assert len(weights.row("fake/two")["SHA-256"]) == 12
    assert images.row("toy/test")["licence"] == "CC0"


def test_a_group_or_filters_choose_cells(clipsyn, path):
    one = clipsyn("info", path, "features/toy/test/jpeg-3/fake--two", "--provenance").stdout
    assert one.startswith("1. toy/test · jpeg-3 · fake/two\n   clipsyn extract store -p jpeg:3\n")
    assert clipsyn("info", path, "--provenance", "-p", "jpeg:3", "-b", "*two").stdout == one
    for group in ("classes/toy/simple/fake--two", "samples/toy/test"):
        cells = json.loads(clipsyn("info", path, group, "--provenance", "-o", "-").stdout)
        assert {cell["dataset"] for cell in cells} == {"toy"}
        assert len(cells) == (2 if group.startswith("classes") else 4)


def test_the_command_line_records_itself(clipsyn, tmp_path):
    (tmp_path / "x.csv").write_text("id,prediction,label\na,cat,cat\nb,dog,cat\n")
    words = ["import", str(tmp_path / "s"), str(tmp_path / "x.csv"), "-d", "d", "-b", "mine"]
    clipsyn(*words)
    (cell,) = json.loads(clipsyn("info", tmp_path / "s", "--provenance", "-o", "-").stdout)
    assert cell["commands"] == [f"clipsyn {' '.join(words)}"]


def test_filters_and_groups_that_cannot_be(fails, path):
    said = fails(2, "info", path, "-b", "fake/one")
    assert said == "filters choose cells for --provenance or --bibtex: add one, or give a GROUP"
    assert "one of" in fails(2, "info", path, "--provenance", "--bibtex")
    assert "one place" in fails(2, "info", path, "samples/toy/test", "--provenance", "-d", "toy")
    assert "no group features/yot" in fails(4, "info", path, "features/yot", "--provenance")
    assert "did you mean" in fails(2, "info", path, "--provenance", "-b", "fake/onee")


def test_cite_prints_bibtex_and_names_what_it_does_not_know(clipsyn, path):
    result = clipsyn("info", path, "--bibtex")
    assert result.stdout.startswith("% for the method\n@inproceedings{")
    assert result.stderr.splitlines() == [
        "note: no citation is known for the weights fake/one (local-dir:one): see their source",
        "note: no citation is known for the weights fake/two (local-dir:two): see their source",
        "note: no citation is known for the dataset toy: see its source",
    ]
    one = clipsyn("info", path, "--bibtex", "-b", "fake/one", "-p", "clean")
    assert "hendrycks2019corruptions" in result.stdout
    assert "hendrycks2019corruptions" not in one.stdout
    assert "fake/two" not in one.stderr
