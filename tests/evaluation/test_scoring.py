"""Metrics of methods over the same samples, against plain loops and a second bootstrap."""

import numpy as np
import pytest

from clipsyn.evaluation.results.frame import IF_ALIKE
from clipsyn.evaluation.score import Scorer
from clipsyn.methods.numerics.metrics import judge
from clipsyn.stats.differences import difference_interval
from clipsyn.stats.images import Images
from clipsyn.stats.intervals import wilson_interval

RNG = np.random.default_rng(0)
N, CLASSES = 300, 4
LABELS = RNG.integers(0, CLASSES, N).astype(np.int32)
ALONE = Images.of(np.arange(N))


def scores(quality, seed):
    noise = np.random.default_rng(seed).normal(size=(N, CLASSES))
    return (noise + quality * np.eye(CLASSES)[LABELS]).astype(np.float32)


GOOD, FAIR, BOTH = scores(1.5, 1), scores(1.0, 2), scores(1.5, 1) + scores(1.0, 2)


def make(labels=LABELS, good=GOOD):
    singles = {"good": judge(good, labels), "fair": judge(FAIR, labels)}
    return Scorer(labels, singles, CLASSES, ALONE)


def every(scorer, judged, chosen=None):
    return by_name(scorer.ensemble(judged, chosen))


def by_name(measured):
    return {m.metric: m for m in measured}


def test_every_metric_against_its_definition():
    found = every(make(), judge(BOTH, LABELS), make().right["fair"])
    right = BOTH.argmax(1) == LABELS
    best = GOOD.argmax(1) == LABELS
    p = np.exp(BOTH) / np.exp(BOTH).sum(1, keepdims=True)
    assert found["acc1"].score.value == pytest.approx(right.mean())
    recalls = [right[c == LABELS].mean() for c in range(CLASSES)]
    assert found["mean_per_class_recall"].score.value == pytest.approx(np.mean(recalls))
    assert found["nll"].score.value == pytest.approx(-np.log(p[range(N), LABELS]).mean(), rel=1e-5)
    brier = ((p - np.eye(CLASSES)[LABELS]) ** 2).sum(1).mean()
    assert found["brier"].score.value == pytest.approx(brier, rel=1e-5)
    assert found["gain_over_best_on_test"].score.value == pytest.approx(right.mean() - best.mean())
    relative = right.mean() / best.mean() - 1
    assert found["relative_gain_over_best_on_test"].score.value == pytest.approx(relative, rel=1e-6)
    over_fair = right.mean() - (FAIR.argmax(1) == LABELS).mean()
    assert found["gain"].score.value == pytest.approx(over_fair)
    assert {m.score.n for m in found.values()} == {N}


def test_intervals_are_those_of_a_paired_bootstrap():
    found = every(make(), judge(BOTH, LABELS))
    right, best = BOTH.argmax(1) == LABELS, GOOD.argmax(1) == LABELS
    draws = np.random.default_rng(99).integers(0, N, (4000, N))
    for metric, values in {
        "gain_over_best_on_test": right[draws].mean(1) - best[draws].mean(1),
        "relative_gain_over_best_on_test": right[draws].mean(1) / best[draws].mean(1) - 1,
    }.items():
        low, high = np.quantile(values, [0.025, 0.975])
        assert found[metric].interval.low == pytest.approx(low, abs=0.012), metric
        assert found[metric].interval.high == pytest.approx(high, abs=0.012), metric
    assert found["ece"].interval is None  # too high by chance: resamples are higher still
    for name in ("nll", "brier", "mean_per_class_recall"):
        interval = found[name].interval
        assert interval.low < interval.high
        assert interval.low <= found[name].score.value <= interval.high


def lead_interval(first, second):
    return difference_interval([first.astype(int) - second], [ALONE])


def test_intervals_of_the_oracle_and_of_diversity():
    scorer = make()
    oracle, diversity = by_name(scorer.oracle()), by_name(scorer.diversity())
    good, fair = GOOD.argmax(1), FAIR.argmax(1)
    anyone, best = (good == LABELS) | (fair == LABELS), good == LABELS
    assert oracle["acc1"].interval == wilson_interval(int(anyone.sum()), N)
    lead = oracle["gain_over_best_on_test"]
    assert lead.interval == wilson_interval(int(anyone.sum() - best.sum()), N)
    relative = oracle["relative_gain_over_best_on_test"].interval
    assert relative == pytest.approx(tuple(np.array(lead.interval) / best.mean()), abs=0.03)
    differ, uneven = good != fair, (good == LABELS) ^ (fair == LABELS)
    for name, values in {"disagreement": differ, "error_inconsistency": uneven}.items():
        expected = wilson_interval(int(values.sum()), N)
        assert diversity[name].interval == pytest.approx(expected, abs=2e-3)


def test_answers_may_be_kept_for_other_references():
    """What learns nothing is compared with the backbone that each support chooses."""
    scorer = make()
    answers = scorer.is_right(judge(BOTH, LABELS))
    for name, of in {"good": GOOD, "fair": FAIR}.items():
        found, alike = scorer.over_chosen(answers, scorer.right[name])
        right, reference = BOTH.argmax(1) == LABELS, of.argmax(1) == LABELS
        assert found.metric == "gain"
        assert found.score.value == pytest.approx(right.mean() - reference.mean())
        assert found.interval == lead_interval(right, reference)
        uneven = (GOOD.argmax(1) == LABELS) != (FAIR.argmax(1) == LABELS)
        expected = np.corrcoef(uneven, right.astype(int) - reference)[0, 1]
        assert (alike.metric, alike.score.value) == (IF_ALIKE, pytest.approx(expected))
    assert not list(scorer.over_chosen(answers, None))


def test_samples_count_that_every_backbone_has():
    labels, good = LABELS.copy(), GOOD.copy()
    labels[:10], good[20:25] = -1, np.nan
    scorer = make(labels, good)
    assert scorer.n == N - 15
    fair = by_name(scorer.metrics(judge(FAIR, labels)))
    assert fair["acc1"].score.n == N - 15
    kept = np.r_[10:20, 25:N]
    assert fair["acc1"].score.value == pytest.approx((FAIR.argmax(1) == LABELS)[kept].mean())


def test_the_oracle_is_right_where_anyone_is():
    oracle = by_name(make().oracle())
    anyone = (GOOD.argmax(1) == LABELS) | (FAIR.argmax(1) == LABELS)
    best = (GOOD.argmax(1) == LABELS).mean()
    assert oracle["acc1"].score.value == pytest.approx(anyone.mean())
    assert oracle["gain_over_best_on_test"].score.value == pytest.approx(anyone.mean() - best)
    rates = [
        [(scores.argmax(1) == c)[c == LABELS].mean() for scores in (GOOD, FAIR)]
        for c in range(CLASSES)
    ]
    missed = [(1 - a) * (1 - b) for a, b in rates]
    mark = 1 - np.average(missed, weights=np.bincount(LABELS))
    assert oracle["acc1_independent"].score.value == pytest.approx(mark)


def test_nothing_to_score_is_nan():
    labels = np.full(N, -1, np.int32)
    found = every(make(labels), judge(BOTH, labels))
    assert all(np.isnan(m.score.value) for m in found.values())
    assert all(np.isnan(m.interval.low) for m in found.values() if m.interval)
    assert {m.score.n for m in found.values()} == {0}


def test_all_wrong_has_no_relative_gain():
    wrong = np.eye(CLASSES, dtype=np.float32)[(LABELS + 1) % CLASSES]
    scorer = Scorer(LABELS, {"a": judge(wrong, LABELS)}, CLASSES, ALONE)
    found = every(scorer, judge(BOTH, LABELS))
    assert np.isnan(found["relative_gain_over_best_on_test"].score.value)
    assert found["gain_over_best_on_test"].score.value == found["acc1"].score.value


def test_diversity_is_the_mean_over_pairs():
    third = scores(0.5, 7)
    singles = {"a": judge(GOOD, LABELS), "b": judge(FAIR, LABELS), "c": judge(third, LABELS)}
    found = by_name(Scorer(LABELS, singles, CLASSES, ALONE).diversity())
    predicted = [s.argmax(1) for s in (GOOD, FAIR, third)]
    pairs = [(0, 1), (0, 2), (1, 2)]
    differ = np.mean([(predicted[i] != predicted[j]).mean() for i, j in pairs])
    assert found["disagreement"].score.value == pytest.approx(differ, rel=1e-6)
    right = [p == LABELS for p in predicted]
    one = np.mean([(right[i] ^ right[j]).mean() for i, j in pairs])
    assert found["error_inconsistency"].score.value == pytest.approx(one, rel=1e-6)
