"""`robustness` against numbers by hand and plain loops, on stores of imported predictions."""

import math

import numpy as np
import polars as pl
import pytest
from scipy.stats import kendalltau

from clipsyn.analyses.robustness import robustness
from clipsyn.errors import MissingCell, UsageError
from clipsyn.evaluation.loop import evaluate
from clipsyn.evaluation.results.frame import NAMES
from clipsyn.stats.differences import difference_interval, ratio_interval
from clipsyn.stats.images import Images
from clipsyn.stats.intervals import mean_share_interval, wilson_interval
from tests.results import about, bring, only


@pytest.fixture
def give(tmp_path):
    """Function (answers, dataset): a store of what is right, "1", wrong, "0", or missing, "."."""

    def write(answers, dataset="toy"):
        for (backbone, label), text in answers.items():
            truth = ["cat" if row % 2 else "dog" for row in range(len(text))]
            other = {"cat": "dog", "dog": "cat"}
            rows = [
                {
                    "id": f"im{row}",
                    "prediction": true if mark == "1" else other[true],
                    "label": true,
                }
                for row, (mark, true) in enumerate(zip(text, truth, strict=True))
                if mark != "."
            ]
            about = {"backbone": backbone, "perturbation": label, "intersect": "." in text}
            store = bring(tmp_path / "given", rows, dataset, **about)
        return store

    return write


@pytest.fixture
def eight(give):
    """Two backbones, eight images: a falls from 6/8 to 4, 2, 0; b from 5/8 to 4, 4, 5."""
    return give(
        {
            ("a", "clean"): "11111100",
            ("b", "clean"): "11111000",
            ("a", "jpeg-1"): "11110000",
            ("b", "jpeg-1"): "01111000",
            ("a", "jpeg-3"): "11000000",
            ("b", "jpeg-3"): "01111000",
            ("a", "fog-2"): "00000000",
            ("b", "fog-2"): "11111000",
        }
    )


def value(frame, metric, perturbation, *about):
    return only(frame, metric, *about, perturbation=perturbation)


def numbers(frame, metric, backbones, ensemble=None):
    rows = frame.filter(about(backbones, ensemble), metric=metric)
    return dict(rows.select("perturbation", "value").iter_rows())


def test_which_backbone_is_best_and_by_how_much(eight):
    frame = robustness(eight)
    assert numbers(frame, "lead", "a") == pytest.approx({"clean": 1 / 8, "jpeg-1": 0})
    lead = numbers(frame, "lead", "b")
    assert lead == pytest.approx(
        {"jpeg-3": 2 / 8, "fog-2": 5 / 8, "fog": 5 / 8, "jpeg": 1 / 8} | {"all": 9 / 16 - 3 / 16}
    )
    assert numbers(frame, "switch", "b") == pytest.approx(lead)  # a is best on clean images
    assert numbers(frame, "switch", "a") == {"jpeg-1": 0}
    tau = numbers(frame, "kendall_tau", ["a", "b"])
    assert tau.pop("jpeg-1") is not None
    assert math.isnan(value(frame, "kendall_tau", "jpeg-1", ["a", "b"])["value"])  # a tie
    assert tau == {"jpeg-3": -1, "fog-2": -1, "jpeg": -1, "fog": -1, "all": -1}


@pytest.fixture(scope="module")
def birds(fakes, varied, tmp_path_factory):
    """Four backbones of different weights, clean and perturbed, two undecodable birds; flags."""
    path = tmp_path_factory.mktemp("robustness") / "store"
    encoders = [varied(name) for name in ("cnx/d", "rn/b", "rn/c", "vit/a")]
    six = tuple(f"class {c}" for c in range(6))
    bad = {3: "truncated", 41: "empty file"}
    sources = [
        fakes.Source("birds", count=90, class_names=six, bad=bad),
        fakes.Source("flags", count=40, class_names=six, changed=set(range(40))),
    ]
    perturbations = ("clean", "jpeg:1", "jpeg:3", "pixelate:2")
    fakes.fill(path, encoders, sources, perturbations, max_bad=0.1)
    return fakes.fill(path, encoders, [fakes.Source("birds", "train", count=30, class_names=six)])


def right_of(store, dataset):
    """(backbone, counted sample) of each perturbation."""
    samples = store.samples(dataset, "test")
    predictions: dict[str, list[np.ndarray]] = {}
    for key in store.keys(dataset=[dataset], split=["test"]):
        predictions.setdefault(key.perturbation, []).append(store.cell(key).predictions("simple"))
    right = {label: np.stack(rows) == samples.labels for label, rows in predictions.items()}
    rows = np.arange(len(samples.labels))
    keep = ~np.isin(rows, [3, 41]) if dataset == "birds" else rows >= 0
    return {label: array[:, keep] for label, array in right.items()}


def independent(right, labels):
    """An oracle whose backbones have nothing in common but the class of an image."""
    missed = 0.0
    for c in set(labels.tolist()):
        missed += (labels == c).sum() * np.prod([1 - row[labels == c].mean() for row in right])
    return 1 - missed / len(labels)


def test_a_store_against_plain_loops(birds):
    truth = birds.samples("birds", "test").labels
    right = right_of(birds, "birds")
    names = ("cnx/d", "rn/b", "rn/c", "vit/a")
    frame = robustness(birds, datasets="birds")
    clean = right["clean"].mean(axis=1)
    jpeg = (right["jpeg-1"].mean(axis=1) + right["jpeg-3"].mean(axis=1)) / 2
    weakest = int(clean.argmin())
    for b, name in enumerate(names):
        assert value(frame, "acc1", "clean", name)["value"] == pytest.approx(clean[b])
        assert value(frame, "acc1", "jpeg", name)["value"] == pytest.approx(jpeg[b])
        ce = (1 - jpeg[b]) / (1 - jpeg[weakest])
        assert value(frame, "ce", "jpeg", name)["value"] == pytest.approx(ce)
        over = (jpeg[b] + right["pixelate-2"].mean(axis=1)[b]) / 2
        assert value(frame, "acc1", "all", name)["value"] == pytest.approx(over)
    tau = value(frame, "kendall_tau", "pixelate-2", names)["value"]
    expected = kendalltau(clean, right["pixelate-2"].mean(axis=1)).statistic
    assert tau == pytest.approx(expected)
    oracle = value(frame, "acc1", "jpeg-3", names, "oracle")["value"]
    assert oracle == pytest.approx(right["jpeg-3"].any(axis=0).mean())
    marks = numbers(frame, "acc1_independent", names, "oracle")
    for label, array in right.items():
        assert marks[label] == pytest.approx(independent(array, np.delete(truth, [3, 41])))
    assert marks["jpeg"] == pytest.approx((marks["jpeg-1"] + marks["jpeg-3"]) / 2)
    assert marks["all"] == pytest.approx((marks["jpeg"] + marks["pixelate-2"]) / 2)
    assert set(frame["n"]) == {88}  # two birds cannot be decoded


def test_of_a_set_that_is_there_twice_the_mean_is_as_sure_as_the_set(fakes, tmp_path):
    """The images of both are drawn together, so its interval is not narrower by the root of two."""
    encoders = [fakes.Encoder(name) for name in ("cnx/d", "rn/b", "vit/a")]
    sources = [fakes.Source(name, count=60) for name in ("birds", "birds-again")]
    store = fakes.fill(tmp_path / "store", encoders, sources, ("clean", "jpeg:1", "pixelate:3"))
    no_share = (pl.col("metric") != "acc1") | pl.col("severity").is_null()  # those have Wilson's
    frame = robustness(store).filter(no_share)
    names = ["metric", "perturbation", "backbones", "ensemble"]
    mean = frame.filter(pl.col("dataset").is_null())
    alone = frame.filter(dataset="birds")
    both = alone.join(mean, on=names, how="full", nulls_equal=True, suffix=" of mean")
    assert len(both) == len(mean) == len(alone)
    for end in ("value", "ci_low", "ci_high"):  # but for a degree of freedom
        near = pytest.approx(both[end].to_list(), abs=2e-4, nan_ok=True)
        assert both[f"{end} of mean"].to_list() == near
    assert (both["ci_high"] - both["ci_low"] > 0.05).sum() > 20


def test_intervals_are_those_of_stats(birds):
    right = right_of(birds, "birds")
    frame = robustness(birds, datasets="birds")
    images = [Images.distinct(88)]

    def interval(*which):
        row = value(frame, *which)
        return row["ci_low"], row["ci_high"]

    hits = int(right["jpeg-3"][1].sum())
    assert interval("acc1", "jpeg-3", "rn/b") == wilson_interval(hits, 88)
    for label in ("jpeg-1", "pixelate-2"):
        lead = right["clean"][1].astype(int) - right[label][1]
        expected = difference_interval([lead], images)
        assert interval("drop", label, "rn/b") == pytest.approx(expected)
    both = (right["jpeg-1"][1] + right["jpeg-3"][1].astype(float)) / 2
    expected = mean_share_interval([both], images)
    assert interval("acc1", "jpeg", "rn/b") == pytest.approx(expected)
    expected = ratio_interval([both], [right["clean"][1]], images)
    assert interval("relative_robustness", "jpeg", "rn/b") == pytest.approx(expected)


def test_the_interval_of_an_error_is_about_that_of_a_bootstrap(birds):
    right = right_of(birds, "birds")
    row = value(robustness(birds, datasets="birds", reference="rn/c"), "mce", "all", "rn/b")
    rows = np.random.default_rng(0).integers(0, 88, (4000, 88))
    labels = [["jpeg-1", "jpeg-3"], ["pixelate-2"]]
    assert {label for family in labels for label in family} == right.keys() - {"clean"}
    errors = [
        [sum((~right[label][at])[rows].mean(axis=1) for label in family) for family in labels]
        for at in (1, 2)
    ]
    drawn = np.mean(np.array(errors[0]) / np.array(errors[1]), axis=0)
    assert row["value"] == pytest.approx(np.median(drawn), abs=0.03)
    expected = np.quantile(drawn, [0.025, 0.975])
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(expected), rel=0.06)


def test_several_datasets_have_their_mean(birds):
    frame = robustness(birds)
    apart = {name: robustness(birds, datasets=name) for name in ("birds", "flags")}
    for name, part in apart.items():
        metrics = ~pl.col("metric").is_in(["ce", "mce", "error"])  # the reference may be another
        assert (
            frame.filter(metrics, dataset=name)
            .drop("fingerprint")
            .equals(part.filter(metrics).drop("fingerprint"))
        )
    mean = frame.filter(pl.col("dataset").is_null())
    for label in ("clean", "jpeg", "all"):
        of_each = [value(part, "acc1", label, "rn/c") for part in apart.values()]
        of_mean = value(mean, "acc1", label, "rn/c")
        assert of_mean["value"] == pytest.approx(np.mean([row["value"] for row in of_each]))
        assert of_mean["n"] == 128
        marks = [
            numbers(part, "acc1_independent", ("cnx/d", "rn/b", "rn/c", "vit/a"), "oracle")[label]
            for part in (*apart.values(), mean)
        ]
        assert marks[-1] == pytest.approx(np.mean(marks[:2]))
        if label == "jpeg":  # independent: variances add
            width = [row["ci_high"] - row["ci_low"] for row in of_each]
            assert of_mean["ci_high"] - of_mean["ci_low"] == pytest.approx(
                math.hypot(*width) / 2, rel=0.15
            )
    assert len(mean) == len(frame.filter(dataset="flags"))
    assert frame.select(NAMES).is_duplicated().sum() == 0


def test_a_study_that_shows_each_image_once(tmp_path):
    """As in model-vs-human each condition has its own images, and the mean is over all of them."""
    shown = {"0": "110", "30": "1000", "5": "110"}
    answers = [(severity, right) for severity, text in shown.items() for right in text]
    rows = [
        {"id": f"im{row}", "prediction": "cat" if right == "1" else "dog"}
        | {"label": "cat", "severity": severity}
        for row, (severity, right) in enumerate(answers)
    ]
    frame = robustness(bring(tmp_path / "s", rows, name="a", perturbation="contrast"))
    assert numbers(frame, "acc1", "a") == pytest.approx(
        {"clean": 2 / 3, "contrast-5": 2 / 3, "contrast-30": 1 / 4, "contrast": 11 / 24}
        | {"all": 11 / 24}
    )
    assert value(frame, "acc1", "contrast", "a")["n"] == 7
    assert value(frame, "acc1", "contrast-30", "a")["n"] == 4
    drop = value(frame, "drop", "contrast", "a")
    assert drop["ci_low"] < 0 < drop["value"] < drop["ci_high"]


def test_a_store_without_perturbed_images(give, tiny_store):
    give({("a", "clean"): "10"})
    with pytest.raises(MissingCell, match=r"has clean images only of toy/test: run `clipsyn "):
        robustness(give({("b", "clean"): "10"}))
    both = "fake/one=local-dir:checkpoints/fake/one,fake/two=local-dir:checkpoints/fake/two"
    line = (
        f"clipsyn extract {tiny_store.path} --backbones {both} "
        "--dataset toy=… --split test --perturb jpeg:3"
    )
    with pytest.raises(MissingCell) as error:
        robustness(tiny_store, perturbations="clean")
    assert f"`{line}`" in str(error.value)


@pytest.mark.parametrize(
    ("lacking", "options"),
    [
        ("jpeg-3", {}),
        ("clean", {}),
        ("clean", {"perturbations": "jpeg-*"}),
        ("jpeg-3", {"perturbations": "jpeg-*", "backbones": ["fake/one", "fake/two"]}),
    ],
)
def test_a_backbone_that_is_missing_somewhere(fakes, tmp_path, lacking, options):
    one, two = fakes.Encoder(), fakes.Encoder("fake/two", size=12)
    every = ["clean", "jpeg:1", "jpeg:3"]
    fakes.fill(tmp_path / "s", [one], perturbations=every)
    rest = [text for text in every if text.replace(":", "-") != lacking]
    store = fakes.fill(tmp_path / "s", [two], perturbations=rest)
    perturb = "" if lacking == "clean" else f" --perturb {lacking}"
    with pytest.raises(MissingCell) as error:
        robustness(store, **options)
    assert f"has no toy/test · {lacking} · fake/two " in str(error.value)
    assert (
        f"`clipsyn extract {store.path} --backbones fake/two=local-dir:checkpoints/fake/two "
        f"--dataset toy=… --split test{perturb}`"
    ) in str(error.value)
    assert len(robustness(store, backbones="fake/one"))


def test_datasets_without_a_common_backbone(give):
    give({("a", p): "10" for p in ("clean", "jpeg-1")}, "one")
    store = give({("b", p): "10" for p in ("clean", "jpeg-1")}, "two")
    with pytest.raises(UsageError, match="no backbone is there for every dataset"):
        robustness(store)
    assert len(robustness(store, datasets="one"))


ENSEMBLES = ("log-avg", "super-learner")


@pytest.fixture(scope="module")
def results(birds, tmp_path_factory):
    """A file of `clipsyn evaluate`: two ensembles, two seeds, all perturbations of birds."""
    path = tmp_path_factory.mktemp("results") / "results.parquet"
    common = {
        "datasets": "birds",
        "heads": ["zero-shot"],
        "ensembles": ENSEMBLES,
        "seeds": 2,
        "output": path,
    }
    evaluate(birds, **common, perturbations="*", shots=(1, 2))
    return path


def test_ensembles_of_a_file(birds, results):
    frame = robustness(birds, datasets="birds", results=results)
    assert frame.select(NAMES).is_duplicated().sum() == 0
    file = pl.read_parquet(results)
    learner = frame.filter(ensemble="super-learner", seed=1)
    assert set(learner["shots"]) == {"2"}  # the most there are
    there = file.filter(ensemble="super-learner", seed=1, shots="2", metric="acc1")
    by_label = dict(there.select("perturbation", "value").iter_rows())
    for label, accuracy in by_label.items():
        row = learner.filter(metric="acc1", perturbation=label)
        assert row.equals(there.filter(perturbation=label))
        if label != "clean":
            drop = learner.filter(metric="drop", perturbation=label)["value"][0]
            assert drop == pytest.approx(by_label["clean"] - accuracy)
    jpeg = (by_label["jpeg-1"] + by_label["jpeg-3"]) / 2
    over = (jpeg + by_label["pixelate-2"]) / 2
    mean = {row["metric"]: row["value"] for row in learner.filter(perturbation="all").to_dicts()}
    assert mean["acc1"] == pytest.approx(over)
    assert mean["relative_robustness"] == pytest.approx(over / by_label["clean"])
    assert set(mean) == {"acc1", "gain_over_best_on_test", "drop", "relative_robustness", "mce"}
    singles = frame.filter(ensemble="single", metric="acc1", perturbation="all")
    assert mean["gain_over_best_on_test"] == pytest.approx(over - singles["value"].max())
    ((reference,),) = frame.filter(ensemble="reference")["backbones"]
    weakest = value(frame, "acc1", "jpeg", reference)["value"]
    ce = learner.filter(metric="ce", perturbation="jpeg")
    assert ce["value"][0] == pytest.approx((1 - jpeg) / (1 - weakest))
    assert ce["ci_low"][0] is None
    assert set(frame.filter(ensemble="log-avg")["shots"]) == {"0"}


def test_ensembles_of_several_datasets_have_their_mean(birds, results, tmp_path, monkeypatch):
    monkeypatch.setattr("clipsyn.analyses.robustness.measure.check_data", lambda *_: None)
    path = tmp_path / "more.parquet"
    pl.read_parquet(results).write_parquet(path)
    flags = (
        pl.read_parquet(path)
        .filter(ensemble="log-avg")
        .with_columns(dataset=pl.lit("flags"), n=pl.lit(40, pl.Int64), value=pl.col("value") / 2)
    )
    pl.concat([pl.read_parquet(path), flags]).write_parquet(path)
    frame = robustness(birds, results=path)
    mean = frame.filter(pl.col("dataset").is_null(), ensemble="log-avg", metric="acc1")
    of_birds = frame.filter(dataset="birds", ensemble="log-avg", metric="acc1")
    assert mean["perturbation"].to_list() == of_birds["perturbation"].to_list()
    np.testing.assert_allclose(mean["value"], 0.75 * of_birds["value"].to_numpy())
    assert set(mean["n"]) == {128}
    assert frame.filter(pl.col("dataset").is_null(), ensemble="super-learner").is_empty()
    assert frame.select(NAMES).is_duplicated().sum() == 0


def test_results_of_other_backbones_do_not_fit(birds, results):
    with pytest.raises(UsageError, match="no ensemble of these backbones on both clean and"):
        robustness(birds, datasets="birds", results=results, backbones="rn/*")


@pytest.mark.parametrize(("errors", "is_known"), [(3, False), (8, True)])
def test_a_corruption_error_has_an_interval_where_a_backbone_errs_often_enough(
    give, errors, is_known
):
    clean = {(name, "clean"): 40 * "1" for name in "ab"}
    jpeg = {("a", "jpeg-1"): 20 * "01", ("b", "jpeg-1"): errors * "0" + (40 - errors) * "1"}
    row = value(robustness(give(clean | jpeg), reference="a"), "ce", "jpeg", "b")
    assert row["value"] == pytest.approx(errors / 20)
    assert math.isfinite(row["ci_low"] or math.nan) is is_known
