"""Diversity of all pairs and bootstraps, against the fastest plain numpy that we know for each.

    python benchmarks/diversity.py

Random backbones that are right together more often than by chance. All sides start from the same
arrays in memory. Beside plain numpy stand slower ways that are in use: loops over samples, as in
DESlib (0.3.7 does not run beside a current scikit-learn, so its way of counting is written out
here), and resampled indices.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import click
import numpy as np
from common import Measured, interleaved, ratio, report, spread, start
from numpy.typing import NDArray

from clipsyn.analyses.diversity.measures import PAIRWISE, pair_counts, resampled
from clipsyn.analyses.oracle.measures import Overlap, members
from clipsyn.stats.bootstrap import Resamples, bootstrap_means

BACKBONES, METHODS, CLASSES = 9, 30, 1_000
RESAMPLES = 10_000
PART, COUNTED = 10, 100  # resamples that peers by index, and those by counts, are timed on
Right = NDArray[np.bool_]
Shares = tuple[float, float, float, float]


def random_predictions(samples: int) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """(backbone, sample) and labels: 50 to 75 % right, and wrong in few ways."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, samples)
    wrong = (labels + rng.integers(1, 4, (BACKBONES, samples))) % CLASSES
    predictions = np.where(random_right(BACKBONES, samples), labels, wrong)
    return predictions.astype(np.uint16), labels.astype(np.int32)


def random_right(methods: int, samples: int) -> Right:
    """(method, sample): methods of different accuracy that share what is hard."""
    rng = np.random.default_rng(methods)
    skill = np.linspace(0, 0.7, methods)[:, None]
    hard = rng.standard_normal(samples)
    right: Right = hard + 0.5 * rng.standard_normal((methods, samples)) < skill
    return right


def plain_measures(predictions: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """All five (measure, backbone, backbone), from four counts of each pair."""
    right, n = predictions == labels, len(labels)
    count = len(right)
    both, same = np.empty((count, count)), np.full((count, count), float(n))
    for i, j in combinations(range(count), 2):
        both[i, j] = both[j, i] = np.count_nonzero(right[i] & right[j])
        same[i, j] = same[j, i] = np.count_nonzero(predictions[i] == predictions[j])
    hits = np.count_nonzero(right, axis=1)
    np.fill_diagonal(both, hits)
    first, second = hits[:, None] - both, hits - both
    none = n - both - first - second
    agree, differ = both * none, first * second
    expected = (hits[:, None] * hits + (n - hits[:, None]) * (n - hits)) / n**2
    observed = (both + none) / n
    kappa = (observed - expected) / (1 - expected)
    yule = (agree - differ) / (agree + differ)
    return np.stack([(first + second) / n, (n - same) / n, none / n, yule, kappa])


def plain_inconsistency(predictions: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """(backbone, backbone): error inconsistency alone."""
    right = predictions == labels
    found = np.zeros((len(right), len(right)))
    for i, j in combinations(range(len(right)), 2):
        found[i, j] = found[j, i] = np.count_nonzero(right[i] != right[j]) / len(labels)
    return found


def counts_by_index(labels: NDArray[Any], first: NDArray[Any], second: NDArray[Any]) -> Shares:
    """Shares of both right, the first alone, the second alone, none, as DESlib counts them."""
    both = only_first = only_second = none = 0.0
    for index in range(len(labels)):
        if first[index] == labels[index] and second[index] == labels[index]:
            both += 1.0
        elif first[index] == labels[index] and second[index] != labels[index]:
            only_first += 1.0
        elif first[index] != labels[index] and second[index] == labels[index]:
            only_second += 1.0
        else:
            none += 1.0
    n = len(labels)
    return both / n, only_first / n, only_second / n, none / n


def counts_of_lists(labels: list[int], first: list[int], second: list[int]) -> Shares:
    """The same in the fastest plain Python we know: lists, one pass, one comparison each."""
    found = [0, 0, 0, 0]
    for label, a, b in zip(labels, first, second, strict=True):
        found[2 * (a != label) + (b != label)] += 1
    both, only_first, only_second, none = (count / len(labels) for count in found)
    return both, only_first, only_second, none


def pairwise(samples: int, rounds: int) -> list[Measured]:
    """All five measures, and one of them, error inconsistency; for the loops the one."""
    predictions, labels = random_predictions(samples)
    lists, label_list = predictions.tolist(), labels.tolist()
    formulas = [PAIRWISE.load(name).formula for name in PAIRWISE]

    def ours() -> list[NDArray[np.float64]]:
        counts = pair_counts(predictions, labels)
        return [formula(counts) for formula in formulas]

    def loops(count: Callable[..., Shares], of: Sequence[Any], truth: object) -> NDArray[Any]:
        found = np.zeros((BACKBONES, BACKBONES))
        for i, j in combinations(range(BACKBONES), 2):
            _, only_first, only_second, _ = count(truth, of[i], of[j])
            found[i, j] = found[j, i] = only_first + only_second
        return found

    sides: dict[str, Callable[[], Any]] = {
        "ours": ours,
        "plain": lambda: plain_measures(predictions, labels),
        "plain, one": lambda: plain_inconsistency(predictions, labels),
        "index": lambda: loops(counts_by_index, list(predictions), labels),
        "lists": lambda: loops(counts_of_lists, lists, label_list),
    }
    assert np.allclose(ours(), plain_measures(predictions, labels), atol=1e-12)
    for name in ("plain, one", "index", "lists"):
        assert np.allclose(ours()[0], sides[name](), atol=1e-12), name
    times = interleaved(sides, rounds)
    shown = {name: f"{1e3 * statistics.median(t):.3g} ms" for name, t in times.items()}
    what = f"{BACKBONES} backbones, {samples:,} images"
    return [
        Measured(
            f"five measures of all pairs by plain numpy, over ours; {what}",
            ratio(times["plain"], times["ours"]),
            f"{shown['plain']} against {shown['ours']}; {spread(times['plain'], times['ours'])}",
        ),
        Measured(
            "one measure by plain numpy, over all five of ours",
            ratio(times["plain, one"], times["ours"]),
            f"{shown['plain, one']}; {spread(times['plain, one'], times['ours'])}",
        ),
        Measured(
            "one measure by DESlib's loops, over all five of ours",
            ratio(times["index"], times["ours"]),
            f"{shown['index']}; {spread(times['index'], times['ours'])}",
        ),
        Measured(
            "the same by the fastest loop over lists",
            ratio(times["lists"], times["ours"]),
            f"{shown['lists']}; {spread(times['lists'], times['ours'])}",
        ),
    ]


def plain_counts(rng: np.random.Generator, right: Right, part: int) -> NDArray[np.float64]:
    """(resample, method): how often each sample is drawn, in a matrix product with what is right.

    The columns become single precision once for all resamples, as one would write it.
    """
    n = right.shape[1]
    columns = right.T.astype(np.float32)
    times = [np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(part)]
    sums: NDArray[Any] = np.stack(times).astype(np.float32) @ columns
    return np.asarray(sums / float(n), np.float64)


def index_each(rng: np.random.Generator, right: Right, part: int) -> NDArray[np.float64]:
    """(resample, method): indices drawn anew for every method."""
    n = right.shape[1]
    return np.array(
        [[row[rng.integers(0, n, n)].mean() for row in right] for _ in range(part)], float
    )


def index_shared(rng: np.random.Generator, right: Right, part: int) -> NDArray[np.float64]:
    """(resample, method): the same indices for all methods, so that they are paired as ours."""
    n = right.shape[1]
    drawn = (rng.integers(0, n, n) for _ in range(part))
    return np.array([right[:, rows].mean(axis=1) for rows in drawn])


def bootstraps(samples: int, rounds: int) -> list[Measured]:
    """Peers are timed on a few resamples and multiplied."""
    methods = random_right(METHODS, samples)
    return against(
        f"{RESAMPLES:,} resamples of {METHODS} methods",
        methods,
        lambda count: bootstrap_means(methods.T, resamples=count),
        rounds=rounds,
    ) + subsets(samples, rounds)


def subsets(samples: int, rounds: int) -> list[Measured]:
    """9 backbones and all oracles of them, as booleans for the peers."""
    right = random_right(BACKBONES, samples)
    chosen = [members(subset, BACKBONES) for subset in range(1, 1 << BACKBONES)]

    def ours(count: int) -> NDArray[np.float64]:
        overlap = Overlap.of(right)
        found = np.stack([overlap.any_of(subset) for subset in chosen], axis=1)
        return Resamples(overlap.counts, count).means(found)

    return against(
        f"{RESAMPLES:,} resamples of {BACKBONES} backbones and all oracles of them",
        np.stack([right[subset].any(axis=0) for subset in chosen]),
        ours,
        rounds=rounds,
    )


def against(
    what: str,
    right: Right,
    ours: Callable[[int], NDArray[np.float64]],
    *,
    rounds: int,
) -> list[Measured]:
    rng = np.random.default_rng(1)
    for means in (ours(2_000), plain_counts(rng, right, 2_000)):
        check(means, right)
    times = interleaved(
        {
            "ours": lambda: ours(RESAMPLES),
            "counts": lambda: plain_counts(rng, right, COUNTED),
            "each": lambda: index_each(rng, right, PART),
            "shared": lambda: index_shared(rng, right, PART),
        },
        rounds,
    )
    for name, part in (("counts", COUNTED), ("each", PART), ("shared", PART)):
        times[name] = [took * RESAMPLES / part for took in times[name]]
    shown = {name: f"{statistics.median(t):.3g} s" for name, t in times.items()}
    return [
        Measured(
            f"{what}: plain counts of the samples and a matrix product, over ours",
            ratio(times["counts"], times["ours"]),
            f"{shown['counts']} against {shown['ours']}; {spread(times['counts'], times['ours'])}",
        ),
        Measured(
            "indices for every method, over ours",
            ratio(times["each"], times["ours"]),
            f"{shown['each']}; {spread(times['each'], times['ours'])}",
        ),
        Measured(
            "the same indices for all methods, over ours",
            ratio(times["shared"], times["ours"]),
            f"{shown['shared']}; {spread(times['shared'], times['ours'])}",
        ),
    ]


def check(means: NDArray[np.float64], right: Right) -> None:
    """Mean and spread are those that theory has for every method, and those of differences."""
    n = right.shape[1]
    values = right[[0, -1]].astype(float)
    values = np.stack([*values, values[0] - values[1]])
    found = np.stack([means[:, 0], means[:, -1], means[:, 0] - means[:, -1]])
    deviation = values.std(axis=1) / n**0.5
    assert np.all(np.abs(found.mean(axis=1) - values.mean(axis=1)) < 0.2 * deviation)
    assert np.allclose(found.std(axis=1), deviation, rtol=0.1)


def kappas(samples: int, rounds: int) -> list[Measured]:
    predictions, labels = random_predictions(samples)
    times = interleaved({"ours": lambda: resampled(predictions, labels)}, rounds)
    took = statistics.median(times["ours"])
    what = f"1,000 resamples of all measures of all pairs of {BACKBONES}, {samples:,} images"
    return [Measured(what, took, unit="s")]


@click.command()
@click.option("--samples", default=50_000, show_default=True)
@click.option("--rounds", default=5, show_default=True)
def main(samples: int, rounds: int) -> None:
    """Measures of all pairs, and bootstraps of methods and of all subsets."""
    start(f"Diversity and bootstraps: {samples:,} images")
    report([*pairwise(samples, rounds), *kappas(samples, rounds), *bootstraps(samples, rounds)])


if __name__ == "__main__":
    main()
