from __future__ import annotations

import json
import re

import polars as pl
import pytest
from click.testing import CliRunner

from clipsyn.analyses.diversity import diversity
from clipsyn.cli import main
from clipsyn.evaluation.results.data import with_data
from clipsyn.evaluation.results.frame import RESULT

NAMES = ["fake/one", "fake/two"]
SIX = tuple(f"class {c}" for c in range(6))


@pytest.fixture
def run(tiny_store, monkeypatch):
    """Run `clipsyn diversity` on the tiny store; returns click's result."""
    monkeypatch.delenv("CLIPSYN_STORE", raising=False)

    def call(*arguments: object, store: object = tiny_store.path):
        return CliRunner().invoke(main, ["diversity", str(store), *map(str, arguments)])

    return call


@pytest.fixture
def gains(tmp_path, tiny_store):
    """Function (datasets, changes of columns) -> a file of gains of log-avg, 0.1, 0.2, …"""

    def write(*datasets: str, **changes):
        rows = [
            dict.fromkeys(RESULT)
            | {
                "dataset": name,
                "split": "test",
                "perturbation": "clean",
                "head": "zero-shot",
                "ensemble": "log-avg",
                "backbones": NAMES,
                "prompts": "simple",
                "classes": "all",
                "shots": "0",
                "metric": "gain_over_best_on_test",
                "value": number / 10,
                "n": 20,
                "fingerprint": name,
            }
            | changes
            for number, name in enumerate(datasets, 1)
        ]
        frame = with_data(tiny_store, pl.DataFrame(rows, schema=RESULT))
        frame.write_parquet(tmp_path / "gains.parquet")
        return tmp_path / "gains.parquet"

    return write


def heads(text: str) -> list[str]:
    """The first words of the heads of tables."""
    lines = text.split("\n")
    return [lines[n - 1].split()[0] for n, line in enumerate(lines) if re.fullmatch("─+", line)]


def test_several_groups_have_means_and_matrices(run):
    result = run()
    assert result.exit_code == 0
    assert heads(result.stdout) == ["dataset", "backbone", "backbone"]
    assert result.stdout.startswith("diversity of the backbones · test · prompts simple\n")
    assert result.stderr == ""


def test_one_group_has_its_pairs(run):
    result = run("-p", "clean")
    assert heads(result.stdout) == ["dataset", "backbone"]
    assert "toy/test · clean · prompts simple · n 20 · backbones fake/*" not in result.stdout
    assert "toy/test · clean · prompts simple · n 20" in result.stdout


def test_the_numbers_are_those_of_python(run, tiny_store):
    found = json.loads(run("-o", "-", "-s", "train", "-b", "fake/*").stdout)
    expected = diversity(tiny_store, splits="train").fill_nan(None)
    assert list(found[0]) == list(RESULT)
    assert [row["value"] for row in found] == expected["value"].to_list()
    assert [row["ci_low"] for row in found] == expected["ci_low"].to_list()


def test_correlations_with_gains(run, fakes, tiny_store, gains):
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two", size=12, embed_dim=16)]
    others = [fakes.Source("maps", count=20), fakes.Source("photos", count=20, class_names=SIX)]
    fakes.fill(tiny_store.path, encoders, others)
    path = gains("toy", "maps", "photos")
    result = run("-p", "clean", "--results", path)
    assert result.exit_code == 0, result.stderr
    assert heads(result.stdout) == ["dataset", "backbone", "ensemble", "ensemble"]
    assert "Pearson's r with the gain · test · clean" in result.stdout
    assert "nothing fitted · 3 datasets" in result.stdout
    assert result.stderr.startswith("note: images stand in several of these sets, maps/test (20 of")


def test_too_few_datasets_for_a_correlation_is_said(run, gains):
    result = run("-p", "clean", "--results", gains("toy"))
    assert result.exit_code == 0
    assert "Pearson" not in result.stdout
    assert "no correlation with gains: it takes three datasets whose" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-b", "fake/one"], "toy/test has only one backbone here, fake/one, and it takes two to"),
        (["--results", "none.parquet"], "none.parquet does not exist: make it with `clipsyn"),
        (["--results", "GAINS", "--head", "zero"], "unknown head 'zero': did you mean zero-shot"),
        (
            ["--results", "GAINS", "--shots", "4"],
            "no ensembles with --shots 4, but with none: `clipsyn evaluate",
        ),
        (["--results", "OTHERS"], f"has no gains of {', '.join(NAMES)} on toy/test"),
        (["--results", "SCORES"], "has no gain or gain_over_best_on_test"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(run, gains, arguments, message):
    changes = {"GAINS": {}, "OTHERS": {"backbones": ["a", "b"]}, "SCORES": {"metric": "acc1"}}
    words = [gains("toy", **changes[word]) if word in changes else word for word in arguments]
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_what_is_left_out_is_mentioned(fakes, tiny_store, run):
    fakes.fill(tiny_store.path, [fakes.Encoder()], [fakes.Source("alone", count=5)])
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two", size=12, embed_dim=16)]
    fakes.fill(tiny_store.path, encoders, [fakes.Source("photos", class_names=())])
    result = run()
    assert result.exit_code == 0
    assert "photos" not in result.stdout
    lacking = "labels, a second backbone or such cells"
    assert f"not shown, for want of {lacking}: alone, photos" in result.stderr
