from __future__ import annotations

import json
import re

import polars as pl
import pytest
from click.testing import CliRunner

from clipsyn.cli import main
from clipsyn.evaluation.loop import evaluate
from clipsyn.evaluation.results.frame import RESULT
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.heads import HEADS

QUICK = ["--ensembles", "log-avg,super-learner", "--shots", "1,full", "--seeds", "2"]


@pytest.fixture
def run(tiny_store, monkeypatch):
    """Run `clipsyn evaluate` on the tiny store; returns click's result."""
    monkeypatch.delenv("CLIPSYN_STORE", raising=False)

    def call(*arguments: object):
        words = ["evaluate", str(tiny_store.path), *map(str, arguments)]
        return CliRunner().invoke(main, words)

    return call


def test_it_prints_accuracy_and_the_few_shot_curve(run):
    result = run(*QUICK)
    assert result.exit_code == 0, result.stderr
    assert "head zero-shot · test · clean · prompts simple · the whole support" in result.stdout
    assert "by shots" in result.stdout
    for name in ("best-single", "best on test", "log-avg", "super-learner", "oracle"):
        assert name in result.stdout


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


def test_the_help_names_every_head_and_ensemble():
    text = " ".join(CliRunner().invoke(main, ["evaluate", "--help"]).stdout.split())
    for name in (*HEADS, *ENSEMBLES):
        assert name in text, name


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--ensembles", "log_avg"], 2, "unknown ensemble 'log_avg'"),
        (["--heads", "tip"], 2, "unknown head 'tip'"),
        (["--shots", "many"], 2, "--shots many: write numbers from 1 on, or full"),
        (["--shots", "0"], 2, "--shots 0: write numbers from 1 on, or full, such as 1,2,4,full"),
        (
            ["--shots", "3000000000"],
            2,
            "numbers of images a class from 1 to 1,000,000, not 3,000,000,000",
        ),
        (["--heads", ""], 2, "--heads '' is empty"),
        (["--support", "test"], 2, "the test split"),
        (["--base-to-new", "--ensembles", "stacking"], 2, "cannot use stacking"),
        (["--support", "val"], 4, "--split val"),
        (["--views", "augment-3"], 2, "unknown perturbation 'augment-3'"),
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
    before = (tmp_path / "r.parquet").read_bytes()
    result = run(
        "--ensembles", "vote-1", "-o", tmp_path / "r.parquet", "-o", tmp_path / "here/r.parquet"
    )
    assert result.exit_code == 2
    assert "name one file" in result.stderr
    assert (tmp_path / "r.parquet").read_bytes() == before


def test_an_output_that_cannot_be_is_known_before_anything_is_measured(run, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("clipsyn.evaluation.fit.fit_head", lambda *_: pytest.fail("measured"))
    result = run(*QUICK, "-o", tmp_path / "file" / "r.parquet")
    assert result.exit_code == 2
    assert re.search(r"cannot write .*file/r\.parquet: .*; choose", result.stderr)


def test_seeds_of_coop_are_counted_from_one(run, tiny_store, tmp_path):
    ids = tiny_store.samples("toy", "train").ids
    labels = tiny_store.samples("toy", "train").labels
    for seed in (1, 2):
        drawn = [[ids[row], int(labels[row]), ""] for row in (seed, seed + 3)]
        (tmp_path / f"shot_1-seed_{seed}.json").write_text(json.dumps({"train": drawn}))
    result = run("--coop", tmp_path, "--shots", "1", "--seeds", "2", "-o", "-")
    assert result.exit_code == 0, result.stderr
    seeds = {row["seed"] for row in json.loads(result.stdout) if row["ensemble"] == "super-learner"}
    assert seeds == {1, 2}
    result = run("--coop", tmp_path, "--shots", "1", "--seeds", "3")
    assert result.exit_code == 3
    assert "shot_1-seed_3.json" in result.stderr


def test_all_is_what_works_for_new_classes(run):
    result = run("--base-to-new", "--shots", "1", "--seeds", "1")
    assert result.exit_code == 0, result.stderr
    assert "note: lda left out: base-to-new" in result.stderr
