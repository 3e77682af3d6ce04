"""Results files: added to, never mixed."""

from __future__ import annotations

import polars as pl
import pytest

from clipsyn.errors import ConflictingResults, UsageError
from clipsyn.evaluation.results.files import ResultsFile, ensembles_in, read_results
from clipsyn.evaluation.results.frame import NAMES, RESULT


def row(**changes) -> dict:
    content = {
        "dataset": "birds",
        "split": "test",
        "perturbation": "clean",
        "severity": 0,
        "head": "zero-shot",
        "ensemble": "nlc",
        "backbones": ["a", "b"],
        "prompts": "own",
        "classes": "all",
        "support": "train",
        "support_prompts": "own",
        "shots": "full",
        "seed": 0,
        "choice": None,
        "metric": "acc1",
        "value": 0.5,
        "ci_low": 0.4,
        "ci_high": 0.6,
        "n": 100,
        "fingerprint": "f1",
        "data": None,
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
    other = {"severity": 3, "shots": "4", "seed": 5, "backbones": ["a"]}.get(name, "other")
    results = ResultsFile(tmp_path / "r.parquet")
    results.add([row()])
    results.add([row(**{name: other}, fingerprint="f2")])
    assert len(results.frame) == 2


def test_other_numbers_under_the_same_names_are_refused(tmp_path):
    path = tmp_path / "r.parquet"
    ResultsFile(path).add([row()])
    with pytest.raises(ConflictingResults):
        ResultsFile(path).add([row(value=0.7, fingerprint="f2")])
    assert ResultsFile(path).frame["value"].to_list() == [0.5]
    ResultsFile(path, replace=True).add([row(value=0.7, fingerprint="f2")])
    assert ResultsFile(path).frame["value"].to_list() == [0.7]


def test_what_others_have_added_meanwhile_stays(tmp_path):
    path = tmp_path / "r.parquet"
    ours, theirs = ResultsFile(path), ResultsFile(path)
    with ours, theirs:
        theirs.add([row(value=0.25), row(metric="nll")])
        ours.add([row(seed=1, fingerprint="f2")])
        ours.add([row(), row(metric="nll")])
    frame = read_results(path)
    assert sorted(frame["fingerprint"]) == ["f1", "f1", "f2"]  # one of the two measurements
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.parquet"]


def test_a_place_that_cannot_be_written_to_is_known_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write .*file/r\.parquet: .*choose"):
        ResultsFile(tmp_path / "file" / "r.parquet")


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "r.parquet"
    path.mkdir()
    pl.DataFrame({"x": [1]}).write_parquet(path / "x.parquet")
    with pytest.raises(UsageError):
        ResultsFile(path)
    (path / "x.parquet").write_bytes(b"text")
    with pytest.raises(UsageError):
        ResultsFile(path)
    with pytest.raises(UsageError):  # which is a file, and no folder
        ResultsFile(path / "x.parquet")


def test_results_are_read_with_what_is_beside_and_without_other_columns(tmp_path):
    path = tmp_path / "r.parquet"
    rows = [row(), row(seed=1, fingerprint="f2")]
    ResultsFile(path).add(rows)
    path.parent.chmod(0o555)
    assert read_results(path).to_dicts() == rows
    assert ensembles_in(path, ["acc1"], "zero-shot", None, "line")["seed"].to_list() == [0, 1]
    path.parent.chmod(0o755)
    pl.DataFrame(rows, schema=RESULT).with_columns(more=1).write_parquet(tmp_path / "a.parquet")
    assert read_results(tmp_path / "a.parquet").to_dicts() == rows


STRING, NAMES_TYPE = pl.String, pl.List(pl.String)


@pytest.mark.parametrize(
    "change",
    [
        pl.col("dataset").replace("birds", None),
        pl.lit(None, STRING).alias("metric"),
        pl.lit(None).alias("n"),
        pl.col("value").cast(STRING),
        pl.lit(16).alias("shots"),
        pl.lit(["a"]).alias("dataset"),
        pl.lit("a").alias("backbones"),
        pl.lit([["a"]]).alias("backbones"),
        pl.lit(["a", None], NAMES_TYPE).alias("backbones"),
        pl.lit(-1, pl.Int64).alias("n"),
        pl.lit("-1").alias("shots"),
        pl.lit(None, STRING).alias("shots"),
        pl.lit(None, STRING).alias("ensemble"),
        pl.lit(0.7).alias("ci_low"),
        pl.lit(None, STRING).alias("fingerprint"),
        pl.lit(0).alias("seed").cast(pl.Int32),  # two rows of one name
    ],
)
def test_what_others_wrote_is_refused_where_it_is_opened(tmp_path, change):
    path = tmp_path / "r.parquet"
    rows = pl.DataFrame([row(), row(seed=1, fingerprint="f2")], schema=RESULT)
    rows.with_columns(change).write_parquet(path)
    with pytest.raises(UsageError):
        ensembles_in(path, ["acc1"], "zero-shot", None, "x")


def test_columns_may_be_in_another_order_categories_or_empty(tmp_path):
    path = tmp_path / "r.parquet"
    rows = pl.DataFrame([row(seed=None), row(seed=None, metric="x")], schema=RESULT)
    other = rows.with_columns(pl.col("dataset").cast(pl.Categorical), seed=None)
    other.select(*reversed(RESULT)).write_parquet(path)
    assert read_results(path).equals(rows)


def test_what_is_no_file_of_results(tmp_path):
    with pytest.raises(UsageError, match="does not exist: give a file of results"):
        read_results(tmp_path / "gone.parquet")
    pl.DataFrame({"dataset": ["x"]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(UsageError, match="holds no results, for want of backbones"):
        read_results(tmp_path / "x.parquet")
