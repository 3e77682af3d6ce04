"""The order in which cascades run backbones, chosen on the support."""

from __future__ import annotations

import pytest

from clipsyn.analyses.cascade import CascadeSettings
from clipsyn.analyses.cascade.fitted import backbone_order

COST, GREEDY = CascadeSettings(), CascadeSettings(order="greedy")


@pytest.mark.parametrize(
    ("gflops", "expected"),
    [
        ({"a": 3.0, "b": 1.0, "c": 2.0}, ("b", "c", "a")),
        ({"a": 1.0, "b": 1.0, "c": 0.0}, ("c", "a", "b")),  # equals by name
    ],
)
def test_the_cheapest_comes_first(pool, gflops, expected):
    assert backbone_order(pool({"a": [1], "b": [1], "c": [1]}), gflops, COST) == expected


def test_the_order_may_be_given_with_patterns(pool):
    names = {"x/openai": [1], "y/zoo": [1], "z/openai": [1]}
    gflops = dict.fromkeys(names, 1.0)
    given = CascadeSettings(order="given", backbones=("y*", "z/openai", "*/openai"))
    assert backbone_order(pool(names), gflops, given) == ("y/zoo", "z/openai", "x/openai")


def test_greedy_by_hand(pool):
    # Sure of themselves are, from least to most, a (1), b (2), c (4): the surest decides.
    answers = {"a": [1, 1, 0, 0], "b": [1, 1, 1, 0], "c": [0, 1, 1, 1]}
    # a: 0.5 / 1, b: 0.75 / 2, c: 0.75 / 2: a. Then a+b is b: 0.25 / 2; a+c is c: 0.25 / 2: equal,
    # so in order of cost and name: b. Then all three: c outweighs both, 0.75: nothing gained.
    gflops = {"a": 1.0, "b": 2.0, "c": 2.0}
    assert backbone_order(pool(answers), gflops, GREEDY) == ("a", "b", "c")
    # a dearer b: 0.25 / 2 for c is more than 0.25 / 5
    gflops["b"] = 5.0
    assert backbone_order(pool(answers), gflops, GREEDY) == ("a", "c", "b")


def test_greedy_takes_the_least_loss_whatever_it_costs(pool):
    # c is right, b and d outvote it; with b two images are lost, with d one
    answers = {"c": [1, 1, 1, 1], "b": [0, 0, 1, 1], "d": [0, 1, 1, 1]}
    gflops = {"c": 1.0, "b": 9.0, "d": 3.0}
    assert backbone_order(pool(answers), gflops, GREEDY) == ("c", "d", "b")
    assert backbone_order(pool(answers), gflops | {"d": 90.0}, GREEDY)[1] == "d"


def test_greedy_takes_a_gain_for_nothing_first(pool):
    gflops = {"a": 1.0, "b": 0.0, "c": 1.0}
    answers = {"a": [1, 1], "b": [0, 1], "c": [1, 1]}
    assert backbone_order(pool(answers), gflops, GREEDY)[0] == "b"
