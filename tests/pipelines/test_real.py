"""pipelines/real.yaml and docs/real.md, on made-up answers, and on the real ones if they are there.

CLIPSYN_REAL names the folder that docs/real.md calls runs/real/data.
"""

import csv
import os
import random
import re
import shutil
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from clipsyn.run.recipe import read_recipe
from clipsyn.run.stages import run_recipe
from clipsyn.store.features import FeatureStore
from tests.pipelines.scripts import script, write

ROOT = Path(__file__).parents[2]
NAMES = {"clip": "ViT-B-32", "clip-16": "ViT-B-16", "clip-14": "ViT-L-14"}
PROMPTS = {"CLS": "CLS", "a_photo_of_a_CLS.": "a photo of a CLS.", "None": "80 templates"}
SHOWN = ("sketch", "stylized", "cue-conflict")  # on the first screen of README
FOLDER = os.environ.get("CLIPSYN_REAL")


PEOPLE, SHAPES = script("model_vs_human"), script("vlm_shapebias")
RECIPE = read_recipe(ROOT / "pipelines" / "real.yaml")
MODELS = next(stage.names for stage in RECIPE.stages if stage.dataset == "shape-bias")


def make_up(folder):
    """Files of the shape of both sources: 16 images a condition, or 64 in all; some are guesses."""
    generator = random.Random(0)
    people, shapes = folder / "model-vs-human", folder / "vlm-shapebias"
    people.mkdir(parents=True)
    shapes.mkdir()
    header = [
        "subj", "session", "trial", "rt", "object_response", "category", "condition", "imagename",
    ]  # fmt: skip

    def answer(truth):
        return truth if generator.random() < 0.6 else generator.choice(PEOPLE.CLASSES)

    for experiment in PEOPLE.EXPERIMENTS:
        shown = [c for c in PEOPLE.perturbations(experiment) for _ in range(16)]
        for subject in NAMES:
            rows = [
                [subject.replace("-", "_"), 1, n, "NaN", answer(truth), truth, condition, image]
                for n, condition in enumerate(shown)
                for truth in [PEOPLE.CLASSES[n % 16]]
                for image in [f"{n:04d}_x_dnn_{condition}_{n}.png"]
            ]
            write(people / f"{experiment}_{subject}_session-1.csv", header, *rows)
    images = [
        f"{a}{n}-{b}{n}" for n, (a, b) in enumerate(list(combinations(PEOPLE.CLASSES, 2))[:64])
    ]
    for model in MODELS:
        for prompts in PROMPTS:
            said = [answer(image.split("-")[0].rstrip("0123456789")) for image in images]
            rows = [[i, a, a, generator.uniform(0.1, 1)] for i, a in zip(images, said, strict=True)]
            header = ["image", "response", "pred_label", "pred_conf"]
            write(shapes / f"{model}_{prompts}.csv", header, *rows)


@pytest.fixture(scope="module", params=["made up", "real"])
def run(request, tmp_path_factory):
    """A folder in which pipelines/real.yaml was run."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "runs" / "real").mkdir(parents=True)
    (folder / "docs").mkdir()
    if request.param == "made up":
        make_up(folder / "runs" / "real" / "data")
    elif FOLDER is None:
        pytest.skip("CLIPSYN_REAL names no folder with the answers that docs/real.md is about")
    else:
        (folder / "runs" / "real" / "data").symlink_to(Path(FOLDER).absolute())
    shutil.copy(ROOT / "docs" / "real.md", folder / "docs")
    data, tables = folder / "runs" / "real" / "data", folder / "runs" / "real" / "tables"
    PEOPLE.convert(data / "model-vs-human", tables)
    SHAPES.convert(data / "vlm-shapebias", tables)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_recipe(RECIPE, lambda *_: None)
    return folder


def answers_to_experiments(run):
    """Experiment, backbones, right (backbone, image), true classes; read without clipsyn."""
    for experiment in PEOPLE.EXPERIMENTS:
        right, truth = {}, {}
        for subject, name in NAMES.items():
            path = run / f"runs/real/data/model-vs-human/{experiment}_{subject}_session-1.csv"
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    image = row["imagename"].split("_", 1)[-1]
                    truth[image] = row["category"]
                    right[name, image] = row["object_response"] == row["category"]
        names, images = list(NAMES.values()), sorted(truth)
        hits = np.array([[right[name, image] for image in images] for name in names])
        yield experiment, names, hits, [truth[image] for image in images]


def answers_to_shapes(run, names):
    for ending, prompts in PROMPTS.items():
        hits = []
        for model in names:
            path = run / f"runs/real/data/vlm-shapebias/{model}_{ending}.csv"
            with path.open(newline="") as file:
                rows = {row["image"]: row["pred_label"] for row in csv.DictReader(file)}
            truth = [image.split("-")[0].rstrip("0123456789") for image in sorted(rows)]
            hits.append([rows[i] == t for i, t in zip(sorted(rows), truth, strict=True)])
        yield prompts, list(names.values()), np.array(hits), truth


def agreement(run):
    """Percent of the images to which ViT-L/14 says the same in both sources, by prompt set."""
    data = run / "runs/real/data"
    with (data / "model-vs-human/cue-conflict_clip-14_session-1.csv").open(newline="") as file:
        one = {row["imagename"][:-4]: row["object_response"] for row in csv.DictReader(file)}
    for ending in PROMPTS:
        path = data / f"vlm-shapebias/ViT_L_14_openai_{ending}.csv"
        with path.open(newline="") as file:
            other = {row["image"]: row["pred_label"] for row in csv.DictReader(file)}
        yield 100 * np.mean([one[image] == other[image] for image in one])


def of_textures(run, names):
    """Percent of the images to which each backbone answers the texture; images where both agree."""
    shares = []
    for model in names:
        path = run / f"runs/real/data/vlm-shapebias/{model}_None.csv"
        with path.open(newline="") as file:
            rows = [(row["image"], row["pred_label"]) for row in csv.DictReader(file)]
        classes = [re.fullmatch(r"([a-z]+)\d+-([a-z]+)\d+", image).groups() for image, _ in rows]
        said = [a == texture for (_, a), (_, texture) in zip(rows, classes, strict=True)]
        shares.append(100 * np.mean(said))
    return shares, sum(shape == texture for shape, texture in classes)


def independent(hits, truth):
    classes = defaultdict(list)
    for column, name in zip(hits.T, truth, strict=True):
        classes[name].append(column)
    missed = sum(len(rows) * np.prod(1 - np.mean(rows, axis=0)) for rows in classes.values())
    return 1 - missed / len(truth)


def kappa(one, other):
    p, q = one.mean(), other.mean()
    expected = p * q + (1 - p) * (1 - q)
    return ((one == other).mean() - expected) / (1 - expected)


def value(frame, **where):
    """Of the one row with these values; `backbones` may be in any order."""
    rows = [
        row
        for row in frame.with_columns(pl.col("backbones").list.sort()).iter_rows(named=True)
        if all(row[name] == wanted for name, wanted in where.items())
    ]
    assert len(rows) == 1, (where, len(rows))
    return rows[0]["value"]


def compare(accuracy, pairs, names, hits, truth, **where):
    """All that the frames of one group say, against plain counting."""
    for name, row in zip(names, hits, strict=True):
        said = value(accuracy, metric="acc1", ensemble="single", backbones=[name], **where)
        assert said == pytest.approx(row.mean())
    oracle = {"ensemble": "oracle", **where}
    assert value(accuracy, metric="acc1", **oracle) == pytest.approx(hits.any(axis=0).mean())
    said = value(accuracy, metric="acc1_independent", **oracle)
    assert said == pytest.approx(independent(hits, truth))
    for (a, one), (b, other) in combinations(sorted(zip(names, hits, strict=True), key=str), 2):
        said = value(pairs, metric="error_consistency", backbones=sorted((a, b)), **where)
        assert said == pytest.approx(kappa(one, other))


def read(run, name):
    return pl.read_parquet(run / f"runs/real/{name}.parquet")


def test_experiments_are_what_plain_counting_finds(run):
    accuracy, pairs = read(run, "experiments"), read(run, "experiments-diversity")
    for experiment, *answers in answers_to_experiments(run):
        compare(accuracy, pairs, *answers, dataset=experiment)
    assert set(accuracy["dataset"]) == set(PEOPLE.EXPERIMENTS)


def test_shapes_are_what_plain_counting_finds(run):
    accuracy, pairs = read(run, "shape-bias"), read(run, "shape-bias-diversity")
    for prompts, *answers in answers_to_shapes(run, MODELS):
        compare(accuracy, pairs, *answers, prompts=prompts)


def test_every_table_of_the_page_is_renewed(run):
    """On the real answers it stays as it is."""
    before, after = ((folder / "docs" / "real.md").read_text("utf-8") for folder in (ROOT, run))
    if (run / "runs/real/data").is_symlink():
        assert after == before
        return
    ours = r"<!-- clipsyn: ((?:experiments|shape-bias): .*?)<!-- clipsyn end -->"
    tables = [re.findall(ours, t, re.S) for t in (before, after)]
    assert [one == other for one, other in zip(*tables, strict=True)] == [False] * len(tables[0])


def conditions(run, experiment):
    """Right (backbone, image) and true classes of each condition, read without clipsyn."""
    found = defaultdict(dict)
    for subject in NAMES:
        path = run / f"runs/real/data/model-vs-human/{experiment}_{subject}_session-1.csv"
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                said = found[row["condition"]].setdefault(row["imagename"].split("_", 1)[-1], [])
                said.append((row["object_response"] == row["category"], row["category"]))
    for images in found.values():
        rows = [*images.values()]
        hits = np.array([[right for right, _ in said] for said in rows]).T
        yield hits, [said[0][1] for said in rows]


def test_numbers_within_conditions_and_of_votes_are_what_plain_counting_finds(run):
    answers, store = script("real_answers"), FeatureStore.open(run / "runs/real/store")
    rows = {row["experiment"]: row for row in answers.by_condition(store).rows(named=True)}
    votes = {row["experiment"]: row for row in answers.votes(store).rows(named=True)}
    for name, names, hits, truth in answers_to_experiments(run):
        kappas, below = [], []
        with np.errstate(invalid="ignore"):
            for right, classes in conditions(run, name):
                pairs = [kappa(*pair) for pair in combinations(right, 2)]
                kappas.append(np.mean([it for it in pairs if not np.isnan(it)] or np.nan))
                below.append(independent(right, classes) - right.any(axis=0).mean())
        assert rows[name]["kappa within"] == pytest.approx(np.nanmean(kappas))
        assert rows[name]["below within"] == pytest.approx(np.mean(below))
        assert rows[name]["below"] == pytest.approx(
            independent(hits, truth) - hits.any(axis=0).mean()
        )
        large = hits[names.index("ViT-L-14")]
        one, other = (row for n, row in zip(names, hits, strict=True) if n != "ViT-L-14")
        agreeing_right = (one & other & ~large).mean()
        assert votes[name]["gain"] <= agreeing_right + 1e-12
        assert votes[name]["low"] <= votes[name]["gain"] <= votes[name]["high"]
    assert answers.report(store).count("──") >= 4


def test_numbers_in_sentences(run):
    """Those that no table of the page shows."""
    if not (run / "runs/real/data").is_symlink():
        pytest.skip("CLIPSYN_REAL names no folder with the answers that docs/real.md is about")
    text = " ".join((ROOT / "docs" / "real.md").read_text("utf-8").split())
    hits = np.concatenate([hits for _, _, hits, _ in answers_to_experiments(run)], axis=1)
    low, middle, high = (f"{100 * share:.1f}" for share in hits.mean(axis=1))
    oracle = f"{100 * hits.any(axis=0).mean():.1f} %"
    agreed = [*agreement(run)]
    assert f"on only {min(agreed):.0f} to {max(agreed):.0f} % of the cue-conflict images" in text
    assert f"all {hits.shape[1]:,} images the three get {low}, {middle} and {high} %" in text
    assert f"their oracle {oracle}" in text
    *_, (_, backbones, hits, truth) = answers_to_shapes(run, MODELS)
    readme = (ROOT / "README.md").read_text("utf-8")
    some = [
        (name, hits, truth) for name, _, hits, truth in answers_to_experiments(run) if name in SHOWN
    ]
    for name, right, classes in [*some, ("shape-bias", hits, truth)]:
        shown = [right.mean(axis=1).max(), right.any(axis=0).mean(), independent(right, classes)]
        mean = np.mean([kappa(*pair) for pair in combinations(right, 2)])
        row = " | ".join([f"{len(classes):,}", *(f"{100 * x:.1f}" for x in shown), f"{mean:.2f} |"])
        assert row in readme, name
    textures, both = of_textures(run, MODELS)
    assert f"{textures[0]:.0f} % (RN50) and {textures[1]:.0f} % (RN101)" in text
    assert f"transformers on {min(textures[2:]):.0f} to {max(textures[2:]):.0f} %;" in text
    assert f"on {both} images shape and texture are of one class" in text
    shares = defaultdict(list)
    for (a, one), (b, other) in combinations(zip(backbones, hits, strict=True), 2):
        p, q = sorted((one.mean(), other.mean()))
        best = kappa(np.arange(1280) < 1280 * p, np.arange(1280) < 1280 * q)
        shares[a.startswith("RN") + b.startswith("RN")].append(100 * kappa(one, other) / best)
        if (a, b) == ("RN50", "ViT-L-14"):
            assert (
                f"{100 * p:.1f} and {100 * q:.1f} % of the images kappa is at most {best:.2f}"
                in text
            )
    said = [f"{min(shares[k]):.0f} to {max(shares[k]):.0f} %" for k in (1, 0)]
    assert f"transformers have {said[0]} of what" in text
    assert f"the two ResNets {shares[2][0]:.0f} %" in text
    assert f"among themselves {said[1]}" in text
