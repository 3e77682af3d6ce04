"""`clipsyn run`, and work that several processes share."""

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsyn.cli import main
from clipsyn.cli.make import Call, stop_on_sigterm
from clipsyn.cli.options import words_of
from clipsyn.errors import UsageError
from clipsyn.evaluation import ProtocolSettings
from clipsyn.names import FeatureKey
from clipsyn.settings import declared
from clipsyn.store.features import FeatureStore
from clipsyn.store.inventory import left_over
from tests.kills import unfinished
from tests.results import untimed

# `clipsyn run`: stages announced, one summary at the end


@pytest.fixture
def recipe(tmp_path, checkpoint, write_images):
    """Relative paths in it, which start at the folder where the command is run."""
    write_images()
    path = tmp_path / "recipes" / "photos.yaml"
    path.parent.mkdir()
    path.write_text(
        "store: runs/store\n"
        "stages:\n"
        f"  - {{stage: extract, datasets: [photos], backbones: ['local-dir:{checkpoint}']}}\n"
        "  - {stage: zeroshot, summary: true, output: runs/zeroshot}\n"
    )
    return path


def test_from_recipe_to_table_and_again(clipsyn, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = clipsyn("run", recipe)
    assert first.exit_code == 0, first.stderr
    assert first.stderr.startswith("[1/2] extract\n")
    assert "[2/2] zeroshot\n" in first.stderr
    assert "zero-shot top-1 accuracy" in first.stdout
    assert first.stdout.splitlines()[-1] == "store: runs/store"
    assert (tmp_path / "runs" / "zeroshot.csv").is_file()
    assert (tmp_path / "runs" / "zeroshot.parquet").is_file()
    assert len(FeatureStore.open(tmp_path / "runs" / "store").keys()) == 1
    second = clipsyn("run", recipe)
    extract, zeroshot = second.stdout.splitlines()[-3:-1]
    assert extract.startswith("extract   already there")
    assert zeroshot.startswith("zeroshot  already there")
    assert second.stdout.split("stage  ")[0] == first.stdout.split("stage  ")[0]  # same table


def test_a_recipe_that_ships_is_run_by_its_name_in_any_folder(
    clipsyn, fails, recipe, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("clipsyn.run.recipe.recipes_dir", lambda: recipe.parent)
    recipe.with_name("broken.yaml").write_text("store: s\n")
    result = clipsyn("run", "photos")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "runs" / "zeroshot.csv").is_file()
    assert "broken.yaml: stages is missing" in fails(2, "run", "broken")


def test_a_dry_run_shows_every_stage_and_writes_nothing(clipsyn, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    first = clipsyn("run", recipe, "--dry-run")
    assert first.exit_code == 0, first.output
    assert "[1/2] extract\n" in first.stdout
    assert "1 of 1 cells to make: 8 images through a backbone" in first.stdout
    assert "[2/2] zeroshot\nwrites runs/zeroshot.csv, writes runs/zeroshot.parquet" in first.stdout
    assert "No weights were loaded and no images compared" in first.stdout
    assert first.stdout.splitlines()[-1] == "store: runs/store"
    assert sorted(tmp_path.iterdir()) == before
    assert clipsyn("run", recipe).exit_code == 0
    again = clipsyn("run", recipe, "--dry-run").stdout
    assert "already there: 0 of 1 cells to make: 0 images" in again
    assert "renews runs/zeroshot.csv" in again


# Work that several processes share, as it is asked for on the command line and in recipes


NAME = st.text("abcXYZ019-_./*@é ", min_size=1, max_size=9).filter(
    lambda text: text.strip() == text
)
NAMES = st.lists(NAME, min_size=1, max_size=3, unique=True).map(tuple)


def read_back(command, words):
    """What the command gets of these words."""
    context = main.commands[command].make_context(command, ["store", *words])
    return context.params


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "datasets": NAMES,
            "splits": NAMES,
            "perturbations": NAMES,
            "shots": st.lists(st.just("full") | st.integers(1, 64), min_size=1).map(tuple),
            "seeds": st.integers(1, 9),
            "support": st.none() | NAME,
            "base_to_new": st.booleans(),
            "budget": st.floats(0, 1e6),
            "output": NAME.map(lambda name: Path(f"{name.replace('/', '_')}.parquet")),
            "workers": st.integers(1, 9),
        },
    )
)
def test_words_of_an_evaluation_give_the_same_settings(values):
    settings = ProtocolSettings(**values)
    given = read_back("evaluate", words_of(settings))
    again = {name: given[name] for name in declared(ProtocolSettings)}
    again["output"] = next(iter(given["output"].files), None)
    assert ProtocolSettings(**again) == settings


def test_a_list_of_all_is_a_star_and_an_empty_list_is_refused():
    assert words_of(ProtocolSettings(perturbations=None)) == ["--perturb=*"]
    with pytest.raises(UsageError, match=r"--ensembles cannot be \(\) for jobs"):
        words_of(ProtocolSettings(ensembles=()))


@pytest.fixture
def asked(checkpoint, write_images):
    photos = str(write_images())
    cells = ["-d", f"photos={photos}", "-p", "clean,jpeg:3"]
    return ["-b", f"tiny=local-dir:{checkpoint}", *cells]


def test_without_slurm_or_submitit_it_says_what_to_do(fails, asked, tmp_path, monkeypatch):
    line = ("extract", tmp_path / "s", *asked, "--jobs", "1", "--slurm", "cpus=1")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no sbatch here" in fails(1, *line)
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert "pip install 'clipsyn[slurm]'" in fails(1, *line)


class TestEvaluate:
    OPTIONS = ("--ensembles", "log-avg,super-learner,nlc", "--shots", "1,2", "--seeds", "2")

    def test_processes_add_up_to_what_one_process_measures(
        self, clipsyn, tiny_store, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        plain, shared = tmp_path / "plain.parquet", tmp_path / "shared.parquet"
        clipsyn("evaluate", tiny_store.path, *self.OPTIONS, "-o", plain)
        line = ("evaluate", tiny_store.path, *self.OPTIONS, "-o", shared)
        result = clipsyn(*line, "--jobs", 2)
        assert result.exit_code == 0, result.output
        assert numbers(shared).equals(numbers(plain))
        assert "super-learner" in result.stdout
        assert clipsyn(*line, "--jobs", 2).stdout == result.stdout
        assert len([*(tmp_path / "clipsyn-logs").glob("*/*.log")]) == 2  # of the first time

    def test_jobs_need_a_file(self, fails, tiny_store):
        said = fails(2, "evaluate", tiny_store.path, "--jobs", "2")
        assert said == "jobs add to one file of results: name it by --output"
        assert "name it by --output" in fails(2, "evaluate", tiny_store.path, "--shard", "1/2")


def numbers(path):
    """The rows of a file of results without those that are times, in one order."""
    return untimed(pl.read_parquet(path)).sort("fingerprint", "metric", "classes")


def test_a_recipe_shares_its_stages(clipsyn, checkpoint, write_images, tmp_path, fakes):
    recipe = """
store: {store}
stages:
  - {{stage: extract, backbones: [tiny=local-dir:{checkpoint}], datasets: [photos={photos}]}}
  - {{stage: evaluate, ensembles: [log-avg], support: null, output: {store}-results}}
  - {{stage: zeroshot, output: {store}-zeroshot}}
"""
    photos = write_images()
    outputs = {}
    for name, options in (("one", ()), ("many", ("--jobs", 2))):
        store = tmp_path / name
        file = tmp_path / f"{name}.yaml"
        file.write_text(recipe.format(store=store, checkpoint=checkpoint, photos=photos))
        with chdir(tmp_path):
            result = clipsyn("run", file, *options)
        assert result.exit_code == 0, result.output
        outputs[name] = numbers(Path(f"{store}-results.parquet")).drop("fingerprint")
        assert Path(f"{store}-zeroshot.csv").is_file()
    assert result.stderr.count("task 1 of 1 is done") == 2  # there is one part of each work
    assert len([*(tmp_path / "clipsyn-logs").glob("extract-*/task-*.log")]) == 1
    assert fakes.unlike(tmp_path / "one", tmp_path / "many") == []
    assert not unfinished(tmp_path / "many")
    assert not left_over(tmp_path / "many")
    assert outputs["one"].equals(outputs["many"])
    with chdir(tmp_path):
        assert clipsyn("run", file, "--jobs", 2).stdout.count("already there") == 3
    assert len([*(tmp_path / "clipsyn-logs").glob("extract-*")]) == 1


# Where jobs are submitted there may be no torch

WITHOUT_TORCH = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "open_clip", "timm"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
from clipsyn.cli import main
main(prog_name="clipsyn")
"""
SIXTEEN = ("--jobs", "16", "--slurm", "gpus=1")


@pytest.fixture
def submits(tmp_path):
    """How many jobs an extraction by 16 asks sbatch for, which takes none, and what it says."""
    (sbatch := tmp_path / "bin" / "sbatch").parent.mkdir()
    sbatch.write_text(f"#!/bin/sh\ncp $1 {tmp_path}/asked; echo full >&2; exit 1\n")
    sbatch.chmod(0o755)
    root, path = str(Path(__file__).parents[2]), f"{sbatch.parent}:{os.environ['PATH']}"

    def submit(store, *words):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH, "extract", store, *words, *SIXTEEN],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": root, "PATH": path},
        )
        asked = (tmp_path / "asked").read_text() if (tmp_path / "asked").exists() else None
        array = re.findall(r"--array=0-(\d+)%", asked or "")
        return int(array[0]) + 1 if array else int(asked is not None), done.stderr

    return submit


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["-d", "emoji-food"], 1),
        (["-d", "emoji-food", "-s", "train,test"], 2),
        (["-d", "emoji-food", "-p", "imagenet-c:3", "--device", "cuda"], 3),
        (["-d", "cifar10", "-b", "ViT-B-32/openai"], 10),
        (["-d", "cifar10", "-b", "ViT-B-32/openai", "--data-root", "."], 10),
        (["-d", "imagenet1k", "-s", "val"], 16),
    ],
)
def test_there_are_no_more_jobs_than_parts_and_torch_is_not_needed(submits, tmp_path, words, count):
    asked, said = submits(tmp_path / "s", *words)
    assert "SLURM did not take the jobs: full" in said
    assert asked == count


def test_what_is_there_is_not_queued_again(submits, clipsyn, asked, tmp_path):
    assert clipsyn("extract", tmp_path / "s", *asked).exit_code == 0
    assert submits(tmp_path / "s", *asked)[0] == 0
    key = FeatureKey("photos", "test", "jpeg-3", "tiny")  # as a kill between two groups leaves it
    shutil.rmtree(FeatureStore.open(tmp_path / "s").at("predictions", *key.names))
    assert submits(tmp_path / "s", *asked)[0] == 1
    for more in (["--replace"], ["--prompts", "simple"], ["-p", "fog:1"]):
        assert submits(tmp_path / "s", *asked, *more)[0] == 1


def test_fewer_images_than_there_were_are_refused_before_jobs_are_queued(
    submits, clipsyn, asked, tmp_path
):
    assert clipsyn("extract", tmp_path / "s", *asked).exit_code == 0
    next((tmp_path / "photos").rglob("*.png")).unlink()
    queued, said = submits(tmp_path / "s", *asked)
    assert queued == 0
    assert "photos/test" in said
    assert submits(tmp_path / "s", *asked, "--replace")[0] == 1


def test_a_store_that_cannot_be_written_to_is_known_before(submits, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ".wip").touch()
    asked, said = submits(tmp_path / "s", "-d", "emoji-food")
    assert asked == 0
    assert f"{tmp_path}/s/.wip" in said


class TestCommand:
    """What a node calls."""

    def test_it_runs_the_command_in_its_process(self, capsys):
        Call(("catalog", "perturbations"))()
        said = capsys.readouterr()
        assert "jpeg" in said.out
        assert said.err.startswith("clipsyn catalog perturbations")

    def test_it_lets_submitit_end_what_is_queued_again(self, monkeypatch):
        def interrupted(*_):
            sys.exit(-1)

        monkeypatch.setattr("clipsyn.cli.output.say_tables", interrupted)
        with pytest.raises(SystemExit) as raised:
            Call(("catalog", "perturbations"))()
        assert raised.value.code == -1

    def test_it_leaves_sigterm_to_who_runs_it(self):
        def ours(*_):
            """Of submitit: it waits for another signal."""

        before = signal.signal(signal.SIGTERM, ours)
        try:
            stop_on_sigterm()
            assert signal.getsignal(signal.SIGTERM) is ours
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            stop_on_sigterm()
            assert signal.getsignal(signal.SIGTERM) not in (ours, signal.SIG_DFL)
        finally:
            signal.signal(signal.SIGTERM, before)
