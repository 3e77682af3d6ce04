"""Hostile values for every option and argument of every command: a sentence, never a traceback.

Commands and options are found in the command line itself, so that a new one is tried too; a command
that is new, and no analysis, needs its line in `BASES`, a run that works and ends soon.
"""

import re
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from clipsyn.analyses import ANALYSES
from clipsyn.cli import main
from clipsyn.cli.options import Destination
from clipsyn.evaluation.loop import evaluate
from clipsyn.run.recipe import STAGES
from clipsyn.settings import declared
from clipsyn.store.features import FeatureStore
from tests.remote import copying

DOCUMENTED = {0, 1, 2, 3, 4, 130}  # docs/reference.py, and `clipsyn.errors`
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
TEXTS = (
    "",
    ",",
    "-1",
    "0",
    "99999999999999999999",
    "9" * 310,  # more than a float holds
    "1e400",
    "nan",
    "٣",  # a digit, and not one of ours
    "=",
    "a=b:c=d",
    "[",
    "*",
    "{c}",
    "..",
    "/",
    "/dev/null/x",
    "~nobody/x",
    "n" * 300,
    "é" * 100,  # 200 bytes as they are, 600 in a path of a store
    "red\x1b[31m\nnext\u202eback",
    "\udcff",  # what an argument that is not UTF-8 becomes
    "zarr.json",
)
FILES = (  # each of them hostile to who reads it
    "folder",
    "empty.csv",
    "noise.csv",
    "noise.parquet",
    "noise.npy",
    "noise.npz",
    "noise.pt",
    "deep.json",
    "deep.yaml",
)
EVIL = "\x1b[2J\u202e"  # in names of the store that all commands read
BASES: dict[str, dict[str, Any]] = {
    "extract": {
        "store": "store",
        "backbones": "fake=local-dir:fake",
        "datasets": "photos",
        "dry_run": True,
    },
    "import": {"store": "imported", "files": "mine.csv", "dataset": "toy", "backbone": "mine"},
    "export": {"store": "store", "output": "exported", "layout": "npz"},
    **{name: {"store": "store"} for name in ANALYSES},
    "evaluate": {"store": "store", "ensembles": "log-avg", "shots": "1", "seeds": "1"},
    "fit": {"store": "store", "dataset": "toy", "ensemble": "log-avg", "output": "other-router"},
    "predict": {"router": "router", "images": "store"},
    "split": {"images": "photos", "output": "new.csv"},
    "plot": {"name": "accuracy-matrix", "sources": "store", "output": "figure.svg"},
    "report": {  # a page of few figures; values of the first two options have them all
        "store": "store",
        "backbones": "fake/one",
        "perturbations": "clean",
        "output": "page.html",
    },
    "compare": {"results": "r.parquet"},
    "search": {"store": "store", "like": "im003.png", "split": "test"},
    "ls": {"store": "store"},
    "info": {"store": "store"},
    "verify": {"store": "store"},
    "rm": {"store": "store", "dataset": "toy"},  # nobody answers whether it should
    "gc": {"store": "store"},
    "push": {"store": "store", "url": "published", "dry_run": True},
    "pull": {"sources": "published", "store": "pulled", "dry_run": True},
    "catalog": {"kind": "datasets"},
    "run": {"recipe": "recipe.yaml"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, fakes):
    """A folder with all that the commands of `BASES` need, and the files of `FILES`."""
    folder = tmp_path_factory.mktemp("fuzz")
    encoders = [fakes.Encoder(), fakes.Encoder(f"fake/two{EVIL}", size=12, embed_dim=16)]
    sources = [
        fakes.Source(split=split, count=count, class_names=("cat", EVIL, "=bee"))
        for split, count in (("test", 20), ("train", 11))
    ]
    fakes.fill(folder / "store", encoders, sources, ("clean", "jpeg:3"))
    rows = "\n".join(f"im{row:03d}.png,cat" for row in range(20))
    (folder / "mine.csv").write_text(f"id,prediction\n{rows}\n")
    (folder / "recipe.yaml").write_text("store: store\nstages: [{stage: zeroshot, output: out}]\n")
    (folder / "photos" / "cat").mkdir(parents=True)
    from PIL import Image

    Image.new("RGB", (20, 20)).save(folder / "photos" / "cat" / "one.png")
    Image.new("RGB", (20, 20), "white").save(folder / "photos" / "cat" / "two.png")
    copying.push(FeatureStore.open(folder / "store"), folder / "published")
    _make_results(folder)
    _make_hostile(folder)
    return folder


def _make_results(folder):
    store = FeatureStore.open(folder / "store")
    evaluate(store, ensembles=["log-avg"], shots=[1], seeds=1, output=folder / "r.parquet")
    ANALYSES.load("zeroshot")(store).write_parquet(folder / "results.parquet")
    published = "dataset,backbone,accuracy,source\ntoy,fake/one,0.5,A\n"
    (folder / "published.csv").write_text(published)


def _make_hostile(folder):
    noise = np.random.default_rng(0).bytes(2000)
    (folder / "folder").mkdir()
    for name in FILES:
        if name.startswith("noise."):
            (folder / name).write_bytes(noise)
    (folder / "empty.csv").touch()
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "deep.yaml").write_text("[" * 100_000)


@pytest.fixture
def run(place, fakes, monkeypatch, tmp_path):
    """Run a command line there, with a backbone that needs no weights, and no network."""
    from clipsyn.extract import encoder

    real = encoder.load_encoder

    def load(backbone, **settings):
        fake = backbone.source == "local-dir:fake"
        return fakes.Encoder() if fake else real(backbone, **settings)

    monkeypatch.setattr(encoder, "load_encoder", load)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("CLIPSYN_STORE", raising=False)
    monkeypatch.delenv("CLIPSYN_DATA", raising=False)
    folder = tmp_path / "place"
    shutil.copytree(place, folder, copy_function=shutil.copyfile)
    monkeypatch.chdir(folder)
    return lambda *arguments: CliRunner().invoke(main, [*arguments])


SLOW = ("report", "plot", "evaluate", "extract")
SLOWER = ("cascade", "selective", "retrieval")  # than others that have the same options


def thorough():
    """The command that gets all values of an option: of those that have it, one that is fast."""
    found: dict[tuple[str, str], str] = {}
    for name in sorted(BASES, key=lambda name: (name in SLOW, name in SLOWER, name)):
        for it in main.commands[name].params:
            found.setdefault((str(it.name), type(it.type).__name__), name)
    return found


THOROUGH = thorough()


@pytest.mark.parametrize("name", sorted(BASES))
def test_no_value_makes_a_traceback(name, run):
    command = main.commands[name]
    faults = [
        f"clipsyn {name} {arguments}: {fault}"
        for arguments in _command_lines(command, BASES[name])
        if (fault := _fault(run(name, *arguments)))
    ]
    assert not faults, "\n".join(faults)


IN_RECIPES = (
    *(None, "", "\0", "/", 10**30, 10**310, float("nan"), float("inf")),
    *([""], [10**310], {"a": "b"}, {1: 2}, date(2024, 1, 1)),
)
STAGE_BASES: dict[str, dict[str, Any]] = {  # where a stage cannot do without a field
    "extract": {"datasets": ["nowhere/at/all"]},
    "import": {"files": ["mine.csv"], "dataset": "toy", "backbone": "mine"},
    "evaluate": {"ensembles": ["log-avg"], "shots": [1], "seeds": 1},
}


# by field, the fast stage that gets all values of it
THOROUGH_STAGES = {
    field: stage
    for stage in sorted(STAGES, key=lambda stage: stage not in SLOW)
    for field in declared(STAGES[stage])
}


@pytest.mark.parametrize("stage", STAGES)
def test_no_field_of_a_recipe_makes_a_traceback(stage, run):
    faults = []
    for place, field in enumerate(declared(STAGES[stage])):
        every = 3 if stage in SLOW else 1 if THOROUGH_STAGES[field] == stage else 4
        for value in IN_RECIPES[place % every :: every]:
            content = {"stage": stage, **STAGE_BASES.get(stage, {}), field: value}
            if "output" in declared(STAGES[stage]):
                content = {"output": "out", **content}
            Path("r.yaml").write_text(yaml.safe_dump({"store": "store", "stages": [content]}))
            if fault := _fault(run("run", "r.yaml")):
                faults.append(f"{stage}: {field}: {value!r}: {fault}")
    assert not faults, "\n".join(faults)


def test_every_command_has_a_base():
    assert BASES.keys() == main.commands.keys()


def _command_lines(command, base):
    """The base, and for each option and argument the base with values in its place.

    All values where no faster command reads such an option, else some, at each place others; some,
    too, where the first is slow.
    """
    yield _arguments(command, base)
    for place, parameter in enumerate(command.params):
        assert parameter.name
        if isinstance(parameter, click.Option) and parameter.is_flag:
            yield _arguments(command, {**base, parameter.name: True})
            continue
        is_written = isinstance(parameter.type, Destination)  # and not read
        values = TEXTS if is_written else (*TEXTS, *FILES)
        is_first = THOROUGH[parameter.name, type(parameter.type).__name__] == command.name
        every = 8 if not is_first else 4 if command.name in SLOW else 1
        for value in values[place % every :: every]:
            if (command.name, parameter.name, value) == ("import", "files", "/"):
                continue  # it would look for tables on the whole disk
            yield _arguments(command, {**base, parameter.name: value})


def _arguments(command, values):
    options, positional = [], []
    for parameter in command.params:
        value = values.get(str(parameter.name))
        if value is None:
            continue
        if isinstance(parameter, click.Argument):
            positional.append(value)
        elif value is True:
            options.append(parameter.opts[-1])
        else:
            options.append(f"{max(parameter.opts, key=len)}={value}")
    return [*options, "--", *positional]


def _fault(result):
    """What is wrong with how a command ended; "" if nothing is."""
    if result.exception and not isinstance(result.exception, SystemExit):
        return f"{result.exception!r}"
    if result.exit_code not in DOCUMENTED:
        return f"exit code {result.exit_code}"
    if result.exit_code and not result.stderr.strip():
        return "it fails without a word"
    if unsafe := UNSAFE.search(result.output):
        return f"{unsafe[0]!r} reaches the terminal"
    return ""
