"""The scripts that make tables of what others have published, and the import of these."""

from itertools import product

import numpy as np
import polars as pl
import pytest

from clipsyn.errors import DatasetError
from clipsyn.exchange import ImportSettings
from clipsyn.exchange.importing import import_files
from clipsyn.names import parse_perturbation
from clipsyn.store.features import FeatureStore
from tests.pipelines.scripts import script, write

RESPONSES = ("subj", "Session", "trial", "rt", "object_response", "Category", "condition")
PREDICTIONS = ("image", "response", "pred_label", "pred_conf")


people, shapes = script("model_vs_human"), script("vlm_shapebias")
features = script("real_features")


def answered(path, *rows):
    """Rows: subject, answer, category, condition, image name."""
    header = (*RESPONSES, "imagename")
    write(path, header, *([who, 1, 1, "NaN", *said, name] for who, *said, name in rows))


@pytest.mark.parametrize("experiment", people.EXPERIMENTS)
def test_every_condition_is_a_perturbation(experiment, tmp_path):
    known = people.perturbations(experiment)
    rows = [
        ["net", "cat", "cat", name, f"{n}_x_dnn_{name}_{n}.png"] for n, name in enumerate(known)
    ]
    answered(tmp_path / "a.csv", *rows)
    table = people.table(tmp_path / "a.csv", experiment)
    assert table["perturbation"].to_list() == [*known.values()]
    assert [parse_perturbation(label).label for label in known.values()] == [*known.values()]


@pytest.mark.parametrize(
    ("experiment", "condition", "label"),
    [
        ("uniform-noise", "0.10", "uniform_noise-3"),
        ("uniform-noise", "0.00", "clean"),
        ("high-pass", "3.0", "high_pass-1"),
        ("high-pass", "inf", "clean"),
        ("false-colour", "True", "clean"),
        ("eidolonII", "128-3-10", "eidolon_ii-8"),
        ("rotation", "270", "rotation-270"),
        ("colour", "bw", "grayscale-1"),
        ("contrast", "c01", "contrast-7"),
        ("edge", "NaN", "clean"),
        ("edge", "", "clean"),
    ],
)
def test_a_condition(experiment, condition, label, tmp_path):
    answered(tmp_path / "a.csv", ["net", "cat", "dog", condition, "airplane1.png"])
    table = people.table(tmp_path / "a.csv", experiment)
    assert table.rows() == [("airplane1.png", "net", label, "cat", "dog")]


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("0001_cop_s01_c30_knife_10_n03041632_7380.png", "n03041632_7380.png"),
        ("0001_ede_s01_airplane_40_airplane1-bicycle2.png", "airplane1-bicycle2.png"),
        ("0001_ske_dnn_0_airplane_00_airplane-0001-sketch-0.png", "airplane-0001-sketch-0.png"),
        ("airplane1.png", "airplane1.png"),
    ],
)
def test_an_image_is_known_without_trial_and_subject(name, image, tmp_path):
    answered(tmp_path / "a.csv", ["s", "cat", "cat", "0", name])
    assert people.table(tmp_path / "a.csv", "sketch")["id"].to_list() == [image]


def test_sessions_and_subjects_are_one_table_and_an_answer_too_late_is_wrong(tmp_path):
    said = {"person": ("na", "cat"), "net": ("cat", "dog")}
    for (who, answers), session in product(said.items(), (0, 1)):
        row = [who, answers[session], "cat", "c100", f"{session}.png"]
        answered(tmp_path / f"raw/contrast_{who}_session_{session}.csv", row)
    people.convert(tmp_path / "raw", tmp_path)
    wanted = ImportSettings("contrast", classes=tmp_path / "classes.txt")
    frame = import_files(tmp_path / "store", [tmp_path / "contrast.csv"], wanted)
    assert frame.select("backbone", "valid", "acc1").rows() == [("net", 2, 0.5), ("person", 2, 0.5)]
    names = FeatureStore.open(tmp_path / "store").samples("contrast", "test").class_names
    assert names == tuple(sorted(people.CLASSES))


def test_what_is_no_answer_of_theirs(tmp_path):
    with pytest.raises(DatasetError, match="no CSV"):
        people.convert(tmp_path, tmp_path / "tables")
    answered(tmp_path / "raw/contrast_a.csv", ["a", "cat", "cat", "c2", "1.png"])
    with pytest.raises(DatasetError, match="c2"):
        people.convert(tmp_path / "raw", tmp_path / "tables")
    (tmp_path / "raw/contrast_a.csv").rename(tmp_path / "raw/mine.csv")
    with pytest.raises(DatasetError, match="starts with no experiment"):
        people.convert(tmp_path / "raw", tmp_path / "tables")
    write(tmp_path / "raw/edge_a.csv", ["id"], ["1"])
    (tmp_path / "raw/mine.csv").unlink()
    with pytest.raises(SystemExit, match="Error: "):
        people.main([str(tmp_path / "raw"), str(tmp_path / "tables")])


def test_predictions_of_all_models_by_prompt_set(tmp_path):
    for model, ending in product(("one_None", "two"), ("CLS", "a_photo_of_a_CLS.", "None")):
        rows = [["cat1-dog2", "dog", "dog", 0.75], ["dog3-cat1", "dog", "dog", 0.5]]
        write(tmp_path / f"raw/{model}_{ending}.csv", PREDICTIONS, *rows)
    shapes.convert(tmp_path / "raw", tmp_path)
    for name in shapes.PROMPTS.values():
        assert pl.read_csv(tmp_path / name).rows() == [
            (image, model, "dog", sure, label)
            for model in ("one_None", "two")
            for image, sure, label in (("cat1-dog2", 0.75, "cat"), ("dog3-cat1", 0.5, "dog"))
        ]
    frame = import_files(tmp_path / "store", [tmp_path / "CLS.csv"], ImportSettings("shapes"))
    assert frame["acc1"].to_list() == [0.5, 0.5]


def test_an_image_that_does_not_say_its_shape(tmp_path):
    write(tmp_path / "net_CLS.csv", PREDICTIONS, ["photo", "cat", "cat", 1])
    with pytest.raises(DatasetError, match="'photo'"):
        shapes.convert(tmp_path, tmp_path / "tables")
    with pytest.raises(DatasetError, match="no files"):
        shapes.convert(tmp_path / "absent", tmp_path / "tables")


def test_features_get_the_splits_that_they_lack(tmp_path):
    """Rows of all backbones stay the same images, and each image is in one split of a draw."""
    labels = np.repeat(np.arange(3, dtype=np.int16), 20)
    images = {
        name: np.random.default_rng(0).normal(size=(60, 6)).astype(np.float16)[:, :width]
        for name, width in (("one", 4), ("two", 6))
    }
    for part, (name, values) in product(
        ("caltech101_support16", "caltech101_val", "fgvc-aircraft_test"), images.items()
    ):
        np.savez(tmp_path / f"{part}_{name}.npz", embeddings=values, labels=labels)
    features.convert(tmp_path, tmp_path / "out")
    drawn = set()
    for draw in features.DRAWS:
        start, rows = f"out/fgvc-aircraft-{draw}", {}
        for split, (name, values) in product(("train", "test"), images.items()):
            found = np.load(tmp_path / start / f"{name}_{split}_feats.npy")
            rows[split] = [values.tolist().index(row) for row in found.tolist()]
            told = np.load(tmp_path / start / f"{name}_{split}_targets.npy")
            np.testing.assert_array_equal(told, labels[rows[split]])
        assert np.bincount(labels[rows["train"]]).tolist() == [16] * 3
        assert sorted(rows["train"] + rows["test"]) == [*range(60)]
        drawn.add(tuple(rows["train"]))
    assert len(drawn) == len(features.DRAWS)
    frame = import_files(tmp_path / "store", [tmp_path / "out"], ImportSettings())
    assert frame.filter(dataset="caltech101").select("split", "backbone", "valid").rows() == [
        (split, name, 60) for split in ("test", "train") for name in ("one", "two")
    ]
    assert len(frame) == 4 * (1 + len(features.DRAWS))
    for part in ("support16", "test"):
        values = images["one"][:30] if part == "support16" else images["one"]
        arrays = {"embeddings": values, "labels": labels[: len(values)]}
        np.savez(tmp_path / f"flowers102_{part}_ViT-B-32.npz", **arrays)
    features.convert(tmp_path, tmp_path / "out")
    coop = import_files(tmp_path / "coop", [tmp_path / "out/coop-flowers102"], ImportSettings())
    about = coop.select("dataset", "split", "backbone", "valid").rows()
    name = "coop-flowers102", "ViT-B-32_openai"
    assert about == [(name[0], "test", name[1], 60), (name[0], "train", name[1], 30)]
    with pytest.raises(SystemExit, match="has no files caltech101_support16_"):
        features.main([str(tmp_path / "out"), str(tmp_path / "again")])
