"""`selective` against plain loops over a store; what the labels of test may decide."""

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from clipsyn.analyses.selective import SCORES, SelectiveSettings, measures, selective
from clipsyn.analyses.selective.measure import COLUMNS
from clipsyn.analyses.selective.measures import smallest_threshold
from clipsyn.errors import ClipsynError, LeakError, MissingCell, StaleCell, UnknownName, UsageError
from clipsyn.methods.ensembles.base import LogAverage
from clipsyn.methods.numerics.logits import softmax, zero_shot_logits
from clipsyn.store.features import FeatureStore
from tests.results import bring, only

ONE, TWO, BOTH = ("fake/one",), ("fake/two",), ("fake/one", "fake/two")


def found(frame, metric, backbones=BOTH, ensemble=None, **about):
    """The one row about that; what is not named is null."""
    where = dict.fromkeys(COLUMNS) | about
    where.pop("threshold")
    return only(frame, metric, backbones, ensemble, **where)


def by_hand(scores, labels):
    """Mean risk over coverages by max-softmax, in float64, and the accuracy."""
    probabilities = softmax(scores.astype(np.float64))
    right = probabilities.argmax(axis=1) == labels
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    places = np.arange(1, len(labels) + 1)
    return (np.cumsum(~right[order]) / places).mean(), right.mean()


@pytest.fixture(scope="module")
def seeing(fakes):
    """Function (name) -> a backbone that takes each picture for something else."""

    class Seeing(fakes.Encoder):
        def encode_images(self, pixels):
            rngs = [np.random.default_rng([int(picture.sum()), self.size]) for picture in pixels]
            rows = np.stack([rng.normal(size=self.embed_dim) for rng in rngs])
            return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)

    def make(name="fake/one", size=8):
        encoder = Seeing(name, size=size)
        encoder.logit_scale = 5.0
        return encoder

    return make


@pytest.fixture(scope="module")
def filled(fakes, seeing, tmp_path_factory):
    """Toys, 20 of test and 11 of train."""
    sources = [fakes.Source(), fakes.Source(split="train", count=11)]
    path = tmp_path_factory.mktemp("selective") / "store"
    encoders = [seeing(), seeing("fake/two", 12)]
    return fakes.fill(path, encoders, sources, ("clean", "jpeg:3")).path


@pytest.fixture
def store(filled, fakes, tmp_path):
    return fakes.copy(filled, tmp_path / "store")


class TestOfAStore:
    def test_areas_and_accuracies(self, store):
        frame, pool = selective(store), store.pool("toy", "test")
        average = LogAverage().fit(store.pool("toy", "train")).combine(pool)
        for backbones, ensemble, scores in (
            (ONE, None, pool.logits[:, 0]),
            (TWO, None, pool.logits[:, 1]),
            (BOTH, "log-avg", average),
        ):
            aurc, accuracy = by_hand(scores, pool.labels)
            of = found(frame, "aurc", backbones, ensemble, score="max-softmax")
            assert of["value"] == pytest.approx(aurc)
            assert of["ci_low"] <= of["value"] <= of["ci_high"]
            assert found(frame, "acc1", backbones, ensemble)["value"] == accuracy
            for score in SCORES:
                last = found(frame, "acc1", backbones, ensemble, score=score, coverage=1.0)
                assert last["value"] == pytest.approx(accuracy)

    def test_agreement(self, store):
        """Of two backbones: whether they agree; of those that do half may be withheld."""
        frame, pool = selective(store), store.pool("toy", "test")
        first, second = pool.logits.argmax(axis=2).T
        agreed, right = first == second, first == pool.labels
        few = found(frame, "acc1", ONE, score="agreement", coverage=0.05)
        assert few["value"] == pytest.approx(right[agreed].mean())
        assert few["n"] == 1

    def test_gains_are_paired(self, store):
        frame = selective(store)
        usual = found(frame, "aurc", ONE, score="max-softmax")["value"]
        for score in SCORES[1:]:
            gain = found(frame, "aurc_gain", ONE, score=score)
            assert gain["value"] == pytest.approx(
                usual - found(frame, "aurc", ONE, score=score)["value"]
            )
        assert frame.filter(metric="aurc_gain", score="max-softmax").is_empty()
        assert selective(store, scores=["margin"]).filter(metric="aurc_gain").is_empty()

    def test_a_single_backbone_has_no_ensemble_and_no_agreement(self, store):
        frame = selective(store, backbones=["fake/one"])
        assert set(frame["ensemble"]) == {"single"}
        assert set(frame["score"].drop_nulls()) == set(SCORES) - {"agreement"}


class TestThresholds:
    @pytest.fixture(autouse=True)
    def _few_are_enough(self, monkeypatch):
        """Of eleven images there are not twenty."""
        monkeypatch.setattr(measures, "LEAST_ANSWERS", 1)

    def test_of_a_backbone(self, store):
        frame, support = selective(store, accuracies=[0.1]), store.pool("toy", "train")
        confidence = softmax(support.logits[:, 0].astype(np.float64)).max(axis=1)
        right = support.logits[:, 0].argmax(axis=1) == support.labels
        about = {"score": "max-softmax", "wished": 0.1}
        threshold = smallest_threshold(confidence, right, 0.1)
        here = softmax(store.pool("toy", "test").logits[:, 0].astype(np.float64)).max(axis=1)
        coverage = found(frame, "coverage", ONE, **about)
        assert coverage["threshold"] == pytest.approx(threshold)
        assert coverage["value"] == np.mean(here >= threshold)
        assert (coverage["support"], coverage["shots"], coverage["seed"]) == ("train", "full", 0)
        kept = found(frame, "acc1", ONE, **about)
        assert kept["n"] == np.count_nonzero(here >= threshold)
        there = found(frame, "support_acc1", ONE, **about)
        assert there["value"] >= 0.1
        assert found(frame, "support_coverage", ONE, **about)["n"] == 11

    def test_labels_of_test_decide_none(self, store):
        def chosen():
            frame = selective(store, ensembles=["log-avg", "super-learner"], accuracies=[0.05, 0.1])
            rows = frame.filter(pl.col("wished").is_not_null())
            names = ["ensemble", "score", "wished", "threshold", "metric"]
            decided = rows.filter(pl.col("metric") != "acc1").select(*names, "value")
            return decided, frame.filter(metric="aurc")["value"].to_list()

        (before, areas), table = chosen(), store.samples("toy", "test")
        store.annotate(replace(table, labels=np.roll(table.labels, 1)))
        after, other_areas = chosen()
        assert before.equals(after, null_equal=True)
        assert areas != other_areas

    def test_an_accuracy_that_nothing_reaches(self, store):
        labels = store.samples("toy", "train").labels
        predicted = store.pool("toy", "train").logits[:, 0].argmax(axis=1)
        wrong = np.where(predicted == labels, (labels + 1) % 3, labels).astype(np.int32)
        store.annotate(replace(store.samples("toy", "train"), labels=wrong))
        frame = selective(store, accuracies=[0.9])
        about = {"score": "margin", "wished": 0.9}
        coverage, kept = (found(frame, metric, ONE, **about) for metric in ("coverage", "acc1"))
        assert (coverage["threshold"], coverage["value"], kept["n"]) == (None, 0, 0)
        assert math.isnan(kept["value"])

    def test_without_a_support_there_are_none(self, fakes, seeing, tmp_path):
        encoders = [seeing(), seeing("fake/two", 12)]
        store = fakes.fill(tmp_path / "store", encoders, [fakes.Source()])
        frame = selective(store)
        assert frame["wished"].null_count() == len(frame)
        assert found(frame, "aurc", BOTH, "log-avg", score="margin")["n"] == 20
        (note,) = selective.notes(store, frame, SelectiveSettings())
        assert note == "no threshold is chosen: there is no train split"
        with pytest.raises(MissingCell, match=r"clipsyn extract .* --split train"):
            selective(store, ensembles=["super-learner"])

    @pytest.mark.parametrize(
        ("settings", "error", "message"),
        [
            ({"splits": ["train"]}, LeakError, "nothing is left"),
            ({"support": "test", "splits": ["train"]}, LeakError, "test split"),
            ({"ensembles": ["log-agv"]}, UnknownName, r"log-agv.*log-avg"),
        ],
    )
    def test_what_cannot_work(self, store, settings, error, message):
        with pytest.raises(error, match=message):
            selective(store, **settings)


class TestOutOfDistribution:
    @pytest.fixture
    def store(self, store, fakes, seeing):
        """With cars, of which two are toys, too."""
        cars = fakes.Source("cars", class_names=("bus", "van"), count=24, changed=set(range(2, 24)))
        return fakes.fill(store.path, [seeing(), seeing("fake/two", 12)], [cars])

    def test_against_scikit_learn(self, store, caplog):
        with caplog.at_level("INFO", "clipsyn"):
            frame = selective(store, datasets="toy", ood="cars")
        assert "2 images of cars/test stand in toy/test: left out" in caplog.text
        own = store.pool("toy", "test").logits
        for column, name in enumerate(BOTH):
            (key,) = store.keys(dataset=["cars"], perturbation=["clean"], backbone=[name])
            classes = store.class_embeddings("toy", "simple", name)
            others = zero_shot_logits(store.cell(key).embeddings(), *classes)[2:]
            values = [
                softmax(logits.astype(np.float64)).max(axis=1)
                for logits in (own[:, column], others)
            ]
            truth = np.repeat([1, 0], [len(part) for part in values])
            of = found(frame, "auroc", [name], score="max-softmax", ood="cars")
            assert of["value"] == pytest.approx(roc_auc_score(truth, np.concatenate(values)))
            assert of["n"] == 20 + 22
            assert of["ci_low"] < of["value"] < of["ci_high"]

    def test_an_ensemble_sees_the_embeddings_of_the_others(self, store):
        frame = selective(store, datasets="toy", ood="cars", ensembles="nlc", shots=1)
        assert found(frame, "auroc", BOTH, "nlc", score="margin", ood="cars")["shots"] == "1"

    def test_what_cannot_work(self, store, fakes, seeing, tmp_path):
        with pytest.raises(UnknownName, match="did you mean cars"):
            selective(store, ood="crs")
        with pytest.raises(UsageError, match="ood=toy is the dataset itself"):
            selective(store, datasets="toy", ood="toy")
        fakes.fill(store.path, [seeing()], [fakes.Source("boats")])
        with pytest.raises(MissingCell, match=r"extract .*fake/two.* --dataset boats=… "):
            selective(store, datasets="toy", ood="boats")
        for name in BOTH:
            said = {"id": [1, 2], "label": "a", "prediction": "b"}
            bring(store.path, said, "mine", backbone=name)
        with pytest.raises(MissingCell, match="imported as predictions, without embeddings"):
            selective(store, datasets="toy", ood="mine")

    def test_other_weights_of_the_same_name(self, fakes, tmp_path):
        for name, weights in (("toy", ""), ("cars", "others")):
            fakes.fill(tmp_path / "s", [fakes.Encoder(weights=weights)], [fakes.Source(name)])
        with pytest.raises(StaleCell, match=r"not of the same weights.*extract .* --replace"):
            selective(FeatureStore.open(tmp_path / "s"), datasets="toy", ood="cars")


def test_answers_without_logits_are_refused(store, tmp_path):
    for split in ("train", "test"):
        table = store.samples("toy", split)
        said = {"id": list(table.ids), "prediction": table.class_names[0]}
        bring(store.path, said, split=split, name="mine")
    with pytest.raises(ClipsynError, match=r"mine.*logits"):
        selective(store, datasets=["toy"])
