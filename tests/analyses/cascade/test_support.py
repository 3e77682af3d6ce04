"""The order in which cascades run backbones."""

from __future__ import annotations

import pytest

from clipsyn.analyses.cascade import CascadeSettings
from clipsyn.analyses.cascade.fitted import backbone_order

COST = CascadeSettings()


@pytest.mark.parametrize(
    ("gflops", "expected"),
    [
        ({"a": 3.0, "b": 1.0, "c": 2.0}, ("b", "c", "a")),
        ({"a": 1.0, "b": 1.0, "c": 0.0}, ("c", "a", "b")),  # equals by name
    ],
)
def test_the_cheapest_comes_first(gflops, expected):
    assert backbone_order(tuple("abc"), gflops, COST) == expected


def test_the_order_may_be_given_with_patterns():
    names = ("x/openai", "y/zoo", "z/openai")
    gflops = dict.fromkeys(names, 1.0)
    given = CascadeSettings(order="given", backbones=("y*", "z/openai", "*/openai"))
    assert backbone_order(names, gflops, given) == ("y/zoo", "z/openai", "x/openai")
