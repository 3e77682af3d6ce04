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
    most_accurate,
    pareto_front,
    smallest_threshold,
)
from clipsyn.analyses.predicted import (
    Candidate,
    Predicted,
    make_ensemble,
    read_support,
    unseen_scores,
)
from clipsyn.catalog.backbones import cost
from clipsyn.errors import UsageError
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.ensembles.weighted import fit_temperatures
from clipsyn.methods.numerics.blocks import side_by_side
from clipsyn.methods.numerics.metrics import Judged, judge
from clipsyn.methods.pool import Pool
from clipsyn.names import CLEAN, FeatureKey
from clipsyn.store.features import FeatureStore
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
    recorded = cell.group().provenance
    encoder, seconds = recorded.get("encoder") or {}, recorded.get("encode_seconds")
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
        1000 * float(seconds) / cell.group().sizes["sample"] if seconds else None,
        recorded.get("peak_memory_mb"),
        recorded.get("process_memory_mb"),
    )


@dataclass(frozen=True)
class Answers:
    """What candidates say of some labelled samples: arrays (sample,)."""

    correct: dict[Candidate, NDArray[np.bool_]]
    confidence: dict[Candidate, NDArray[np.float32]]  # calibrated; not of `averages`

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Of consecutive blocks of samples."""
        first = parts[0]
        return cls(
            {it: np.concatenate([part.correct[it] for part in parts]) for it in first.correct},
            {
                it: np.concatenate([part.confidence[it] for part in parts])
                for it in first.confidence
            },
        )

    def along(
        self, text: str, order: Sequence[str]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Confidence and correctness (stage, sample) at the stages of a cascade."""
        stages = stages_of(text, order)
        confidence = np.stack([self.confidence[it] for it in stages])
        return confidence, np.stack([self.correct[it] for it in stages])


class Fitted(NamedTuple):
    """A candidate, fitted on the support."""

    ensemble: Ensemble
    temperature: float  # its scores are divided by this before the softmax

    def judged(self, scores: NDArray[np.float32], labels: NDArray[np.int32]) -> Judged:
        return judge(scores / np.float32(self.temperature), labels)


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
    later = (Candidate(text, tuple(order[:k])) for k in range(2, len(order) + 1))
    return [Candidate.single(order[0]), *later]


def averages(pool: Pool, order: Sequence[str]) -> dict[Candidate, NDArray[np.bool_]]:
    """(sample,) what the plain average of each subset that is no stage gets right."""
    if not (subsets := [*_subsets(PLAIN, order)]):
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
    every: Sequence[Candidate], pool: Pool, seed: int
) -> tuple[dict[Candidate, Fitted], Answers]:
    """Every candidate, fitted on all of the support `pool`, and what it says there.

    Temperatures and answers are from `unseen_scores`. Where the pool is small, each core fits other
    candidates. Raises LeakError for the test split.
    """

    def fit_one(candidate: Candidate) -> tuple[Fitted, Judged]:
        seen = _seen(candidate, pool)
        ensemble = make_ensemble(candidate.ensemble or PLAIN, seed).fit(seen)
        scores = unseen_scores(ensemble, seen)
        fitted = Fitted(ensemble, float(fit_temperatures(scores[:, None], pool.labels)[0]))
        return fitted, fitted.judged(scores, pool.labels)

    small = sum(array.size for array in pool.embeddings.values()) <= _SMALL
    fits = dict(zip(every, (side_by_side if small else map)(fit_one, every), strict=True))
    fitted = {candidate: one for candidate, (one, _) in fits.items()}
    return fitted, _answers(((it, judged) for it, (_, judged) in fits.items()), pool)


def answer(fitted: Mapping[Candidate, Fitted], pool: Pool) -> Answers:
    """What fitted candidates say of other labelled samples."""
    return _answers(
        (
            (candidate, one.judged(one.ensemble.combine(_seen(candidate, pool)), pool.labels))
            for candidate, one in fitted.items()
        ),
        pool,
    )


def _seen(candidate: Candidate, pool: Pool) -> Pool:
    """What a candidate sees of a pool of all backbones, as ensembles order them."""
    return pool.of_backbones(sorted(candidate.backbones))


def _answers(judgements: Iterable[tuple[Candidate, Judged]], pool: Pool) -> Answers:
    answers = Answers({}, {})
    for candidate, judged in judgements:
        answers.correct[candidate] = judged.prediction == pool.labels
        answers.confidence[candidate] = judged.confidence
    return answers


@dataclass(frozen=True)
class FittedCascades:
    """Everything that is fitted and chosen on the support of one dataset."""

    settings: CascadeSettings
    gflops: dict[str, float]  # of each backbone, in the order they run
    fitted: dict[Candidate, Fitted]
    support: Answers
    origin: Mapping[str, Any]  # which samples were learned from: see `read_support`

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(self.gflops)

    def answers(self, pool: Pool) -> Answers:
        """Of every candidate, those of `averages` last, for labelled samples."""
        answers = answer(self.fitted, pool)
        return Answers(answers.correct | averages(pool, self.order), answers.confidence)

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
        cascades = {}
        for text in self.settings.ensembles:
            along = self.support.along(text, self.order)
            chosen = smallest_threshold(*along, self.settings.within_points / 100)
            thresholds = [(threshold, GIVEN) for threshold in self.settings.thresholds]
            thresholds.append((chosen, WITHIN))
            cascades[text] = [Candidate(text, self.order, *threshold) for threshold in thresholds]
        return cascades

    @cached_property
    def on_support(self) -> dict[Candidate, dict[str, float]]:
        """For every candidate its metrics there, and 1 for one on the Pareto front of the two.

        Cascades come last.
        """
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
        front = pareto_front(costs, accuracies).astype(float)
        rows = zip(accuracies.tolist(), costs.tolist(), front.tolist(), strict=True)
        metrics = "support_acc1", "support_mean_gflops", "front"
        return {
            candidate: dict(zip(metrics, row, strict=True))
            for candidate, row in zip(points, rows, strict=True)
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
    gflops = {
        key.backbone: cell_cost(group.store, key, settings.costs).gflops for key in group.keys
    }
    order = backbone_order(group.backbones, gflops, settings)
    fitted, answers = fit_candidates(candidates(order, settings.ensembles), pool, settings.seed)
    answers = Answers(answers.correct | averages(pool, order), answers.confidence)
    return FittedCascades(settings, {name: gflops[name] for name in order}, fitted, answers, origin)


def backbone_order(
    backbones: Sequence[str], gflops: Mapping[str, float], settings: CascadeSettings
) -> tuple[str, ...]:
    """The order in which a cascade runs them.

    "cost": the cheapest first, equals by name. "given": as the settings name them.
    """
    if settings.order == "given":
        terms = settings.backbones or ()
        return tuple(dict.fromkeys(name for term in terms for name in matching(term, backbones)))
    return tuple(sorted(backbones, key=lambda name: (gflops[name], name)))
