"""Draws that others made: found by the paths of their images, and never run."""

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clipsyn.errors import DatasetError
from clipsyn.evaluation.coop import read_indices
from clipsyn.evaluation.loop import evaluate
from clipsyn.methods.ensembles.weighted import SuperLearner
from clipsyn.methods.numerics.logits import log_softmax
from clipsyn.store.samples import SampleTable

IDS = ("cats/a.jpg", "cats/b.jpg", "dogs/a.jpg", "dogs/c.jpg")
PAGE = Path(__file__).parents[2] / "docs" / "evaluating.md"


@pytest.fixture
def samples():
    labels = np.array([0, 0, 1, 1], np.int32)
    return SampleTable("pets", "train", IDS, labels, np.zeros((4, 32), np.uint8), ("cat", "dog"))


def write(folder, items, name="shot_1-seed_2.json"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"train": [[*item, "x"] for item in items]}))


def test_images_are_found_by_the_end_of_their_path(tmp_path, samples):
    write(tmp_path, [("/data/pets/images/dogs/a.jpg", 1), ("/data/pets/images/cats/b.jpg", 0)])
    assert read_indices(tmp_path, samples, 1, 2).tolist() == [1, 2]


@pytest.mark.parametrize("place", ["", "pets"])
def test_there_may_be_a_folder_for_each_dataset(tmp_path, samples, place):
    write(tmp_path / place, [("cats/a.jpg", 5)])  # labels of another order are fine
    assert read_indices(tmp_path, samples, 1, 2).tolist() == [0]


def test_suffixes_may_be_missing_or_others(tmp_path, samples):
    write(tmp_path, [("x/dogs/c.png", 1), ("cats/a", 0)])
    assert read_indices(tmp_path, samples, 1, 2).tolist() == [0, 3]


DASSL = """
class Datum:
    def __init__(self, impath, label, classname):
        self.impath, self.label, self.classname = impath, label, classname
"""
PICKLED = """
import pickle, sys
from dassl.data.datasets.base_dataset import Datum
content = {"train": [Datum("/data/pets/cats/b.jpg", 3, "cat")], "val": []}
with open("shot_1-seed_2.pkl", "wb") as file:
    pickle.dump(content, file, protocol=pickle.HIGHEST_PROTOCOL)
"""


def test_the_script_of_the_page_converts_what_coop_writes(tmp_path, samples):
    module = tmp_path / "dassl" / "data" / "datasets" / "base_dataset.py"
    module.parent.mkdir(parents=True)
    module.write_text(DASSL)
    script = re.search(
        r"```python\n(import json\nimport pickle.*?)```", PAGE.read_text(), re.DOTALL
    )
    for code in (PICKLED, script[1]):
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert read_indices(tmp_path, samples, 1, 2).tolist() == [1]


def test_other_classes_are_refused(tmp_path, samples):
    write(tmp_path, [("cats/a.jpg", 0), ("dogs/a.jpg", 0)])
    with pytest.raises(DatasetError, match=r"dogs/a\.jpg has label 0"):
        read_indices(tmp_path, samples, 1, 2)


def test_what_is_not_there_is_named(tmp_path, samples):
    with pytest.raises(DatasetError, match="none"):
        read_indices(tmp_path, samples, 1, 2)
    write(tmp_path, [("birds/a.jpg", 0)])
    with pytest.raises(DatasetError, match=r"shot_4-seed_2\.json.*shot_1-seed_2\.json"):
        read_indices(tmp_path, samples, 4, 2)
    with pytest.raises(DatasetError, match=r"birds/a\.jpg is not among the images of pets/train"):
        read_indices(tmp_path, samples, 1, 2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b'{"train": 1}',
        b'{"train": [["a"]]}',
        b'{"train": [{"impath": "a", "label": 1}]}',
        b'{"train": [["cats/a.jpg", Infinity]]}',
        b"[" * 100_000,
        pickle.dumps({"train": []}),
    ],
)
def test_foreign_files_are_one_sentence(tmp_path, samples, content):
    (tmp_path / "shot_1-seed_1.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"shot_1-seed_1\.json is no draw of the shots"):
        read_indices(tmp_path, samples, 1, 1)


@pytest.mark.parametrize("image", ["/", ""])
def test_a_path_without_a_name_is_no_image(tmp_path, samples, image):
    write(tmp_path, [(image, 0)])
    with pytest.raises(DatasetError, match="is not among the images of pets/train"):
        read_indices(tmp_path, samples, 1, 2)


def test_the_images_of_coop_are_those_that_are_fitted_on(tiny_store, tmp_path):
    """Its seeds are counted from 1."""
    support, test = tiny_store.pool("toy", "train"), tiny_store.pool("toy", "test")
    rows = np.flatnonzero(support.labels == 1)[:2]  # few_shot would draw from every class
    items = [(support.ids[row], int(support.labels[row])) for row in rows]
    write(tmp_path, items, "shot_1-seed_1.json")
    about = {"heads": ["zero-shot"], "ensembles": ["super-learner"], "shots": (1,)}
    about |= {"datasets": "toy", "coop": tmp_path}
    learned = evaluate(tiny_store, seeds=1, **about).filter(ensemble="super-learner")
    assert learned.filter(metric="fit_seconds").select("n", "seed").rows() == [(2, 1)]
    scores = SuperLearner().fit(support.take(rows)).combine(test)
    expected = -log_softmax(scores)[np.arange(len(test)), test.labels].mean()
    assert learned.filter(metric="nll")["value"].item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(DatasetError, match=r"shot_1-seed_2\.json"):
        evaluate(tiny_store, seeds=2, **about)
