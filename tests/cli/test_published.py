"""`clipsyn compare --reference`, from a store to the table and its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest


@pytest.fixture
def results(clipsyn: Any, tiny_store: Any, tmp_path: Path) -> Path:
    """Zero-shot accuracies of two backbones on a dataset that no one has published."""
    path = tmp_path / "zeroshot.parquet"
    assert clipsyn("zeroshot", tiny_store.path, "-o", path).exit_code == 0
    return path


def reference(results: Path, **accuracies: float) -> Path:
    path = results.with_name("theirs.csv")
    lines = [f"toy,fake/{name},{value},A talk" for name, value in accuracies.items()]
    path.write_text("\n".join(["dataset,backbone,accuracy,source", *lines]), "utf-8")
    return path


def test_a_table_a_note_and_files(clipsyn: Any, results: Path, tmp_path: Path) -> None:
    frame = pl.read_parquet(results).filter(
        pl.col("backbones") == ["fake/one"], metric="acc1", perturbation="clean", split="test"
    )
    value = frame["value"][0]
    theirs = reference(results, one=round(value - 0.02, 4))
    done = clipsyn("compare", results, "--reference", theirs, "-o", tmp_path / "c.csv", "-o", "-")
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)
    assert (row["backbone"], row["beyond"], row["source"]) == ("fake/one", True, "A talk")
    assert row["difference"] == pytest.approx(0.02, abs=1e-4)
    assert "note: no number is published for fake/two: not compared" in done.stderr
    assert pl.read_csv(tmp_path / "c.csv")["published"].to_list() == [round(value - 0.02, 4)]
    text = clipsyn("compare", results, "--reference", theirs, "--tolerance", "5").stdout
    assert "1 of 1 numbers are within 5 points of the published ones." in text


def test_what_cannot_be_compared_is_one_sentence(fails, results, tiny_store, tmp_path):
    line = ("compare", results, "--reference")
    said = fails(2, *line, "openai-zeroshot")
    assert "openai-zeroshot has no number of a backbone of the results (fake/one, fake/two)" in said
    assert said.endswith("another --reference may")
    for file, why in ((tiny_store.path, "is a folder"), (tmp_path / "gone", "does not exist")):
        assert why in fails(2, "compare", file, "--reference", "openai-zeroshot")
    assert "did you mean openai-zeroshot" in fails(2, "compare", results, "--reference", "openai")
    theirs = reference(results, one=0.5)
    other = tmp_path / "other.parquet"
    pl.DataFrame({"x": [1]}).write_parquet(other)
    assert "holds no results, for want of" in fails(2, "compare", other, "--reference", theirs)
    other.write_text("no parquet")
    assert "cannot be read as results" in fails(2, "compare", other, "--reference", theirs)


def test_options_of_methods_are_not_for_published_numbers(fails: Any, results: Path) -> None:
    line = ("compare", results, "--reference", "openai-zeroshot")
    assert "--ensembles is about methods" in fails(2, *line, "--ensembles", "nlc")
    assert "FIRST and SECOND is about methods" in fails(2, "compare", results, "nlc", *line[2:])
