from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from clipsyn.analyses.robustness import robustness
from clipsyn.cli import main
from clipsyn.evaluation.loop import evaluate
from clipsyn.evaluation.results.frame import RESULT


@pytest.fixture
def run(tiny_store, monkeypatch):
    """Run `clipsyn robustness` on the tiny store; returns click's result."""
    monkeypatch.delenv("CLIPSYN_STORE", raising=False)

    def call(*arguments: object, store: object = tiny_store.path):
        return CliRunner().invoke(main, ["robustness", str(store), *map(str, arguments)])

    return call


def heads(text: str) -> list[str]:
    """The first words above every rule of a table."""
    lines = text.split("\n")
    return [lines[n - 1].split()[0] for n, line in enumerate(lines) if re.fullmatch("─+", line)]


def test_one_dataset_has_six_tables(run):
    result = run()
    assert result.exit_code == 0
    assert heads(result.stdout) == ["clean", *["perturbation"] * 5]
    assert result.stdout.startswith("toy/test · prompts simple · n 20\n")
    assert result.stderr == ""


def test_several_datasets_are_shown_by_their_mean(fakes, tiny_store, run):
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two", size=12, embed_dim=16)]
    more = fakes.Source("more", changed=set(range(20)))
    fakes.fill(tiny_store.path, encoders, [more], ("clean", "jpeg:3"))
    fakes.fill(tiny_store.path, encoders, [fakes.Source("still")])
    result = run()
    assert heads(result.stdout) == ["dataset", "clean", *["perturbation"] * 5]
    assert "mean over 2 datasets · split test" in result.stdout
    assert result.stderr == (
        "not shown, for want of labels, perturbed images or such cells: still\n"
    )
    details = heads(run("--details", "-d", "toy,more").stdout)
    assert len(details) == 1 + 3 * 9


def test_the_numbers_are_those_of_evaluate(run, tiny_store):
    options = ["-s", "train", "-b", "fake/*", "-p", "jpeg:3", "--reference", "fake/one"]
    rows = json.loads(run("-o", "-", *options).stdout)
    expected = robustness(tiny_store, splits="train", reference="fake/one")
    values = expected["value"].fill_nan(None)
    assert [row["value"] for row in rows] == values.to_list()
    assert list(rows[0]) == list(RESULT)


def test_ensembles_of_a_file_of_results(run, tmp_path, tiny_store):
    path = tmp_path / "results.parquet"
    evaluate(
        tiny_store,
        perturbations="*",
        heads=["zero-shot"],
        ensembles=["log-avg", "super-learner"],
        shots=(1, 2),
        seeds=2,
        output=path,
    )
    shown = run("--results", path).stdout
    assert "Ensembles: head zero-shot, 2 shots, means over seeds." in shown
    assert re.search(r"^super-learner +\d", shown, re.MULTILINE)
    assert "zero-shot, 1 shot, means" in run("--results", path, "--shots", "1").stdout
    result = run("--results", path, "--head", "lda")
    assert result.exit_code == 2
    assert "unknown head 'lda': known: zero-shot" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--reference", "fake/on"], 2, "unknown reference 'fake/on': did you mean fake/one"),
        (["-p", "clean"], 4, "has clean images only of toy/test: run `clipsyn extract "),
        (
            ["--results", "none.parquet"],
            2,
            "none.parquet does not exist: make it with `clipsyn evaluate ",
        ),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(run, arguments, code, message):
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_a_missing_cell_is_answered_with_the_line_that_makes_it(fakes, tmp_path, run):
    fakes.fill(tmp_path / "s", [fakes.Encoder()], perturbations=["clean", "fog:1", "fog:2"])
    two = fakes.Encoder("fake/two", size=12)
    store = fakes.fill(tmp_path / "s", [two], perturbations=["clean", "fog:1"])
    result = run(store=store.path)
    assert result.exit_code == 4
    assert (
        f"run `clipsyn extract {store.path} --backbones fake/two=local-dir:checkpoints/fake/two "
        "--dataset toy --split test --perturb fog-2`"
    ) in result.stderr
