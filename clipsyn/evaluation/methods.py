"""A head and ensembles on top of it: fitted on the support, then shown a target.

`fit_head` gets the support alone, `fit_ensemble` what the head says of it, and
`clipsyn.evaluation.shown` shows the targets to what is fitted, so that labels of a target cannot
reach a fit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from clipsyn import __version__
from clipsyn.methods.chosen import choose
from clipsyn.methods.ensembles import BEST_SINGLE, CHOSEN, ENSEMBLES
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.estimator import from_text
from clipsyn.methods.heads import HEADS
from clipsyn.methods.heads.base import Head
from clipsyn.methods.stream import Support

ORACLE = "oracle"


class Combiner(NamedTuple):
    """A fitted head, and the pool that ensembles on top of it are fitted on."""

    name: str  # of the head
    head: Head
    pool: Support
    best: str | None  # the backbone that was best on the support
    seconds: float  # of the head
    n: int  # samples learned from


class Method(NamedTuple):
    """A fitted ensemble and the seconds it took."""

    ensemble: Ensemble
    seconds: float
    choice: str | None = None  # the head and the ensemble that were chosen


@cache
def versions(head: str, ensemble: str | None) -> list[str]:
    """Versions of clipsyn, and of other packages that the head or the ensemble come from."""
    names = (
        (registry, text.partition(":")[0])
        for registry, text in ((HEADS, head), (ENSEMBLES, ensemble or ORACLE))
    )
    return [__version__, *filter(None, (registry.package(name) for registry, name in names))]


@cache
def learns(head: str, name: str | None) -> bool:
    """Whether a method learns from labelled samples."""
    return head == CHOSEN or any(estimator.learns for estimator in _parts(head, name))


@cache
def is_random(head: str, name: str | None) -> bool:
    """Whether a seed changes a method that is fitted on the whole support."""
    if head == CHOSEN:
        return True
    pairs = zip(_parts(head, name, 0), _parts(head, name, 1), strict=True)
    return any(one.get_params() != other.get_params() for one, other in pairs)


def _parts(head: str, name: str | None, seed: int | None = None) -> Iterator[Any]:
    yield from_text(HEADS, head, seed)
    if name is not None and name != ORACLE:
        yield from_text(ENSEMBLES, name, seed)


def fit_head(support: Support, text: str, seed: int | None) -> Combiner:
    """Fit a head on the support.

    Raises TooFewSamples where the head cannot spare samples for a combiner.
    """
    head = from_text(HEADS, text, seed)
    start = time.perf_counter()
    pool = head.fit_transform(support)
    seconds = time.perf_counter() - start
    n = getattr(head, "sampled_", len(support.labelled()))
    return Combiner(text, head, pool, _best(pool), seconds, n)


def fit_ensemble(combiner: Combiner, text: str, seed: int | None) -> Method:
    """Fit an ensemble on what a head says of the support."""
    ensemble = from_text(ENSEMBLES, text, seed)
    start = time.perf_counter()
    ensemble.fit(combiner.pool)
    return Method(ensemble, time.perf_counter() - start)


def fit_chosen(
    support: Support, heads: Sequence[str], ensembles: Sequence[str], seed: int | None
) -> tuple[Combiner, Method]:
    """The head and the ensemble that the support chooses, fitted on it; all seconds are said of
    the ensemble.

    Raises TooFewSamples where no head can spare samples for a combiner.
    """
    start = time.perf_counter()
    choice = choose(support, heads, ensembles, seed)
    seconds = time.perf_counter() - start
    chosen = choice.candidates[0]
    combiner = Combiner(
        chosen.head, choice.head, choice.pool, _best(choice.pool), 0, len(support.labelled())
    )
    return combiner, Method(choice.ensemble, seconds, chosen.name)


def _best(support: Support) -> str | None:
    """The backbone that is best on the support, if there is one to choose on."""
    if not len(support) or len(support.backbones) == 1:
        return support.backbones[0] if len(support) else None
    best: str = from_text(ENSEMBLES, BEST_SINGLE).fit(support).best_
    return best
