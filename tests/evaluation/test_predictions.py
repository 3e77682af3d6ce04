"""What `evaluate` keeps of every method's predictions is what its results are of."""

import shutil

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from clipsyn.evaluation import fit as fitting
from clipsyn.evaluation import predictions_of
from clipsyn.evaluation.loop import evaluate
from clipsyn.methods.numerics.samples import few_shot
from tests.results import bring, untimed

CLASSES = ("ant", "bee", "cat", "dog")
SETTINGS = {
    "ensembles": ["log-avg", "super-learner", "nlc:steps=5"],
    "shots": (1, 4, "full"),
    "seeds": 2,
}


@pytest.fixture(scope="session")
def _store(tmp_path_factory, fakes):
    sources = [
        fakes.Source(split="test", count=40, class_names=CLASSES, bad={3: "cut"}),
        fakes.Source(split="train", count=30, class_names=CLASSES),
    ]
    sources[0].labels[7] = -1
    path = tmp_path_factory.mktemp("predictions") / "store"
    return fakes.fill(path, fakes.two(), sources, ("clean", "jpeg:3"), max_bad=1.0)


@pytest.fixture
def store(_store, fakes, tmp_path):
    return fakes.copy(_store, tmp_path / "store")


def accuracies(path):
    """By fingerprint, from the predictions alone."""
    right = (pl.col("label") == pl.col("prediction")).mean()
    return pl.read_parquet(path).group_by("fingerprint").agg(value=right, n=pl.len().cast(pl.Int64))


def answers_of(path, frame, **about):
    names = about.pop("backbones", None)
    rows = frame.filter(metric="acc1", **about)
    if names:
        rows = rows.filter(pl.col("backbones") == pl.lit(names))
    (fingerprint,) = rows["fingerprint"]
    return pl.read_parquet(path).filter(fingerprint=fingerprint)


def check(frame, path):
    """Every accuracy of a backbone or an ensemble is that of its predictions."""
    results = frame.filter(pl.col("ensemble") != "oracle", metric="acc1")
    columns = ["fingerprint", "value", "n"]
    found = accuracies(path).sort("fingerprint")
    assert len(found) > 0
    assert_frame_equal(found.select(columns), results.select(columns).sort("fingerprint"))


@pytest.mark.parametrize("heads", [["zero-shot"], ["lda"]])
def test_results_follow_from_predictions(store, tmp_path, heads):
    output = tmp_path / "r.parquet"
    path = predictions_of(output)
    frame = evaluate(store, output=output, heads=heads, perturbations="*", **SETTINGS)
    check(frame, path)
    there = frame.join(pl.read_parquet(path), on="fingerprint", how="semi")
    names = {"single", "best-single", "log-avg", "super-learner", "nlc:steps=5"}
    assert set(there["ensemble"]) == names
    assert set(there["perturbation"]) == {"clean", "jpeg-3"}
    assert_frame_equal(
        untimed(frame),
        untimed(evaluate(store, heads=heads, perturbations="*", **SETTINGS)),
    )


def test_an_image_has_what_the_method_says_of_it(store, tmp_path):
    """Fitted again by hand; unreadable and unlabelled images are left out."""
    from clipsyn.methods.ensembles.weighted import SuperLearner

    output = tmp_path / "r.parquet"
    path = predictions_of(output)
    frame = evaluate(store, output=output, **SETTINGS)
    found = answers_of(path, frame, head="zero-shot", ensemble="super-learner", shots="4", seed=1)
    support, test = store.pool("toy", "train"), store.pool("toy", "test")
    learner = SuperLearner().fit(support.take(few_shot(support.labels, 4, 1)))
    counted = [row for row in range(40) if row not in (3, 7)]
    p = learner.predict_proba(test)[counted]
    assert found["sample_id"].to_list() == [test.ids[row] for row in counted]
    assert found["label"].to_list() == test.labels[counted].tolist()
    assert found["prediction"].to_list() == p.argmax(axis=1).tolist()
    assert found["confidence"].to_numpy() == pytest.approx(p.max(axis=1), rel=1e-5)
    content = store.samples("toy", "test").content[counted]
    assert found["image"].to_list() == [int.from_bytes(bytes(it[:8]), "little") for it in content]


def test_classes_are_those_of_the_dataset_where_methods_know_some_alone(store, tmp_path):
    output = tmp_path / "r.parquet"
    path = predictions_of(output)
    frame = evaluate(store, output=output, base_to_new=True, ensembles=["log-avg"], shots=(1,))
    check(frame, path)
    base, new = (
        answers_of(path, frame, ensemble="log-avg", classes=half) for half in ("base", "new")
    )
    assert set(base["label"]) == {0, 1}
    assert set(new["label"]) == {2, 3}
    assert set(new["prediction"]) <= {2, 3}


def test_predictions_without_probabilities_have_no_confidence(tmp_path):
    rows = [
        {"id": f"{row}", "model": name, "prediction": said, "label": "cat"}
        | ({"confidence": 0.25 * (row + 1)} if with_confidence else {})
        for name, with_confidence in (("sure", True), ("mute", False))
        for row, said in enumerate(("cat", "dog", "cat"))
    ]
    for name in ("sure", "mute"):
        store = bring(tmp_path / "quiz", [it for it in rows if it["model"] == name], "quiz")
    output = tmp_path / "r.parquet"
    path = predictions_of(output)
    frame = evaluate(store, output=output, ensembles=["vote-1"])
    check(frame, path)
    mute, sure = (
        answers_of(path, frame, ensemble="single", backbones=[name]) for name in ("mute", "sure")
    )
    assert mute["confidence"].is_null().all()
    assert sure["confidence"].to_list() == pytest.approx([0.25, 0.5, 0.75], abs=0.3)
    assert answers_of(path, frame, ensemble="vote-1")["confidence"].is_null().all()


class Fits:
    """Counts the ensembles that are fitted; raises at one of them."""

    def __init__(self, monkeypatch, stop=-1):
        self.count, self._stop, self._fit = 0, stop, fitting.fit_ensemble
        monkeypatch.setattr(fitting, "fit_ensemble", self)

    def __call__(self, *arguments):
        if self.count == self._stop:
            raise KeyboardInterrupt
        self.count += 1
        return self._fit(*arguments)


def test_a_run_that_was_stopped_goes_on_from_there(store, tmp_path, monkeypatch):
    output, whole = tmp_path / "r.parquet", tmp_path / "whole.parquet"
    with monkeypatch.context() as patch:
        of_whole = Fits(patch)
        expected = evaluate(store, output=whole, **SETTINGS)
    with monkeypatch.context() as patch:
        first = Fits(patch, stop=7)
        with pytest.raises(KeyboardInterrupt):
            evaluate(store, output=output, **SETTINGS)
    with monkeypatch.context() as patch:
        rest = Fits(patch)
        frame = evaluate(store, output=output, **SETTINGS)
    assert first.count + rest.count == of_whole.count
    assert_frame_equal(untimed(frame), untimed(expected))
    same = pl.read_parquet(predictions_of(output))
    assert_frame_equal(same, pl.read_parquet(predictions_of(whole)))
    with monkeypatch.context() as patch:
        again = Fits(patch)
        evaluate(store, output=output, **SETTINGS)
    assert again.count == 0
    assert_frame_equal(pl.read_parquet(predictions_of(output)), same)


def test_results_that_are_there_get_their_predictions_and_stay(store, tmp_path):
    output = tmp_path / "r.parquet"
    evaluate(store, output=output, predictions=False, **SETTINGS)
    before = sorted(output.iterdir())
    assert not predictions_of(output).exists()
    frame = evaluate(store, output=output, **SETTINGS)
    check(frame, predictions_of(output))
    assert sorted(output.iterdir()) == before


def test_predictions_that_are_there_do_not_stand_for_results(store, tmp_path):
    output = tmp_path / "r.parquet"
    first = evaluate(store, output=output, **SETTINGS)
    before = sorted(predictions_of(output).iterdir())
    shutil.rmtree(output)
    again = evaluate(store, output=output, **SETTINGS)
    assert_frame_equal(untimed(again), untimed(first))
    assert sorted(predictions_of(output).iterdir()) == before
