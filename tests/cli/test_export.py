"""`clipsyn export`, and what `clipsyn import` makes of it."""

from __future__ import annotations

import json

import pytest

from clipsyn.exchange.exporting import LAYOUTS
from clipsyn.store.features import FeatureStore


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_store_goes_out_and_comes_back(clipsyn, tiny_store, tmp_path, layout):
    out = tmp_path / "out"
    said = clipsyn("export", tiny_store.path, out, "--layout", layout, "-s", "test")
    assert said.stdout == f"4 cells written to {out}, with README.md and export.json\n"
    result = clipsyn("import", tmp_path / "again", out)
    assert result.exit_code == 0, result.output
    again = FeatureStore.open(tmp_path / "again")
    assert again.keys() == tiny_store.keys(split=["test"])
    table = clipsyn("zeroshot", tmp_path / "again", "-o", "-").stdout
    assert (
        json.loads(table)[0]["value"]
        == json.loads(clipsyn("zeroshot", tiny_store.path, "-s", "test", "-o", "-").stdout)[0][
            "value"
        ]
    )


def test_provenance_of_what_came_back_names_the_file(clipsyn, tiny_store, tmp_path):
    clipsyn("export", tiny_store.path, tmp_path / "out", "--layout", "npz", "-b", "fake/two")
    clipsyn("import", tmp_path / "again", tmp_path / "out")
    cells = json.loads(clipsyn("info", tmp_path / "again", "--provenance", "-o", "-").stdout)
    assert len(cells) == 4
    assert {cell["weights"]["files"][0] for cell in cells} == {"fake--two.npz"}


def test_what_cannot_be(fails, tiny_store, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").touch()
    assert "is there already" in fails(2, "export", tiny_store.path, tmp_path / "there")
    assert "did you mean" in fails(2, "export", tiny_store.path, tmp_path / "n", "-b", "fake/tow")
    assert "is no feature store" in fails(4, "export", tmp_path / "none", tmp_path / "n")
    assert not (tmp_path / "n").exists()


def test_an_export_is_not_imported_with_options(clipsyn, fails, tiny_store, tmp_path):
    clipsyn("export", tiny_store.path, tmp_path / "out")
    said = fails(2, "import", tmp_path / "again", tmp_path / "out", "-d", "mine")
    assert said.endswith("says itself what it holds: leave --dataset away")
