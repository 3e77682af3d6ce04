"""`clipsyn evaluate` and `compare`."""

import json
import re

import polars as pl
import pytest

from clipsyn.evaluation.loop import evaluate
from clipsyn.evaluation.paired import PAIRS, compare_methods
from clipsyn.evaluation.results.frame import RESULT
from tests.results import untimed

# `clipsyn evaluate`


QUICK = ["--ensembles", "log-avg,super-learner", "--shots", "1,full", "--seeds", "2"]


@pytest.fixture
def run(clipsyn, tiny_store):
    """Run `clipsyn evaluate` on the tiny store; returns click's result."""
    return lambda *arguments: clipsyn("evaluate", tiny_store.path, *arguments)


def test_the_numbers_are_those_of_the_library(run, tiny_store):
    found = json.loads(run(*QUICK, "-o", "-").stdout)
    settings = {"ensembles": ["log-avg", "super-learner"], "shots": (1, "full"), "seeds": 2}
    expected = evaluate(tiny_store, **settings)
    assert list(found[0]) == list(RESULT)
    values = [row["value"] for row in found if "seconds" not in row["metric"]]
    assert values == untimed(expected)["value"].to_list()


def test_results_are_added_to_the_output(run, tmp_path):
    output = tmp_path / "results.parquet"
    first = run(*QUICK, "-o", output)
    assert "results, all of them in" in first.stderr
    before = len(pl.read_parquet(output))
    run("--ensembles", "vote-1", "-o", output)
    assert len(pl.read_parquet(output)) > before
    csv = tmp_path / "r.csv"
    run(*QUICK, "-o", output, "-o", csv)
    named = {"single", "best-single", "log-avg", "super-learner", "oracle"}
    assert set(pl.read_csv(csv)["ensemble"]) == named


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--ensembles", "log_avg"], 2),
        (["--support", "test"], 2),
        (["--base-to-new", "--ensembles", "stacking"], 2),
        (["--support", "val"], 4),
    ],
)
def test_a_mistake_is_one_sentence(tiny_store, fails, arguments, code):
    fails(code, "evaluate", tiny_store.path, *arguments)


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
def results(clipsyn, tiny_store, tmp_path):
    """Zero-shot accuracies of two backbones on a dataset that no one has published."""
    path = tmp_path / "zeroshot.parquet"
    assert clipsyn("zeroshot", tiny_store.path, "-o", path).exit_code == 0
    return path


OPENAI = ("--reference", "openai-zeroshot")


def reference(results, **accuracies):
    path = results.with_name("theirs.csv")
    lines = [f"toy,fake/{name},{value},A talk" for name, value in accuracies.items()]
    path.write_text("\n".join(["dataset,backbone,accuracy,source", *lines]), "utf-8")
    return path


def test_a_table_a_note_and_files(clipsyn, results, tmp_path):
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
    within = ("--reference", theirs, "--tolerance", "5", "-o", "-")
    assert json.loads(clipsyn("compare", results, *within).stdout)[0]["beyond"] is False


def test_what_cannot_be_compared_is_one_sentence(fails, results, tiny_store, tmp_path):
    assert "that openai-zeroshot has" in fails(2, "compare", results, *OPENAI)
    for file, why in ((tiny_store.path, "is no"), (tmp_path / "gone", "does not exist")):
        assert why in fails(2, "compare", file, *OPENAI)
    other = tmp_path / "other.parquet"
    other.write_text("no parquet")
    assert "cannot be read as results" in fails(2, "compare", other, *OPENAI)
    assert "--head is about methods" in fails(2, "compare", results, *OPENAI, "--head", "lda")
    assert "FIRST and SECOND is about" in fails(2, "compare", results, "nlc", *OPENAI)
