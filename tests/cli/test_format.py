"""`--format`: the tables of every command in each format."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from clipsyn.analyses import ANALYSES
from clipsyn.cli import main
from clipsyn.show.formats import BENCHMARK, FORMATS
from clipsyn.store.features import FeatureStore

STORE, RESULTS, REFERENCE, PREDICTIONS = "STORE", "RESULTS", "REFERENCE", "PREDICTIONS"
QUICK = ["--ensembles", "log-avg", "--shots", "1", "--seeds", "1"]
COMMANDS = {
    **{name: [STORE] for name in ANALYSES},
    "published": [RESULTS, "--reference", REFERENCE],
    "evaluate": [STORE, *QUICK],
    "compare": [PREDICTIONS],
    "ls": [STORE],
    "catalog backbones": [],
    "catalog datasets": [],
    "catalog perturbations": [],
}
SIGNS = {"text": "─", "markdown": "| ---", "latex": r"\toprule", "csv": ","}


@pytest.fixture
def run(
    clipsyn: Callable[..., Result], tiny_store: FeatureStore, tmp_path: Path
) -> Callable[..., str]:
    """Run one of COMMANDS; what it prints."""
    results, reference = tmp_path / "zeroshot.parquet", tmp_path / "theirs.csv"
    ANALYSES.load("zeroshot")(tiny_store).write_parquet(results)
    reference.write_text("dataset,backbone,accuracy,source\ntoy,fake/one,0.5,A\n")
    places = {STORE: tiny_store.path, RESULTS: results, REFERENCE: reference}
    predictions = places[PREDICTIONS] = tmp_path / "predictions.parquet"

    def call(name: str, *options: object) -> str:
        if PREDICTIONS in COMMANDS[name] and not predictions.exists():
            clipsyn("evaluate", tiny_store.path, *QUICK, "--predictions", predictions)
        words = [places.get(word, word) for word in COMMANDS[name]]
        result = clipsyn(*name.split(), *words, *options)
        assert result.exit_code == 0, result.output
        return result.stdout

    return call


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_with_tables_has_every_format(run, name, format):
    shown = run(name, "--format", format)
    assert SIGNS[format] in shown
    others = [sign for other, sign in SIGNS.items() if other not in (format, "csv")]
    assert not any(sign in shown for sign in others)


@pytest.mark.parametrize("name", COMMANDS)
def test_text_is_what_there_is_without_a_word(run, name):
    if name != "evaluate":  # seconds differ, in none of its tables
        assert run(name, "--format", "text") == run(name)


def test_predictions_have_it_too():
    (option,) = (it for it in main.commands["predict"].params if it.name == "format")
    assert option.default == "text"


def test_other_formats_know_no_terminal(run, monkeypatch):
    whole = run("catalog datasets", "--format", "markdown")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    assert run("catalog datasets", "--format", "markdown") == whole


def test_the_csv_of_a_list_is_a_table_by_itself(run):
    rows = list(csv.DictReader(io.StringIO(run("ls", "--format", "csv"))))
    assert {(row["dataset"], row["split"], row["images"]) for row in rows} == {
        ("toy", "test", "20"),
        ("toy", "train", "11"),
    }


def test_json_has_no_format(fails, tiny_store):
    for name, words in (
        ("ls", [tiny_store.path]),
        ("zeroshot", [tiny_store.path]),
        ("catalog", ["datasets"]),
    ):
        said = fails(2, name, *words, "--json", "--format", "latex")
        assert said == "--json prints no tables, in no format: leave out --format latex"


@pytest.mark.parametrize("name", ["zeroshot", "evaluate"])
def test_clip_benchmark_gets_its_columns(run, name):
    rows = list(csv.DictReader(io.StringIO(run(name, "-p", "clean", "--format", BENCHMARK))))
    assert [(row["dataset"], row["model"], row["pretrained"]) for row in rows] == [
        ("toy", "fake", "one"),
        ("toy", "fake", "two"),
    ]
    assert all(0 <= float(row["acc1"]) <= 1 for row in rows)


def test_what_has_no_backbones_of_its_own_has_no_such_columns(fails, tiny_store):
    assert BENCHMARK in fails(2, "oracle", tiny_store.path, "--format", BENCHMARK)


def test_files_are_written_all_the_same(run, tmp_path: Path):
    run("zeroshot", "--format", "latex", "--csv", tmp_path / "numbers.csv")
    assert "acc1" in (tmp_path / "numbers.csv").read_text()
