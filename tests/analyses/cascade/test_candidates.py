"""What cascades are compared with, and the order they run backbones in."""

from __future__ import annotations

import numpy as np
import pytest

from clipsyn.analyses.cascade.candidates import (
    Settings,
    along,
    averages,
    backbone_order,
    candidates,
    steps,
)
from clipsyn.analyses.cascade.stages import Candidate, Seen
from clipsyn.pool import Pool

ABC = ("a", "b", "c")


def settings(order: str = "cost", given: tuple[str, ...] = ()) -> Settings:
    return Settings(("log-avg",), order, given, (0.5,), 0.01, False, {}, "train", None, 0)


def pool(answers: dict[str, list[int]]) -> Pool:
    """Backbones that answer 1 or 0 on images of class 1, one twice as sure as the one before."""
    columns = [
        [[0, 2.0**place] if answer else [2.0**place, 0] for answer in row]
        for place, row in enumerate(answers.values())
    ]
    logits = np.array(columns).transpose(1, 0, 2)
    return Pool.of(logits, np.ones(len(logits), int), backbones=tuple(answers), split="train")


@pytest.mark.parametrize(
    ("gflops", "expected"),
    [
        ({"a": 3.0, "b": 1.0, "c": 2.0}, ("b", "c", "a")),
        ({"a": 1.0, "b": 1.0, "c": 0.0}, ("c", "a", "b")),  # equals by name
    ],
)
def test_the_cheapest_comes_first(gflops, expected):
    assert backbone_order(pool({"a": [1], "b": [1], "c": [1]}), gflops, settings()) == expected


def test_the_order_may_be_given_with_patterns():
    names = {"x/openai": [1], "y/zoo": [1], "z/openai": [1]}
    gflops = dict.fromkeys(names, 1.0)
    given = settings("given", ("y*", "z/openai", "*/openai"))
    assert backbone_order(pool(names), gflops, given) == ("y/zoo", "z/openai", "x/openai")


def test_greedy_by_hand():
    # Sure of themselves are, from least to most, a (1), b (2), c (4): the surest decides.
    answers = {"a": [1, 1, 0, 0], "b": [1, 1, 1, 0], "c": [0, 1, 1, 1]}
    # a: 0.5 / 1, b: 0.75 / 2, c: 0.75 / 2: a. Then a+b is b: 0.25 / 2; a+c is c: 0.25 / 2: equal,
    # so in order of cost and name: b. Then all three: c outweighs both, 0.75: nothing gained.
    gflops = {"a": 1.0, "b": 2.0, "c": 2.0}
    assert backbone_order(pool(answers), gflops, settings("greedy")) == ("a", "b", "c")
    # a dearer b: 0.25 / 2 for c is more than 0.25 / 5
    gflops["b"] = 5.0
    assert backbone_order(pool(answers), gflops, settings("greedy")) == ("a", "c", "b")


def test_greedy_takes_the_least_loss_whatever_it_costs():
    # c is right, b and d outvote it; with b two images are lost, with d one
    answers = {"c": [1, 1, 1, 1], "b": [0, 0, 1, 1], "d": [0, 1, 1, 1]}
    gflops = {"c": 1.0, "b": 9.0, "d": 3.0}
    assert backbone_order(pool(answers), gflops, settings("greedy")) == ("c", "d", "b")
    assert backbone_order(pool(answers), gflops | {"d": 90.0}, settings("greedy"))[1] == "d"


def test_greedy_takes_a_gain_for_nothing_first():
    gflops = {"a": 1.0, "b": 0.0, "c": 1.0}
    answers = {"a": [1, 1], "b": [0, 1], "c": [1, 1]}
    assert backbone_order(pool(answers), gflops, settings("greedy"))[0] == "b"


def test_every_subset_of_what_has_nothing_to_fit():
    found = candidates(ABC, ["conf", "nlc"], every=False)
    assert found == [
        *(Candidate(None, (name,)) for name in ABC),
        Candidate("conf", ("a", "b")),
        Candidate("conf", ABC),
        Candidate("conf", ("a", "c")),
        Candidate("conf", ("b", "c")),
        Candidate("nlc", ("a", "b")),
        Candidate("nlc", ABC),
    ]


def test_every_subset_of_all_but_the_masked():
    found = candidates(ABC, ["nlc", "masked-nlc"], every=True)
    assert {c.backbones for c in found if c.ensemble == "nlc"} == {
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
        ABC,
    }
    assert [c.backbones for c in found if c.ensemble == "masked-nlc"] == [("a", "b"), ABC]


def test_subsets_end_at_nine_backbones():
    nine, ten = ([f"m{place}" for place in range(count)] for count in (9, 10))
    assert len(candidates(nine, ["conf"], every=False)) == 511
    assert len(candidates(ten, ["conf"], every=True)) == 10 + 9
    answers = {name: [1] for name in ten}
    assert averages(pool(answers), ten) == {}
    answers.pop("m9")
    whole = candidates(nine, ["log-avg"], every=True)  # its other subsets are all made at once
    assert len([*whole, *averages(pool(answers), nine)]) == 511


def test_averages_of_all_subsets_but_the_stages():
    answers = pool({"a": [1, 1, 0, 0], "b": [1, 1, 1, 0], "c": [0, 1, 1, 1]})  # c is the surest
    found = averages(answers, ("b", "a", "c"))
    assert {candidate: right.tolist() for candidate, right in found.items()} == {
        Candidate("log-avg", ("b", "c")): [False, True, True, True],
        Candidate("log-avg", ("a", "c")): [False, True, True, True],
    }


def test_a_cascade_begins_with_a_backbone_on_its_own():
    assert steps("nlc", ABC) == [
        Candidate(None, ("a",)),
        Candidate("nlc", ("a", "b")),
        Candidate("nlc", ABC),
    ]
    seen = {
        candidate: Seen(np.full(2, place, np.float32), np.array([place == 1, True]))
        for place, candidate in enumerate(steps("nlc", ABC))
    }
    confidence, correct = along(seen, "nlc", ABC)
    assert confidence.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert correct.tolist() == [[False, True], [True, True], [False, True]]
