"""`clipsyn.show.progress`: bars on a terminal, a line now and then elsewhere."""

import io
import logging
import sys

import pytest

from clipsyn.show import progress as module
from clipsyn.show.progress import progress


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_line_says_how_far_how_fast_and_how_long(clock, caplog):
    caplog.set_level(logging.INFO, "clipsyn")
    with progress("images") as counters:
        counter = counters.add("toy · one", 10_000, done=4_000)
        for _ in range(10):
            clock.now += 2
            counters.advance(counter, 100)
        assert caplog.messages == [
            "toy · one: 4,500/10,000, 50 images/s, 110 s left",
            "toy · one: 5,000/10,000, 50 images/s, 100 s left",
        ]
        counters.finish(counter)
    assert caplog.messages[-1] == "toy · one: 5,000 of 10,000 images in 20.0 s"


def test_what_comes_after_the_end_is_passed_over(clock, caplog):
    """Another worker may have finished what is still counted here."""
    caplog.set_level(logging.INFO, "clipsyn")
    with progress() as counters:
        counter = counters.add("one", 5)
        counters.finish(counter)
        clock.now += 60
        counters.advance(counter, 5)
        counters.finish(counter)
        counters.finish(counters.add("two", 3))
    assert caplog.messages == ["one: 0 of 5 images in 0.0 s", "two: 0 of 3 images in 0.0 s"]


@pytest.fixture(autouse=True)
def _talkative(caplog):
    caplog.set_level(logging.INFO, "clipsyn")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def at_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return terminal


def test_a_terminal_gets_bars(monkeypatch):
    terminal = at_a_terminal(monkeypatch)
    with progress("groups") as counters:
        counter = counters.add("verifying", 3, done=1)
        counters.advance(counter, 1)
        counters._bars.refresh()
        counters.finish(counter)
    assert "verifying" in terminal.getvalue()
    assert "2/3" in terminal.getvalue()


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_bar_takes_one_line(columns, clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    bars = module._bars()
    counters = module.Progress("images", bars)
    names = [
        f"a-dataset-of-textures/test · jpeg-{n} · coca_ViT-L-14/laion2b_s13b" for n in range(3)
    ]
    for name in names:
        counter = counters.add(name, 1_000_000)
        clock.now += 10
        counters.advance(counter, 100_000)
    with bars.console.capture() as capture:
        bars.console.print(bars.get_renderable())
    lines = capture.get().rstrip("\n").split("\n")
    assert len(lines) == 3
    assert all(len(line) <= columns for line in lines)
    assert all("100000/1000000" in line for line in lines)
    assert all(("10,000 images/s" in line) == (columns >= 80) for line in lines)
