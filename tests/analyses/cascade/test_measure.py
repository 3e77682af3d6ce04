"""`cascade` against plain loops over the samples of a store; what the labels of test may decide."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import polars as pl
import pytest

from clipsyn.analyses.cascade import cascade, stages
from clipsyn.ensembles.calibrated import fit_temperatures
from clipsyn.errors import DatasetError, LeakError, MissingCell, UnknownName, UsageError
from clipsyn.importing.parts import Wanted
from clipsyn.importing.write import import_files
from clipsyn.results.frame import NAMES, RESULT
from clipsyn.store.features import FeatureStore

GFLOPS = {"cnx/c": 4.0, "rn/b": 1.0, "vit/a": 2.0}
ORDER = ("rn/b", "vit/a", "cnx/c")
ALL = "+".join(ORDER)
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

    def make(split: str = "test", **options):
        count = 60 if split == "test" else 40
        found = Birds("birds", split, **{"count": count, "class_names": CLASSES} | options)
        found.templates = ("{c}.",)
        return found

    return make


@pytest.fixture(scope="module")
def birds(fakes, encoders, source, tmp_path_factory) -> FeatureStore:
    path = tmp_path_factory.mktemp("cascade") / "store"
    sources = [source(bad=BAD), source("train")]
    return fakes.fill(path, encoders, sources, ("clean", "jpeg:3"), max_bad=0.1)


@pytest.fixture(scope="module")
def results(birds) -> pl.DataFrame:
    return cascade(birds, ensembles=["super-learner"], thresholds=[0.3, 0.5])


def value(frame: pl.DataFrame, metric: str, ensemble: str | None, backbones: str = ALL) -> float:
    rows = frame.filter(
        pl.col("metric") == metric,
        pl.col("backbones") == backbones,
        pl.col("ensemble").eq_missing(pl.lit(ensemble, pl.String)),
    )
    assert len(rows) == 1, (metric, ensemble, backbones)
    return float(rows["value"][0])


class Loop:
    """Log-avg cascades of a store, one sample after the other."""

    def __init__(self, store: FeatureStore, order=ORDER, split: str = "test") -> None:
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

    def scores(self, pool, count: int) -> np.ndarray:
        columns = [pool.backbones.index(name) for name in self.order[:count]]
        return pool.logits[:, columns].astype(float).mean(axis=1)

    def at(self, threshold: float) -> tuple[float, float, list[float]]:
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
    name = f"cascade:log-avg@{threshold}"
    assert value(results, "acc1", name) == pytest.approx(accuracy)
    assert value(results, "mean_gflops", name) == pytest.approx(cost)
    found = [value(results, f"exit_{stage}", name) for stage in (1, 2, 3)]
    assert found == pytest.approx(leaves)
    full, single = (value(results, "acc1", *of) for of in (("log-avg",), (None, best(results))))
    assert value(results, "gain_over_full", name) == pytest.approx(accuracy - full)
    assert value(results, "gain_over_chosen", name) == pytest.approx(accuracy - single)


def best(frame: pl.DataFrame) -> str:
    """The backbone that is best on the support, the cheapest of equals."""
    return max(ORDER, key=lambda name: value(frame, "support_acc1", None, name))


@pytest.mark.parametrize("within", [0.0, 0.05, 0.2])
def test_the_chosen_threshold_against_trying_all(birds, within):
    frame = cascade(birds, within=within, thresholds=[])
    name = f"cascade:log-avg@within-{100 * within:g}"
    chosen = value(frame, "threshold", name)
    support = Loop(birds, split="train")
    full = support.at(1.01)[0]
    tried = np.linspace(0.25, 1.01, 400)
    good = [support.at(threshold)[0] >= full - within - 1e-9 for threshold in tried]
    assert all(good[place] for place in np.flatnonzero(tried >= chosen))
    below = tried[tried < chosen - 1e-5]
    if len(below):  # confidences may lie closer to each other than what is tried
        failed = tried[np.flatnonzero(~np.array(good))]
        assert not len(failed) or chosen - failed[-1] < 0.05
    accuracy, cost, _ = Loop(birds).at(chosen - 1e-6)
    assert value(frame, "acc1", name) == pytest.approx(accuracy)
    assert value(frame, "mean_gflops", name) == pytest.approx(cost)


def test_fixed_choices(birds, results):
    pool = birds.pool("birds", "test").labelled()
    for size in (1, 2, 3):
        for names in combinations(ORDER, size):
            columns = [pool.backbones.index(name) for name in names]
            right = pool.logits[:, columns].mean(axis=1).argmax(1) == pool.labels
            found = ["log-avg" if size > 1 else None, "+".join(names)]
            assert value(results, "acc1", *found) == pytest.approx(right.mean())
            assert value(results, "mean_gflops", *found) == sum(GFLOPS[name] for name in names)
    fitted = results.filter(pl.col("ensemble") == "super-learner")["backbones"].unique()
    assert set(fitted) == {"rn/b+vit/a", ALL}


def test_the_front_is_of_the_support(results):
    keys = ["ensemble", "backbones"]
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


def test_all_subsets_of_what_is_fitted(birds):
    frame = cascade(birds, ensembles=["super-learner"], thresholds=[], all_subsets=True)
    fitted = frame.filter(pl.col("ensemble") == "super-learner")["backbones"].unique()
    assert len(fitted) == 4


def test_what_a_backbone_costs(results):
    for name, gflops in GFLOPS.items():
        assert value(results, "mean_gflops", None, name) == gflops
        assert value(results, "encode_ms", None, name) > 0
        assert value(results, "process_memory_mb", None, name) > 20


def test_costs_may_be_given_and_change_the_order(birds):
    frame = cascade(birds, costs={"cnx/c": 0.25, "vit/a": 0.5}, thresholds=[0.5])
    order = ("cnx/c", "vit/a", "rn/b")
    assert value(frame, "mean_gflops", "log-avg", "+".join(order)) == 1.75
    accuracy, *_, leaves = Loop(birds, order).at(0.5)
    assert value(frame, "acc1", "cascade:log-avg@0.5", "+".join(order)) == pytest.approx(accuracy)
    assert value(frame, "exit_1", "cascade:log-avg@0.5", "+".join(order)) == leaves[0]


def test_what_is_asked_twice_is_there_once(birds):
    frame = cascade(birds, ensembles=["log-avg", "conf", "conf"], thresholds=[0.5, 0.50, 0.4])
    assert frame.select(NAMES).is_duplicated().sum() == 0


def test_the_order_may_be_given(birds):
    frame = cascade(birds, backbones=["vit/a", "rn/*"], order="given", thresholds=[0.5])
    names = frame.filter(pl.col("ensemble") == "cascade:log-avg@0.5")["backbones"].unique()
    assert names.to_list() == ["vit/a+rn/b"]


def test_the_frame_is_tidy(results):
    assert dict(results.schema) == RESULT
    assert results.select(NAMES).is_duplicated().sum() == 0
    assert set(results["n"]) == {60 - len(BAD)}
    chosen = results.filter(pl.col("ensemble") == "cascade:log-avg@0.5")
    assert set(chosen["support"]) == {"train, own"}
    assert chosen["shots"].null_count() == len(chosen)
    single = results.filter(pl.col("ensemble").is_null(), pl.col("metric") == "acc1")
    assert single["support"].null_count() == len(single)
    assert set(single["shots"]) == {0}
    interval = chosen.filter(pl.col("metric").is_in(["acc1", "exit_1", "mean_gflops"]))
    assert (interval["ci_low"] <= interval["value"]).all()
    assert (interval["value"] <= interval["ci_high"]).all()


def test_perturbed_images_meet_what_was_chosen_on_clean_ones(birds):
    frame = cascade(birds, perturbations=None, thresholds=[0.5])
    assert set(frame["perturbation"]) == {"clean", "jpeg-3"}
    chosen = frame.filter(pl.col("metric").is_in(["threshold", "front", "support_acc1"]))
    clean, jpeg = (
        chosen.filter(pl.col("perturbation") == name).drop(
            "perturbation", "severity", "fingerprint"
        )
        for name in ("clean", "jpeg-3")
    )
    assert clean.equals(jpeg)


def test_labels_of_the_test_split_choose_nothing(fakes, source, encoders, results, tmp_path):
    """With other labels of the same images what is measured changes, nothing that is chosen."""
    shuffled = source(bad=BAD)
    shuffled.labels = np.random.default_rng(0).permutation(shuffled.labels)
    train = source("train")
    store = fakes.fill(tmp_path, encoders, [shuffled, train], max_bad=0.1)
    other = cascade(store, ensembles=["super-learner"], thresholds=[0.3, 0.5])
    same = ["threshold", "front", "support_acc1", "support_mean_gflops"]
    same += ["mean_gflops", "exit_1", "exit_2", "exit_3"]
    columns = [*NAMES, "value"]
    chosen, again = (
        frame.filter(pl.col("metric").is_in(same)).select(columns) for frame in (results, other)
    )
    assert chosen.equals(again)
    assert not results.select(columns).equals(other.select(columns))


def test_labels_of_the_support_do(fakes, source, encoders, results, tmp_path):
    test = source(bad=BAD)
    shuffled = source("train")
    shuffled.labels = np.random.default_rng(0).permutation(shuffled.labels)
    store = fakes.fill(tmp_path, encoders, [test, shuffled], max_bad=0.1)
    other = cascade(store, ensembles=["super-learner"], thresholds=[0.3, 0.5])
    name = "cascade:log-avg@0.3"
    assert value(other, "exit_1", name) != value(results, "exit_1", name)  # another temperature
    assert value(other, "acc1", None, "rn/b") == value(results, "acc1", None, "rn/b")


def test_fingerprints_are_of_what_decides(birds, results):
    again = cascade(birds, ensembles=["super-learner"], thresholds=[0.3, 0.5])
    assert again["fingerprint"].to_list() == results["fingerprint"].to_list()
    fewer = cascade(birds, ensembles=["super-learner"], thresholds=[0.3, 0.5], shots=5)
    dearer = cascade(birds, thresholds=[0.3], costs={"rn/b": 1.5})

    def of(frame: pl.DataFrame, ensemble: str | None, names: str) -> set[str]:
        found = frame.filter(
            pl.col("ensemble").eq_missing(pl.lit(ensemble, pl.String)),
            pl.col("backbones") == names,
            pl.col("metric") == "acc1",
        )
        return set(found["fingerprint"])

    name = "cascade:log-avg@0.3"
    assert of(fewer, None, "rn/b") == of(results, None, "rn/b")
    assert of(fewer, name, ALL) != of(results, name, ALL)
    assert of(dearer, None, "rn/b") != of(results, None, "rn/b")
    assert of(dearer, None, "vit/a") == of(results, None, "vit/a")


def test_shots_are_drawn_by_the_seed(birds):
    one, same, other = (cascade(birds, thresholds=[0.4], shots=2, seed=seed) for seed in (0, 0, 1))
    assert one.equals(same)
    assert set(one.filter(pl.col("ensemble") == "cascade:log-avg@0.4")["shots"]) == {2}
    assert value(one, "exit_1", "cascade:log-avg@0.4") != value(
        other, "exit_1", "cascade:log-avg@0.4"
    )


def test_without_a_readable_image_all_is_nan(fakes, source, encoders, tmp_path):
    bad = dict.fromkeys(range(10), "truncated")
    sources = [
        source(count=10, bad=bad),
        source("train"),
    ]
    frame = cascade(fakes.fill(tmp_path, encoders, sources, max_bad=1.0), thresholds=[0.5])
    assert set(frame["n"]) == {0}
    for metric in ("acc1", "mean_gflops", "exit_1", "gain_over_full"):
        assert math.isnan(value(frame, metric, "cascade:log-avg@0.5"))


class TestRefused:
    @pytest.mark.parametrize(
        ("settings", "error", "message"),
        [
            ({"ensembles": ["log-agv"]}, UnknownName, "did you mean .*log-avg"),
            ({"ensembles": ["masked-conf"]}, UsageError, "can be fitted with masked backbones"),
            ({"order": "costs"}, UnknownName, "unknown order 'costs': did you mean cost"),
            ({"order": "given"}, UsageError, "name them in the order wanted"),
            (
                {"thresholds": [0.5, -0.1]},
                UsageError,
                "a threshold is a probability, from 0 to 1; not -0.1",
            ),
            ({"thresholds": [50]}, UsageError, "a threshold is a probability, from 0 to 1; not 50"),
            (
                {"thresholds": [math.nan]},
                UsageError,
                "a threshold is a probability, from 0 to 1; not nan",
            ),
            ({"within": -0.01}, UsageError, "within=… is a share of the images, .* not -0.01"),
            ({"within": math.inf}, UsageError, "within=…"),
            ({"shots": 0}, UsageError, "shots=…"),
            ({"costs": {"rn/c": 1.0}}, UnknownName, "unknown backbone 'rn/c': did you mean .*rn/b"),
            ({"splits": ["train"]}, UsageError, "train is both fitted on and measured on"),
            ({"splits": ["test", "tr*"]}, UsageError, "train is both fitted on and measured on"),
            ({"splits": ["train"], "support": "test"}, LeakError, "test split"),
            ({"support": "val"}, MissingCell, "clipsyn extract .* --split val"),
            (
                {"backbones": ["rn/b"]},
                UsageError,
                "at least two backbones, and birds/test has rn/b",
            ),
            ({"backbones": ["rn/c"]}, UnknownName, "unknown backbone 'rn/c'"),
            ({"datasets": ["brids"]}, UnknownName, "did you mean birds"),
        ],
    )
    def test_settings(self, birds, settings, error, message):
        with pytest.raises(error, match=message):
            cascade(birds, **settings)

    def test_an_unknown_cost(self, fakes, tmp_path):
        encoders = [fakes.Encoder(name) for name in ("one/x", "two/x")]
        encoders[0].provenance.pop("gflops")
        sources = [fakes.Source(split=split) for split in ("test", "train")]
        store = fakes.fill(tmp_path, encoders, sources)
        with pytest.raises(UsageError, match=r"costs one/x is not known.*costs=…, as one/x=GFLOPS"):
            cascade(store)
        found = cascade(store, costs={"one/x": 0.1}, thresholds=[])
        assert value(found, "mean_gflops", "log-avg", "one/x+two/x") == 0.6

    def test_a_backbone_without_the_support(self, fakes, source, encoders, tmp_path):
        test, train = (source(split) for split in ("test", "train"))
        fakes.fill(tmp_path, encoders, [test])
        store = fakes.fill(tmp_path, encoders[:2], [train])
        with pytest.raises(MissingCell, match=r"clipsyn extract .*vit/a .*--split train"):
            cascade(store)

    def test_a_support_without_labels(self, fakes, source, encoders, tmp_path):
        test, train = (source(split) for split in ("test", "train"))
        train.labels = np.full(40, -1, np.int32)
        store = fakes.fill(tmp_path, encoders, [test, train])
        with pytest.raises(DatasetError, match="birds/train has no labelled, readable image"):
            cascade(store)

    def test_nothing_with_labels(self, fakes, encoders, tmp_path):
        sources = [fakes.Source("x", split, class_names=()) for split in ("test", "train")]
        store = fakes.fill(tmp_path, encoders, sources)
        with pytest.raises(DatasetError, match="x/test has no labels"):
            cascade(store)


@pytest.fixture
def four(tmp_path, monkeypatch) -> FeatureStore:
    """Imported probabilities of four images, the right class the first; temperatures are 1."""
    classes = tmp_path / "classes.txt"
    classes.write_text("cat\ndog\n")
    first = [[0.9, 0.1], [0.4, 0.6], [0.55, 0.45], [0.3, 0.7]]
    second = [[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.1, 0.9]]
    # both, geometric means: 0.79 right, 0.71 right, 0.64 wrong, 0.82 wrong
    for split in ("test", "train"):
        for name, rows in (("first", first), ("second", second)):
            path = tmp_path / f"{split}-{name}.npz"
            np.savez(path, ids=list("abcd"), labels=["cat"] * 4, probabilities=rows)
            wanted = Wanted("toy", split, backbone=name, classes=classes)
            import_files(tmp_path / "store", [path], wanted)
    monkeypatch.setattr(stages, "fit_temperatures", lambda *_: np.ones(1))
    return FeatureStore.open(tmp_path / "store")


@pytest.mark.parametrize(
    ("threshold", "accuracy", "cost", "first"),
    [
        (0.5, 2 / 4, 1.0, 1.0),
        (0.58, 1 / 4, (1 + 1 + 4 + 1) / 4, 0.75),
        (0.65, 2 / 4, (1 + 4 + 4 + 1) / 4, 0.5),
        (0.8, 2 / 4, (1 + 4 + 4 + 4) / 4, 0.25),
        (1.0, 2 / 4, 4.0, 0.0),
    ],
)
def test_four_images_by_hand(four, threshold, accuracy, cost, first):
    frame = cascade(four, costs={"first": 1.0, "second": 3.0}, thresholds=[threshold])
    for metric, expected in {
        "acc1": accuracy,
        "mean_gflops": cost,
        "exit_1": first,
        "exit_2": 1 - first,
        "gain_over_full": accuracy - 0.5,
        "gain_over_chosen": accuracy - 0.5,  # both are right twice: the cheaper one
    }.items():
        found = value(frame, metric, f"cascade:log-avg@{threshold:g}", "first+second")
        assert found == pytest.approx(expected), metric


def test_imports_cost_what_is_given(four):
    with pytest.raises(UsageError, match=r"costs first is not known.*costs=…, as first=GFLOPS"):
        cascade(four)
