"""One temperature per backbone, found by a genetic algorithm (paper sections 4.2 GAC and 12).

The paper names the method; its population, operators and bounds are unpublished. Those here are in
general use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.ensembles.base import Router
from clipsyn.ensembles.calibrated import fit_temperatures
from clipsyn.estimator import learned, parameter, seed
from clipsyn.numerics.logits import weighted_sum
from clipsyn.pool import Pool
from clipsyn.settings import WHOLE

LOWEST, HIGHEST = 0.05, 20.0  # temperatures
_TOURNAMENT = 3
_ELITE = 2
_CROSSOVER = 0.9  # probability that a child has two parents
_MUTATION = 0.1  # standard deviation, of log temperatures
_PROGRESS = 1e-3  # a cross-entropy that is lower by less than this fraction is no progress
_BLOCK_VALUES = 500_000  # scores of all individuals in a block: 2 MB, which a core's cache holds


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
    thousandth.

    Accuracy does not depend on a common factor of tau. Cross-entropy sets that factor at the end,
    as one temperature of the combined logits, with the smallest tau kept between 0.05 and 20.

    Learned: `temperatures_` (backbone,) tau; `weights_` (backbone,) 1 / (B tau), which is log-avg
    for tau = 1; `evaluations_`, vectors whose accuracy was computed.

    >>> from clipsyn import GeneticAlgorithm
    >>> logits = [[[2, 0], [1, 0]], [[1, 0], [0, 3]], [[0, 3], [0, 1]], [[0, 1], [2, 0]]]
    >>> labels = [0, 0, 1, 1]  # the first backbone is always right, the second half of the time
    >>> GeneticAlgorithm().fit(logits, labels).temperatures_
    array([ 0.05, 20.  ])
    """

    population: int = parameter(64, WHOLE, least=_ELITE + 1)
    generations: int = parameter(100, WHOLE, least=0)
    patience: int = parameter(10, WHOLE, least=1)
    random_state: int = seed()

    temperatures_: NDArray[np.float64] = learned()
    weights_: NDArray[np.float64] = learned()
    evaluations_: int = learned()

    def _fit(self, pool: Pool) -> None:
        fitness = _Fitness(pool.logits, pool.labels, self.population)
        best = _rescaled(self._evolve(fitness, _seeds(pool)), pool)
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
    """Errors and cross-entropy on the support set, of many vectors of log temperatures at once."""

    def __init__(
        self, logits: NDArray[np.float32], labels: NDArray[np.int32], population: int
    ) -> None:
        n, _, classes = logits.shape
        self.evaluations = 0
        self.n = n
        step = max(1, _BLOCK_VALUES // (population * classes))
        self.blocks = [
            _leads(logits[start : start + step], labels[start : start + step])
            for start in range(0, n, step)
        ]

    def __call__(self, genes: NDArray[np.float64]) -> NDArray[np.float64]:
        """(2, individual): wrong samples, and mean cross-entropy; less is better."""
        weights = np.append(_weights(genes), np.ones((len(genes), 1)), axis=1).astype(np.float32)
        wrong, loss = np.zeros(len(genes)), np.zeros(len(genes))
        for leads in self.blocks:
            scores = weights @ leads  # (class, individual, sample)
            largest = scores.max(axis=0)
            wrong += np.count_nonzero(largest > 0, axis=1)
            scores -= largest
            np.exp(scores, out=scores)
            largest += np.log(scores.sum(axis=0))
            loss += largest.sum(axis=1, dtype=np.float64)
        self.evaluations += len(genes)
        # rounded: the order of samples and classes must not decide between equals
        return np.stack([wrong, (loss / self.n).round(6)])


def _leads(logits: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """(class, backbone + 1, sample): how far each class is above the true one.

    A sample is right if no class is above 0. Of equal classes the first is predicted, so the last
    row, whose weight is 1, lifts the classes before the true one by next to nothing. Classes come
    first because maxima and sums over the first axis are the fast ones.
    """
    n, backbones, classes = logits.shape
    out = np.empty((classes, backbones + 1, n), np.float32)
    true = np.take_along_axis(logits, labels[:, None, None], axis=2)
    out[:, :-1] = (logits - true).transpose(2, 1, 0)
    out[:, -1] = 1e-30 * (np.arange(classes)[:, None] < labels)
    return out


def _rescaled(log_temperatures: NDArray[np.float64], pool: Pool) -> NDArray[np.float64]:
    """The same up to a common factor: that of the lowest cross-entropy on `pool`."""
    combined = weighted_sum(pool.logits, _weights(log_temperatures[None])[0])
    factor = np.log(fit_temperatures(combined[:, None], pool.labels)[0])
    sharpest = log_temperatures.min()
    limited = np.clip(sharpest + factor, np.log(LOWEST), np.log(HIGHEST))
    return np.asarray(log_temperatures + (limited - sharpest))


def _seeds(pool: Pool) -> NDArray[np.float64]:
    """(individual, backbone) log temperatures: all ones, calibrated, each backbone nearly alone."""
    count = len(pool.backbones)
    alone = np.where(np.eye(count, dtype=bool), np.log(LOWEST), np.log(HIGHEST))
    calibrated = np.log(fit_temperatures(pool.logits, pool.labels))
    return np.concatenate([np.zeros((1, count)), calibrated[None], alone])


def _children(genes: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """All but the elite of the next generation; `genes` (individual, backbone), the best first."""
    size = len(genes) - _ELITE
    first, second = genes[rng.integers(len(genes), size=(2, size, _TOURNAMENT)).min(axis=2)]
    crossed = rng.random((size, 1)) < _CROSSOVER
    children = np.where(crossed & (rng.random(first.shape) < 0.5), second, first)
    return np.asarray(children + rng.normal(0, _MUTATION, first.shape))


def _weights(log_temperatures: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.exp(-log_temperatures) / log_temperatures.shape[1])
