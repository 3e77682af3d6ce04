"""Cascades and what they are compared with: what each costs, fitted and chosen on the support."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.analyses.cascade import GIVEN, PLAIN, WITHIN, CascadeSettings
from clipsyn.analyses.cascade.measures import (
    average_predictions,
    cascade_curve,
    greedy_order,
    most_accurate,
    pareto_front,
    smallest_threshold,
)
from clipsyn.analyses.predicted import Predicted
from clipsyn.analyses.support import Candidate, make_ensemble, read_support, unseen_scores
from clipsyn.catalog.backbones import cost
from clipsyn.errors import UsageError
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.ensembles.calibrated import fit_temperatures
from clipsyn.methods.estimator import from_text
from clipsyn.methods.numerics.blocks import side_by_side
from clipsyn.methods.numerics.metrics import judge
from clipsyn.methods.pool import Pool
from clipsyn.names import CLEAN, FeatureKey
from clipsyn.store.cell import Cell
from clipsyn.store.features import FeatureStore
from clipsyn.store.pools import PoolReader
from clipsyn.store.select import matching

MOST_FOR_SUBSETS = 9  # backbones, of which there are 511 subsets
_SMALL = 1 << 25  # numbers in all embeddings of a support: 64 MB as they are stored


class CellCost(NamedTuple):
    """What the backbone of one cell costs; None where it was neither published nor recorded."""

    gflops: float  # an image, 2 per multiply-add
    image_params_m: float | None  # millions
    encode_ms: float | None  # an image, as recorded when this cell was extracted
    peak_memory_mb: float | None  # on a GPU: weights of the image tower, and one batch
    process_memory_mb: float | None  # elsewhere: of the process, with all that it held


def cell_cost(store: FeatureStore, key: FeatureKey, given: Mapping[str, float]) -> CellCost:
    """What the backbone of a cell costs.

    GFLOPs are those of `given` (by name), else those recorded when the cell was extracted, else
    the catalogue's. Raises UsageError where none of them knows.
    """
    cell = store.cell(key)
    recorded = cell.provenance
    encoder = recorded.get("encoder") or {}
    published = cost(key.backbone)
    gflops = given.get(key.backbone, encoder.get("gflops"))
    if gflops is None and published:
        gflops = published.image_gflops
    if gflops is None:
        raise UsageError(
            f"what an image costs {key.backbone} is not known: give the GFLOPs of its image tower "
            f"with costs=…, as {key.backbone}=GFLOPS"
        )
    parameters = encoder.get("image_parameters")
    params_m = published.image_params_m if published else None
    return CellCost(
        gflops,
        parameters / 1e6 if parameters else params_m,
        _milliseconds(cell),
        recorded.get("peak_memory_mb"),
        recorded.get("process_memory_mb"),
    )


def _milliseconds(cell: Cell) -> float | None:
    seconds = cell.provenance.get("encode_seconds")
    if not seconds:
        return None
    return 1000 * float(seconds) / cell.group().sizes["sample"]


class Answers(NamedTuple):
    """What a candidate says of labelled samples."""

    confidence: NDArray[np.float32]  # (sample,) calibrated
    correct: NDArray[np.bool_]  # (sample,)


class FittedCandidate(NamedTuple):
    ensemble: Ensemble
    temperature: float  # its scores are divided by this before the softmax
    support: Answers  # on samples of the support that it was not fitted on


@dataclass(frozen=True)
class Evaluation:
    """What every backbone and ensemble gets right of some labelled samples."""

    answers: dict[Candidate, Answers]  # of those that were fitted
    averages: dict[Candidate, NDArray[np.bool_]]  # see `averages`

    @cached_property
    def correct(self) -> dict[Candidate, NDArray[np.bool_]]:
        """(sample,) of every candidate."""
        fitted = {candidate: answers.correct for candidate, answers in self.answers.items()}
        return fitted | self.averages

    def along(
        self, text: str, order: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Confidence and correctness (stage, sample) at the stages of a cascade."""
        stages = [self.answers[candidate] for candidate in stages_of(text, order)]
        return np.stack([it.confidence for it in stages]), np.stack([it.correct for it in stages])


def evaluate(
    fitted: Mapping[Candidate, FittedCandidate], order: Sequence[str], reader: PoolReader
) -> Evaluation:
    """What all candidates get right of the labelled samples of some cells, read in blocks."""
    embeddings = any(it.ensemble.needs_embeddings for it in fitted.values())
    pools = (block.labelled() for block in reader.blocks(embeddings=embeddings))
    parts = [(answer(fitted, pool), averages(pool, order)) for pool in pools]
    answers = {}
    for candidate in fitted:
        pairs = zip(*(part[candidate] for part, _ in parts), strict=True)
        answers[candidate] = Answers(*(np.concatenate(blocks) for blocks in pairs))
    plain = _subsets(PLAIN, order)
    return Evaluation(
        answers, {it: np.concatenate([part[it] for _, part in parts]) for it in plain}
    )


def candidates(order: Sequence[str], ensembles: Sequence[str]) -> list[Candidate]:
    """Each backbone on its own, the stages of each cascade, and ensembles of other subsets.

    Up to `MOST_FOR_SUBSETS` backbones, an ensemble with nothing to fit is there for every subset.
    The plain average is there for the stages alone: `averages` has it for other subsets.
    """
    every = [Candidate.single(name) for name in order]
    for text in ensembles:
        every += stages_of(text, order)
        if text != PLAIN and not make_ensemble(text).learns:
            every += _subsets(text, order)
    return list(dict.fromkeys(every))


def stages_of(text: str, order: Sequence[str]) -> list[Candidate]:
    """The stages of a cascade: the first backbone on its own, then an ensemble of the first k."""
    first = Candidate(None, tuple(order[:1]))
    return [first, *(Candidate(text, tuple(order[:k])) for k in range(2, len(order) + 1))]


def averages(pool: Pool, order: Sequence[str]) -> dict[Candidate, NDArray[np.bool_]]:
    """(sample,) what the plain average of each subset that is no stage gets right."""
    subsets = list(_subsets(PLAIN, order))
    if not subsets:
        return {}
    bits = {name: 1 << column for column, name in enumerate(pool.backbones)}
    right = average_predictions(pool.logits) == pool.labels
    return {it: right[sum(bits[name] for name in it.backbones)] for it in subsets}


def _subsets(text: str, order: Sequence[str]) -> Iterator[Candidate]:
    """An ensemble of each subset of two or more backbones that is no stage of a cascade."""
    if len(order) <= MOST_FOR_SUBSETS:
        for size in range(2, len(order)):
            for names in combinations(order, size):
                if names != tuple(order[:size]):
                    yield Candidate(text, names)


def fit_candidates(
    candidates: Iterable[Candidate], pool: Pool, seed: int
) -> dict[Candidate, FittedCandidate]:
    """Every candidate, fitted on all of the support `pool`.

    Temperatures, and the answers on the support, are from `unseen_scores`. Where the pool is small,
    each core fits other candidates. Raises LeakError for the test split.
    """
    every = list(candidates)
    small = sum(array.size for array in pool.embeddings.values()) <= _SMALL
    fits = (side_by_side if small else map)(lambda one: _fit(one, pool, seed), every)
    return dict(zip(every, fits, strict=True))


def answer(fitted: Mapping[Candidate, FittedCandidate], pool: Pool) -> dict[Candidate, Answers]:
    """What fitted candidates say of other labelled samples."""
    return {
        candidate: _answers(it.ensemble.combine(_seen(candidate, pool)), it.temperature, pool)
        for candidate, it in fitted.items()
    }


def _seen(candidate: Candidate, pool: Pool) -> Pool:
    """What a candidate sees of a pool of all backbones, as ensembles order them."""
    return pool.of_backbones(sorted(candidate.backbones))


def _fit(candidate: Candidate, pool: Pool, seed: int) -> FittedCandidate:
    seen = _seen(candidate, pool)
    ensemble = make_ensemble(candidate.ensemble or PLAIN, seed).fit(seen)
    scores = unseen_scores(ensemble, seen)
    temperature = float(fit_temperatures(scores[:, None], pool.labels)[0])
    return FittedCandidate(ensemble, temperature, _answers(scores, temperature, pool))


def _answers(scores: NDArray[np.float32], temperature: float, pool: Pool) -> Answers:
    judged = judge(scores / np.float32(temperature), pool.labels)
    return Answers(judged.confidence, judged.prediction == pool.labels)


class OnSupport(NamedTuple):
    """What is known of a candidate from the support; the fields are names of metrics."""

    support_acc1: float
    support_mean_gflops: float
    front: float  # 1 for a candidate on the Pareto front of these two, else 0


@dataclass(frozen=True)
class FittedCascades:
    """Everything that is fitted and chosen on the support of one dataset."""

    settings: CascadeSettings
    gflops: dict[str, float]  # of each backbone, in the order they run
    candidates: dict[Candidate, FittedCandidate]
    support: Evaluation
    origin: Mapping[str, Any]  # which samples were learned from: see `read_support`

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(self.gflops)

    def price(self, backbones: Sequence[str]) -> float:
        """GFLOPs of an image that all of these backbones see."""
        return math.fsum(self.gflops[name] for name in backbones)

    @cached_property
    def best(self) -> str:
        """The backbone with the highest accuracy on the support, the cheapest of equals."""
        right = {name: self.support.correct[Candidate.single(name)].mean() for name in self.order}
        return most_accurate(right, self.gflops)

    @cached_property
    def cascades(self) -> dict[str, list[Candidate]]:
        """By ensemble: one for each threshold of the settings, and one for the threshold chosen."""
        within = self.settings.within_points / 100
        cascades = {}
        for text in self.settings.ensembles:
            chosen = smallest_threshold(*self.support.along(text, self.order), within)
            thresholds = [(threshold, GIVEN) for threshold in self.settings.thresholds]
            thresholds.append((chosen, WITHIN))
            cascades[text] = [Candidate(text, self.order, *threshold) for threshold in thresholds]
        return cascades

    @cached_property
    def on_support(self) -> dict[Candidate, OnSupport]:
        """For every candidate; cascades come last."""
        points = {
            candidate: (float(right.mean()), self.price(candidate.backbones))
            for candidate, right in self.support.correct.items()
        }
        gflops = np.array(list(self.gflops.values()))
        for text, cascades in self.cascades.items():
            thresholds = np.array([cascade.threshold for cascade in cascades])
            curve = cascade_curve(*self.support.along(text, self.order), gflops, thresholds)
            pairs = zip(curve.accuracy.tolist(), curve.cost.tolist(), strict=True)
            points |= zip(cascades, pairs, strict=True)
        accuracies, costs = np.array(list(points.values())).T
        front = pareto_front(costs, accuracies)
        return {
            candidate: OnSupport(*point, float(in_front))
            for (candidate, point), in_front in zip(points.items(), front, strict=True)
        }


def fit(
    group: Predicted, measured: Iterable[Predicted], settings: CascadeSettings
) -> FittedCascades:
    """Order the backbones of a group, and fit every candidate, on the support.

    measured: all of the dataset that is measured on. Raises UsageError for a single backbone or an
    unknown cost, and what `read_support` does.
    """
    if len(group.backbones) < 2:
        raise UsageError(
            f"a cascade needs at least two backbones, and {group.samples.dataset}/"
            f"{group.samples.split} has {group.backbones[0]} alone: name more with backbones=…, "
            "or extract them"
        )
    reader = group.reader(settings.support, CLEAN.label)
    pool, _, origin = read_support(reader, measured, settings)
    costs = {key.backbone: cell_cost(group.store, key, settings.costs) for key in group.keys}
    gflops = {name: cost.gflops for name, cost in costs.items()}
    order = backbone_order(pool, gflops, settings)
    every = candidates(order, settings.ensembles)
    fitted = fit_candidates(every, pool, settings.seed)
    answers = {candidate: it.support for candidate, it in fitted.items()}
    return FittedCascades(
        settings,
        {name: gflops[name] for name in order},
        fitted,
        Evaluation(answers, averages(pool, order)),
        origin,
    )


def backbone_order(
    pool: Pool, gflops: Mapping[str, float], settings: CascadeSettings
) -> tuple[str, ...]:
    """The order in which a cascade runs the backbones of a support pool.

    "cost": the cheapest first, equals by name. "greedy": see `greedy_order`, with the accuracy of
    the average of the logits. "given": as the settings name the backbones.
    """
    if settings.order == "given":
        terms = settings.backbones or ()
        return tuple(dict.fromkeys(n for term in terms for n in matching(term, pool.backbones)))
    by_cost = sorted(pool.backbones, key=lambda name: (gflops[name], name))
    if settings.order == "cost":
        return tuple(by_cost)
    plain = from_text(ENSEMBLES, PLAIN)
    return greedy_order(
        {name: gflops[name] for name in by_cost},
        lambda names: float(plain.score(pool.of_backbones(names))),
    )
