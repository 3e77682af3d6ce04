"""Results files: added to, never mixed."""

from __future__ import annotations

import polars as pl
import pytest

from clipsyn.errors import ConflictingResults, UsageError
from clipsyn.evaluate.results import NAMES, RESULT, ResultsFile


def row(**changes) -> dict:
    content = {
        "dataset": "birds",
        "split": "test",
        "perturbation": "clean",
        "severity": 0,
        "head": "zero-shot",
        "ensemble": "nlc",
        "backbones": "a+b",
        "prompts": "own",
        "classes": "all",
        "support": "train, own",
        "shots": None,
        "seed": 0,
        "metric": "acc1",
        "value": 0.5,
        "ci_low": 0.4,
        "ci_high": 0.6,
        "n": 100,
        "fingerprint": "f1",
    }
    assert set(content) == set(RESULT)
    return content | changes


def test_rows_are_added_and_found_again(tmp_path):
    path = tmp_path / "new" / "r.parquet"
    ResultsFile(path).add([row()])
    again = ResultsFile(path)
    assert again.known == {"f1"}
    again.add([row(seed=1, fingerprint="f2")])
    assert ResultsFile(path).frame["fingerprint"].to_list() == ["f1", "f2"]
    assert [entry.name for entry in path.parent.iterdir()] == ["r.parquet"]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "metric"])
def test_results_differ_by_every_name(tmp_path, name):
    other = {"severity": 3, "shots": 4, "seed": 5}.get(name, "other")
    results = ResultsFile(tmp_path / "r.parquet")
    results.add([row()])
    results.add([row(**{name: other}, fingerprint="f2")])
    assert len(results.frame) == 2


def test_other_numbers_under_the_same_names_are_refused(tmp_path):
    path = tmp_path / "r.parquet"
    ResultsFile(path).add([row()])
    with pytest.raises(ConflictingResults, match=r"already holds nlc on birds/test \(clean.*--rep"):
        ResultsFile(path).add([row(value=0.7, fingerprint="f2")])
    assert ResultsFile(path).frame["value"].to_list() == [0.5]
    ResultsFile(path, replace=True).add([row(value=0.7, fingerprint="f2")])
    assert ResultsFile(path).frame["value"].to_list() == [0.7]


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "r.parquet"
    pl.DataFrame({"x": [1]}).write_parquet(path)
    with pytest.raises(UsageError, match="holds something else than results"):
        ResultsFile(path)
    path.write_bytes(b"text")
    with pytest.raises(UsageError, match="cannot be read as results"):
        ResultsFile(path)


def test_without_a_file_results_are_in_memory_only():
    results = ResultsFile(None)
    results.add([])
    results.add([row()])
    assert len(results.frame) == 1
