"""Each dataset without labels is judged with what was chosen on the others."""

from __future__ import annotations

import numpy as np
import pytest

from clipsyn.report.answer import elsewhere
from clipsyn.report.standings import Standing

HALF = 0.01  # width of the intervals


def standings(table):
    """Of accuracies by name and dataset."""
    return [
        Standing(
            name, {(it, "test", "clean"): (acc, acc - HALF, acc + HALF) for it, acc in of.items()}
        )
        for name, of in table.items()
    ]


# chosen without pets: b (0.04, a 0.035); without food: a (0.05, b 0.035); without cars: a (0.045)
TABLE = {
    "a": {"pets": 0.06, "food": 0.03, "cars": 0.04},
    "b": {"pets": 0.00, "food": 0.01, "cars": 0.07},
}


def test_each_dataset_has_the_one_that_is_best_on_the_others():
    found = elsewhere(standings(TABLE), {})
    assert found.times == [("a", 2), ("b", 1)]
    assert found.accuracy.value == pytest.approx((0.00 + 0.03 + 0.04) / 3)
    # of independent numbers: the squares of the distances add up
    assert found.accuracy.high - found.accuracy.value == pytest.approx(HALF * np.sqrt(3) / 3)


def test_datasets_that_share_images_are_left_out_together():
    sharing = {"pets": {"cars"}, "cars": {"pets"}}
    found = elsewhere(standings(TABLE), sharing)
    assert found.times == [("a", 3)]  # by food, both, food
    assert elsewhere(standings(TABLE), sharing | {"pets": {"cars", "food"}}) is None


def test_one_candidate_is_always_the_one_and_of_equals_the_first():
    assert elsewhere(standings({"a": TABLE["a"]}), {}).times == [("a", 3)]
    assert elsewhere(standings({"b": TABLE["a"], "a": TABLE["a"]}), {}).times == [("b", 3)]


def test_nothing_is_left_out_where_nothing_would_be_left():
    assert elsewhere(standings({"a": {"pets": 0.1}}), {}) is None
    assert elsewhere([], {}) is None


def test_what_some_dataset_lacks_is_no_candidate():
    assert elsewhere(standings(TABLE | {"c": {"pets": 1}}), {}).times == [("a", 2), ("b", 1)]


@pytest.mark.parametrize("seed", range(20))
def test_a_plain_loop_says_the_same(seed):
    table = np.random.default_rng(seed).normal(0.5, 0.1, (4, 5)).round(4)
    datasets = [f"d{at}" for at in range(5)]
    rows = {
        f"m{at}": dict(zip(datasets, row.tolist(), strict=True)) for at, row in enumerate(table)
    }
    total = 0
    for at in range(5):
        rest = [[table[method][other] for other in range(5) if other != at] for method in range(4)]
        total += table[int(np.argmax(np.mean(rest, axis=1)))][at]
    assert elsewhere(standings(rows), {}).accuracy.value == pytest.approx(total / 5)
