"""The picture beside the answer: accuracies of backbones, combinations and the bound as bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from clipsyn.protocol.methods import ORACLE
from clipsyn.report.choice import Choice
from clipsyn.report.html import Html, html, named
from clipsyn.report.means import Mean
from clipsyn.report.standings import Backbone, Standing
from clipsyn.show.numbers import NOTHING, interval_text, percent


class Bar(NamedTuple):
    """One line of the picture beside the answer: an accuracy, with its interval."""

    what: str
    name: str | Html
    accuracy: Mean
    kind: str  # single, chosen, combined or oracle: how it is coloured

    @property
    def percent(self) -> str:
        return f"{100 * self.accuracy.value:.2f}"

    @property
    def low(self) -> str | None:
        return None if self.accuracy.low is None else f"{100 * self.accuracy.low:.2f}"

    @property
    def high(self) -> str | None:
        return None if self.accuracy.high is None else f"{100 * self.accuracy.high:.2f}"

    @property
    def text(self) -> Html:
        between = interval_text(self.accuracy.low, self.accuracy.high)
        shown = "" if between == NOTHING else html("<small>{}</small>", between)
        return html("{} % {}", percent(self.accuracy.value), shown)


def bars(
    alone: Sequence[Backbone], chosen: Standing | None, choice: Choice | None, bound: Mean | None
) -> Iterator[Bar]:
    yield Bar("best backbone, in hindsight", named(alone[0].name), alone[0].accuracy, "single")
    if chosen:
        yield Bar("backbone chosen on the support", "", chosen.accuracy, "chosen")
    if choice:
        yield from _bars_of(choice)
    if bound:
        yield Bar("a perfect choice for each image", named(ORACLE), bound, ORACLE)


def _bars_of(choice: Choice) -> Iterator[Bar]:
    best = choice.best
    if choice.unseen:
        name = named(choice.name) if choice.name else ""
        about = "combination chosen on other datasets"
        yield Bar(about, name, choice.unseen.accuracy, "combined")
    if not choice.name:
        yield Bar("best combination, in hindsight", named(best.name), best.accuracy, "single")
    elif not choice.unseen:
        yield Bar("best combination", named(best.name), best.accuracy, "combined")
