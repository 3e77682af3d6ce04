from __future__ import annotations

import json
import re

import polars as pl
import pytest
from click.testing import CliRunner

from clipsyn.analyses.accuracy import zeroshot
from clipsyn.cli import main
from clipsyn.evaluation.results.frame import RESULT


@pytest.fixture
def run(tiny_store, monkeypatch):
    """Run `clipsyn zeroshot` on the tiny store; returns click's result."""
    monkeypatch.delenv("CLIPSYN_STORE", raising=False)

    def call(*arguments: object, store: object = tiny_store.path, **options):
        words = ["zeroshot", *([str(store)] if store else []), *map(str, arguments)]
        return CliRunner().invoke(main, words, **options)

    return call


def test_it_prints_a_table_for_each_dataset_and_perturbation(run):
    result = run()
    assert result.exit_code == 0
    titles = re.findall(r"^\S+/\S+ · .*$", result.stdout, re.MULTILINE)
    assert [title.split(" · ")[:2] for title in titles] == [
        ["toy/test", "clean"],
        ["toy/test", "jpeg-3"],
    ]
    head = result.stdout.split("\n")[1]
    assert re.split(r" {2,}", head) == ["backbone", "top-1", "95 % interval", "mean per class", "n"]
    assert "fake/one" in result.stdout
    assert "over the best single backbone" in result.stdout
    assert result.stderr == ""


def test_the_numbers_are_those_of_evaluate(run, tiny_store):
    rows = json.loads(run("-o", "-").stdout)
    assert [row["value"] for row in rows] == zeroshot(tiny_store)["value"].to_list()
    assert list(rows[0]) == list(RESULT)


def test_filters(run):
    def cells(*arguments: str) -> list[tuple[str, ...]]:
        rows = json.loads(run("-o", "-", *arguments).stdout)
        return sorted(
            {
                (r["split"], r["perturbation"], *r["backbones"])
                for r in rows
                if r["ensemble"] == "single"
            }
        )

    assert cells("-s", "train", "-p", "clean") == [
        ("train", "clean", "fake/one"),
        ("train", "clean", "fake/two"),
    ]
    assert len(cells("-s", "test,train")) == len(cells("-s", "test", "-s", "train")) == 8
    assert cells("-b", "*/two", "-p", "jpeg:3") == [("test", "jpeg-3", "fake/two")]
    assert len(cells("-d", "toy", "-d", "t*")) == 4


def test_files_are_written_and_said_on_stderr(run, tmp_path, tiny_store, read_results):
    csv, parquet = tmp_path / "out.csv", tmp_path / "out.parquet"
    result = run("-o", csv, "-o", parquet, "-o", "-")
    assert result.exit_code == 0
    expected = zeroshot(tiny_store)
    assert pl.read_parquet(parquet).equals(expected)
    assert read_results(csv).equals(expected.drop("data"))
    json.loads(result.stdout)
    assert f"{len(expected)} rows written to {csv}" in result.stderr


def test_unlabelled_datasets_are_mentioned(fakes, tiny_store, run):
    fakes.fill(tiny_store.path, [fakes.Encoder()], [fakes.Source("photos", class_names=())])
    result = run()
    assert result.exit_code == 0
    assert "photos" not in result.stdout
    assert "not shown, for want of labels or such cells: photos" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-d", "tyo"], 2, "unknown dataset 'tyo': did you mean toy"),
        (["-b", "fake/three"], 2, "unknown backbone 'fake/three': did you mean"),
        (["-p", "jpeg:4"], 2, "unknown perturbation 'jpeg-4': did you mean jpeg-3"),
        (["-p", "jpeg:x"], 2, "is no perturbation"),
        (["-s", "val"], 2, "unknown split 'val'"),
        (["--prompts", "nothing"], 2, "unknown prompt set 'nothing'"),
        (["-o", "nowhere/at/all.csv"], 2, "cannot write nowhere/at/all.csv"),
    ],
)
def test_mistakes_are_one_sentence(run, arguments, code, message):
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_a_dataset_without_labels_alone(run, fakes, tmp_path):
    path = tmp_path / "photos"
    fakes.fill(path, sources=[fakes.Source("photos", class_names=())])
    result = run(store=path)
    assert result.exit_code == 3
    assert "has no labels" in result.stderr
