"""One temperature per backbone, found by a genetic algorithm (paper sections 4.2 GAC and 12).

The paper names the method; its population, operators and bounds are unpublished. Those here are in
general use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.ensembles.base import Router
from clipsyn.methods.ensembles.weighted import fit_temperatures
from clipsyn.methods.estimator import learned, parameter, seed
from clipsyn.methods.numerics.blocks import in_blocks
from clipsyn.methods.numerics.logits import Contenders, contenders, weighted_sum
from clipsyn.methods.pool import Pool, in_memory
from clipsyn.settings import WHOLE

LOWEST, HIGHEST = 0.05, 20.0  # temperatures
_TOURNAMENT = 3
_ELITE = 2
_CROSSOVER = 0.9  # probability that a child has two parents
_MUTATION = 0.1  # standard deviation, of log temperatures
_PROGRESS = 1e-3  # a cross-entropy that is lower by less than this fraction is no progress
_EXACT = 250_000  # samples times classes up to which cross-entropy is over each class alone
_ALONE, _GROUPS = 16, 16  # beyond: classes of each sample that are held alone, groups of the others
_CLASSES_IN_BLOCK = 64  # at least: of fewer, a block has no more samples


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
    thousandth. Beyond 250,000 samples times classes, cross-entropy is over 16 classes of each
    sample and 16 groups of the improbable others, about 0.001 below that over all; accuracy is
    always exact.

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

    temperatures_: NDArray[np.float64] = learned()
    weights_: NDArray[np.float64] = learned()
    evaluations_: int = learned()

    def _fit(self, support: Pool) -> None:
        pool = in_memory(support)
        calibrated = fit_temperatures(pool.logits, pool.labels)
        fitness = _Fitness(support, calibrated)
        best = _rescaled(self._evolve(fitness, _seeds(calibrated)), pool)
        self.temperatures_ = np.exp(best)
        self.weights_ = _weights(best[None])[0]
        self.evaluations_ = fitness.evaluations

    def _weights(self, pool: Pool) -> NDArray[Any]:
        return self.weights_

    def _evolve(self, fitness: _Fitness, seeds: NDArray[np.float64]) -> NDArray[np.float64]:
        """The best log temperatures (backbone,)."""
        rng = np.random.default_rng(self.random_state)
        lowest, highest = np.log(LOWEST), np.log(HIGHEST)
        genes = rng.uniform(lowest, highest, (self.population, seeds.shape[1]))
        genes[: len(seeds)] = np.clip(seeds, lowest, highest)[: self.population]
        ranks = fitness(genes)
        fewest, lowest_loss, stale = np.inf, np.inf, 0
        for _ in range(self.generations):
            order = np.lexsort(ranks[::-1])
            genes, ranks = genes[order], ranks[:, order]
            wrong, loss = ranks[:, 0]
            if wrong < fewest or loss < lowest_loss * (1 - _PROGRESS):
                fewest, lowest_loss, stale = wrong, loss, 0
            else:
                stale += 1
            if stale >= self.patience:
                break
            children = np.clip(_children(genes, rng), lowest, highest)
            genes = np.concatenate([genes[:_ELITE], children])
            ranks = np.concatenate([ranks[:, :_ELITE], fitness(children)], axis=1)
        best: NDArray[np.float64] = genes[np.lexsort(ranks[::-1])[0]]
        return best


class _Fitness:
    """Errors and cross-entropy on the support set, of many vectors of log temperatures at once.

    temperatures (backbone,), the calibrated ones, say which classes are improbable. One pass over
    the support; of many classes it keeps about 2 KB a sample.
    """

    def __init__(self, support: Pool, temperatures: NDArray[np.float64]) -> None:
        self.evaluations = 0
        self.n = len(support)
        self.lost = 0  # samples that are wrong whatever the weights
        self.rivals: list[NDArray[np.float32]] = []
        exact = self.n * support.n_classes <= _EXACT or support.n_classes <= _ALONE + _GROUPS
        self._add_rivals(support.logits, support.labels)
        self.leads = (
            _leads(support.logits, support.labels)
            if exact
            else _leads_in_groups(support.logits, support.labels, temperatures)
        )

    def _add_rivals(self, logits: NDArray[np.float32], labels: NDArray[np.int32]) -> None:
        for group in contenders(logits):
            true = group.classes == labels[group.samples, None]
            possible = true.any(axis=1)
            self.lost += int(np.count_nonzero(~possible))
            if group.classes.shape[1] > 1 and possible.any():
                part = Contenders(*(values[possible] for values in group))
                self.rivals.append(_leads_of_contenders(part, logits, labels))

    def __call__(self, genes: NDArray[np.float64]) -> NDArray[np.float64]:
        """(2, individual): wrong samples, and mean cross-entropy; less is better."""
        weights = np.append(_weights(genes), np.ones((len(genes), 1)), axis=1).astype(np.float32)
        wrong = np.full(len(genes), float(self.lost))
        for rivals in self.rivals:
            wrong += _summed(_wrong, weights, rivals)
        loss = _summed(_cross_entropy, weights, self.leads)
        self.evaluations += len(genes)
        # rounded: the order of samples and classes must not decide between equals
        return np.stack([wrong, (loss / self.n).round(6)])


def _summed(
    measure: Callable[[NDArray[np.float32]], NDArray[Any]],
    weights: NDArray[np.float32],
    leads: NDArray[np.float32],
) -> NDArray[np.float64]:
    """(individual,) sums over samples of what is measured on scores (class, individual, sample)."""
    count, _, n = leads.shape
    # short rows, so that BLAS has no work for a second thread while all cores have a block
    shape = (n, len(weights) * max(count, _CLASSES_IN_BLOCK))
    parts = in_blocks(lambda rows: measure(weights @ leads[:, :, rows]), shape)
    return np.asarray(np.sum(parts, axis=0, dtype=np.float64))


def _wrong(scores: NDArray[np.float32]) -> NDArray[Any]:
    return np.asarray(np.count_nonzero(scores.max(axis=0) > 0, axis=1))


def _cross_entropy(scores: NDArray[np.float32]) -> NDArray[Any]:
    largest = scores.max(axis=0)
    scores -= largest
    np.exp(scores, out=scores)
    largest += np.log(scores.sum(axis=0))
    return np.asarray(largest.sum(axis=1, dtype=np.float64))


def _leads_of_contenders(
    group: Contenders, logits: NDArray[np.float32], labels: NDArray[np.int32]
) -> NDArray[np.float32]:
    """(contender, backbone + 1, sample): how far each class is above the true one.

    A sample is right if no class is above 0. Of equal classes the first is predicted, so the last
    row, whose weight is 1, lifts the classes before the true one by next to nothing. Classes come
    first because maxima and sums over the first axis are the fast ones.
    """
    true = labels[group.samples]
    samples, backbones, classes = (
        *group.classes.shape[:1],
        logits.shape[1],
        group.classes.shape[1],
    )
    out = np.empty((classes, backbones + 1, samples), np.float32)
    leads = group.of(logits) - logits[group.samples, :, true][:, :, None]
    out[:, :-1] = leads.transpose(2, 1, 0)
    out[:, -1] = 1e-30 * (true > group.classes.T)
    return out


def _leads(logits: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """(class, backbone + 1, sample): how far above the true class each is; the last row is 0."""
    n, backbones, classes = logits.shape
    out = np.zeros((classes, backbones + 1, n), np.float32)
    true = np.take_along_axis(logits, labels[:, None, None], axis=2)
    out[:, :-1] = (logits - true).transpose(2, 1, 0)
    return out


def _leads_in_groups(
    logits: NDArray[np.float32], labels: NDArray[np.int32], temperatures: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(class or group of classes, backbone + 1, sample): how far above the true class each is.

    Some classes are held alone: those that a backbone, or all together, hold most probable. The
    others are sorted by what all together say and cut into groups, each held as its mean; the last
    row, whose weight is 1, is the logarithm of how many they are.
    """
    n, backbones, classes = logits.shape
    out = np.zeros((_ALONE + _GROUPS, backbones + 1, n), np.float32)
    edges = np.linspace(0, classes - _ALONE, _GROUPS + 1).astype(int)
    sizes = np.diff(edges)
    inverse = (1 / temperatures).astype(np.float32)[:, None]

    def block(rows: slice) -> None:
        samples = np.arange(rows.stop - rows.start)
        leads = logits[rows] - logits[np.arange(rows.start, rows.stop), :, labels[rows]][:, :, None]
        scaled = leads * inverse
        together = scaled.mean(axis=1)
        probable = np.maximum(
            (scaled - scaled.max(axis=2, keepdims=True)).max(axis=1),
            together - together.max(axis=1, keepdims=True),
        )
        probable[samples, labels[rows]] = np.inf
        order = np.argpartition(-probable, _ALONE, axis=1)
        alone, rest = order[:, :_ALONE], order[:, _ALONE:]
        ranked = np.argsort(np.take_along_axis(together, rest, axis=1), axis=1)
        rest = np.take_along_axis(rest, ranked, axis=1)
        held = np.take_along_axis(leads, alone[:, None], axis=2)
        groups = np.add.reduceat(
            np.take_along_axis(leads, rest[:, None], axis=2), edges[:-1], axis=2
        )
        out[:_ALONE, :-1, rows] = held.transpose(2, 1, 0)
        out[_ALONE:, :-1, rows] = (groups / sizes.astype(np.float32)).transpose(2, 1, 0)

    in_blocks(block, logits.shape)
    out[_ALONE:, -1] = np.log(sizes)[:, None]
    return out


def _rescaled(log_temperatures: NDArray[np.float64], pool: Pool) -> NDArray[np.float64]:
    """The same up to a common factor: that of the lowest cross-entropy on `pool`."""
    combined = weighted_sum(pool.logits, _weights(log_temperatures[None])[0])
    factor = np.log(fit_temperatures(combined[:, None], pool.labels)[0])
    sharpest = log_temperatures.min()
    limited = np.clip(sharpest + factor, np.log(LOWEST), np.log(HIGHEST))
    return np.asarray(log_temperatures + (limited - sharpest))


def _seeds(calibrated: NDArray[np.float64]) -> NDArray[np.float64]:
    """(individual, backbone) log temperatures: all ones, calibrated, each backbone nearly alone."""
    count = len(calibrated)
    alone = np.where(np.eye(count, dtype=bool), np.log(LOWEST), np.log(HIGHEST))
    return np.concatenate([np.zeros((1, count)), np.log(calibrated)[None], alone])


def _children(genes: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """All but the elite of the next generation; `genes` (individual, backbone), the best first."""
    size = len(genes) - _ELITE
    first, second = genes[rng.integers(len(genes), size=(2, size, _TOURNAMENT)).min(axis=2)]
    crossed = rng.random((size, 1)) < _CROSSOVER
    children = np.where(crossed & (rng.random(first.shape) < 0.5), second, first)
    return np.asarray(children + rng.normal(0, _MUTATION, first.shape))


def _weights(log_temperatures: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.exp(-log_temperatures) / log_temperatures.shape[1])
