from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from clipsyn.analyses.cascade import GIVEN, WITHIN, cascade
from clipsyn.cli import main


@pytest.fixture
def run(tiny_store, monkeypatch):
    """Run `clipsyn cascade` on the tiny store; returns click's result."""
    monkeypatch.delenv("CLIPSYN_STORE", raising=False)

    def call(*arguments: object, store: object = tiny_store.path):
        return CliRunner().invoke(main, ["cascade", str(store), *map(str, arguments)])

    return call


def heads(text: str) -> list[str]:
    """The first word above every rule of a table."""
    lines = text.split("\n")
    return [lines[n - 1].split()[0] for n, line in enumerate(lines) if re.fullmatch("─+", line)]


def test_it_shows_costs_the_curve_fixed_choices_and_the_front(run):
    result = run()
    assert result.exit_code == 0
    assert heads(result.stdout) == ["backbone", "ensemble", "choice", "ensemble"]
    assert "toy/test · clean" in result.stdout
    assert result.stderr == ""


def test_several_groups_are_means_and_details(run):
    assert heads(run("-p", "clean,jpeg-3").stdout)[:2] == ["backbone", "dataset"]
    detailed = run("-p", "*", "--details").stdout
    assert len(heads(detailed)) == 5 + 2 * 3


def test_the_numbers_are_those_of_evaluate(run, tiny_store):
    result = run(
        *("-o", "-", "--ensembles", "super-learner,conf"),
        *("--thresholds", "0.4,0.6", "--within", "5", "--cost", "fake/two=0.25"),
        *("--shots", "3", "--seed", "1"),
    )
    rows = json.loads(result.stdout)
    expected = cascade(
        tiny_store,
        ensembles=["super-learner", "conf"],
        thresholds=[0.4, 0.6],
        within_points=5,
        costs={"fake/two": 0.25},
        shots=3,
        seed=1,
    )
    assert [row["value"] for row in rows] == expected["value"].to_list()
    assert list(rows[0]) == expected.columns
    cascades = {(row["ensemble"], row["rule"], row["threshold"]) for row in rows}
    assert ("conf", GIVEN, 0.4) in cascades
    assert ("log-avg", WITHIN) in {cascade[:2] for cascade in cascades}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-b", "fake/one"], 2, "a cascade needs at least two backbones"),
        (["--ensembles", "ncl"], 2, "unknown ensemble 'ncl': did you mean nlc"),
        (["--order", "given"], 2, "--order given follows --backbones"),
        (["--order", "price"], 2, "--order"),
        (["--thresholds", "0.5,x"], 2, "--thresholds 0.5,x: write 0.5,0.9"),
        (["--thresholds", "-1"], 2, "--thresholds is numbers from 0 to 1, not -1"),
        (["--within", "-1"], 2, "'--within': -1.0 is not in the range x>=0"),
        (["--cost", "fake/one"], 2, "--cost fake/one: write NAME=GFLOPS"),
        (["--cost", "fake/one=1,fake/one=2"], 2, "--cost fake/one=1,fake/one=2 gives a name twice"),
        (["--cost", "fake/three=1"], 2, "unknown backbone 'fake/three'"),
        (["--cost", "local=dir/x=0"], 2, "unknown backbone 'local=dir/x'"),
        (["--support", "test"], 2, "the test split"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(run, arguments, code, message):
    result = run(*arguments)
    assert message in result.stderr
    assert result.exit_code == code
    assert "Traceback" not in result.output
    assert result.stdout == ""
