"""Each dataset is judged with the combination that was chosen on the others."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clipsyn.report.answer import choose
from clipsyn.report.standings import methods

HALF = 0.01  # width of the intervals of gains
# chosen without pets: b (0.04, a 0.035); without food: a (0.05, b 0.035); without cars: a (0.045)
GAINS = {
    "a": {"pets": 0.06, "food": 0.03, "cars": 0.04},
    "b": {"pets": 0.00, "food": 0.01, "cars": 0.07},
}


@pytest.fixture
def compared(rows):
    """Function (gain by method and dataset, columns) -> the methods of such results."""

    def make(gains, **more):
        found = []
        for method, by_dataset in gains.items():
            for dataset, gain in by_dataset.items():
                about = {"dataset": dataset, "ensemble": method, "backbones": ["x", "y"]} | more
                found.append(about | {"value": 0.5 + gain, "low": 0.4, "high": 0.9})
                ends = {"low": gain - HALF, "high": gain + HALF}
                found.append(about | {"metric": "gain", "value": gain} | ends)
        return methods(rows(*found))

    return make


def by_dataset(standing):
    return {dataset: value for (dataset, *_), (value, *_) in standing.gains.items()}


def test_each_dataset_has_the_one_that_gains_most_on_the_others(compared):
    choice = choose(compared(GAINS), {})
    assert choice.unseen.names == {"pets": "b", "food": "a", "cars": "a"}
    assert by_dataset(choice.unseen) == {"pets": 0.0, "food": 0.03, "cars": 0.04}
    assert choice.judged.gain.value == pytest.approx(0.07 / 3)
    assert choice.unseen.accuracy.value == pytest.approx(0.5 + 0.07 / 3)
    assert choice.unseen.times == [("a", 2), ("b", 1)]


def test_the_one_to_take_is_the_best_over_all(compared):
    choice = choose(compared(GAINS), {})
    assert choice.best.name == "a"
    assert choice.name is None  # another is judged on pets
    assert choice.best.gain.value == pytest.approx(0.13 / 3)


def test_the_interval_is_that_of_a_mean_of_independent_gains(compared):
    gain = choose(compared(GAINS), {}).judged.gain
    assert gain.high - gain.value == pytest.approx(HALF * math.sqrt(3) / 3)
    assert gain.low == pytest.approx(2 * gain.value - gain.high)


def test_counts_are_of_what_is_judged(compared):
    unseen = choose(compared(GAINS), {}).unseen
    assert (unseen.better, unseen.worse) == (2, 0)
    assert unseen.least == ("pets", 0.0)


def test_one_that_leads_everywhere_is_judged_with_its_own_gain(compared):
    gains = {"a": {"pets": 0.02, "food": 0.03}, "b": {"pets": 0.01, "food": 0.01}}
    choice = choose(compared(gains), {})
    assert (choice.name, choice.unseen.times) == ("a", [("a", 2)])
    assert choice.judged.gain == choice.best.gain


def test_of_equals_the_first_is_taken(compared):
    same = {"pets": 0.1, "food": 0.1, "cars": 0.1}
    assert choose(compared({"a": same, "b": same}), {}).name == "a"


@pytest.mark.parametrize("seed", range(20))
def test_a_plain_loop_says_the_same(compared, seed):
    draw = np.random.default_rng(seed)
    table = draw.normal(0.02, 0.02, (4, 5)).round(4)
    names, datasets = [f"m{at}" for at in range(4)], [f"d{at}" for at in range(5)]
    gains = {
        name: dict(zip(datasets, row, strict=True))
        for name, row in zip(names, table.tolist(), strict=True)
    }
    choice = choose(compared(gains), {})
    for at, dataset in enumerate(datasets):
        rest = [[table[method][other] for other in range(5) if other != at] for method in range(4)]
        best = int(np.argmax(np.mean(rest, axis=1)))
        assert choice.unseen.names[dataset] == names[best]
        assert by_dataset(choice.unseen)[dataset] == table[best][at]
        # where no image is shared, hindsight is never below
        assert table[best][at] <= by_dataset(choice.best)[dataset]


def test_datasets_that_share_images_are_left_out_together(compared):
    sharing = {"pets": {"cars"}, "cars": {"pets"}}
    choice = choose(compared(GAINS), sharing)
    assert choice.unseen.names == {"pets": "a", "food": "a", "cars": "a"}  # by food, both, food


def test_so_are_the_splits_of_a_dataset(rows):
    """Of cars, val would lead to b for test."""
    found = [
        {"dataset": dataset, "split": split, "ensemble": name, "metric": metric}
        | {"backbones": ["x", "y"], "value": value}
        for dataset, split, *gains in (
            ("cars", "test", 0, 7),
            ("cars", "val", 0, 7),
            ("food", "test", 2, 1),
        )
        for name, gain in zip("ab", gains, strict=True)
        for metric, value in (("acc1", 0.5), ("gain", gain / 100))
    ]
    unseen = choose(methods(rows(*found)), {}).unseen
    assert unseen.names == {"cars": "a", "food": "b"}
    assert len(unseen.gains) == 3


def test_nothing_is_left_out_where_nothing_would_be_left(compared):
    one = {name: {"pets": of["pets"]} for name, of in GAINS.items()}
    assert choose(compared(one), {}).unseen is None
    sharing = {"pets": {"food", "cars"}, "food": {"pets"}, "cars": {"pets"}}
    choice = choose(compared(GAINS), sharing)
    assert choice.unseen is None
    assert choice.judged is choice.best


def test_a_single_combination_was_not_chosen(compared):
    choice = choose(compared({"a": GAINS["a"]}), {})
    assert choice.unseen is None
    assert (choice.name, len(choice.candidates)) == ("a", 1)


@pytest.mark.parametrize("gain", [None, math.nan])
def test_what_some_dataset_lacks_is_no_candidate(compared, gain):
    best = {"pets": 0.5, "food": 0.5} | ({} if gain is None else {"cars": gain})
    choice = choose(compared(GAINS | {"c": best}), {})
    assert [it.name for it in choice.lacking] == ["c"]
    assert [it.name for it in choice.candidates] == ["a", "b"]
    assert choice.unseen.times == [("a", 2), ("b", 1)]


def test_where_none_is_everywhere_the_best_is_that_of_hindsight(compared):
    choice = choose(compared({"a": {"pets": 0.1}, "b": {"food": 0.2}}), {})
    assert (choice.best.name, choice.unseen, choice.lacking) == ("b", None, [])


def test_methods_that_know_the_labels_are_no_candidates(compared):
    more = {name: {"pets": 0.9, "food": 0.9, "cars": 0.9} for name in ("oracle", "best-single")}
    choice = choose(compared(GAINS | more), {})
    assert [it.name for it in choice.candidates] == ["a", "b"]
    assert choose(compared(more), {}) is None
    assert choose([], {}) is None


def test_candidates_are_on_the_zero_shot_head_or_else_on_the_first(compared):
    ours, other = compared(GAINS), compared(GAINS, head="tip-adapter")
    assert choose([*other, *ours], {}).best.head == "zero-shot"
    assert choose(other, {}).best.head == "tip-adapter"
