"""The head and the ensemble that a support chooses, of those that are asked for.

Nothing is judged on samples that it has learned from. A head gives a combiner logits that were made
without their labels (`Head.fit_transform`), and an ensemble is fitted on folds of these and judged
on the fold that is left out. So the choice has seen no image but those of the support.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from clipsyn.errors import InputError
from clipsyn.methods.ensembles import BEST_SINGLE, CHOSEN
from clipsyn.methods.ensembles.base import Ensemble, inductive
from clipsyn.methods.estimator import from_text, left_out
from clipsyn.methods.heads import HEADS
from clipsyn.methods.heads.base import Head, repeated
from clipsyn.methods.numerics import Doubles
from clipsyn.methods.numerics.logits import predictions
from clipsyn.methods.pool import Pool, in_memory

_FOLDS = 5
_ENOUGH = 2_000  # samples that a method is judged on: differences of a point show
_LEVEL = 0.05  # of all comparisons together: what is chosen by chance alone


class Candidate(NamedTuple):
    """A head and an ensemble, and how well they do on samples of the support left out of the fit.

    accuracy: NaN where it could not be judged, on n samples. lead: accuracy minus that of the
    chosen candidate on the samples that both are judged on, with its standard error.
    """

    head: str
    ensemble: str
    accuracy: float = math.nan
    n: int = 0
    lead: float = math.nan
    error: float = math.nan

    @property
    def name(self) -> str:
        return f"{self.head} · {self.ensemble}"


class Choice(NamedTuple):
    """What was chosen, fitted on the whole support; all candidates, the chosen one first.

    pool: the support with the logits of the head, as ensembles are fitted on.
    """

    head: Head
    ensemble: Ensemble
    pool: Pool
    candidates: tuple[Candidate, ...]


def choose(
    support: Pool,
    heads: Sequence[str],
    ensembles: Sequence[str],
    seed: int | None = None,
    known: Mapping[str, tuple[Head, Pool]] | None = None,
) -> Choice:
    """Judge each ensemble on each head, and fit the best of them on the whole support.

    heads, ensembles: NAME or NAME:parameter=value, what is best before anything is known first; a
    single backbone always comes last. Each candidate in this order takes the place of the one that
    is chosen so far if it is better by more than chance explains: a one-sided test of paired
    differences, at 5 % over all candidates together (Bonferroni). So few labels leave the order as
    it is, and so does a support in which most classes have one image, since heads that learn cannot
    be judged there.

    known: heads that are fitted on the support, each with the pool for ensembles. Heads and
    ensembles that need more samples, text or embeddings than there are do not count. A
    support larger than memory is judged on a sample of it. Raises InputError where no head can be
    fitted.
    """
    sample = in_memory(support, CHOSEN).labelled()
    sample = replace(sample, ids=sample.ids or tuple(map(str, range(len(sample)))))
    row_of = {name: row for row, name in enumerate(sample.ids)}  # heads may leave some out
    fitted = _fitted(sample, heads, seed, {} if support.is_too_large else known or {})
    has_all = {*sample.backbones} <= sample.embeddings.keys()
    possible = [it for it in ensembles if has_all or not inductive(it).needs_embeddings]
    names = dict.fromkeys([*possible, BEST_SINGLE])
    candidates = [Candidate(head, name) for name in names for head in fitted]
    right = np.full((len(candidates), len(sample)), np.nan)
    if repeated(sample.labels):
        for row, candidate in zip(right, candidates, strict=True):
            pool = fitted[candidate.head][1]
            row[[row_of[name] for name in pool.ids]] = _right(pool, candidate.ensemble, seed)
    ranked = _ranked(candidates, right)
    head, pool = fitted[ranked[0].head]
    if support.is_too_large:
        head = from_text(HEADS, ranked[0].head, seed)
        pool = head.fit_transform(support)
    ensemble = inductive(ranked[0].ensemble, seed)
    return Choice(head, ensemble.fit(pool), pool, ranked)


def _fitted(
    sample: Pool, heads: Sequence[str], seed: int | None, known: Mapping[str, tuple[Head, Pool]]
) -> dict[str, tuple[Head, Pool]]:
    """The heads that can be fitted on this sample, with the pool of each for ensembles."""
    fitted, errors = {}, []
    for name in heads:
        head: Head = from_text(HEADS, name, seed)
        try:
            head, pool = known.get(name) or (head, head.fit_transform(sample))
            fitted[name] = head, in_memory(pool, name)
        except InputError as error:
            errors.append(error)
    if not fitted:
        raise errors[0]
    return fitted


def _right(pool: Pool, name: str, seed: int | None) -> Doubles:
    """(sample,) 1 or 0, whether an ensemble is right that has not learned from it; NaN: not judged.

    Folds after the one with which enough samples are judged are left out.
    """
    ensemble = inductive(name, seed)
    if not ensemble.learns or len(pool) < 2:
        return _is_right(ensemble.fit(pool), pool)
    right = np.full(len(pool), np.nan)
    for held, fitted, unseen in left_out(ensemble, pool, _FOLDS):
        right[held] = _is_right(fitted, unseen)
        if np.count_nonzero(~np.isnan(right)) >= _ENOUGH:
            break
    return right


def _is_right(ensemble: Ensemble, pool: Pool) -> Doubles:
    return np.asarray(predictions(ensemble.combine(pool)) == pool.labels, np.float64)


def _ranked(candidates: Sequence[Candidate], right: Doubles) -> tuple[Candidate, ...]:
    """The chosen candidate first, then the others by their lead over it.

    right: (candidate, sample) 1, 0, or NaN where a candidate could not be judged.
    """
    chosen, bar = 0, NormalDist().inv_cdf(1 - _LEVEL / len(right))
    for at in range(1, len(right)):
        lead, error = _lead(right[at], right[chosen])
        if lead > bar * error:
            chosen = at
    judged = []
    for candidate, row in zip(candidates, right, strict=True):
        n = int(np.count_nonzero(~np.isnan(row)))
        lead, error = _lead(row, right[chosen])
        accuracy = float(np.nanmean(row)) if n else math.nan
        judged.append(candidate._replace(accuracy=accuracy, n=n, lead=lead, error=error))
    first = judged.pop(chosen)
    return (first, *sorted(judged, key=lambda it: (math.isnan(it.lead), -it.lead)))


def _lead(row: Doubles, other: Doubles) -> tuple[float, float]:
    """Mean difference on the samples that both have, and its standard error; NaN for too few."""
    differences = (row - other)[~np.isnan(row - other)]
    if len(differences) < 2:
        return math.nan, math.nan
    return float(differences.mean()), float(differences.std(ddof=1) / math.sqrt(len(differences)))
