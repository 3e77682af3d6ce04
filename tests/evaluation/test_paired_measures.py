"""Differences of two methods by hand, and against loops over images."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest

from clipsyn.evaluation.paired import Sides, difference
from clipsyn.stats.differences import crossed, mcnemar
from clipsyn.stats.images import Images

ONE, OTHER = np.array([True, False]), np.array([False, False])


def test_the_same_draws_stand_beside_each_other():
    sides = Sides.of({0: ONE, 1: ~ONE}, {None: OTHER})
    assert sides.first.tolist() == [[True, False], [False, True]]
    assert sides.second.tolist() == [[False, False], [False, False]]
    assert sides.draws == 2
    assert Sides.of({None: ONE}, {None: OTHER}).draws == 0
    common = Sides.of({0: ONE, 2: ONE, 1: ~ONE}, {1: OTHER, 0: ~OTHER, 7: OTHER})
    assert common.first.tolist() == [[True, False], [False, True]]
    assert common.second.tolist() == [[True, True], [False, False]]
    assert Sides.of({0: ONE}, {1: OTHER}) is None
    assert Sides.of({0: ONE}, {}) is None


def apart(*sides):
    """Every sample of every set shows an image of its own."""
    ends = np.cumsum([0, *(one.first.shape[1] for one in sides)])
    return [Images(np.arange(*pair), int(ends[-1])) for pair in itertools.pairwise(ends)]


def compared(sides):
    found = difference(sides, apart(*sides))
    images, both = ((found[f"{kind}_low"], found[f"{kind}_high"]) for kind in ("ci", "both"))
    return SimpleNamespace(**found, value=found["difference"], images=images, both=both)


def of_both(*sides):
    lead, drawn = [one.lead for one in sides], [one.drawn for one in sides]
    return crossed(lead, apart(*sides), drawn)


def random_sides(n=60, draws=3, drawn=True):
    rng = np.random.default_rng(n)
    return Sides(rng.random((draws, n)) < 0.7, rng.random((draws, n)) < 0.6, drawn)


def test_intervals_are_those_over_images_and_over_images_and_draws():
    sides = random_sides()
    found = compared([sides])
    assert found.images == crossed([sides.lead], apart(sides), drawn=[False]).interval()
    assert found.both == of_both(sides).interval()
    assert (found.n, found.draws, found.datasets) == (60, 3, 1)


def test_p_is_mcnemars_where_nothing_is_drawn_and_for_one_draw():
    for drawn in (True, False):
        sides = random_sides(draws=1, drawn=drawn)
        found = compared([sides])
        assert found.p == pytest.approx(mcnemar(int(found.only_first), int(found.only_second)))
        assert np.isnan(found.both).all() == drawn
    assert found.both == found.images


def test_p_over_draws_and_images_is_never_below_that_over_images():
    sides = random_sides(400)
    found = compared([sides])
    assert found.p == max(of_both(sides).p_value(), found.mcnemar)
    swinging = compared([sides._replace(first=np.repeat([[True], [False], [True]], 400, axis=1))])
    assert swinging.p > 100 * swinging.mcnemar


def test_a_mean_has_datasets_of_equal_weight():
    large, small = random_sides(300), random_sides(30)
    found = compared([large, small])
    assert found.value == pytest.approx((large.lead.mean() + small.lead.mean()) / 2)
    assert (found.n, found.datasets) == (330, 2)
    assert found.p == pytest.approx(of_both(large, small).p_value())
    still = [Sides(one.first[:1], one.second[:1], False) for one in (large, small)]
    found = compared(still)
    assert found.p == pytest.approx(of_both(*still).p_value())
    assert not math.isnan(found.p)


def test_a_mean_over_few_images_says_no_more_than_a_sign_test():
    always = Sides(np.ones((1, 3), bool), np.zeros((1, 3), bool), False)
    assert compared([always]).p == pytest.approx(2 * 0.5**3)
    assert compared([always, always]).p >= 2 * 0.5**6
