"""How long fits will take: what is expected, what corrects it, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from clipsyn.ensembles import ENSEMBLES
from clipsyn.estimator import Shape, Work, from_text
from clipsyn.heads import HEADS
from clipsyn.protocol.estimate import (
    Cost,
    Costs,
    Estimate,
    Kind,
    Rates,
    duration,
    measured_rates,
)
from clipsyn.protocol.plan import Fit, Result, Shapes, Subject, Task

SUPPORT = Shape(1000, 9, 100, 4000)
TARGETS = (Shape(5000, 9, 100, 4000), Shape(700, 9, 100, 4000))
RATES = Rates(1e-11, 1e-9)
NLC, GREEDY = Kind("zero-shot", "nlc"), Kind("zero-shot", "greedy")


def test_the_rates_are_those_of_a_machine():
    rates = measured_rates()
    assert 1e-14 < rates.product < rates.value < 1e-6
    assert rates.seconds(Work(2, 3, 4)) == pytest.approx(2 * rates.product + 3 * rates.value + 4)


class TestWhatIsLeft:
    def test_is_what_is_expected_at_first(self):
        estimate = Estimate(workers=1)
        estimate.add(NLC, Cost(3.0, 1.0), 1)
        estimate.add(NLC, Cost(7.0, 1.0), 1)
        estimate.add(GREEDY, Cost(0.5, 0.5), 1)
        assert estimate.left == pytest.approx(13)

    def test_is_corrected_by_what_fits_of_the_same_kind_took(self):
        estimate = Estimate(workers=1)
        for kind, seconds in ((NLC, 1.0), (GREEDY, 2.0)):
            for _ in range(10):
                estimate.add(kind, Cost(seconds, 0.0), 1)
        for _ in range(9):
            estimate.done(NLC, Cost(1.0, 0.0), 1, 3.0)
            estimate.done(GREEDY, Cost(2.0, 0.0), 1, 1.0)
        assert estimate.left == pytest.approx(3.0 + 1.0, rel=0.05)

    def test_small_fits_say_little_of_large_ones(self):
        estimate = Estimate(workers=1)
        estimate.add(NLC, Cost(0.01, 0.0), 1)
        estimate.add(NLC, Cost(100.0, 0.0), 1)
        estimate.done(NLC, Cost(0.01, 0.0), 1, 0.1)
        assert estimate.left == pytest.approx(100, rel=0.05)

    def test_other_kinds_tell_how_busy_the_machine_is(self):
        estimate = Estimate(workers=1)
        estimate.add(NLC, Cost(100.0, 0.0), 1)
        estimate.add(GREEDY, Cost(10.0, 0.0), 1)
        estimate.done(NLC, Cost(100.0, 0.0), 1, 200.0)
        assert estimate.left == pytest.approx(20, rel=0.1)

    def test_is_told_by_the_first_fit_where_nothing_is_expected(self):
        estimate = Estimate(workers=1)
        for _ in range(4):
            estimate.add(NLC, Cost(None, 1.0), 1)
        assert estimate.left == 0
        estimate.done(NLC, Cost(None, 1.0), 1, 6.0)
        assert estimate.left == pytest.approx(18)

    def test_is_shared_by_the_workers(self):
        estimate = Estimate(workers=4)
        estimate.add(NLC, Cost(100.0, 20.0), 1)
        assert estimate.left == pytest.approx(30)

    def test_has_no_part_of_what_cannot_be_fitted(self):
        estimate = Estimate(workers=1)
        for _ in range(2):
            estimate.add(NLC, Cost(50.0, 0.0), 1)
        estimate.done(NLC, Cost(50.0, 0.0), 1, None)
        assert estimate.left == pytest.approx(50)


class TestTheTable:
    def test_has_a_line_a_method_the_longest_first(self):
        estimate = Estimate(workers=2)
        for kind, seconds in ((GREEDY, 30.0), (NLC, 120.0), (NLC, 240.0)):
            estimate.add(kind, Cost(seconds, 0.0), 1)
        estimate.add(Kind("lda", "nlc"), Cost(210.0, 30.0), 1)
        estimate.add(Kind("lda", None), Cost(100.0, 0.0), 0)
        estimate.add(Kind("lda", None), Cost(0.0, 20.0), 1)
        estimate.add(Kind("zero-shot", "log-avg"), Cost(0.0, 0.5), 1)
        estimate.add(Kind("zero-shot", "theirs"), Cost(None, 0.5), 3)
        title, _, *lines = estimate.table().splitlines()
        assert title == "9 fits by 2 workers, in about 6 min"
        assert [line.split() for line in lines if line.strip("─ ")][-5:] == [
            ["nlc", "3", "3", "min", "10", "min"],
            ["lda", "(head)", "1", "2", "min", "2", "min"],
            ["greedy", "1", "30", "s", "30", "s"],
            ["theirs", "3", "its", "first", "fit", "will", "tell"],
            ["others", "1", "0.5", "s", "0.5", "s"],
        ]

    def test_is_none_where_it_is_soon_over(self):
        estimate = Estimate(workers=1)
        estimate.add(NLC, Cost(4.0, 5.0), 1)
        assert estimate.table() == ""


def fit(ensemble: str | None, *subjects: Subject, shots: int | None = 16) -> Fit:
    results = (Result(subject, shots, 0, str(number)) for number, subject in enumerate(subjects))
    return Fit(ensemble, 0, tuple(results))


class TestCosts:
    costs = Costs(Shapes(SUPPORT, TARGETS), RATES)

    def of(self, name: str, *, head: str = "zero-shot", rows: int = 1000) -> Cost:
        fits = (fit("nlc", Subject(0, "nlc")), fit(name, Subject(0, name), Subject(1, name)))
        return self.costs.of_fit(Task(head, 0, np.arange(rows), fits), 1)

    def test_are_those_of_the_draw_and_of_all_targets(self):
        few, many = self.of("super-learner", rows=100), self.of("super-learner")
        assert few.fit < many.fit
        assert few.rest == many.rest
        alone = fit("super-learner", Subject(0, "super-learner"))
        one = self.costs.of_fit(Task("zero-shot", 0, np.arange(9), (alone, alone)), 1)
        assert one.rest < many.rest

    def test_of_the_first_fit_have_the_head_on_the_targets(self):
        fits = (fit("greedy", Subject(0, "greedy")), fit("greedy", Subject(0, "greedy")))
        task = Task("tip-adapter", 0, np.arange(1000), fits)
        first, second = self.costs.of_fit(task, 0), self.costs.of_fit(task, 1)
        transforms = RATES.seconds(from_text(HEADS, "tip-adapter").use_work(TARGETS[0], SUPPORT))
        assert first.rest - second.rest > transforms > 0
        assert self.costs.of_head(task).fit > 0

    def test_of_gains_over_another_backbone_are_small(self):
        gains = fit(None, Subject(0, "log-avg"), Subject(0, "oracle"))
        drawn = self.costs.of_fit(Task("zero-shot", 0, np.arange(1000), (gains,)), 0)
        nothing = fit(None, Subject(0, "log-avg"), shots=0)
        measured = self.costs.of_fit(Task("zero-shot", None, np.arange(0), (nothing,)), 0)
        assert drawn.all < 0.05 * measured.all

    def test_are_not_known_of_what_does_not_say(self, monkeypatch):
        monkeypatch.setattr(ENSEMBLES.load("greedy"), "fit_work", lambda self, shape: None)
        assert self.of("greedy").all is None


@pytest.mark.parametrize("name", [*HEADS, *ENSEMBLES])
def test_all_say_what_they_take(name):
    estimator = from_text(HEADS if name in HEADS else ENSEMBLES, name)
    larger = SUPPORT._replace(samples=4000)
    for work in (estimator.fit_work, lambda shape: estimator.use_work(shape, shape)):
        small, large = RATES.seconds(work(SUPPORT)), RATES.seconds(work(larger))
        assert 0 <= small <= large < 100 * small + 1e-9
        assert np.isfinite(large)
    if estimator.learns:
        assert RATES.seconds(estimator.fit_work(SUPPORT)) > 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (45, "45 s"), (720, "12 min"), (12_600, "3.5 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
