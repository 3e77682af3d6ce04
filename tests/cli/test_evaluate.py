"""`clipsyn evaluate` and `compare`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from clipsyn.cli import main
from clipsyn.evaluation.loop import evaluate
from clipsyn.evaluation.paired import PAIRS, compare_methods
from clipsyn.evaluation.results.frame import RESULT

# `clipsyn evaluate`


QUICK = ["--ensembles", "log-avg,super-learner", "--shots", "1,full", "--seeds", "2"]


@pytest.fixture
def run(tiny_store, monkeypatch):
    """Run `clipsyn evaluate` on the tiny store; returns click's result."""
    monkeypatch.delenv("CLIPSYN_STORE", raising=False)

    def call(*arguments: object):
        words = ["evaluate", str(tiny_store.path), *map(str, arguments)]
        return CliRunner().invoke(main, words)

    return call


def test_the_numbers_are_those_of_the_library(run, tiny_store):
    found = json.loads(run(*QUICK, "-o", "-").stdout)
    settings = {"ensembles": ["log-avg", "super-learner"], "shots": (1, "full"), "seeds": 2}
    expected = evaluate(tiny_store, **settings)
    assert list(found[0]) == list(RESULT)
    values = [row["value"] for row in found if "seconds" not in row["metric"]]
    assert values == expected.filter(~pl.col("metric").str.contains("seconds"))["value"].to_list()


def test_results_are_added_to_the_output(run, tmp_path):
    output = tmp_path / "results.parquet"
    first = run(*QUICK, "-o", output)
    assert "results, all of them in" in first.stderr
    before = len(pl.read_parquet(output))
    run("--ensembles", "vote-1", "-o", output)
    assert len(pl.read_parquet(output)) > before
    csv = tmp_path / "r.csv"
    run(*QUICK, "-o", output, "-o", csv)
    assert set(pl.read_csv(csv)["ensemble"]) == {
        "single",
        "best-single",
        "log-avg",
        "super-learner",
        "oracle",
    }


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--ensembles", "log_avg"], 2, "unknown ensemble 'log_avg'"),
        (["--support", "test"], 2, "the test split"),
        (["--base-to-new", "--ensembles", "stacking"], 2, "stacking on toy cannot be used"),
        (["--support", "val"], 4, "--split val"),
    ],
)
def test_a_mistake_is_one_sentence(run, arguments, code, message):
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr


def test_results_that_are_added_to_are_not_written_over(run, tmp_path):
    (tmp_path / "here").symlink_to(tmp_path)
    run(*QUICK, "-o", tmp_path / "r.parquet")
    before = sorted((tmp_path / "r.parquet").iterdir())
    result = run(
        "--ensembles", "vote-1", "-o", tmp_path / "r.parquet", "-o", tmp_path / "here/r.parquet"
    )
    assert result.exit_code == 2
    assert "are one file" in result.stderr
    assert sorted((tmp_path / "r.parquet").iterdir()) == before


def test_an_output_that_cannot_be_is_known_before_anything_is_measured(run, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("clipsyn.evaluation.fit.fit_head", lambda *_: pytest.fail("measured"))
    result = run(*QUICK, "-o", tmp_path / "file" / "r.parquet")
    assert result.exit_code == 2
    assert re.search(r"cannot write .*file/r\.parquet: .*; choose", result.stderr)


# `clipsyn evaluate -o` and `clipsyn compare`


FEW = "--heads zero-shot --ensembles log-avg,super-learner --shots 1 --seeds 3"


@pytest.fixture
def predictions(clipsyn, tiny_store, tmp_path):
    path = tmp_path / "results.parquet"
    done = clipsyn("evaluate", tiny_store.path, *FEW.split(), "-o", path)
    assert done.exit_code == 0, done.output
    assert f"`clipsyn compare {path}`" in done.stderr
    return path


def test_the_numbers_are_those_of_python(clipsyn, predictions, tmp_path):
    csv, parquet = tmp_path / "p.csv", tmp_path / "pairs.parquet"
    done = clipsyn("compare", predictions, "log-avg", "-o", "-", "-o", csv, "-o", parquet)
    expected = compare_methods(predictions, "log-avg")
    found = json.loads(done.stdout)
    assert list(found[0]) == list(PAIRS)
    assert [row["difference"] for row in found] == expected["difference"].to_list()
    assert pl.read_parquet(parquet).equals(expected)
    assert len(pl.read_csv(csv)) == len(expected)


def test_what_cannot_be_compared(fails, predictions, tiny_store, tmp_path):
    told = fails(2, "compare", predictions, "log_avg")
    assert "unknown method 'log_avg': did you mean log-avg" in told
    assert "clipsyn evaluate STORE" in fails(2, "compare", tmp_path / "none.parquet")
    assert "--shots 16" in fails(2, "compare", predictions, "--shots", 16)


# `clipsyn compare --reference`, from a store to the table and its files


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
    assert pl.read_csv(tmp_path / "c.csv")["published"].to_list() == [round(value - 0.02, 4)]
    text = clipsyn("compare", results, "--reference", theirs, "--tolerance", "5").stdout
    assert "1 of 1 numbers are within 5 points of the published ones" in text


def test_what_cannot_be_compared_is_one_sentence(fails, results, tiny_store, tmp_path):
    line = ("compare", results, "--reference")
    said = fails(2, *line, "openai-zeroshot")
    assert "that openai-zeroshot has" in said
    for file, why in ((tiny_store.path, "is no"), (tmp_path / "gone", "does not exist")):
        assert why in fails(2, "compare", file, "--reference", "openai-zeroshot")
    assert "openai-zeroshot" in fails(2, "compare", results, "--reference", "openai")
    theirs = reference(results, one=0.5)
    other = tmp_path / "other.parquet"
    pl.DataFrame({"x": [1]}).write_parquet(other)
    assert "holds no results, for want of" in fails(2, "compare", other, "--reference", theirs)
    other.write_text("no parquet")
    assert "cannot be read as results" in fails(2, "compare", other, "--reference", theirs)


def test_options_of_methods_are_not_for_published_numbers(fails: Any, results: Path) -> None:
    line = ("compare", results, "--reference", "openai-zeroshot")
    assert "--head is about methods" in fails(2, *line, "--head", "lda")
    assert "FIRST and SECOND is about methods" in fails(2, "compare", results, "nlc", *line[2:])
