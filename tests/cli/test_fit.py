"""`clipsyn fit`: what it says, what it writes, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clipsyn.methods import stream
from clipsyn.router.artefact import load_router
from clipsyn.store.features import FeatureStore

Run = Callable[..., Any]


@pytest.fixture
def fit(clipsyn: Run, tiny_store: FeatureStore, tmp_path: Path) -> Run:
    """Run `clipsyn fit` on the tiny store's toys; returns click's result."""

    def run(*options: object) -> Any:
        return clipsyn("fit", tiny_store.path, "-d", "toy", "-o", tmp_path / "r", *options)

    return run


def test_it_says_what_it_learned_from(fit: Run, tmp_path: Path) -> None:
    result = fit("--ensemble", "log-avg", "--shots", 2, "--seed", 7)
    assert result.exit_code == 0, result.output
    found = load_router(tmp_path / "r")
    assert found.support.accuracy is not None
    assert result.stdout.splitlines() == [
        "log-avg, 2 backbones, fitted on 6 images of 3 classes of toy/train (2 shots, seed 7); "
        f"it gets {100 * found.support.accuracy:.1f} % of these very images right, which says "
        "little about others",
        f"written to {tmp_path / 'r'}: next, `clipsyn predict {tmp_path / 'r'} IMAGES`",
    ]


def test_it_says_which_classes_are_short(clipsyn, fakes, tmp_path):
    source = fakes.Source(split="train", count=7, class_names=tuple("abcde"))
    source.labels[source.labels == 4] = -1
    store = fakes.fill(tmp_path / "s", [fakes.Encoder(), fakes.Encoder("fake/two")], [source])
    options = ("-d", "toy", "--ensemble", "log-avg", "--shots", 2, "-o", tmp_path / "r")
    said = clipsyn("fit", store.path, *options).stdout
    assert "fitted on 6 images of 5 classes" in said
    assert "classes with fewer images than that: 2; classes with none: 1;" in said


def test_it_says_that_it_took_a_sample(fit, tiny_store, monkeypatch):
    size = tiny_store.pool("toy", "train").bytes_a_sample
    monkeypatch.setattr(stream, "IN_MEMORY", 6 * size)
    said = fit("--ensemble", "stacking").stdout
    assert "11 images of 3 classes of toy/train (all there are); of these a sample of 6," in said
    assert "sample" not in fit("--ensemble", "greedy", "--replace").stdout


def test_its_options_reach_the_method(fit: Run, tmp_path: Path) -> None:
    fit("--ensemble", "greedy:rounds=3", "--head", "lda", "-b", "fake/*", "--prompts", "simple")
    found = load_router(tmp_path / "r")
    assert found.method == "greedy on lda"
    assert found.ensemble.get_params()["rounds"] == 3
    assert found.support.shots is None
    assert found.prompts["name"] == "simple"


def test_an_existing_router_is_not_overwritten(fit: Run, fails: Run, tmp_path: Path) -> None:
    fit("--ensemble", "log-avg")
    again = fit("--ensemble", "vote-1")
    assert again.exit_code == 2
    assert "add --replace" in again.stderr
    assert load_router(tmp_path / "r").method == "log-avg"
    assert fit("--ensemble", "vote-1", "--replace").exit_code == 0
    assert load_router(tmp_path / "r").method == "vote-1"


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        (2, ["--ensemble", "ncl"], "unknown ensemble 'ncl': did you mean nlc"),
        (2, ["--shots", "0"], "--shots 0: write a number from 1 on, or full"),
        (
            2,
            ["--seed", "-1"],
            "'--seed': -1 is not in the range 0<=x<=1000000000",
        ),
        (2, ["--shots", "some"], "--shots some: write a number from 1 on, or full"),
        (2, ["--support", "test"], "the test split of toy"),
        (4, ["--support", "val"], "has no samples of toy/val: run `clipsyn extract"),
        (4, ["--prompts", "openai"], "with prompts 'openai' (there are simple): run"),
    ],
)
def test_what_cannot_be(fails, tiny_store, code, options, message):
    output = tiny_store.path.parent / "r"
    assert message in fails(code, "fit", tiny_store.path, "-d", "toy", "-o", output, *options)
    assert not output.exists()


def test_the_dataset_is_asked_for_where_there_are_several(
    clipsyn: Run, fails: Run, fakes: SimpleNamespace, tiny_store: FeatureStore, tmp_path: Path
) -> None:
    line = ("fit", tiny_store.path, "--ensemble", "log-avg", "-o", tmp_path / "r")
    assert clipsyn(*line).exit_code == 0
    assert load_router(tmp_path / "r").support.dataset == "toy"
    fakes.fill(tiny_store.path, [fakes.Encoder()], [fakes.Source("cars")])
    message = fails(2, *line, "--replace")
    assert "which dataset of" in message
    assert "there are cars, toy: name one, as in `clipsyn fit" in message
    assert "-d cars`" in message
