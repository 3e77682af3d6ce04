"""`oracle` and its tables against plain loops, on a store and on four images by hand."""

import math
from collections import Counter
from functools import partial
from itertools import compress

import numpy as np
import polars as pl
import pytest

from clipsyn.analyses.oracle import OracleSettings, oracle
from clipsyn.analyses.oracle import measure as module
from clipsyn.analyses.oracle.measure import sample_table
from clipsyn.evaluation.results.frame import NAMES
from clipsyn.methods.numerics.logits import NO_PREDICTION
from tests.results import only

BACKBONES = ("cnx/c", "rn/b", "vit/a")  # as a store sorts them
SIX = tuple(f"class {c}" for c in range(6))


@pytest.fixture
def given(give):
    return partial(give, module)


@pytest.fixture(scope="module")
def results(birds):
    return oracle(birds, weights=True)


def right_of(store, dataset, perturbation):
    """For each sample that counts, which backbones are right."""
    keys = store.keys(dataset=[dataset], split=["test"], perturbation=[perturbation])
    labels = store.samples(dataset, "test").labels.tolist()
    columns = [
        store.cell(key).predictions(store.cell(key).prompt_sets()[0]).tolist() for key in keys
    ]
    return [
        tuple(p == label for p in predicted)
        for *predicted, label in zip(*columns, labels, strict=True)
        if NO_PREDICTION not in predicted
    ]


@pytest.mark.parametrize("perturbation", ["clean", "jpeg-3"])
def test_backbones_and_oracle_equal_plain_loops(birds, results, perturbation):
    rows = right_of(birds, "birds", perturbation)
    frame = results.filter(dataset="birds", perturbation=perturbation)
    assert len(rows) == 88  # two of the ninety cannot be decoded
    assert set(frame["n"]) == {88}
    accuracy = [sum(column) / 88 for column in zip(*rows, strict=True)]
    for b, name in enumerate(BACKBONES):
        credit = sum(row[b] / sum(row) for row in rows if any(row)) / 88
        alone = sum(row[b] and sum(row) == 1 for row in rows) / 88
        for metric, expected in (
            ("acc1", accuracy[b]),
            ("shapley", credit),
            ("unique_correct", alone),
        ):
            number = only(frame, metric, [name])
            assert number["value"] == pytest.approx(expected, abs=1e-12)
            assert number["ci_low"] <= expected <= number["ci_high"]
            assert number["ci_high"] - number["ci_low"] > 0.02
    oracle_accuracy = sum(map(any, rows)) / 88
    for metric, expected in (
        ("acc1", oracle_accuracy),
        ("gain_over_best_on_test", oracle_accuracy - max(accuracy)),
        ("relative_gain_over_best_on_test", oracle_accuracy / max(accuracy) - 1),
        ("none_correct", sum(not any(row) for row in rows) / 88),
        ("all_correct", sum(map(all, rows)) / 88),
    ):
        number = only(frame, metric, BACKBONES, "oracle")
        assert number["value"] == pytest.approx(expected, abs=1e-12)
        assert 0 <= number["ci_low"] <= expected <= number["ci_high"]


@pytest.mark.parametrize("perturbation", ["clean", "jpeg-3"])
def test_class_oracle_and_marks_equal_plain_loops(birds, results, perturbation):
    rows = right_of(birds, "birds", perturbation)
    key = birds.keys(dataset=["birds"], split=["test"], perturbation=[perturbation])[0]
    truth = birds.samples("birds", "test").labels
    readable = birds.cell(key).predictions(birds.cell(key).prompt_sets()[0]) != NO_PREDICTION
    labels = truth[readable].tolist()
    frame = results.filter(dataset="birds", perturbation=perturbation)
    by_class = {
        c: [row for row, label in zip(rows, labels, strict=True) if label == c] for c in labels
    }
    lost = hits = 0.0
    for members in by_class.values():
        rates = [sum(column) / len(members) for column in zip(*members, strict=True)]
        lost += len(members) * math.prod(1 - rate for rate in rates)
        hits += len(members) * max(rates)
    mark = only(frame, "acc1_independent", BACKBONES, "oracle")
    assert mark["value"] == pytest.approx(1 - lost / 88, abs=1e-12)
    best = max(map(sum, zip(*rows, strict=True))) / 88
    for end, expected in (("", hits / 88), ("_left_out", left_out_by_loops(rows, labels))):
        accuracy = only(frame, f"acc1{end}", BACKBONES, "class-oracle")
        gain = only(frame, f"gain_over_best_on_test{end}", BACKBONES, "class-oracle")
        assert accuracy["value"] == pytest.approx(expected, abs=1e-12)
        assert gain["value"] == pytest.approx(expected - best, abs=1e-12)
        assert accuracy["ci_low"] is gain["ci_low"] is None
    for b, name in enumerate(BACKBONES):
        others = sum(any(right for o, right in enumerate(row) if o != b) for row in rows) / 88
        floor = only(frame, "unique_correct_floor", [name])
        assert floor["value"] == pytest.approx((1 - others) / len(SIX))
        shared = sum(1 / (1 + sum(row) - row[b]) for row in rows) / 88 / len(SIX)
        assert only(frame, "shapley_floor", [name])["value"] == pytest.approx(shared)


def left_out_by_loops(rows, labels):
    hits = 0
    for image, row in enumerate(rows):
        rest = [i for i in range(len(rows)) if i != image]
        ranks = [
            (
                sum(rows[i][b] for i in rest if labels[i] == labels[image]),
                sum(rows[i][b] for i in rest),
            )
            for b in range(len(row))
        ]
        hits += row[ranks.index(max(ranks))]
    return hits / len(rows)


def test_regions_equal_a_count(birds, results):
    rows = right_of(birds, "birds", "jpeg-3")
    expected = Counter(tuple(compress(BACKBONES, row)) for row in rows)
    regions = results.filter(dataset="birds", perturbation="jpeg-3", metric="region")
    counts = (regions["value"] * regions["n"]).round().cast(int)
    assert dict(zip(map(tuple, regions["backbones"]), counts, strict=True)) == expected
    assert counts.is_sorted(descending=True)


def test_samples_without_a_label_or_a_prediction_do_not_count(given, one_hot):
    given(one_hot([[0, 1, 0, None, 2], [0, 0, 0, 0, 1]]), [0, 1, -1, 0, 2])
    frame = oracle(None)
    assert set(frame["n"]) == {3}
    assert only(frame, "acc1", "a")["value"] == 1
    assert only(frame, "acc1", "b")["value"] == pytest.approx(1 / 3)


def test_the_best_pair_may_lack_the_best_backbone(given, one_hot):
    """Of twelve images a gets 0-4 right, b 0, 1, 5, 6 and c 2, 3, 7, 8."""
    sets = [{0, 1, 2, 3, 4}, {0, 1, 5, 6}, {2, 3, 7, 8}]
    given(
        one_hot([[0 if image in right else 1 for image in range(12)] for right in sets]), [0] * 12
    )
    frame = oracle(None)
    assert only(frame, "acc1", "bc", "oracle")["value"] == pytest.approx(8 / 12)
    gain = only(frame, "gain_over_best_on_test", "bc", "oracle")
    assert gain["value"] == pytest.approx(3 / 12)
    assert gain["ci_low"] < 0  # on other images a may be better
    assert only(frame, "relative_gain_over_best_on_test", "bc", "oracle")["value"] == pytest.approx(
        3 / 5
    )


def test_one_backbone_one_class_one_image(given):
    given(np.zeros((1, 1, 1)), [0])
    frame = oracle(None, weights=True)
    assert only(frame, "shapley", "a")["value"] == 1
    assert only(frame, "gain_over_best_on_test", "a", "oracle")["value"] == 0
    assert only(frame, "acc1", "a", "weight-oracle")["value"] == 1
    assert frame.select(NAMES).is_duplicated().sum() == 0


def test_no_image_that_counts(given):
    given(np.full((2, 3, 3), np.nan), [0, 1, 2])
    frame = oracle(None, weights=True)
    assert set(frame["n"]) == {0}
    for column in ("value", "ci_low", "ci_high"):
        assert frame[column].is_nan().all(), column


def test_the_weight_oracle_mixes_logits(given):
    """One backbone gets image 0 right. In 1, 4 and 6 each backbone is misled by another class, in 2
    both by the same. 3 has no label, 5 no prediction. The store has blocks of up to three rows."""
    first = [[2, 1, 0], [2, 3, 0], [2, 3, 0], [2, 3, 0], [2, 3, 0], [np.nan] * 3, [2, 3, 0]]
    other = [[0, 1, 2], [2, 0, 3], [2, 3, 0], [2, 0, 3], [2, 0, 3], [2, 0, 3], [2, 0, 3]]
    store = given([first, other], [0, 0, 0, -1, 0, 0, 0])
    frame = oracle(None, weights=True)
    assert only(frame, "acc1", "ab", "oracle")["value"] == pytest.approx(1 / 5)
    assert only(frame, "acc1", "ab", "weight-oracle")["value"] == pytest.approx(4 / 5)
    gain = only(frame, "gain_over_best_on_test", "ab", "weight-oracle")
    assert gain["value"] == pytest.approx(3 / 5)
    assert 0 <= gain["ci_low"] <= gain["value"] <= gain["ci_high"] <= 1
    assert max(len(rows) for rows in store.read) == 3
    store.read.clear()
    assert "weight-oracle" not in oracle(None)["ensemble"].to_list()
    assert store.read == []


def test_what_depends_on_all_backbones_has_the_fingerprint_of_all(birds):
    def prints(metric, **filters):
        frame = oracle(birds, datasets="flags", **filters)
        return {only(frame, metric, ["rn/b"])["fingerprint"]}

    pair = ["rn/b", "vit/a"]
    for metric in ("acc1", "shapley", "unique_correct"):
        assert prints(metric) != prints(metric, backbones=pair)
        assert prints(metric) == prints(metric)


def test_many_backbones_have_no_subsets(given, monkeypatch, one_hot):
    monkeypatch.setattr(module, "MOST_BACKBONES", 2)
    given(one_hot([[0, 1], [1, 1], [2, 0]]), [0, 1])
    frame = oracle(None).filter(ensemble="oracle", metric="acc1")
    assert frame["backbones"].to_list() == [["a", "b", "c"]]


def test_no_more_regions_than_are_asked_for(given, monkeypatch, one_hot):
    monkeypatch.setattr(module, "MOST_REGIONS", 2)
    given(one_hot([[0, 1, 1, 0, 0], [1, 1, 1, 0, 0]]), [0, 1, 0, 0, 0])
    regions = oracle(None).filter(metric="region")
    assert regions.select("backbones", "value").rows() == [(["a", "b"], 0.6), (["a"], 0.2)]


def test_the_samples_of_a_store(birds):
    table = sample_table(birds, OracleSettings(datasets="birds"))
    labels = birds.samples("birds", "test").labels
    assert len(table) == 2 * 90
    clean = table.filter(perturbation="clean")
    assert tuple(clean["id"]) == birds.samples("birds", "test").ids
    assert clean["label"].to_list() == labels.tolist()
    assert clean["class"].to_list() == [SIX[label] for label in labels]
    rows = right_of(birds, "birds", "clean")
    assert clean["right"].drop_nulls().to_list() == [sum(row) for row in rows]
    assert clean.filter(pl.col("right").is_null())["id"].to_list() == ["im003.png", "im041.png"]
    for b, name in enumerate(BACKBONES):
        hits = clean[f"{name} right"]
        assert hits.drop_nulls().to_list() == [row[b] for row in rows]
        predicted, indices = clean[f"{name} predicts"], clean[f"{name} label"]
        assert predicted.drop_nulls().to_list() == [SIX[label] for label in indices.drop_nulls()]
        assert hits.null_count() == predicted.null_count() == 2


def test_samples_without_a_label_or_a_prediction_have_nulls(given, one_hot):
    given(one_hot([[0, None, 2]]), [0, 1, -1])
    table = sample_table(None, OracleSettings())
    shown = table.select("label", "class", "right", "a predicts", "a label", "a right").rows()
    assert shown == [
        (0, "class 0", 1, "class 0", 0, True),
        (1, "class 1", None, None, None, None),
        (None, None, None, "class 2", 2, None),
    ]
