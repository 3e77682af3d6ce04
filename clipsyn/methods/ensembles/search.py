"""Ensembles that are searched for by how often they are right, and then by likelihood.

Greedy selection: R. Caruana, A. Niculescu-Mizil, G. Crew, A. Ksikes, "Ensemble Selection from
Libraries of Models", ICML 2004, sections 2 and 2.1 (selection with replacement).

The genetic algorithm is the paper's (sections 4.2 GAC and 12). It names the method; its population,
operators and bounds are unpublished. Those here are in general use.

Few classes of a sample can come first, whatever is chosen. Accuracy is judged by these alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

import numpy as np

from clipsyn.methods.ensembles.base import Ensemble, Router
from clipsyn.methods.ensembles.weighted import fit_temperatures
from clipsyn.methods.estimator import learned, parameter, seed
from clipsyn.methods.numerics import Array, Doubles, Floats, Labels, Rows
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import (
    Contenders,
    contenders,
    log_mixture,
    log_softmax,
    weighted_sum,
)
from clipsyn.methods.numerics.samples import stratified
from clipsyn.methods.pool import Pool, in_memory
from clipsyn.settings import WHOLE

LOWEST, HIGHEST = 0.05, 20.0  # temperatures
_BOUNDS = np.log(LOWEST), np.log(HIGHEST)
_TOURNAMENT = 3
_ELITE = 2
_CROSSOVER = 0.9  # probability that a child has two parents
_MUTATION = 0.1  # standard deviation, of log temperatures
_PROGRESS = 1e-3  # a cross-entropy that is lower by less than this fraction is no progress
_LOSS_VALUES = 250_000  # samples times classes that cross-entropy is over at most
_CLASSES_IN_BLOCK = 64  # at least: of fewer, a block has no more samples

# probabilities (backbone, sample, contender), and (sample,) where the label is among these
Open = tuple[Floats, Rows]


@dataclass(eq=False, repr=False)
class GreedySelection(Ensemble):
    """Each round adds the backbone that helps the average of probabilities most.

        p_n = (1/R) sum over rounds r of softmax(Z_n,b(r))

    A backbone may be chosen again, so its share of the rounds is its weight. The backbone that
    helps most gives the best accuracy on the support set, then the lowest negative log-likelihood,
    then comes first by name. The same measure decides how many of the `rounds` choices are kept,
    from the first on: on a small support set later rounds overfit.

    Learned: `chosen_`, the backbones kept, in the order of choice; `weights_` (backbone,), how
    often each was chosen, divided by how many were.

    >>> from clipsyn import GreedySelection
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> labels = [0, 0, 1, 1]  # the first backbone is always right, the second half of the time
    >>> ensemble = GreedySelection().fit(logits, labels)
    >>> ensemble.chosen_, ensemble.weights_
    (('0',), array([1., 0.]))
    """

    any_size: ClassVar[bool] = True

    rounds: int = parameter(25, WHOLE, least=1)

    weights_: Doubles = learned()
    chosen_: tuple[str, ...] = learned()

    def _fit(self, support: Pool) -> None:
        order = _select(support, self.rounds)
        self.chosen_ = tuple(support.backbones[index] for index in order)
        self.weights_ = np.bincount(order, minlength=len(support.backbones)) / len(order)

    def _combine(self, pool: Pool) -> Array:
        used = self.weights_ > 0
        return log_mixture(pool.logits[:, used], np.log(self.weights_[used]))


def _select(support: Pool, rounds: int) -> list[int]:
    """The backbones chosen, in order, up to the best number of rounds."""
    settled, log_true, groups = _seen(support)
    totals = [np.zeros_like(probabilities[0]) for probabilities, _ in groups]
    log_total = np.full(log_true.shape[1], -np.inf)  # of the true class, which may be 0 in a total
    order: list[int] = []
    scores: list[tuple[int, float]] = []  # of each number of rounds, less is better
    for size in range(1, rounds + 1):
        log_trials = np.logaddexp(log_total, log_true)
        right = np.full(len(log_true), settled)
        for (probabilities, place), total in zip(groups, totals, strict=True):
            for backbone, probability in enumerate(probabilities):
                first = np.add(total, probability).argmax(axis=1)
                right[backbone] += np.count_nonzero(first == place)
        losses = [-float(trial.mean()) for trial in log_trials]
        candidates = list(zip((-right).tolist(), losses, strict=True))
        best = candidates.index(min(candidates))
        for (probabilities, _), total in zip(groups, totals, strict=True):
            np.add(total, probabilities[best], out=total)
        log_total = log_trials[best]
        order.append(best)
        negative_right, loss = candidates[best]
        # rounded: the average of a backbone with itself is no better
        scores.append((negative_right, round(loss + float(np.log(size)), 9)))
    return order[: scores.index(min(scores)) + 1]


def _seen(support: Pool) -> tuple[int, Doubles, list[Open]]:
    """How many samples are right in any case, (backbone, sample) log-probability of the label, and
    what decides about the others, by number of contenders. One pass over the support.
    """

    def block(rows: slice) -> tuple[int, Doubles, list[Open]]:
        logs, labels = log_softmax(support.logits[rows]), support.labels[rows]
        true = np.take_along_axis(logs, labels[:, None, None], axis=2)[:, :, 0]
        # what a sum of probabilities may put first, one of their logarithms may, too
        right, _, groups = _undecided(logs, labels)
        values = (np.ascontiguousarray(np.exp(it.of(logs).swapaxes(0, 1))) for it in groups)
        places = ((it.classes == labels[it.samples, None]).argmax(axis=1) for it in groups)
        return right, true.T.astype(np.float64), list(zip(values, places, strict=True))

    settled, log_true, parts = zip(*in_blocks(block, support.logits.shape), strict=True)
    by_width: dict[int, list[Open]] = {}
    for values, place in chain.from_iterable(parts):
        by_width.setdefault(values.shape[2], []).append((values, place))
    same_width = (zip(*group, strict=True) for group in by_width.values())
    joined = [(np.concatenate(v, axis=1), np.concatenate(place)) for v, place in same_width]
    return sum(settled), np.concatenate(log_true, axis=1), joined


def _undecided(logits: Floats, labels: Labels) -> tuple[int, int, list[Contenders]]:
    """How many samples are right and wrong whatever is chosen, and the contenders of the others."""
    right, wrong, others = 0, 0, []
    for group in contenders(logits):
        possible = (group.classes == labels[group.samples, None]).any(axis=1)
        wrong += int(np.count_nonzero(~possible))
        if group.classes.shape[1] == 1:
            right += int(np.count_nonzero(possible))
        elif possible.any():
            others.append(Contenders(*(values[possible] for values in group)))
    return right, wrong, others


@dataclass(eq=False, repr=False)
class GeneticAlgorithm(Router):
    """``z = 1/B sum_b z_b / tau_b``, tau the most accurate on the support set.

    The population is `population` vectors log tau, between log 0.05 and log 20. It starts with all
    ones, the calibrated temperatures, each backbone nearly alone (0.05, the others 20), and uniform
    random vectors. In each generation the two best survive. The others are children of two winners
    of tournaments of three: each gene comes from either parent (with probability 0.9, else all from
    the first), plus Gaussian noise of 0.1. A vector is better if it is more accurate, or as
    accurate with a lower cross-entropy. The search stops after `generations`, or after `patience`
    generations in which the best neither made fewer errors nor lowered its cross-entropy by a
    thousandth. That cross-entropy is over a stratified sample where there are more than 250,000
    samples times classes; accuracy is over all.

    Accuracy does not depend on a common factor of tau. Cross-entropy sets that factor at the end,
    as one temperature of the combined logits, with the smallest tau kept between 0.05 and 20. Of a
    support larger than memory that factor and the calibrated temperatures are those of a sample.

    Learned: `temperatures_` (backbone,) tau; `weights_` (backbone,) 1 / (B tau), which is log-avg
    for tau = 1; `evaluations_`, vectors whose accuracy was computed.

    >>> from clipsyn import GeneticAlgorithm
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> labels = [0, 0, 1, 1]  # the first backbone is always right, the second half of the time
    >>> GeneticAlgorithm().fit(logits, labels).temperatures_
    array([ 0.05, 20.  ])
    """

    any_size: ClassVar[bool] = True

    population: int = parameter(64, WHOLE, least=_ELITE + 1)
    generations: int = parameter(100, WHOLE, least=0)
    patience: int = parameter(10, WHOLE, least=1)
    random_state: int = seed()

    temperatures_: Doubles = learned()
    weights_: Doubles = learned()
    evaluations_: int = learned()

    def _fit(self, support: Pool) -> None:
        pool = in_memory(support)
        fitness = Fitness(support)
        best = self._evolve(fitness, _seeds(fit_temperatures(pool.logits, pool.labels)))
        combined = weighted_sum(pool.logits, _weights(best[None])[0])
        factor = np.log(fit_temperatures(combined[:, None], pool.labels)[0])
        best = best + (np.clip(best.min() + factor, *_BOUNDS) - best.min())
        self.temperatures_ = np.exp(best)
        self.weights_ = _weights(best[None])[0]
        self.evaluations_ = fitness.evaluations

    def _weights(self, pool: Pool) -> Array:
        return self.weights_

    def _evolve(self, fitness: Fitness, seeds: Doubles) -> Doubles:
        """The best log temperatures (backbone,)."""
        rng = np.random.default_rng(self.random_state)
        genes = rng.uniform(*_BOUNDS, (self.population, seeds.shape[1]))
        genes[: len(seeds)] = np.clip(seeds, *_BOUNDS)[: self.population]
        ranks = fitness(genes)
        fewest, lowest_loss, stale = np.inf, np.inf, 0
        for _ in range(self.generations):
            order = np.lexsort(ranks[::-1])
            genes, ranks = genes[order], ranks[:, order]
            wrong, loss = ranks[:, 0]
            stale += 1
            if wrong < fewest or loss < lowest_loss * (1 - _PROGRESS):
                fewest, lowest_loss, stale = wrong, loss, 0
            if stale >= self.patience:
                break
            children = np.clip(_children(genes, rng), *_BOUNDS)
            genes = np.concatenate([genes[:_ELITE], children])
            ranks = np.concatenate([ranks[:, :_ELITE], fitness(children)], axis=1)
        return np.asarray(genes[np.lexsort(ranks[::-1])[0]])


class Fitness:
    """Errors and cross-entropy on the support set, of many vectors of log temperatures at once."""

    def __init__(self, support: Pool) -> None:
        logits, labels = support.logits, support.labels
        self.evaluations = 0
        _, self._lost, groups = _undecided(logits, labels)
        self._rivals = [_leads(logits, labels, *group) for group in groups]
        count = max(1, _LOSS_VALUES // support.n_classes)
        rows = stratified(labels, count, 0) if count < len(support) else np.arange(len(support))
        every = np.broadcast_to(np.arange(support.n_classes), (len(rows), support.n_classes))
        self._samples, self._leads = len(rows), _leads(logits, labels, rows, every)

    def __call__(self, genes: Doubles) -> Doubles:
        """(2, individual): wrong samples, and mean cross-entropy; less is better."""
        weights = np.append(_weights(genes), np.ones((len(genes), 1)), axis=1).astype(np.float32)
        wrong = np.full(len(genes), float(self._lost))
        for rivals in self._rivals:
            wrong += _summed(lambda z: np.count_nonzero(z.max(axis=0) > 0, axis=1), weights, rivals)
        loss = _summed(_cross_entropy, weights, self._leads)
        self.evaluations += len(genes)
        # rounded: the order of samples and classes must not decide between equals
        return np.stack([wrong, (loss / self._samples).round(6)])


def _summed(measure: Callable[[Floats], Array], weights: Floats, leads: Floats) -> Doubles:
    """(individual,) sums over samples of what is measured on scores (class, individual, sample)."""
    count, _, n = leads.shape
    # short rows, so that BLAS has no work for a second thread while all cores have a block
    shape = (n, len(weights) * max(count, _CLASSES_IN_BLOCK))
    parts = in_blocks(lambda rows: measure(weights @ leads[:, :, rows]), shape)
    return np.asarray(np.sum(parts, axis=0, dtype=np.float64))


def _cross_entropy(scores: Floats) -> Array:
    largest = scores.max(axis=0)
    scores -= largest
    np.exp(scores, out=scores)
    largest += np.log(scores.sum(axis=0))
    return np.asarray(largest.sum(axis=1, dtype=np.float64))


def _leads(logits: Floats, labels: Labels, samples: Rows, classes: Rows) -> Floats:
    """(class, backbone + 1, sample): how far each class (sample, class) is above the true one.

    A sample is right if no class is above 0. Of equal classes the first is predicted, so the last
    row, whose weight is 1, lifts the classes before the true one by next to nothing. Classes come
    first because maxima and sums over the first axis are the fast ones.
    """
    true = labels[samples]
    out = np.empty((classes.shape[1], logits.shape[1] + 1, len(samples)), np.float32)
    leads = Contenders(samples, classes).of(logits) - logits[samples, :, true][:, :, None]
    out[:, :-1] = leads.transpose(2, 1, 0)
    out[:, -1] = 1e-30 * (true > classes.T)
    return out


def _seeds(calibrated: Doubles) -> Doubles:
    """(individual, backbone) log temperatures: all ones, calibrated, each backbone nearly alone."""
    count = len(calibrated)
    alone = np.where(np.eye(count, dtype=bool), *_BOUNDS)
    return np.concatenate([np.zeros((1, count)), np.log(calibrated)[None], alone])


def _children(genes: Doubles, rng: np.random.Generator) -> Doubles:
    """All but the elite of the next generation; `genes` (individual, backbone), the best first."""
    size = len(genes) - _ELITE
    first, second = genes[rng.integers(len(genes), size=(2, size, _TOURNAMENT)).min(axis=2)]
    crossed = rng.random((size, 1)) < _CROSSOVER
    children = np.where(crossed & (rng.random(first.shape) < 0.5), second, first)
    return np.asarray(children + rng.normal(0, _MUTATION, first.shape))


def _weights(log_temperatures: Doubles) -> Doubles:
    return np.asarray(np.exp(-log_temperatures) / log_temperatures.shape[1])
