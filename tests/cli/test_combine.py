"""`clipsyn fit` and `predict`: what they say, what they write, what they refuse."""

import json

import numpy as np
import polars as pl
import pytest

from clipsyn.router.artefact import load_router

# `clipsyn fit`: what it says, what it writes, what it refuses


@pytest.fixture
def fit(clipsyn, tiny_store, tmp_path):
    """Run `clipsyn fit` on the tiny store's toys; returns click's result."""

    def run(*options):
        return clipsyn("fit", tiny_store.path, "-d", "toy", "-o", tmp_path / "r", *options)

    return run


def test_it_says_what_it_learned_from(fit, tmp_path):
    result = fit("--ensemble", "log-avg", "--shots", 2, "--seed", 7)
    assert result.exit_code == 0, result.output
    found = load_router(tmp_path / "r").support
    assert (found.samples, found.shots, found.seed) == (6, 2, 7)
    assert f"{100 * found.accuracy:.1f} % of these very images" in result.stdout
    assert f"`clipsyn predict {tmp_path / 'r'} IMAGES`" in result.stdout


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        (2, ["--ensemble", "ncl"], "unknown ensemble 'ncl': did you mean nlc"),
        (2, ["--support", "test"], "the test split of toy"),
        (4, ["--support", "val"], "has no samples of toy/val: run `clipsyn extract"),
    ],
)
def test_what_cannot_be_fitted(fails, tiny_store, code, options, message):
    output = tiny_store.path.parent / "r"
    assert message in fails(code, "fit", tiny_store.path, "-d", "toy", "-o", output, *options)
    assert not output.exists()


# `clipsyn predict`: from a store, from a folder of images, and what it refuses


@pytest.fixture
def router(clipsyn, tiny_store, tmp_path):
    """A router fitted on the tiny store."""
    path = tmp_path / "router"
    clipsyn("fit", tiny_store.path, "-d", "toy", "--ensemble", "log-avg", "-o", path)
    return path


def test_a_table_from_a_store(clipsyn, router, tiny_store):
    result = clipsyn("predict", router, tiny_store.path)
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[1].split() == ["id", "class", "probability", "fake/one", "fake/two"]
    assert [line.split()[0] for line in lines[3:13]] == [f"im{row:03d}.png" for row in range(10)]
    predicted = load_router(router).predict(tiny_store.pool("toy", "test"))
    sizes = np.bincount(predicted, minlength=3)
    shown = {line.rsplit(maxsplit=1)[0]: int(line.rsplit(maxsplit=1)[1]) for line in lines[16:-3]}
    names = tiny_store.samples("toy", "test").class_names
    assert shown == {name: n for name, n in zip(names, sizes, strict=True) if n}
    right = (predicted == tiny_store.samples("toy", "test").labels).mean()
    assert lines[-1].startswith(f"accuracy {100 * right:.1f} % (95 % interval ")


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
    assert pl.read_csv(csv)["class_index"].equals(frame["class_index"].cast(pl.Int64))
    assert [row["id"] for row in json.loads(result.stdout)] == frame["id"].to_list()
    pool = tiny_store.pool("toy", "train", perturbation="jpeg-3")
    assert frame["class_index"].to_list() == load_router(router).predict(pool).tolist()


def test_what_cannot_be_predicted(fails, router, tiny_store, fakes, tmp_path):
    store = tiny_store.path
    assert "is no router" in fails(3, "predict", store, store)
    assert "no samples of food" in fails(4, "predict", router, store, "-d", "food")
    assert "--perturb jpeg-5`" in fails(4, "predict", router, store, "-p", "jpeg-5")
    assert "is no perturbation" in fails(2, "predict", router, store, "-p", "wind")
    assert "--dataset is for stores" in fails(2, "predict", router, tmp_path, "-d", "toy")
    assert "--device is for images" in fails(2, "predict", router, store, "--device", "cpu")
    assert "unknown dataset 'nowhere'" in fails(2, "predict", router, "nowhere")
    encoders = [fakes.Encoder(weights="new"), fakes.Encoder("fake/two", size=12, embed_dim=16)]
    other = fakes.fill(tmp_path / "other", encoders)
    assert "weights of fake/one differ" in fails(3, "predict", router, other.path)


@pytest.fixture
def real(clipsyn, checkpoint, write_images, tmp_path):
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
    result = clipsyn("predict", router, photos, "-o", "-")
    rows = json.loads(result.stdout)
    assert [row["id"] for row in rows] == [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(4)]
    assert {row["weight one"] for row in rows} == {0.5}
    right = sum(row["class"] == row["id"].partition("/")[0] for row in rows)
    assert right / 8 == load_router(router).support.accuracy
    assert not list((tmp_path / "temporary").iterdir())


def test_each_backbone_is_run_in_the_precision_it_was_fitted_in(
    clipsyn, checkpoint, write_images, tmp_path
):
    photos, store, router = write_images(), tmp_path / "store", tmp_path / "r"
    for name, precision in (("one", "fp32"), ("two", "bf16")):
        options = ("-d", photos, "-s", "train", "--precision", precision)
        clipsyn("extract", store, "-b", f"{name}=local-dir:{checkpoint}", *options)
    clipsyn("fit", store, "-d", "photos", "--ensemble", "vote-1", "-o", router)
    assert clipsyn("predict", router, photos).exit_code == 0  # other numbers would be refused
