from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from clipsyn.protocol import estimate as module
from clipsyn.protocol.estimate import Estimate, duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    caplog.set_level(logging.INFO, "clipsyn")
    return clock


def finish(estimate: Estimate, clock: SimpleNamespace, seconds: float, *, new: bool = True) -> None:
    estimate.count(new=new, finished=False)
    clock.now += seconds
    estimate.count(new=False, finished=True)


def test_the_first_that_fits_something_new_tells_of_the_others(clock, caplog):
    estimate = Estimate([False, True, True, False, True, True], workers=1)
    finish(estimate, clock, 500)  # nothing is fitted
    finish(estimate, clock, 1, new=False)  # known from the results file
    assert caplog.messages == []
    finish(estimate, clock, 40)
    finish(estimate, clock, 7)
    finish(estimate, clock, 7)
    assert caplog.messages == ["the first fits took 40 s: 2 more like it take about 80 s"]


def test_side_by_side_they_share_the_time(clock, caplog):
    estimate = Estimate([False, *[True] * 9], workers=4)
    finish(estimate, clock, 20)
    finish(estimate, clock, 10)
    assert caplog.messages == ["the first fits took 30 s: 8 more like it take about 60 s"]


def test_what_is_soon_over_is_not_said(clock, caplog):
    estimate = Estimate([True] * 4, workers=1)
    finish(estimate, clock, 3)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (45, "45 s"), (720, "12 min"), (12_600, "3.5 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
