"""Results files: added to, never mixed."""

import polars as pl
import pytest

from clipsyn.errors import ConflictingResults, UsageError
from clipsyn.evaluation.results.files import RowsFile, ensembles_in, read_results
from clipsyn.evaluation.results.frame import NAMES, RESULT
from tests.results import row as made


def added(path, *rows):
    file = RowsFile(path)
    file.add(pl.DataFrame(rows, schema=RESULT))
    return file


def row(**changes):
    about = {"support": "train", "support_prompts": "own", "shots": "full", "seed": 0}
    content = made("acc1", 0.5, ["a", "b"], "nlc", **about, choice=None, data=None)
    assert set(content) == set(RESULT)
    return content | {"fingerprint": "f1"} | changes


def test_rows_are_added_and_found_again(tmp_path):
    path = tmp_path / "new" / "r.parquet"
    added(path, row())
    assert RowsFile(path).known == {"f1"}
    added(path, row(seed=1, fingerprint="f2"))
    assert RowsFile(path).frame["fingerprint"].to_list() == ["f1", "f2"]
    assert [entry.name for entry in path.parent.iterdir()] == ["r.parquet"]
    assert len(added(None, row()).frame) == 1


@pytest.mark.parametrize("name", [name for name in NAMES if name != "metric"])
def test_results_differ_by_every_name(tmp_path, name):
    other = {"severity": 3, "shots": "4", "seed": 5, "backbones": ["a"]}.get(name, "other")
    results = added(tmp_path / "r.parquet", row())
    results.add(pl.DataFrame([row(**{name: other}, fingerprint="f2")], schema=RESULT))
    assert len(results.frame) == 2


def test_other_numbers_under_the_same_names_are_refused(tmp_path):
    path = tmp_path / "r.parquet"
    added(path, row())
    with pytest.raises(ConflictingResults):
        added(path, row(value=0.7, fingerprint="f2"))
    assert RowsFile(path).frame["value"].to_list() == [0.5]


def test_what_others_have_added_meanwhile_stays(tmp_path):
    path = tmp_path / "r.parquet"
    with RowsFile(path) as ours, RowsFile(path) as theirs:
        theirs.add(pl.DataFrame([row(value=0.25), row(metric="nll")], schema=RESULT))
        more = [row(seed=1, fingerprint="f2"), row(), row(metric="nll")]
        ours.add(pl.DataFrame(more, schema=RESULT))
    assert sorted(read_results(path)["fingerprint"]) == ["f1", "f1", "f2"]  # one of the two
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.parquet"]


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "r.parquet"
    path.mkdir()
    pl.DataFrame({"x": [1]}).write_parquet(path / "x.parquet")
    with pytest.raises(UsageError):
        RowsFile(path)
    (path / "x.parquet").write_bytes(b"text")
    with pytest.raises(UsageError):
        RowsFile(path)
    with pytest.raises(UsageError):  # which is a file, and no folder
        RowsFile(path / "x.parquet")


def test_results_are_read_with_other_columns_too(tmp_path):
    path = tmp_path / "r.parquet"
    rows = [row(), row(seed=1, fingerprint="f2")]
    added(path, *rows)
    path.parent.chmod(0o555)
    assert read_results(path).to_dicts() == rows
    assert ensembles_in(path, ["acc1"], "zero-shot", None, "line")["seed"].to_list() == [0, 1]
    path.parent.chmod(0o755)
    pl.DataFrame(rows, schema=RESULT).with_columns(more=1).write_parquet(tmp_path / "a.parquet")
    assert read_results(tmp_path / "a.parquet").drop("more").to_dicts() == rows


STRING = pl.String


@pytest.mark.parametrize(
    "change",
    [
        pl.col("dataset").replace("birds", None),
        pl.lit(None, STRING).alias("metric"),
        pl.lit(None).alias("n"),
        pl.col("value").cast(STRING),
        pl.lit("-1").alias("shots"),
        pl.lit(None, STRING).alias("shots"),
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
