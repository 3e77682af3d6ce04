"""Results files: added to, never mixed."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from clipsyn.errors import ConflictingResults, UsageError
from clipsyn.results import files
from clipsyn.results.files import ResultsFile, ensembles_in, read_results
from clipsyn.results.frame import NAMES, RESULT


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
    other = {"severity": 3, "shots": 4, "seed": 5, "backbones": ["a"]}.get(name, "other")
    results = ResultsFile(tmp_path / "r.parquet")
    results.add([row()])
    results.add([row(**{name: other}, fingerprint="f2")])
    assert len(results.frame) == 2


def test_other_numbers_under_the_same_names_are_refused(tmp_path):
    path = tmp_path / "r.parquet"
    ResultsFile(path).add([row()])
    with pytest.raises(
        ConflictingResults, match=r"already holds nlc on birds/test \(clean.*replace=True"
    ):
        ResultsFile(path).add([row(value=0.7, fingerprint="f2")])
    assert ResultsFile(path).frame["value"].to_list() == [0.5]
    ResultsFile(path, replace=True).add([row(value=0.7, fingerprint="f2")])
    assert ResultsFile(path).frame["value"].to_list() == [0.7]


def test_what_others_have_added_meanwhile_stays(tmp_path):
    path = tmp_path / "r.parquet"
    ours, theirs = ResultsFile(path), ResultsFile(path)
    theirs.add([row(value=0.25), row(metric="nll")])
    ours.add([row(seed=1, fingerprint="f2")])
    ours.add([row(), row(metric="nll"), row(seed=2, fingerprint="f3")])
    assert ResultsFile(path).frame.equals(ours.frame)
    assert ours.frame["fingerprint"].to_list() == ["f1", "f1", "f2", "f3"]
    assert ours.frame["value"].to_list() == [0.25, 0.5, 0.5, 0.5]  # measured once
    assert ours.known == {"f1", "f2", "f3"}
    with pytest.raises(ConflictingResults):
        theirs.add([row(seed=2, fingerprint="f4")])
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.parquet"]


def test_two_processes_add_to_one_file(tmp_path):
    path = tmp_path / "r.parquet"
    script = f"""
import sys
from pathlib import Path
from clipsyn.results.files import ResultsFile, ensembles_in, read_results

results = ResultsFile(Path({str(path)!r}))
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    name = f"{{sys.argv[1]}}-{{number}}"
    results.add([{row()!r} | {{"head": name, "fingerprint": name}}])
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, name],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    expected = {f"{name}-{number}" for name in ("one", "two") for number in range(20)}
    assert sorted(ResultsFile(path).frame["head"]) == sorted(expected)
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.parquet"]


@pytest.fixture
def seldom(monkeypatch) -> None:
    """The whole file is written at the first addition, and not again soon."""
    clock = itertools.count()
    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=lambda: next(clock)))


@pytest.mark.usefixtures("seldom")
class TestBetweenWritesOfTheWholeFile:
    ROWS = (row(), row(seed=1, fingerprint="f2", value=float("nan"), ci_low=None), row(metric="x"))

    @pytest.fixture
    def path(self, tmp_path) -> Path:
        """A file of one row, and beside it another that was added before the process was killed."""
        path = tmp_path / "r.parquet"
        results = ResultsFile(path)
        for one in self.ROWS[:2]:
            results.add([one])
        assert len(pl.read_parquet(path)) == 1
        return path

    def test_rows_are_kept_and_moved_by_the_next_run(self, path):
        assert ResultsFile(path).known == {"f1", "f2"}
        expected = pl.DataFrame(self.ROWS[:2], schema=RESULT)
        assert pl.read_parquet(path).equals(expected)
        assert [entry.name for entry in path.parent.iterdir()] == ["r.parquet"]

    def test_they_are_in_the_file_at_the_end(self, tmp_path):
        path = tmp_path / "r.parquet"
        with ResultsFile(path) as results:
            for number in range(5):
                results.add([row(seed=number, fingerprint=f"{number}")])
        assert pl.read_parquet(path)["seed"].to_list() == [*range(5)]
        assert [entry.name for entry in path.parent.iterdir()] == ["r.parquet"]

    def test_analyses_read_them_too(self, path):
        path.parent.chmod(0o555)
        found = ensembles_in(path, ["acc1"], "zero-shot", None, "line")
        path.parent.chmod(0o755)
        assert found["seed"].to_list() == [0, 1]

    def test_a_row_that_was_being_added_is_lost_and_no_other(self, path):
        (beside,) = path.parent.glob(".*rows")
        beside.write_bytes(beside.read_bytes()[:-10])
        ours, theirs = ResultsFile(path), ResultsFile(path)
        assert ours.known == {"f1"}
        ours.add([row(seed=2, fingerprint="f3")])
        theirs.add([row(seed=3, fingerprint="f4")])
        ours.add([row(seed=4, fingerprint="f5")])
        assert ours.known == {"f1", "f3", "f4", "f5"}
        assert ResultsFile(path).frame.sort("fingerprint").equals(ours.frame.sort("fingerprint"))

    def test_rows_that_were_moved_before_the_kill_count_once(self, path):
        (beside,) = path.parent.glob(".*rows")
        content = beside.read_bytes()
        ResultsFile(path)
        beside.write_bytes(content)
        assert len(ResultsFile(path).frame) == 2

    def test_they_go_with_the_file(self, path):
        path.unlink()
        assert ResultsFile(path).known == set()
        assert list(path.parent.iterdir()) == []

    def test_they_are_refused_or_replaced_as_others_are(self, path):
        other = row(seed=1, fingerprint="f3", value=0.7)
        with pytest.raises(ConflictingResults, match="already holds nlc"):
            ResultsFile(path).add([other])
        results = ResultsFile(path, replace=True)
        results.add([row(seed=5, fingerprint="f5"), other])
        assert pl.read_parquet(path)["fingerprint"].to_list() == ["f1", "f5", "f3"]


def test_a_place_that_cannot_be_written_to_is_known_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"cannot write .*file/r\.parquet: .*choose"):
        ResultsFile(tmp_path / "file" / "r.parquet")


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "r.parquet"
    pl.DataFrame({"x": [1]}).write_parquet(path)
    with pytest.raises(UsageError, match="holds something else than results"):
        ResultsFile(path)
    path.write_bytes(b"text")
    with pytest.raises(UsageError, match="cannot be read as results"):
        ResultsFile(path)


def test_results_of_an_earlier_version_are_refused_with_what_to_run(tmp_path):
    """Backbones were one text with a + between them, and the support a split and a prompt set."""
    path = tmp_path / "r.parquet"
    earlier = pl.DataFrame([row()], schema=RESULT).with_columns(
        pl.col("backbones").list.join("+"), support=pl.lit("train, own")
    )
    earlier.drop("support_prompts").write_parquet(path)
    for read in (ResultsFile, lambda path: ensembles_in(path, ["acc1"], "zero-shot", None, "x")):
        with pytest.raises(UsageError, match=r"earlier version .* again with `clipsyn evaluate ST"):
            read(path)


def test_without_a_file_results_are_in_memory_only():
    results = ResultsFile(None)
    results.add([])
    results.add([row()])
    assert len(results.frame) == 1


def test_results_are_read_with_what_is_beside_and_without_other_columns(tmp_path, monkeypatch):
    path = tmp_path / "r.parquet"
    first, second = row(), row(seed=1, fingerprint="f2")
    results = ResultsFile(path)
    results.add([first])
    monkeypatch.setattr(results, "_write_again", float("inf"))
    results.add([second])  # in the hidden file
    assert pl.read_parquet(path)["fingerprint"].to_list() == ["f1"]
    assert read_results(path).to_dicts() == [first, second]
    pl.DataFrame([first], schema=RESULT).with_columns(more=1).write_parquet(tmp_path / "a.parquet")
    assert read_results(tmp_path / "a.parquet").to_dicts() == [first]


def test_what_is_no_file_of_results(tmp_path):
    with pytest.raises(UsageError, match="is a folder: give a file of results"):
        read_results(tmp_path)
    with pytest.raises(UsageError, match="does not exist: give a file of results"):
        read_results(tmp_path / "gone.parquet")
    pl.DataFrame({"dataset": ["x"]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(UsageError, match="holds no results, for want of backbones"):
        read_results(tmp_path / "x.parquet")
