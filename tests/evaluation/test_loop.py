"""The loop on a small store: what is fitted on what, what is skipped, what is refused."""

import logging
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from clipsyn.errors import (
    ConflictingResults,
    DatasetError,
    InputError,
    LeakError,
    MissingCell,
    UnknownName,
    UsageError,
)
from clipsyn.evaluation import ProtocolSettings, loop
from clipsyn.evaluation import fit as fitting
from clipsyn.evaluation.cells import comparisons
from clipsyn.evaluation.loop import evaluate
from clipsyn.evaluation.results.files import RowsFile
from clipsyn.evaluation.results.frame import RESULT, singles
from clipsyn.exchange import ImportSettings
from clipsyn.exchange.importing import import_files
from clipsyn.methods.ensembles import ENSEMBLES, is_transductive
from clipsyn.methods.ensembles.base import VoteTop1
from clipsyn.methods.ensembles.trusted import Zero
from clipsyn.methods.ensembles.weighted import SuperLearner
from clipsyn.methods.heads import HEADS
from clipsyn.methods.numerics.samples import few_shot
from clipsyn.methods.pool import Pool
from clipsyn.store.features import FeatureStore
from clipsyn.store.pools import PoolReader
from tests.results import bring, untimed

CLASSES = ("ant", "bee", "cat", "dog")


@pytest.fixture(autouse=True)
def _notes(caplog):
    caplog.set_level(logging.INFO, "clipsyn")


@pytest.fixture(scope="session")
def _store(tmp_path_factory, fakes):
    sources = [
        fakes.Source(split="test", count=40, class_names=CLASSES),
        fakes.Source(split="train", count=30, class_names=CLASSES),
        fakes.Source("bare", "test", count=8, class_names=CLASSES),
        fakes.Source("bare", "train", count=8, class_names=CLASSES),
    ]
    sources[-1].labels[:] = -1
    path = tmp_path_factory.mktemp("loop") / "store"
    return fakes.fill(path, fakes.two(), sources, ("clean", "jpeg:3"))


@pytest.fixture
def store(_store, fakes, tmp_path):
    return fakes.copy(_store, tmp_path / "store")


def run(store, **changes):
    settings = {
        "datasets": "toy",
        "heads": ["zero-shot"],
        "ensembles": ["log-avg", "super-learner"],
        "shots": (1, 4, "full"),
        "seeds": 2,
    }
    return evaluate(store, **settings | changes)


def accuracy(frame, **names):
    """names: by column; backbone is one on its own."""
    if backbone := names.pop("backbone", None):
        frame = singles(frame).filter(backbone=backbone)
    same = (pl.col(name).eq_missing(value) for name, value in names.items())
    return frame.filter(pl.col("metric") == "acc1", *same)["value"].item()


def test_one_row_a_number(store):
    frame = run(store)
    assert dict(frame.schema) == RESULT
    names = ["ensemble", "backbones", "shots", "seed", "metric"]
    assert not frame.select(names).is_duplicated().any()
    assert set(frame["metric"]) == {
        "acc1", "acc1_independent", "mean_per_class_recall", "nll", "brier", "ece", "ece_floor",
        "gain_over_best_on_test", "relative_gain_over_best_on_test", "gain", "correlation_if_alike",
        "disagreement", "error_inconsistency", "fit_seconds", "predict_seconds",
    }  # fmt: skip
    drawn = frame.filter(pl.col("ensemble") == "super-learner").select("shots", "seed").unique()
    # nothing in it is random: with the whole support every seed gives the same
    assert set(drawn.rows()) == {("1", 0), ("1", 1), ("4", 0), ("4", 1), ("full", None)}
    unlearned = frame.filter(pl.col("ensemble") == "log-avg")
    measured = unlearned.filter(~pl.col("metric").is_in(["gain", "correlation_if_alike"]))
    assert set(measured.select("shots", "seed", "support").rows()) == {("0", None, None)}
    # against the backbone that is chosen on each draw
    chosen = unlearned.filter(metric="gain").select("shots", "seed")
    assert set(chosen.rows()) == set(drawn.rows())


def test_numbers_are_those_of_the_parts_put_together_by_hand(store):
    frame = run(store)
    support, test = store.pool("toy", "train"), store.pool("toy", "test")
    rows = few_shot(support.labels, 4, 1)
    learner = SuperLearner().fit(support.take(rows))
    assert accuracy(frame, ensemble="super-learner", shots="4", seed=1) == pytest.approx(
        learner.score(test)
    )
    mean = test.logits.mean(axis=1).argmax(axis=1)
    assert accuracy(frame, ensemble="log-avg") == pytest.approx((mean == test.labels).mean())
    for column, name in enumerate(test.backbones):
        right = test.logits[:, column].argmax(axis=1) == test.labels
        assert accuracy(frame, backbone=name) == pytest.approx(right.mean())


STATIC = ENSEMBLES.groups["Static"]
INDUCTIVE = [name for name in ENSEMBLES if not is_transductive(name)]


@pytest.fixture
def alone(fakes, tmp_path):
    """The same test split, and no other."""
    source = fakes.Source(split="test", count=40, class_names=CLASSES)
    return fakes.fill(tmp_path / "alone", fakes.two(), [source])


def test_what_learns_nothing_needs_no_support(store, alone, tmp_path):
    """The numbers are those of a store with a train split, and its results file knows them."""
    output = tmp_path / "results.parquet"
    found = run(alone, ensembles=STATIC, output=output)
    assert set(found["ensemble"]) == {"single", "oracle", *STATIC}
    assert_frame_equal(untimed(found), untimed(run(store, ensembles=STATIC)))
    again = run(store, ensembles=[*STATIC, "super-learner"], output=output)
    assert found["fingerprint"].is_in(again["fingerprint"].implode()).all()


def test_all_ensembles_without_labels_are_those_that_learn_nothing(alone, caplog):
    found = run(alone, ensembles="all", heads=["all"])
    assert set(found["head"]) == {"zero-shot"}
    assert set(found["ensemble"]) == {"single", "oracle", *STATIC}
    assert "left out: there are no labelled images to learn from" in caplog.text
    assert set(found["metric"]) >= {"gain_over_best_on_test", "acc1"}
    assert "gain" not in found["metric"]
    with pytest.raises(MissingCell, match="--split train"):
        run(alone, support="train", ensembles="all")
    with pytest.raises(MissingCell, match="--split train"):
        run(alone, ensembles=["nlc"])


def test_means_are_over_the_same_datasets_for_every_method(store):
    """A dataset without support is left out beside one that has some, as before."""
    found = run(store, datasets=None, ensembles="all", shots=(1,))
    assert set(found["dataset"]) == {"toy"}
    assert set(run(store, datasets=None, ensembles=["log-avg"])["dataset"]) == {"toy", "bare"}


class TestPredictionsAlone:
    VOTES = ("cat cat dog", "ant bee dog", "cat dog dog", "bee bee bee", "dog ant cat")
    LABELS = ("cat", "dog", "cat", "bee", "ant")

    @pytest.fixture
    def answers(self, tmp_path):
        """Three backbones' answers to five images, of which two are ties of three classes."""
        rows = [
            {"id": f"{row}", "model": name, "prediction": answer, "label": label}
            for row, (votes, label) in enumerate(zip(self.VOTES, self.LABELS, strict=True))
            for name, answer in zip("xyz", votes.split(), strict=True)
        ]
        return bring(tmp_path / "answers", rows, "quiz")

    def test_are_combined_by_votes(self, answers, caplog):
        found = run(answers, datasets="quiz", ensembles=["log-avg", "vote-1"])
        # cat, a tie (ant comes first), dog, bee, a tie (ant)
        assert accuracy(found, ensemble="vote-1") == pytest.approx(3 / 5)
        assert accuracy(found, ensemble="oracle") == pytest.approx(5 / 5)
        assert accuracy(found, backbone="x") == pytest.approx(3 / 5)
        assert set(found["ensemble"]) == {"single", "oracle", "vote-1"}
        assert not set(found["metric"]) & {"nll", "brier", "ece"}
        assert "log-avg left out: there are predictions alone of x, y, z" in caplog.text

    def test_confidences_decide_ties_and_who_is_asked(self, tmp_path):
        """A tie of three is cat's, the surest; bee, though two say so, is least sure."""
        rows = [
            {"id": f"{row}", "model": name, "prediction": said, "label": label, "confidence": p}
            for row, (votes, label, sure) in enumerate(
                [("ant bee cat", "cat", (0.5, 0.4, 0.9)), ("bee cat bee", "cat", (0.3, 0.8, 0.3))]
            )
            for name, said, p in zip("xyz", votes.split(), sure, strict=True)
        ]
        found = run(bring(tmp_path / "sure", rows, "quiz"), datasets="quiz", ensembles="all")
        assert accuracy(found, ensemble="vote-1") == 1 / 2
        assert accuracy(found, ensemble="conf") == 1
        assert not set(found["metric"]) & {"nll", "brier", "ece"}

    @pytest.mark.parametrize(
        "changes",
        [
            {"ensembles": ["log-avg"]},
            {"ensembles": ["conf"]},
            {"ensembles": ["vote-1"], "base_to_new": True},
            {"heads": ["lda"], "ensembles": ["vote-1"], "support": "test", "splits": "*"},
        ],
    )
    def test_what_they_cannot_do_is_refused(self, answers, changes):
        with pytest.raises(UsageError, match=r"predictions alone|no embeddings|no confidences"):
            run(answers, datasets="quiz", **changes)

    def test_beside_logits(self, store, tmp_path):
        """A vote like any other, and ties go by the probabilities of those that have some."""
        table, test = store.samples("toy", "test"), store.pool("toy", "test")
        said = [CLASSES[row % 3] for row in range(len(table))]
        bring(store.path, {"id": list(table.ids), "prediction": said}, name="z")
        found = run(store, ensembles=["vote-1"])
        sure = np.zeros((len(table), 1, 4), np.float32)
        sure[np.arange(len(table)), 0, [CLASSES.index(name) for name in said]] = 1e3
        pool = Pool.of(np.concatenate([test.logits, sure], axis=1), test.labels)
        assert accuracy(found, ensemble="vote-1") == pytest.approx(VoteTop1().score(pool))
        likely = found.filter(pl.col("metric") == "nll")
        assert set(singles(likely)["backbone"]) == {"fake/one", "fake/two"}
        assert set(likely["ensemble"]) == {"single"}


def test_labels_of_the_test_split_do_not_reach_a_fit(store, monkeypatch):
    """Every head and ensemble: what is fitted stays the same when they are shuffled."""
    seen: list[dict] = []
    fit_head, fit_ensemble = fitting.fit_head, fitting.fit_ensemble

    def spy_on_head(*arguments):
        combiner = fit_head(*arguments)
        seen.append({"head": combiner.head.learned(), "chosen": combiner.best})
        return combiner

    def spy_on_ensemble(combiner, name, seed):
        method = fit_ensemble(combiner, name, seed)
        seen.append({name: method.ensemble.learned()})
        return method

    monkeypatch.setattr(fitting, "fit_head", spy_on_head)
    monkeypatch.setattr(fitting, "fit_ensemble", spy_on_ensemble)

    def fit_all():
        for heads, ensembles in (("all", "log-avg"), ("zero-shot", "all")):
            run(store, heads=[heads], ensembles=[ensembles], shots=(4,), seeds=1)

    fit_all()
    before = seen.copy()
    seen.clear()
    samples = store.samples("toy", "test")
    shuffled = np.random.default_rng(0).permutation(samples.labels)
    assert not np.array_equal(shuffled, samples.labels)
    samples.labels[:] = shuffled
    store.annotate(samples)
    fit_all()
    assert len(seen) == len(before) >= len(HEADS) + len(ENSEMBLES)
    for one, other in zip(before, seen, strict=True):
        np.testing.assert_equal(one, other)


def test_a_pool_of_the_test_split_cannot_be_fitted(store):
    with pytest.raises(LeakError, match="was given the test split of toy to fit"):
        fitting.fit_head(store.pool("toy", "test"), "zero-shot", 0)
    combiner = fitting.fit_head(store.pool("toy", "train"), "zero-shot", 0)
    with pytest.raises(LeakError, match="was given the test split of toy to fit"):
        fitting.fit_ensemble(combiner._replace(pool=store.pool("toy", "test")), "super-learner", 0)
    with pytest.raises(LeakError):
        run(store, support="test")


def test_a_second_run_computes_nothing_and_a_longer_one_the_rest(store, tmp_path, monkeypatch):
    output = tmp_path / "r.parquet"
    first = run(store, shots=(1,), output=output)
    stamp = output.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "fit_head", lambda *_: pytest.fail("fitted again"))
        again = run(store, shots=(1,), output=output)
    assert again.sort(pl.all()).equals(first.sort(pl.all()))
    assert output.stat().st_mtime_ns == stamp
    more = run(store, shots=(1, 4), output=output)
    assert len(more) > len(first)
    fresh = untimed(run(store, shots=(1, 4)))
    assert_frame_equal(untimed(more).sort(pl.all()), fresh.sort(pl.all()))


def test_changed_inputs_do_not_mix(store, tmp_path):
    output = tmp_path / "r.parquet"
    run(store, shots=(4,), output=output)
    samples = store.samples("toy", "train")
    samples.labels[:] = np.roll(samples.labels, 1)
    store.annotate(samples)
    with pytest.raises(ConflictingResults, match="write to another file"):
        run(store, shots=(4,), output=output)


@pytest.fixture
def splits(store, fakes):
    """With two more splits of toy, of which the second has no labels, and a dataset without."""
    sources = [
        fakes.Source(split="test-2", count=12, class_names=CLASSES),
        fakes.Source(split="test-3", count=8, class_names=CLASSES),
        fakes.Source("photos", "test", count=8, class_names=()),
    ]
    sources[1].labels[:] = -1
    return fakes.fill(store.path, fakes.two(), sources)


def test_splits_without_labels_are_left_out_and_said(splits, caplog):
    frame = run(splits, splits=["test", "test-3"], datasets=None, shots=())
    assert set(frame["split"]) == {"test"}
    assert frame["value"].is_finite().all()
    assert "bare/train, photos/test, toy/test-3 left out: no labels" in caplog.text
    with pytest.raises(DatasetError, match="toy/test-3 has no labels"):
        run(splits, splits=["test", "test-3"], datasets=["toy"])
    with pytest.raises(DatasetError, match="toy/test-3 has no labels"):
        run(splits, splits=["test-3"], datasets=None)  # nothing is left


@pytest.fixture
def three(store, fakes):
    """A third backbone beside the two."""
    third = fakes.Encoder("fake/three", size=10, embed_dim=12)
    sources = [
        fakes.Source(split=split, count=count, class_names=CLASSES)
        for split, count in (("test", 40), ("train", 30))
    ]
    return fakes.fill(store.path, [third], sources)


@pytest.mark.parametrize("head", ["zero-shot", "lda"])
def test_sets_of_backbones_share_a_file(three, tmp_path, head):
    output = tmp_path / "r.parquet"
    settings = {"shots": (4,), "seeds": 1, "heads": [head], "output": output}
    two = run(three, backbones=["fake/one", "fake/two"], **settings)
    before = RowsFile(output).frame
    all_three = run(three, **settings)
    together = RowsFile(output).frame
    assert together.head(len(before)).equals(before)
    names = [name for name in RESULT if name != "fingerprint"]
    assert not untimed(together).select(names).is_duplicated().any()
    alone = singles(together)
    assert set(alone["backbone"]) == {"fake/one", "fake/two", "fake/three"}
    assert len(alone) == 3 * 6  # each metric once
    run_alone = run(three, **settings | {"output": None})
    assert_frame_equal(untimed(all_three).sort(pl.all()), untimed(run_alone).sort(pl.all()))
    again = run(three, backbones=["fake/one", "fake/two"], **settings)
    assert again.sort(pl.all()).equals(two.sort(pl.all()))


def test_backbones_of_other_images_share_no_file(logits, tmp_path):
    """A sample counts if all could be read: beside others a backbone's own numbers change."""
    for split, count in (("test", 39), ("train", 20)):
        path = tmp_path / f"{split}-c.npz"
        np.savez(path, ids=[f"im{row}" for row in range(count)], logits=np.eye(count, 2))
        classes = tmp_path / "classes.txt"
        wanted = ImportSettings("toy", split, backbone="c", classes=classes, intersect=True)
        import_files(logits.path, [path], wanted)
    settings = {"ensembles": ["log-avg"], "shots": (), "output": tmp_path / "r.parquet"}
    run(logits, backbones=["a", "b"], **settings)
    with pytest.raises(ConflictingResults):
        run(logits, backbones=["a", "c"], **settings)


def test_workers_change_nothing(store):
    alone = untimed(run(store, shots=(4,)))
    together = untimed(run(store, shots=(4,), workers=2))
    assert_frame_equal(together, alone)  # products by one thread are rounded in another way


def test_shift_transfer_fits_on_clean_images(store):
    frame = run(store, perturbations=None, shots=("full",))
    assert set(frame["perturbation"]) == {"clean", "jpeg-3"}
    learner = SuperLearner().fit(store.pool("toy", "train"))
    shifted = learner.score(store.pool("toy", "test", perturbation="jpeg-3"))
    found = accuracy(frame, perturbation="jpeg-3", ensemble="super-learner")
    assert found == pytest.approx(shifted)


def test_prompt_transfer_fits_on_other_prompts(store, fakes):
    sources = [
        fakes.Source(split=split, count=count, class_names=CLASSES, templates=("art of {c}",))
        for split, count in (("test", 40), ("train", 30))
    ]
    fakes.fill(store.path, fakes.two(), sources, prompts="own")
    frame = run(store, prompts="own", support_prompts="simple", shots=("full",))
    assert set(frame["prompts"]) == {"own"}
    fitted = frame.select("support", "support_prompts").drop_nulls()
    assert set(fitted.rows()) == {("train", "simple")}
    learner = SuperLearner().fit(store.pool("toy", "train", prompts="simple"))
    expected = learner.score(store.pool("toy", "test", prompts="own"))
    assert accuracy(frame, ensemble="super-learner") == pytest.approx(expected)


def test_base_to_new_fits_on_half_of_the_classes(store):
    frame = run(store, base_to_new=True, shots=("full",))
    assert set(frame["classes"]) == {"base", "new"}
    learner = SuperLearner().fit(store.pool("toy", "train").of_classes([0, 1]))
    new = store.pool("toy", "test").of_classes([2, 3])
    assert accuracy(frame, ensemble="super-learner", classes="new") == pytest.approx(
        learner.score(new)
    )
    assert set(frame["n"].unique()) >= {20}


def test_all_ensembles_for_new_classes_are_those_that_learn_no_classes(store, caplog):
    settings = {"base_to_new": True, "shots": (4,), "seeds": 1}
    frame = run(store, heads=["all"], ensembles=["log-avg", "all"], **settings)
    assert set(frame["head"]) == {"zero-shot"}
    of_classes = {name for name in INDUCTIVE if ENSEMBLES.load(name).knows_classes}
    assert set(frame["ensemble"]) == {*INDUCTIVE, "single", "oracle"} - of_classes
    assert "stacking left out: base-to-new cannot use what learns the classes" in caplog.text
    with pytest.raises(UsageError, match="stacking on toy cannot be used"):
        run(store, ensembles=["all", "stacking"], **settings)


@pytest.fixture
def logits(tmp_path):
    """Two backbones of which there are imported logits, and so no embeddings."""
    classes = tmp_path / "classes.txt"
    classes.write_text("cat\ndog\n")
    random = np.random.default_rng(0)
    for split, count in (("test", 40), ("train", 20)):
        labels = ["cat", "dog"] * (count // 2)
        ids = [f"im{row}" for row in range(count)]
        for name in ("a", "b"):
            path = tmp_path / f"{split}-{name}.npz"
            np.savez(path, ids=ids, labels=labels, logits=random.normal(size=(count, 2)))
            wanted = ImportSettings("toy", split, backbone=name, classes=classes)
            import_files(tmp_path / "logits", [path], wanted)
    return FeatureStore.open(tmp_path / "logits")


OF_EMBEDDINGS = {name for name in ENSEMBLES if ENSEMBLES.load(name).needs_embeddings}


def test_all_ensembles_without_embeddings_are_those_that_need_none(logits, caplog):
    frame = run(logits, heads=["all"], ensembles="all", shots=(4,), seeds=1)
    assert set(frame["head"]) == {"zero-shot"}
    assert set(frame["ensemble"]) == {*INDUCTIVE, "single", "oracle"} - OF_EMBEDDINGS
    assert ", nlc left out: there are no embeddings of a, b" in caplog.text


@pytest.mark.parametrize(
    ("shots", "kept"), [((16, 2, "full"), {"2", "full"}), ((8, 2, 16), {"2", "16"})]
)
def test_shots_that_are_the_same_images_are_fitted_once(store, shots, kept, monkeypatch):
    """No class has more than eight."""
    fitted, fit = [], fitting.fit_head
    monkeypatch.setattr(
        fitting, "fit_head", lambda pool, *rest: fitted.append(len(pool)) or fit(pool, *rest)
    )
    frame = run(store, shots=shots, seeds=1, ensembles=["super-learner"])
    assert set(frame.filter(ensemble="super-learner")["shots"]) == kept
    assert sorted(fitted) == [0, 8, 30]


@pytest.fixture
def fits(monkeypatch):
    """What is fitted, with its seed: heads, and ensembles that learn."""
    made: list[tuple[str, int | None]] = []
    head, ensemble = fitting.fit_head, fitting.fit_ensemble

    def fit_head(support, name, seed):
        if HEADS.load(name.partition(":")[0]).learns:
            made.append((name, seed))
        return head(support, name, seed)

    def fit_ensemble(combiner, name, seed):
        if ENSEMBLES.load(name.partition(":")[0]).learns:
            made.append((name, seed))
        return ensemble(combiner, name, seed)

    monkeypatch.setattr(fitting, "fit_head", fit_head)
    monkeypatch.setattr(fitting, "fit_ensemble", fit_ensemble)
    return made


def test_seeds_that_draw_the_same_images_share_what_is_not_random(store, fits):
    """16 shots are the whole support, for every seed: only NLC differs from seed to seed."""
    settings = {"shots": (16,), "seeds": 3, "heads": ["lda"]}
    frame = run(store, ensembles=["super-learner", "nlc:steps=5"], **settings)
    once = [("lda", None), ("super-learner", None), ("best-single", None)]
    assert sorted(fits, key=str) == sorted(
        [*once, *(("nlc:steps=5", s) for s in range(3))], key=str
    )
    learned = untimed(frame.filter(ensemble="super-learner")).sort("seed", "metric")
    assert set(learned["seed"]) == {0, 1, 2}
    assert learned["fingerprint"].n_unique() == 3
    first = learned.filter(seed=0).drop("seed", "fingerprint")
    for seed in (1, 2):
        assert learned.filter(seed=seed).drop("seed", "fingerprint").equals(first)
    alone = run(store, ensembles=["super-learner"], **settings | {"seeds": 1})
    assert (
        untimed(alone.filter(ensemble="super-learner"))
        .sort("metric")
        .equals(learned.filter(seed=0))
    )


def test_a_head_is_not_fitted_for_what_is_known(store, tmp_path, fits):
    settings = {"shots": (4,), "seeds": 1, "output": tmp_path / "r.parquet"}
    run(store, heads=["zero-shot", "lda"], **settings)
    fits.clear()
    run(store, heads=["zero-shot", "lda", "anchored-probe"], **settings)
    assert {name for name, _ in fits} == {"anchored-probe", "super-learner", "best-single"}
    assert len(fits) == 3
    fits.clear()
    both = ["log-avg", "super-learner", "greedy"]
    run(store, heads=["zero-shot", "lda"], ensembles=both, **settings)
    assert fits == [("greedy", None), ("lda", None), ("greedy", None)]


class TestBudget:
    """A fit of super-learner, or on the head lda, takes twelve minutes here."""

    SETTINGS: ClassVar = {"shots": (1, 4, "full"), "seeds": 1, "budget": 10}

    @pytest.fixture(autouse=True)
    def _slow(self, monkeypatch):
        """Seconds of fits are added, and nobody waits for them."""
        fit = fitting.fit_ensemble

        def slow(combiner, name, seed):
            method = fit(combiner, name, seed)
            if name == "super-learner" or type(combiner.head).__name__ == "ShrinkageLDA":
                return method._replace(seconds=method.seconds + 720)
            return method

        monkeypatch.setattr(fitting, "fit_ensemble", slow)

    @staticmethod
    def _shots(frame, **of):
        return set(frame.filter(**of)["shots"])

    def test_what_took_longer_is_not_fitted_on_more_images(self, store, caplog):
        frame = run(store, ensembles="all", **self.SETTINGS)
        assert self._shots(frame, ensemble="super-learner") == {"1"}
        assert self._shots(frame, ensemble="nlc") == {"1", "4", "full"}
        notes = [line for line in caplog.messages if "super-learner on zero-shot left out" in line]
        assert len(notes) == 1

    @pytest.mark.parametrize(
        "changes", [{"ensembles": ["all", "super-learner"]}, {"ensembles": "all", "budget": 13}]
    )
    def test_ensembles_by_name_or_within_the_budget_are_all_fitted(self, store, caplog, changes):
        frame = run(store, **self.SETTINGS | changes)
        assert self._shots(frame, ensemble="super-learner") == {"1", "4", "full"}
        assert "left out" not in caplog.text

    def test_a_run_that_goes_on_leaves_out_the_same(self, store, tmp_path, fits):
        settings = self.SETTINGS | {"output": tmp_path / "r.parquet", "ensembles": "all"}
        first = run(store, **settings)
        fits.clear()
        assert run(store, **settings).equals(first)
        assert fits == []


def test_each_worker_has_as_much_of_each_head(store):
    settings = ProtocolSettings(heads=("zero-shot", "lda"), shots=(1, 2, 4), seeds=3)
    datasets, _ = comparisons(store, settings)
    tasks = [task for one in datasets for task in one.tasks()]
    shares = [loop._share(tasks, (number, 3)) for number in range(3)]
    places = {id(task): place for place, task in enumerate(tasks)}
    order = [[places[id(task)] for task in share] for share in shares]
    assert sorted(place for each in order for place in each) == list(range(len(tasks)))
    assert all(each == sorted(each) for each in order)
    for head in ("zero-shot", "lda"):
        counts = [sum(task.head == head for task in share) for share in shares]
        assert max(counts) - min(counts) <= 1


def test_what_learns_nothing_is_compared_with_the_backbone_chosen_on_each_draw(store):
    frame = run(store, ensembles=["log-avg", "best-single"], seeds=2)
    gains = frame.filter(metric="gain")
    assert len(gains) == 3 * 5  # log-avg, the oracle and best-single; 1 and 4 shots twice, full
    for row in gains.iter_rows(named=True):
        draw = {"shots": row["shots"], "seed": row["seed"]}
        single = accuracy(frame, ensemble="best-single", **draw)
        learned = row["ensemble"] == "best-single"
        own = single if learned else accuracy(frame, ensemble=row["ensemble"], shots="0")
        assert row["value"] == pytest.approx(own - single, abs=1e-6)
        assert (row["support"], row["support_prompts"]) == ("train", "simple")
    assert gains["fingerprint"].n_unique() == len(gains)


def test_what_the_support_lacks_is_said(store, caplog):
    samples = store.samples("toy", "train")
    samples.labels[samples.labels == 2] = 1
    store.annotate(samples)
    frame = run(store, shots=(1,))
    assert "toy/train: 1 of 4 classes have no image to learn from" in caplog.text
    assert frame.filter(pl.col("metric") == "acc1")["value"].is_finite().all()


def test_a_head_that_needs_more_samples_is_left_out_and_said(store, caplog):
    frame = run(store, heads=["linear-probe", "zero-shot"], shots=(1,))
    assert "toy, 1 shot, linear-probe left out" in caplog.text
    assert set(frame["head"]) == {"zero-shot"}


def test_unreadable_images_are_left_out_of_everything(fakes, tmp_path):
    sources = [
        fakes.Source(split="test", count=40, class_names=CLASSES, bad={3: "cut off"}),
        fakes.Source(split="train", count=30, class_names=CLASSES, bad={0: "cut off"}),
    ]
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two")]
    store = fakes.fill(tmp_path / "s", encoders, sources, max_bad=0.5)
    frame = run(store)
    assert set(untimed(frame)["n"]) == {39}
    fitted = frame.filter(metric="fit_seconds", shots="full")
    assert set(fitted["n"]) == {29}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"ensembles": ["super-lerner"]}, UnknownName, "did you mean super-learner"),
        ({"datasets": "toys"}, UnknownName, "did you mean toy"),
        ({"support": "val"}, MissingCell, r"clipsyn extract .* --split val"),
        ({"perturbations": "fog-3"}, UnknownName, "unknown perturbation 'fog-3'"),
        ({"datasets": "bare"}, DatasetError, "bare/train has no labels"),
        ({"shots": (0,)}, UsageError, "images a class from 1 to 1,000,000, not 0"),
        ({"heads": []}, UsageError, "no head is asked for"),
    ],
)
def test_bad_input_is_one_sentence(store, changes, error, message):
    with pytest.raises(error, match=message):
        run(store, **changes)


def test_votes_on_views_of_what_is_measured(tiny_store):
    name, about = "zero:views=true", {"heads": ["zero-shot"], "views": ["jpeg-3"]}
    frame = evaluate(tiny_store, ensembles=[name, "log-avg"], datasets=["toy"], **about)
    pool = PoolReader(tiny_store, "toy", "test", views=["jpeg-3"]).read()
    found = frame.filter(metric="acc1", ensemble=name, shots="0")["value"].item()
    assert found == pytest.approx(Zero(views=True).score(pool))
    for wrong in ({"heads": ["lda"]}, {"views": []}):
        with pytest.raises(UsageError, match=name):
            evaluate(tiny_store, ensembles=[name], datasets=["toy"], **about | wrong)
    with pytest.raises(InputError):  # views are of the clean images
        evaluate(tiny_store, ensembles=[name], perturbations=["jpeg-3"], **about)
