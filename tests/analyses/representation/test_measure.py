"""`representation` against explicit kernels, plain loops and a generic solver, on small stores."""

import logging
import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from scipy.optimize import minimize_scalar

from clipsyn.analyses.representation import representation
from clipsyn.analyses.representation.measures import mutual_neighbours, similarities
from clipsyn.errors import LeakError, MissingCell, UnknownName
from clipsyn.evaluation.results.frame import backbones
from clipsyn.exchange import ImportSettings
from clipsyn.exchange.importing import import_files
from clipsyn.methods.numerics.metrics import calibration_floor
from clipsyn.names import FeatureKey
from clipsyn.store.features import FeatureStore
from tests.results import bring

BACKBONES = ("cnx/c", "rn/b", "vit/a")  # as a store sorts them
PAIRS = (("cnx/c", "rn/b"), ("cnx/c", "vit/a"), ("rn/b", "vit/a"))
OF_PAIRS = ["cka", "procrustes", "mutual_knn"]
CALIBRATED = ["temperature", "nll_calibrated", "ece_calibrated", "ece_calibrated_floor"]
CALIBRATED += ["bin_accuracy_calibrated", "bin_confidence_calibrated"]
OF_LOGITS = ["acc1", "confidence_right", "confidence_wrong", "nll", "ece", "ece_floor"]
OF_LOGITS += ["logit_scale", "bin_accuracy", "bin_confidence"]
SIX = tuple(f"class {c}" for c in range(6))
NEIGHBOURS = 7


@pytest.fixture(scope="module")
def encoders(varied):
    """Three of different widths; logits of a scale at which they are not all sure."""
    made = [varied(name, embed_dim=w) for name, w in zip(BACKBONES, (12, 20, 16), strict=True)]
    for encoder in made:
        encoder.logit_scale = 4.0
    return made


@pytest.fixture(scope="module")
def path(fakes, encoders, tmp_path_factory):
    """Two birds of ninety cannot be read; photos have no labels; jpeg-3 is of two backbones.

    Labels are what the backbones say together, with noise: each is right more often than not.
    """
    path = tmp_path_factory.mktemp("representation") / "store"
    bad = {3: "truncated", 41: "empty file"}
    birds = fakes.Source("birds", count=90, class_names=SIX, bad=bad)
    support = fakes.Source("birds", "train", count=60, class_names=SIX)
    fakes.fill(path, encoders, [birds, support], max_bad=0.1)
    fakes.fill(path, encoders[1:], [birds], ("jpeg:3",), max_bad=0.1)
    fakes.fill(path, encoders, [fakes.Source("photos", count=30, class_names=())])
    store, rng = FeatureStore.open(path), np.random.default_rng(0)
    for split in ("test", "train"):
        table = store.samples("birds", split)
        keys = [key_of(name, split) for name in BACKBONES]
        said = sum(store.cell(key).logits(store.cell(key).prompt_sets()[0]) for key in keys)
        labels = np.nan_to_num(said + rng.normal(size=said.shape)).argmax(axis=1)
        store.annotate(replace(table, labels=labels.astype(np.int32)))
    return path


@pytest.fixture(scope="module")
def store(path):
    return FeatureStore.open(path)


@pytest.fixture(scope="module")
def results(store):
    return representation(store, neighbours=NEIGHBOURS)


@pytest.fixture
def small(fakes, encoders, tmp_path):
    """Function (source, …) -> a store of its own, of three backbones."""

    def make(*sources, backbones=3):
        return fakes.fill(tmp_path / "small", encoders[:backbones], sources)

    return make


def about(frame, *backbones):
    """The rows about these backbones, in this order."""
    return frame.filter(pl.col("backbones").list.join(" ") == " ".join(backbones))


def value(frame, metric, *backbones):
    (row,) = about(frame, *backbones).filter(metric=metric).to_dicts()
    return row


def key_of(backbone, split="test", dataset="birds"):
    return FeatureKey(dataset, split, "clean", backbone)


def read(store, backbone, split="test"):
    """Embeddings, logits and labels of the images that all could read, as plain arrays."""
    key = key_of(backbone, split)
    kept = store.cell(key).valid()
    assert kept.sum() == {"test": 88, "train": 60}[split]
    labels = store.samples("birds", split).labels
    arrays = store.cell(key).embeddings(), store.cell(key).logits(store.cell(key).prompt_sets()[0])
    return *(array[kept].astype(float) for array in arrays), labels[kept]


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def cross_entropy(logits, labels):
    return float(-np.log(softmax(logits)[np.arange(len(labels)), labels]).mean())


def calibration_error(logits, labels):
    """Bins of 1/15, closed on the right."""
    bins: dict[int, list[float]] = {}
    for row, label in zip(softmax(logits), labels, strict=True):
        gap = row.max() - (row.argmax() == label)
        bins.setdefault(math.ceil(15 * row.max()), []).append(gap)
    return sum(abs(sum(gaps)) for gaps in bins.values()) / len(labels)


def test_similarities_are_those_of_the_images_that_all_could_read(store, results):
    arrays = [read(store, name)[0] for name in BACKBONES]
    alike = {name: matrices[0] for name, matrices in similarities(arrays).items()}
    alike["mutual_knn"] = mutual_neighbours(arrays, NEIGHBOURS).mean(axis=2)
    for i, j in combinations(range(3), 2):
        rows = about(results.filter(dataset="birds"), BACKBONES[i], BACKBONES[j])
        for metric in OF_PAIRS:
            (found,) = rows.filter(metric=metric).to_dicts()
            assert found["value"] == pytest.approx(alike[metric][i, j], abs=2e-4)
            assert found["ci_low"] < found["value"] < found["ci_high"]
            assert found["n"] == 88


@pytest.mark.parametrize("backbone", BACKBONES)
def test_logit_statistics_equal_plain_loops(store, results, backbone):
    _, logits, labels = read(store, backbone)
    _, fitted_on, their_labels = read(store, backbone, "train")
    best = minimize_scalar(
        lambda log: cross_entropy(fitted_on / math.exp(log), their_labels), (-2.0, 2.0)
    )
    temperature = math.exp(best.x)
    probabilities = softmax(logits)
    right = [bool(p.argmax() == y) for p, y in zip(probabilities, labels, strict=True)]
    sure = probabilities.max(axis=1)
    for metric, expected, n in (
        ("acc1", sum(right) / 88, 88),
        ("logit_scale", 4.0, 88),
        ("confidence_right", np.mean([s for s, r in zip(sure, right, strict=True) if r]), None),
        ("confidence_wrong", np.mean([s for s, r in zip(sure, right, strict=True) if not r]), None),
        ("nll", cross_entropy(logits, labels), 88),
        ("ece", calibration_error(logits, labels), 88),
        ("ece_floor", calibration_floor(sure).value, 88),
        ("temperature", temperature, 60),
        ("nll_calibrated", cross_entropy(logits / temperature, labels), 88),
        ("ece_calibrated", calibration_error(logits / temperature, labels), 88),
    ):
        found = value(results.filter(dataset="birds"), metric, backbone)
        tolerance = 2e-3 if metric in CALIBRATED else 1e-5  # where the search ends
        assert found["value"] == pytest.approx(expected, rel=tolerance), metric
        assert n is None or found["n"] == n
        if metric in ("temperature", "logit_scale", "ece_floor"):
            assert found["ci_low"] is None
        elif not metric.startswith("ece"):  # which is biased upwards
            assert found["ci_low"] < expected < found["ci_high"]
    counts = [value(results, f"confidence_{kind}", backbone)["n"] for kind in ("right", "wrong")]
    assert counts == [sum(right), 88 - sum(right)]


@pytest.mark.parametrize("suffix", ["", "_calibrated"])
def test_bins_of_confidence_equal_plain_loops(store, results, suffix):
    _, logits, labels = read(store, "vit/a")
    rows = about(results.filter(dataset="birds"), "vit/a")
    if suffix:
        logits = logits / rows.filter(metric="temperature")["value"][0]
    bins: dict[int, list[tuple[float, bool]]] = {}
    said = [
        (r.max(), r.argmax() == label) for r, label in zip(softmax(logits), labels, strict=True)
    ]
    for place, pair in enumerate(sorted(said)):
        bins.setdefault(place * 10 // len(said), []).append(pair)
    for metric, place in ((f"bin_confidence{suffix}", 0), (f"bin_accuracy{suffix}", 1)):
        found = rows.filter(metric=metric).sort("bin")
        assert dict(found.select("bin", "n").iter_rows()) == {b: len(it) for b, it in bins.items()}
        expected = [np.mean([pair[place] for pair in bins[b]]) for b in sorted(bins)]
        assert found["value"].to_list() == pytest.approx(expected, rel=1e-5)
    assert set(found["support"]) == ({"train"} if suffix else {None})
    assert (found["ci_low"] <= found["value"]).all()
    others = results.filter(~pl.col("metric").str.starts_with("bin_"))
    assert others["bin"].null_count() == len(others)


def test_images_without_a_label_count_for_similarities_alone(small, fakes):
    store = small(fakes.Source(count=20), fakes.Source(split="train", count=20))
    for split in ("test", "train"):
        table = store.samples("toy", split)
        labels = table.labels.copy()
        labels[:5] = -1
        store.annotate(replace(table, labels=labels))
    frame = representation(store)
    assert set(frame.filter(pl.col("metric").is_in(OF_PAIRS))["n"]) == {20}
    assert set(frame.filter(pl.col("metric").is_in(["nll", "temperature"]))["n"]) == {15}
    assert representation(store, splits="train").filter(metric="temperature").is_empty()


def test_a_sample_of_the_images_is_the_same_for_all(store):
    frame = representation(store, datasets="birds", samples=25, neighbours=3)
    assert set(frame.filter(pl.col("metric").is_in([*OF_PAIRS, "nll", "temperature"]))["n"]) == {25}
    kept = np.flatnonzero(store.cell(key_of("vit/a")).valid())
    rows = np.random.default_rng(0).choice(kept, 25, replace=False)
    x, y = (store.cell(key_of(b)).embeddings()[rows].astype(float) for b in ("cnx/c", "vit/a"))
    found = value(frame, "cka", "cnx/c", "vit/a")["value"]
    assert found == pytest.approx(similarities([x, y])["cka"][0, 0, 1], abs=2e-4)
    assert representation(store, datasets="birds", samples=25, neighbours=3).equals(frame)
    other = representation(store, datasets="birds", samples=25, neighbours=3, seed=1)
    assert value(other, "cka", *PAIRS[0])["value"] != value(frame, "cka", *PAIRS[0])["value"]


def test_the_support_itself_and_perturbed_images(store):
    """The temperature of clean images of the support serves both; the support has none."""
    frame = representation(
        store, datasets="birds", splits=None, perturbations=None, backbones=BACKBONES[1:]
    )
    groups = frame.select("split", "perturbation").unique(maintain_order=True).rows()
    assert groups == [("test", "clean"), ("test", "jpeg-3"), ("train", "clean")]
    temperatures = about(frame, "rn/b").filter(metric="temperature")
    assert temperatures["perturbation"].to_list() == ["clean", "jpeg-3"]
    assert temperatures["value"].n_unique() == 1
    assert set(frame.filter(split="train")["metric"]) == {*OF_PAIRS, *OF_LOGITS}


def test_fingerprints_depend_on_what_decides(store, results):
    def prints(**options):
        frame = representation(store, datasets="birds", **options)
        rows = pl.concat([about(frame, "cnx/c", "rn/b"), about(frame, "rn/b")])
        return dict(rows.select("metric", "fingerprint").iter_rows())

    before = prints(neighbours=NEIGHBOURS)
    birds = set(results.filter(dataset="birds")["fingerprint"])
    assert set(before.values()) <= birds
    # the images that all backbones could read depend on which they are
    for options in ({"seed": 1}, {"samples": 80}, {"backbones": BACKBONES[:2]}):
        assert not set(prints(neighbours=NEIGHBOURS, **options).values()) & birds
    other = prints(neighbours=3)
    assert {name for name in before if other[name] != before[name]} == set(OF_PAIRS)
    assert len({before[name] for name in ("cka", "nll", "temperature")}) == 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"support": "test"}, LeakError, r"another split than test: give another support=…"),
        ({"support": "trian"}, UnknownName, "unknown split 'trian': did you mean train"),
        (
            {"perturbations": "jpeg-3", "backbones": ("cnx/c", "rn/b")},
            MissingCell,
            r"has no birds/test.*jpeg-3.*cnx/c: run `clipsyn extract",
        ),
    ],
)
def test_what_cannot_work_is_said(store, options, error, message):
    with pytest.raises(error, match=message):
        representation(store, **options)


class TestImported:
    @pytest.fixture
    def bring(self, small, fakes, tmp_path):
        """Function (kind, values) of a cell called after its kind; the store is of one backbone."""
        store = small(fakes.Source(count=20), fakes.Source(split="train", count=9), backbones=1)

        def write(kind, values, split="test"):
            file = tmp_path / f"{kind}.npz"
            np.savez(file, **{kind: values})
            import_files(
                store.path, [file], ImportSettings("toy", split, kind=kind, row_order=True)
            )
            return store

        return write

    def test_embeddings_have_similarities_alone(self, bring):
        store = bring("embeddings", np.random.default_rng(0).normal(size=(20, 5)))
        frame = representation(store)
        assert set(about(frame, "cnx/c", "embeddings")["metric"]) == set(OF_PAIRS)
        assert about(frame, "embeddings").is_empty()
        assert len(about(frame, "cnx/c").filter(metric="nll")) == 1

    def test_logits_have_statistics(self, bring):
        values = np.random.default_rng(0).normal(size=(20, 3))
        bring("logits", values)
        frame = representation(bring("logits", values[:9], "train"))
        of_logits = set(about(frame, "logits")["metric"])
        assert of_logits == {*OF_LOGITS, *CALIBRATED} - {"logit_scale"}
        assert frame.filter(metric="cka").is_empty()

    def test_predictions_are_left_out_and_it_is_said(self, bring, caplog):
        store = bring("predictions", np.arange(20) % 3)
        with caplog.at_level(logging.INFO, "clipsyn"):
            frame = representation(store)
        assert backbones(frame) == ["cnx/c"]
        assert caplog.messages == [
            "left out: predictions, of which there are imported predictions alone"
        ]
        with pytest.raises(MissingCell, match="imported as predictions, without embeddings"):
            representation(store, backbones="predictions")


class TestConfidences:
    """Predictions imported with the probability of each are calibrated or not, like logits."""

    @pytest.fixture
    def judged(self, tmp_path):
        """A store, and labels, predictions and confidences by prompt set, of forty images."""
        rng, found = np.random.default_rng(0), {}
        labels = [SIX[row % 6] for row in range(40)]
        for prompts in ("long", "short"):
            said = [label if rng.random() < 0.6 else SIX[0] for label in labels]
            sure = rng.uniform(0.2, 1, 40).astype(np.float32)
            table = {"id": [*map(str, range(40))], "prediction": said}
            table |= {"label": labels, "confidence": sure}
            store = bring(tmp_path / "s", table, "birds", name="net", prompts=prompts)
            found[prompts] = np.array(said) == np.array(labels), sure
        return store, found

    def test_are_what_plain_bins_find(self, judged):
        store, found = judged
        frame = representation(store)
        for prompts, (right, sure) in found.items():
            values = dict(frame.filter(prompts=prompts).select("metric", "value").iter_rows())
            assert set(values) == {
                "acc1", "confidence_right", "confidence_wrong", "ece", "ece_floor", "bin_accuracy",
                "bin_confidence",
            }  # fmt: skip
            assert values["ece_floor"] == calibration_floor(sure).value
            assert values["acc1"] == pytest.approx(right.mean())
            assert values["confidence_right"] == pytest.approx(sure[right].mean(), rel=1e-6)
            assert values["confidence_wrong"] == pytest.approx(sure[~right].mean(), rel=1e-6)
            gaps = [
                abs(sum((sure - right)[(sure > b / 15) & (sure <= (b + 1) / 15)])) / 40
                for b in range(15)
            ]
            assert values["ece"] == pytest.approx(sum(gaps), rel=1e-5)
