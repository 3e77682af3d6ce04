"""`cascade` against plain loops over the samples of a store; what the labels of test may decide."""

import math
from itertools import combinations

import numpy as np
import polars as pl
import pytest

from clipsyn.analyses.cascade import GIVEN, WITHIN, cascade
from clipsyn.analyses.cascade.measure import CASCADE
from clipsyn.errors import LeakError, MissingCell, UnknownName, UsageError
from clipsyn.evaluation.results.frame import NAMES
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.ensembles.weighted import fit_temperatures
from tests.results import only

GFLOPS = {"cnx/c": 4.0, "rn/b": 1.0, "vit/a": 2.0}
ORDER = ("rn/b", "vit/a", "cnx/c")
KEYS = [*NAMES, *CASCADE]  # what tells rows apart
CLASSES = tuple(f"class {c}" for c in range(4))
BAD = {3: "truncated", 41: "empty file"}


@pytest.fixture(scope="module")
def encoders(fakes):
    """Three backbones that see, more or less, what class a picture is of; the dearest best."""

    class Seeing(fakes.Encoder):
        def encode_text(self, texts):
            return np.eye(self.embed_dim, dtype=np.float32)[[int(text[-2]) for text in texts]]

        def encode_images(self, pixels):
            brightness = pixels.reshape(len(pixels), -1).mean(axis=1)
            near = np.exp(-(((brightness[:, None] - 20 - 60 * np.arange(4)) / 20) ** 2))
            vague = np.stack([self._vague(picture) for picture in pixels])
            vague[:, :4] += near
            return (vague / np.linalg.norm(vague, axis=1, keepdims=True)).astype(np.float16)

        def _vague(self, picture):
            rng = np.random.default_rng([int(picture.sum()), self.backbone.name == "rn/b"])
            return rng.normal(size=self.embed_dim) / (1 + GFLOPS[self.backbone.name])

    made = [Seeing(name) for name in GFLOPS]
    for encoder in made:
        encoder.provenance["gflops"] = GFLOPS[encoder.backbone.name]
        encoder.logit_scale = 10.0
    return made


@pytest.fixture(scope="module")
def source(fakes):
    """Function (split, options) -> pictures of birds, the brighter the higher the class."""

    class Birds(fakes.Source):
        def _pixels(self, index):
            rng = np.random.default_rng([index, len(self.split)])
            brightness = 60 * (index % len(CLASSES)) + rng.integers(0, 40)
            noise = rng.integers(0, 20, (16, 20, 3))
            return (brightness + noise).clip(0, 255).astype(np.uint8)

    def make(split="test", **options):
        count = 60 if split == "test" else 40
        birds = Birds("birds", split, **{"count": count, "class_names": CLASSES} | options)
        birds.templates = ("{c}.",)
        return birds

    return make


@pytest.fixture(scope="module")
def birds(fakes, encoders, source, tmp_path_factory):
    path = tmp_path_factory.mktemp("cascade") / "store"
    sources = [source(bad=BAD), source("train")]
    return fakes.fill(path, encoders, sources, ("clean", "jpeg:3"), max_bad=0.1)


@pytest.fixture(scope="module")
def results(birds):
    return cascade(birds, ensembles=["super-learner"], thresholds=[0.3, 0.5])


def value(frame, metric, ensemble="log-avg", backbones=ORDER, *, at=None, stage=None):
    """The only number of that kind; at: the threshold of a cascade, or "within"."""
    where = {"rule": at if at in (None, WITHIN) else GIVEN, "stage": stage}
    where |= {"threshold": at} if where["rule"] == GIVEN else {}
    return only(frame, metric, backbones, ensemble, **where)["value"]


def of_cascade(frame, threshold):
    """Rows of the cascade of log-avg with a given threshold."""
    return frame.filter(ensemble="log-avg", rule=GIVEN, threshold=threshold)


class Loop:
    """Log-avg cascades of a store, one sample after the other."""

    def __init__(self, store, order=ORDER, split="test"):
        self.order = order
        support = store.pool("birds", "train").labelled()
        temperatures = [
            fit_temperatures(self.scores(support, count)[:, None], support.labels)[0]
            for count in range(1, len(order) + 1)
        ]
        pool = store.pool("birds", split).labelled()
        self.labels = pool.labels
        self.stages = [
            self.scores(pool, count) / temperature
            for count, temperature in enumerate(temperatures, 1)
        ]

    def scores(self, pool, count):
        columns = [pool.backbones.index(name) for name in self.order[:count]]
        return pool.logits[:, columns].astype(float).mean(axis=1)

    def at(self, threshold):
        """Accuracy, mean cost and shares that leave."""
        right, cost, leaves = 0, 0.0, [0] * len(self.order)
        for sample, label in enumerate(self.labels):
            for stage, scores in enumerate(self.stages):
                cost += GFLOPS[self.order[stage]]
                powers = np.exp(scores[sample])
                last = stage == len(self.order) - 1
                if last or powers.max() / powers.sum() >= threshold:
                    right += int(scores[sample].argmax() == label)
                    leaves[stage] += 1
                    break
        n = len(self.labels)
        return right / n, cost / n, [count / n for count in leaves]


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_against_a_loop_over_samples(birds, results, threshold):
    accuracy, cost, leaves = Loop(birds).at(threshold)
    assert 0 < leaves[0] < 1  # or there would be nothing to see
    assert value(results, "acc1", at=threshold) == pytest.approx(accuracy)
    assert value(results, "mean_gflops", at=threshold) == pytest.approx(cost)
    exits = [value(results, "exit", at=threshold, stage=stage) for stage in (1, 2, 3)]
    assert exits == pytest.approx(leaves)
    full, single = value(results, "acc1"), value(results, "acc1", None, [best(results)])
    assert value(results, "gain_over_full", at=threshold) == pytest.approx(accuracy - full)
    assert value(results, "gain", at=threshold) == pytest.approx(accuracy - single)


@pytest.mark.parametrize("tier", [1, 2])
def test_tiers_that_vote_against_a_loop_over_samples(birds, tier):
    """Two backbones that do not agree leave the image to the third one, which counts alone."""
    frame = cascade(birds, agreement=[1.0], tier=tier, thresholds=[])
    pool = birds.pool("birds", "test").labelled()
    columns = [pool.backbones.index(name) for name in ORDER]
    right, cost, leaves = 0, 0.0, [0, 0]
    for logits, label in zip(pool.logits[:, columns], pool.labels, strict=True):
        said = [int(row.argmax()) for row in logits]
        agree = tier == 1 or said[0] == said[1]
        cost += GFLOPS["rn/b"] + (tier > 1) * GFLOPS["vit/a"] + (not agree) * GFLOPS["cnx/c"]
        right += (said[0] if agree else said[2]) == label
        leaves[not agree] += 1
    n = len(pool.labels)
    assert value(frame, "acc1", "abc", at=1.0) == pytest.approx(right / n)
    assert value(frame, "mean_gflops", "abc", at=1.0) == pytest.approx(cost / n)
    exits = [value(frame, "exit", "abc", at=1.0, stage=stage) for stage in (1, 2)]
    assert exits == pytest.approx([count / n for count in leaves])
    assert (0 < leaves[1] < n) == (tier == 2)


def best(frame):
    """The backbone that is best on the support, the cheapest of equals."""
    return max(ORDER, key=lambda name: value(frame, "support_acc1", None, [name]))


@pytest.mark.parametrize("points", [0.0, 5.0, 20.0])
def test_the_chosen_threshold_against_trying_all(birds, points):
    frame = cascade(birds, within_points=points, thresholds=[])
    (chosen,) = frame.filter(rule=WITHIN)["threshold"].unique()
    support = Loop(birds, split="train")
    full = support.at(1.01)[0]
    tried = np.linspace(0.25, 1.01, 400)
    good = [support.at(threshold)[0] >= full - points / 100 - 1e-9 for threshold in tried]
    assert all(good[place] for place in np.flatnonzero(tried >= chosen))
    below = tried[tried < chosen - 1e-5]
    if len(below):  # confidences may lie closer to each other than what is tried
        failed = tried[np.flatnonzero(~np.array(good))]
        assert not len(failed) or chosen - failed[-1] < 0.05
    accuracy, cost, _ = Loop(birds).at(chosen - 1e-6)
    assert value(frame, "acc1", at=WITHIN) == pytest.approx(accuracy)
    assert value(frame, "mean_gflops", at=WITHIN) == pytest.approx(cost)


def test_fixed_choices(birds, results):
    pool = birds.pool("birds", "test").labelled()
    for size in (1, 2, 3):
        for names in combinations(ORDER, size):
            columns = [pool.backbones.index(name) for name in names]
            right = pool.logits[:, columns].mean(axis=1).argmax(1) == pool.labels
            choice = "log-avg" if size > 1 else None, names
            assert value(results, "acc1", *choice) == pytest.approx(right.mean())
            assert value(results, "mean_gflops", *choice) == sum(GFLOPS[name] for name in names)
    fitted = results.filter(ensemble="super-learner")["backbones"]
    assert set(map(tuple, fitted)) == {ORDER[:2], ORDER}


def test_the_front_is_of_the_support(results):
    keys = ["ensemble", "backbones", "threshold", "rule"]
    points = (
        results.filter(pl.col("metric").is_in(["support_acc1", "support_mean_gflops", "front"]))
        .pivot(on="metric", index=keys, values="value")
        .rows(named=True)
    )
    assert len(points) == 3 + 4 + 2 + 2 * 3  # backbones, log-avg, super-learner, cascades
    for point in points:
        beaten = any(
            other["support_acc1"] >= point["support_acc1"]
            and other["support_mean_gflops"] <= point["support_mean_gflops"]
            and (other["support_acc1"], other["support_mean_gflops"])
            != (point["support_acc1"], point["support_mean_gflops"])
            for other in points
        )
        assert point["front"] == (not beaten)


@pytest.mark.parametrize(
    ("costs", "order", "whole"),
    [
        ({"cnx/c": 0.25, "vit/a": 0.5}, ("cnx/c", "vit/a", "rn/b"), 1.75),
        ({"cnx/c": 1.0}, ("cnx/c", "rn/b", "vit/a"), 4.0),  # equals by name
    ],
)
def test_costs_may_be_given_and_change_the_order(costs, order, whole, birds):
    frame = cascade(birds, costs=costs, thresholds=[0.5])
    assert value(frame, "mean_gflops", "log-avg", order) == whole
    accuracy, *_, leaves = Loop(birds, order).at(0.5)
    assert value(frame, "acc1", "log-avg", order, at=0.5) == pytest.approx(accuracy)
    assert value(frame, "exit", "log-avg", order, at=0.5, stage=1) == leaves[0]


def test_labels_of_the_test_split_choose_nothing(fakes, source, encoders, results, tmp_path):
    """With other labels of the same images what is measured changes, nothing that is chosen."""
    shuffled = source(bad=BAD)
    shuffled.labels = np.random.default_rng(0).permutation(shuffled.labels)
    train = source("train")
    store = fakes.fill(tmp_path, encoders, [shuffled, train], max_bad=0.1)
    other = cascade(store, ensembles=["super-learner"], thresholds=[0.3, 0.5])
    same = ["front", "support_acc1", "support_mean_gflops", "mean_gflops", "exit"]
    columns = [*KEYS, "value"]
    chosen, again = (
        frame.filter(pl.col("metric").is_in(same)).select(columns) for frame in (results, other)
    )
    assert chosen.equals(again)
    assert not results.select(columns).equals(other.select(columns))


def test_fingerprints_are_of_what_decides(birds, results):
    again = cascade(birds, ensembles=["super-learner"], thresholds=[0.3, 0.5])
    assert again["fingerprint"].to_list() == results["fingerprint"].to_list()
    fewer = cascade(birds, ensembles=["super-learner"], thresholds=[0.3, 0.5], shots=5)
    dearer = cascade(birds, thresholds=[0.3], costs={"rn/b": 1.5})

    def single(frame, name):
        alone = frame.filter(ensemble="single", metric="acc1")
        return set(alone.filter(pl.col("backbones").list.contains(name))["fingerprint"])

    assert single(fewer, "rn/b") == single(results, "rn/b")
    chosen, again = (set(of_cascade(it, 0.3)["fingerprint"]) for it in (results, fewer))
    assert len(chosen) == 1
    assert chosen != again
    assert chosen != set(of_cascade(results, 0.5)["fingerprint"])
    assert single(dearer, "rn/b") != single(results, "rn/b")
    assert single(dearer, "vit/a") == single(results, "vit/a")


@pytest.mark.parametrize("ensemble", ["nlc", "nlc:steps=2"])
def test_fingerprints_know_the_version_of_another_package(birds, monkeypatch, ensemble):
    def fingerprints():
        frame = cascade(birds, ensembles=[ensemble], backbones=["rn/b", "vit/a"], thresholds=[0.5])
        return set(frame.filter(ensemble=ensemble)["fingerprint"])

    before = fingerprints()
    monkeypatch.setattr(ENSEMBLES, "package", lambda name: "other 2.0" if name == "nlc" else "")
    assert not before & fingerprints()


def test_without_a_readable_image_all_is_nan(fakes, source, encoders, tmp_path):
    bad = dict.fromkeys(range(10), "truncated")
    sources = [source(count=10, bad=bad), source("train")]
    frame = cascade(fakes.fill(tmp_path, encoders, sources, max_bad=1.0), thresholds=[0.5])
    assert set(frame["n"]) == {0}
    for metric, stage in (
        ("acc1", None),
        ("mean_gflops", None),
        ("exit", 1),
        ("gain_over_full", None),
    ):
        assert math.isnan(value(frame, metric, at=0.5, stage=stage))


class TestRefused:
    @pytest.mark.parametrize(
        ("settings", "error", "message"),
        [
            ({"ensembles": ["log-agv"]}, UnknownName, "did you mean .*log-avg"),
            ({"thresholds": [0.5, -0.1]}, UsageError, "thresholds=… is .* from 0 to 1, not -0.1"),
            ({"costs": {"rn/c": 1.0}}, UnknownName, "unknown backbone 'rn/c': did you mean .*rn/b"),
            ({"splits": ["train"]}, LeakError, "nothing is left"),
            ({"splits": ["train"], "support": "test"}, LeakError, "test split"),
            ({"support": "val"}, MissingCell, "clipsyn extract .* --split val"),
            ({"agreement": [1.0], "tier": 3}, UsageError, "3 backbones are one tier"),
            ({"backbones": ["rn/b"]}, UsageError, "two backbones, and birds/test has rn/b"),
        ],
    )
    def test_settings(self, birds, settings, error, message):
        with pytest.raises(error, match=message):
            cascade(birds, **settings)

    def test_a_backbone_without_the_support(self, fakes, source, encoders, tmp_path):
        test, train = (source(split) for split in ("test", "train"))
        fakes.fill(tmp_path, encoders, [test])
        store = fakes.fill(tmp_path, encoders[:2], [train])
        with pytest.raises(MissingCell, match=r"clipsyn extract .*vit/a .*--split train"):
            cascade(store)
