"""`-o FILE`: what every command writes, by the ending of the name."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import polars as pl
import pytest

from clipsyn.analyses import ANALYSES
from clipsyn.cli.output import BENCHMARK

STORE, RESULTS, REFERENCE, PREDICTIONS = "STORE", "RESULTS", "REFERENCE", "PREDICTIONS"
QUICK = ["--ensembles", "log-avg", "--shots", "1", "--seeds", "1"]
COMMANDS = {
    **{name: [STORE] for name in ANALYSES},
    "compare --reference": [RESULTS, "--reference", REFERENCE],
    "evaluate": [STORE, *QUICK],
    "compare": [PREDICTIONS],
    "ls": [STORE],
    "catalog backbones": [],
    "catalog datasets": [],
    "catalog perturbations": [],
}


@pytest.fixture
def run(clipsyn, tiny_store, tmp_path):
    """Run one of COMMANDS; what it prints."""
    results, reference = tmp_path / "zeroshot.parquet", tmp_path / "theirs.csv"
    ANALYSES.load("zeroshot")(tiny_store).write_parquet(results)
    reference.write_text("dataset,backbone,accuracy,source\ntoy,fake/one,0.5,A\n")
    places = {STORE: tiny_store.path, RESULTS: results, REFERENCE: reference}
    predictions = places[PREDICTIONS] = tmp_path / "methods.parquet"

    def call(name: str, *options: object) -> str:
        if PREDICTIONS in COMMANDS[name] and not predictions.exists():
            clipsyn("evaluate", tiny_store.path, *QUICK, "-o", predictions)
        words = [places.get(word, word) for word in COMMANDS[name]]
        result = clipsyn(*name.removesuffix("--reference").split(), *words, *options)
        assert result.exit_code == 0, result.output
        return result.stdout

    return call


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_with_tables_writes_what_the_ending_says(run, tmp_path: Path, name: str):
    files = {end: tmp_path / f"out.{end}" for end in ("csv", "parquet", "json", "md", "tex")}
    text = run(name, *(word for file in files.values() for word in ("-o", file)))
    assert "─" in text
    assert "| ---" in files["md"].read_text()
    assert r"\toprule" in files["tex"].read_text()
    rows = json.loads(files["json"].read_text())
    with files["csv"].open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows) > 0
    assert len(pl.read_parquet(files["parquet"])) == len(rows)
    if name != "evaluate":  # whose seconds differ
        assert run(name) == text
        assert json.loads(run(name, "-o", "-")) == rows


def test_another_ending_is_refused_with_those_there_are(fails, tiny_store):
    told = fails(2, "zeroshot", tiny_store.path, "-o", "accuracy.xls")
    for ending in ("accuracy.xls", ".csv", ".parquet", ".json", ".md", ".tex", BENCHMARK):
        assert ending in told
    assert ".json" in fails(2, "verify", tiny_store.path, "-o", "found.csv")
    assert "found.csv" in fails(2, "ls", tiny_store.path, "--status", "-o", "found.csv")
