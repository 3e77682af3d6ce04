"""`clipsyn fit` and `predict`: what they say, what they write, what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from clipsyn.methods import pool as memory
from clipsyn.router.artefact import load_router
from clipsyn.store.features import FeatureStore

# `clipsyn fit`: what it says, what it writes, what it refuses


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
    monkeypatch.setattr(memory, "IN_MEMORY", 6 * size)
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
        (2, ["--shots", "0"], "images a class of at least 1, not 0"),
        (
            2,
            ["--seed", "-1"],
            "'--seed': -1 is not in the range 0<=x<=1000000000",
        ),
        (2, ["--shots", "some"], "images a class, not 'some'"),
        (2, ["--support", "test"], "the test split of toy"),
        (4, ["--support", "val"], "has no samples of toy/val: run `clipsyn extract"),
        (4, ["--prompts", "openai"], "with prompts 'openai' (there are simple): run"),
    ],
)
def test_what_cannot_be_fitted(fails, tiny_store, code, options, message):
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


# `clipsyn predict`: from a store, from a folder of images, and what it refuses


@pytest.fixture
def router(clipsyn: Run, tiny_store: FeatureStore, tmp_path: Path) -> Path:
    """A router fitted on the tiny store."""
    path = tmp_path / "router"
    clipsyn("fit", tiny_store.path, "-d", "toy", "--ensemble", "log-avg", "-o", path)
    return path


def test_a_table_from_a_store(clipsyn: Run, router: Path, tiny_store: FeatureStore) -> None:
    result = clipsyn("predict", router, tiny_store.path)
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["weight", "weight"]
    assert lines[1].split() == ["id", "class", "probability", "fake/one", "fake/two"]
    assert [line.split()[0] for line in lines[3:13]] == [f"im{row:03d}.png" for row in range(10)]
    assert lines[14].split() == ["class", "images"]
    predicted = load_router(router).predict(tiny_store.pool("toy", "test"))
    sizes = np.bincount(predicted, minlength=3)
    shown = {line.rsplit(maxsplit=1)[0]: int(line.rsplit(maxsplit=1)[1]) for line in lines[16:-3]}
    names = tiny_store.samples("toy", "test").class_names
    assert shown == {name: n for name, n in zip(names, sizes, strict=True) if n}
    assert lines[-2] == f"20 images, {len(shown)} classes; log-avg"
    right = (predicted == tiny_store.samples("toy", "test").labels).mean()
    assert lines[-1].startswith(f"accuracy {100 * right:.1f} % (95 % interval ")
    assert lines[-1].endswith(") over 20 labelled images")


def test_files_hold_every_row(clipsyn, router, tiny_store, tmp_path):
    csv, parquet = tmp_path / "p.csv", tmp_path / "p.parquet"
    options = ("-d", "toy", "-s", "train", "-p", "jpeg:3", "-o", csv, "-o", parquet)
    result = clipsyn("predict", router, tiny_store.path, *options, "-o", "-")
    assert f"11 rows written to {csv}" in result.stderr
    frame = pl.read_parquet(parquet)
    assert frame.columns == [
        *("id", "class", "class_index", "probability"),
        *("weight fake/one", "weight fake/two", "seen"),
    ]
    assert pl.read_csv(csv)["class_index"].to_list() == frame["class_index"].to_list()
    assert [row["id"] for row in json.loads(result.stdout)] == frame["id"].to_list()
    pool = tiny_store.pool("toy", "train", perturbation="jpeg-3")
    assert frame["class_index"].to_list() == load_router(router).predict(pool).tolist()


def test_the_index_is_shown_where_two_classes_have_one_name(clipsyn, fakes, tmp_path):
    sources = [fakes.Source(split=split, class_names=("a", "b", "a")) for split in ("train", "val")]
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two")]
    store, path = fakes.fill(tmp_path / "s", encoders, sources), tmp_path / "r"
    clipsyn("fit", store.path, "-d", "toy", "--ensemble", "log-avg", "-o", path)
    lines = clipsyn("predict", path, store.path, "-s", "val").stdout.splitlines()
    assert "class_index" in lines[1]
    assert lines[14].split() == ["class", "class_index", "images"]


def test_what_cannot_be_predicted(fails, router, tiny_store, fakes, tmp_path):
    store = tiny_store.path
    assert "is no router" in fails(3, "predict", store, store)
    assert "no samples of food" in fails(4, "predict", router, store, "-d", "food")
    assert "--perturb jpeg-5`" in fails(4, "predict", router, store, "-p", "jpeg-5")
    assert "is no perturbation" in fails(2, "predict", router, store, "-p", "wind")
    assert "--dataset is for stores" in fails(2, "predict", router, tmp_path, "-d", "toy")
    assert "unknown dataset 'nowhere'" in fails(2, "predict", router, "nowhere")
    encoders = [fakes.Encoder(weights="new"), fakes.Encoder("fake/two", size=12, embed_dim=16)]
    other = fakes.fill(tmp_path / "other", encoders)
    assert "weights of fake/one differ" in fails(3, "predict", router, other.path)


@pytest.fixture
def real(clipsyn: Run, checkpoint: Path, write_images: Run, tmp_path: Path) -> tuple[Path, Path]:
    """A router fitted on a folder of images with real encoders, and that folder."""
    photos, store = write_images("photos"), tmp_path / "store"
    names = f"one=local-dir:{checkpoint},two=local-dir:{checkpoint}"
    clipsyn("extract", store, "-b", names, "-d", photos, "-s", "train")
    path = tmp_path / "router"
    clipsyn("fit", store, "-d", "photos", "--ensemble", "log-avg", "-o", path)
    return path, photos


def test_a_folder_of_images(clipsyn, real, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    router, photos = real
    support = load_router(router).support
    result = clipsyn("predict", router, photos, "-o", "-")
    rows = json.loads(result.stdout)
    assert [row["id"] for row in rows] == [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(4)]
    assert {row["weight one"] for row in rows} == {0.5}
    right = sum(row["class"] == row["id"].partition("/")[0] for row in rows)
    assert right / 8 == support.accuracy
    said = clipsyn("predict", router, photos).stdout
    assert f"accuracy {100 * right / 8:.1f} %" in said
    assert not list((tmp_path / "temporary").iterdir())


def test_a_folder_with_classes_of_its_own(clipsyn, real, write_images):
    zoo = write_images("zoo", classes=("gnu", "okapi", "quokka"), count=2)
    said = clipsyn("predict", real[0], zoo).stdout
    assert "6 images" in said
    assert said.splitlines()[-1] == ("no accuracy: the images have classes that the router has not")


def test_each_backbone_is_run_in_the_precision_it_was_fitted_in(
    clipsyn: Run, checkpoint: Path, write_images: Run, tmp_path: Path
) -> None:
    photos, store, router = write_images(), tmp_path / "store", tmp_path / "r"
    for name, precision in (("one", "fp32"), ("two", "bf16")):
        options = ("-d", photos, "-s", "train", "--precision", precision)
        clipsyn("extract", store, "-b", f"{name}=local-dir:{checkpoint}", *options)
    clipsyn("fit", store, "-d", "photos", "--ensemble", "vote-1", "-o", router)
    assert clipsyn("predict", router, photos).exit_code == 0  # other numbers would be refused
