from __future__ import annotations

import json
import re

import polars as pl
import pytest
from click.testing import CliRunner

from clipsyn.analyses.oracle import OracleSettings, oracle
from clipsyn.analyses.oracle.measure import sample_table
from clipsyn.cli import main
from clipsyn.evaluation.results.frame import RESULT


@pytest.fixture
def run(tiny_store, monkeypatch):
    """Run `clipsyn oracle` on the tiny store; returns click's result."""
    monkeypatch.delenv("CLIPSYN_STORE", raising=False)

    def call(*arguments: object, store: object = tiny_store.path):
        return CliRunner().invoke(main, ["oracle", str(store), *map(str, arguments)])

    return call


def heads(text: str) -> list[list[str]]:
    """The words above every rule of a table."""
    lines = text.split("\n")
    return [lines[n - 1].split() for n, line in enumerate(lines) if re.fullmatch("─+", line)]


def test_several_groups_have_an_overview(run):
    result = run()
    assert result.exit_code == 0
    assert [head[:2] for head in heads(result.stdout)] == [["dataset", "perturbation"]] * 5
    assert "split test" in result.stdout
    assert result.stderr == ""


def test_one_group_has_its_tables(run):
    result = run("-p", "clean")
    assert [head[0] for head in heads(result.stdout)] == ["backbone", "size", "images"]
    assert "toy/test · clean" in result.stdout


def test_top_limits_the_tables(run):
    result = run("-p", "clean", "--top", 1)
    regions = result.stdout.split("\n\n")[-1]
    assert re.search(r"^\d more regions with \d+ images: --top \d$", regions, re.MULTILINE)
    assert len(regions.strip().split("\n")) == 6


def test_the_numbers_are_those_of_evaluate(run, tiny_store):
    rows = json.loads(run("-o", "-", "--weights", "-b", "fake/*", "-s", "train").stdout)
    expected = oracle(tiny_store, splits="train", weights=True)
    assert [row["value"] for row in rows] == expected["value"].to_list()
    assert list(rows[0]) == list(RESULT)
    assert "weight-oracle" in {row["ensemble"] for row in rows}


def test_weights_have_a_column_and_a_line(run):
    assert "weights: share that some" in run("--weights").stdout
    assert "weighted sums of logits" in run("--weights", "-p", "clean").stdout
    assert "weight" not in run().stdout


def test_the_table_of_samples_is_a_file(run, tmp_path, tiny_store):
    csv, parquet = tmp_path / "table.csv", tmp_path / "table.parquet"
    expected = sample_table(tiny_store, OracleSettings(perturbations="clean"))
    result = run("--samples", csv, "-p", "clean")
    assert result.exit_code == 0
    assert f"{len(expected)} rows written to {csv}" in result.stderr
    assert pl.read_csv(csv, schema=expected.schema).equals(expected)
    assert run("--samples", parquet, "-p", "clean").exit_code == 0
    assert pl.read_parquet(parquet).equals(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top", "0"], "--top"),
        (["--samples", "table.txt"], "table.txt is neither CSV nor Parquet: end its name in .csv"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(run, arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""
