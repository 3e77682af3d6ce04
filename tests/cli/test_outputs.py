"""What every command writes, by the ending of a name, and may not write to."""

import csv
import errno
import json
import os
from pathlib import Path

import click
import polars as pl
import pytest

from clipsyn.analyses import ANALYSES
from clipsyn.cli import main
from clipsyn.cli.options import Destination, Source
from clipsyn.errors import UsageError
from clipsyn.images.split import split
from clipsyn.show import frames

ENDINGS = {
    (name, str(it.name)): it.type.endings or ("",)
    for name in main.commands
    for it in main.commands[name].params
    if isinstance(it.type, Destination)
}
OUTPUTS = [*ENDINGS]
each = pytest.mark.parametrize(("command", "output"), OUTPUTS, ids=[" ".join(it) for it in OUTPUTS])


def words(name, **values):
    """A line that is complete, with these values by the names of options and arguments."""
    command, given = main.commands[name], list[str]()
    for it in command.params:
        if it.name in values or it.required:
            value = str(values.get(str(it.name), f"some-{it.name}"))
            value = f"zeroshot={value}" if it.name == "measured" else value
            given += [it.opts[-1], value] if isinstance(it, click.Option) else [value]
    return [name, *given]


def inputs(name):
    for it in main.commands[name].params:
        if isinstance(it.type, click.Path | Source) and not isinstance(it.type, Destination):
            yield str(it.name)


@pytest.fixture
def refused(clipsyn, tmp_path, monkeypatch):
    """A line that ends in a sentence, with all files as they were."""
    monkeypatch.chdir(tmp_path)

    def run(name, codes=(2,), **values):
        before = content(tmp_path)
        result = clipsyn(*words(name, **values))
        assert result.exit_code in codes, result.output
        assert result.stderr.splitlines()[-1].startswith("Error: "), result.stderr
        assert content(tmp_path) == before

    return run


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@each
def test_no_input_is_written_over(refused, tmp_path, command, output):
    end = ENDINGS[command, output][0]
    given, hard, soft = (tmp_path / f"{name}{end}" for name in ("given", "hard", "soft"))
    given.write_text("id,prediction\n")
    hard.hardlink_to(given)
    soft.symlink_to(given)
    for name in inputs(command):
        for path in (given, hard, soft, f"../{tmp_path.name}/given{end}"):
            refused(command, **{name: given, output: path})


@each
@pytest.mark.parametrize("marker", ["clipsyn.json", "router.json"])
def test_nothing_is_written_into_a_store_or_router(refused, tmp_path, command, output, marker):
    (tmp_path / "it" / "deep").mkdir(parents=True)
    (tmp_path / "it" / marker).write_text("{}")
    (tmp_path / "link").symlink_to("it/deep")
    end = ENDINGS[command, output][0]
    for path in (f"it/{marker}", f"it/new{end}", f"it/deep/new{end}", f"link/new{end}"):
        refused(command, **{output: path})


@each
def test_two_outputs_are_two_files(refused, tmp_path, command, output):
    (tmp_path / "link").symlink_to(tmp_path)
    for name in (other for of, other in OUTPUTS if of == command and other != output):
        for end in {*ENDINGS[command, output]} & {*ENDINGS[command, name]}:
            refused(command, **{output: f"new{end}", name: f"link/new{end}"})


@each
def test_another_ending_is_refused(refused, command, output):
    if ENDINGS[command, output] != ("",):
        refused(command, **{output: "new.xls"})
        refused(command, **{output: "new"})


@each
def test_a_place_that_cannot_be_written_to(refused, tmp_path, command, output):
    (tmp_path / "file").touch()
    file = f"file/new{ENDINGS[command, output][0]}"
    refused(command, codes=(2, 3, 4), **{output: file})  # or there is no such store


def test_files_in_a_folder_that_is_imported_are_inputs(refused, tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "a.csv").write_text("id,prediction\n")
    refused("import", files="given", output="given/a.csv")


def test_a_device_takes_everything(clipsyn, tiny_store):
    null = tiny_store.path.parent / "null.csv"
    null.symlink_to(os.devnull)
    assert clipsyn("zeroshot", tiny_store.path, "-o", null, "-o", null).exit_code == 0


def _full(_, path):
    """What a full disk does: Python says it one way, polars another."""
    if path.suffix == ".csv":
        raise OSError(errno.ENOSPC, "No space left on device")
    raise pl.exceptions.ComputeError("underlying IO error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    "line",
    [
        "zeroshot STORE -o FILE.csv",
        "zeroshot STORE -o FILE.parquet",
        "oracle STORE --samples FILE.parquet",
        "plot accuracy-matrix STORE -p clean -o FILE.svg",
        "report STORE -o FILE.html",
    ],
)
def test_a_full_disk_leaves_the_former_file(clipsyn, tiny_store, tmp_path, monkeypatch, line):
    file = str(tmp_path / "file")
    given = line.replace("STORE", str(tiny_store.path)).replace("FILE", file).split()
    assert clipsyn(*given).exit_code == 0
    before = Path(given[-1]).read_bytes()
    monkeypatch.setattr(Path, "replace", _full)
    result = clipsyn(*given)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("Error: ") == 1
    assert Path(given[-1]).read_bytes() == before


def test_functions_and_recipes_refuse_the_same(tmp_path):
    (tmp_path / "r.parquet").touch()
    file = tmp_path / "r.parquet"
    with pytest.raises(UsageError):
        split(file, file, replace=True)
    (tmp_path / "clipsyn.json").touch()
    with pytest.raises(UsageError):
        frames.write(pl.DataFrame({"a": [1]}), csv=tmp_path / "new.csv")


# `-o FILE`: what every command writes, by the ending of the name


STORE, RESULTS, REFERENCE, PREDICTIONS = "STORE", "RESULTS", "REFERENCE", "PREDICTIONS"
QUICK = ["--ensembles", "log-avg", "--shots", "1", "--seeds", "1"]
COMMANDS = {
    **{name: [STORE] for name in ANALYSES},
    "compare --reference": [RESULTS, "--reference", REFERENCE],
    "evaluate": [STORE, *QUICK],
    "compare": [PREDICTIONS],
    "ls": [STORE],
    "ls --status": [STORE],
    "catalog backbones": [],
    "catalog datasets": [],
    "catalog perturbations": [],
}


@pytest.fixture
def run(clipsyn, captioned, tmp_path):
    """Run one of COMMANDS; what it prints."""
    results, reference = tmp_path / "zeroshot.parquet", tmp_path / "theirs.csv"
    ANALYSES.load("zeroshot")(captioned).write_parquet(results)
    reference.write_text("dataset,backbone,accuracy,source\ntoy,fake/one,0.5,A\n")
    places = {STORE: captioned.path, RESULTS: results, REFERENCE: reference}
    predictions = places[PREDICTIONS] = tmp_path / "methods.parquet"

    def call(name, *options):
        if PREDICTIONS in COMMANDS[name] and not predictions.exists():
            clipsyn("evaluate", captioned.path, *QUICK, "-o", predictions)
        words = [places.get(word, word) for word in COMMANDS[name]]
        result = clipsyn(*name.removesuffix("--reference").split(), *words, *options)
        assert result.exit_code == 0, result.output
        return result.stdout

    return call


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_with_tables_writes_what_the_ending_says(run, tmp_path, name):
    files = {end: tmp_path / f"out.{end}" for end in ("csv", "parquet", "json", "md", "tex")}
    text = run(name, *(word for file in files.values() for word in ("-o", file)))
    assert "─" in text
    assert "| ---" in files["md"].read_text()
    assert r"\toprule" in files["tex"].read_text()
    rows = json.loads(files["json"].read_text())
    with files["csv"].open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows) > 0
    assert len(pl.read_parquet(files["parquet"])) == len(rows)
    if name != "evaluate":  # whose seconds differ
        assert json.loads(run(name, "-o", "-")) == rows
