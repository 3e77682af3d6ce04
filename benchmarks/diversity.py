"""Diversity of all pairs of backbones, against the fastest plain numpy that we know.

    python benchmarks/diversity.py

Random backbones that are right together more often than by chance. All sides start from the same
arrays in memory. Beside plain numpy stands a slower way that is in use: loops over samples, as in
DESlib (0.3.7 does not run beside a current scikit-learn, so its way of counting is written out
here).
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

from clipsyn.analyses.diversity.measure import PAIRWISE, pair_counts

BACKBONES, CLASSES = 9, 1_000
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

    def ours() -> list[NDArray[np.float64]]:
        counts = pair_counts(predictions, labels)
        return [formula(counts) for formula in PAIRWISE.values()]

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


@click.command()
@click.option("--samples", default=50_000, show_default=True)
@click.option("--rounds", default=5, show_default=True)
def main(samples: int, rounds: int) -> None:
    """Measures of all pairs."""
    start(f"Diversity: {samples:,} images")
    report(pairwise(samples, rounds))


if __name__ == "__main__":
    main()
