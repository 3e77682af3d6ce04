"""The oracle of every subset of backbones against plain numpy, and weights against scipy.

    python benchmarks/oracle.py

The backbones are random, and right together more often than by chance. All sides start from the
same arrays in memory. The fastest plain numpy that we know makes one number of the backbones that
are right on a sample, one bit each, and counts these numbers. Loops over subsets stand beside it.
"""

from __future__ import annotations

import statistics
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import click
import numpy as np
from common import Measured, interleaved, ratio, report, spread, start
from numpy.typing import NDArray

from clipsyn.analyses.oracle.measures import best_subsets, reachable, subset_hits

FEW, MANY = 9, 20  # backbones: the paper's, and as many as have a million subsets
CLASSES = 1_000
REPEATED = 10  # a call takes 0.1 ms, too short to be timed alone


def random_right(backbones: int, samples: int) -> NDArray[np.bool_]:
    rng = np.random.default_rng(backbones)
    easy = rng.standard_normal(samples)
    right: NDArray[np.bool_] = easy + rng.standard_normal((backbones, samples)) > -0.5
    return right


def plain_hits(right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(subset,): how many samples any of it gets right; right is (backbone, sample)."""
    backbones = len(right)
    counts = np.bincount((1 << np.arange(backbones)) @ right, minlength=1 << backbones)
    subsets = np.arange(1 << backbones)
    return np.asarray(((subsets[:, None] & subsets) > 0) @ counts)


def loop_over_rows(right: NDArray[np.bool_]) -> dict[tuple[int, ...], float]:
    """One boolean `any` for each subset; right is (backbone, sample), a row in memory each."""
    return {s: float(right[list(s)].any(axis=0).mean()) for s in every_subset(len(right))}


def loop_over_columns(right: NDArray[np.bool_]) -> dict[tuple[int, ...], float]:
    """The same on (sample, backbone), the shape of tables of predictions."""
    return {s: float(right[:, list(s)].any(axis=1).mean()) for s in every_subset(right.shape[1])}


def every_subset(backbones: int) -> Iterator[tuple[int, ...]]:
    for size in range(1, backbones + 1):
        yield from combinations(range(backbones), size)


def subsets(samples: int, rounds: int) -> list[Measured]:
    few, many = random_right(FEW, samples), random_right(MANY, samples)
    table = np.ascontiguousarray(few.T)
    accuracy = subset_hits(few) / samples
    assert np.array_equal(subset_hits(few), plain_hits(few))
    for subset, expected in loop_over_rows(few).items():
        assert abs(accuracy[sum(1 << b for b in subset)] - expected) < 1e-12, subset
    sides: dict[str, Callable[[], object]] = {
        "few": lambda: [subset_hits(few) / samples for _ in range(REPEATED)],
        "plain": lambda: [plain_hits(few) / samples for _ in range(REPEATED)],
        "rows": lambda: loop_over_rows(few),
        "columns": lambda: loop_over_columns(table),
        "many": lambda: subset_hits(many) / samples,
        "best": lambda: best_subsets(subset_hits(many)),
    }
    times = interleaved(sides, rounds)
    for name in ("few", "plain"):
        times[name] = [took / REPEATED for took in times[name]]
    shown = {name: f"{1e3 * statistics.median(t):.3g} ms" for name, t in times.items()}
    return [
        Measured(
            f"plain numpy by numbers of one bit a backbone, the 2^{FEW} subsets, over ours; "
            f"{samples:,} images",
            ratio(times["plain"], times["few"]),
            f"{shown['plain']} against {shown['few']}; {spread(times['plain'], times['few'])}",
        ),
        Measured(
            "loop of boolean any over the subsets, each backbone a row of memory as for ours",
            ratio(times["rows"], times["few"]),
            f"{shown['rows']}; {spread(times['rows'], times['few'])}",
        ),
        Measured(
            "the same loop on (sample, backbone), as tables of predictions have it",
            ratio(times["columns"], times["few"]),
            f"{shown['columns']}; {spread(times['columns'], times['few'])}",
        ),
        Measured(
            f"2^{MANY} subsets over 2^{FEW}",
            ratio(times["many"], times["few"]),
            f"{shown['many']}; {spread(times['many'], times['few'])}",
            ceiling=500,
        ),
        Measured(
            f"the same with the best subset of each size, over 2^{FEW} subsets",
            ratio(times["best"], times["few"]),
            shown["best"],
        ),
        extra_memory(many),
    ]


def extra_memory(right: NDArray[np.bool_]) -> Measured:
    """How much memory a million subsets allocate at their peak."""
    tracemalloc.start()
    best_subsets(subset_hits(right))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Measured(f"memory of 2^{MANY} subsets at its peak", peak / 1e6, unit="MB")


def random_logits(samples: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Backbones that agree in part; the true class is first in one of them for some images."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, samples)
    logits = rng.standard_normal((FEW, samples, CLASSES), np.float32)
    logits += 2 * rng.standard_normal((samples, CLASSES), np.float32)
    logits[:, np.arange(samples), labels] += rng.uniform(2, 7, samples).astype(np.float32)
    return logits, labels


def linear_program(logits: NDArray[Any], label: int) -> bool:
    """Whether some mixture of logits (backbone, class) ranks the label first, by HiGHS."""
    from scipy.optimize import linprog

    margins = logits[:, [label]] - np.delete(logits, label, axis=1)
    backbones, rivals = margins.shape
    solution = linprog(
        [*[0] * backbones, -1],
        A_ub=np.column_stack([-margins.T, np.ones(rivals)]),
        b_ub=np.zeros(rivals),
        A_eq=[[*[1] * backbones, 0]],
        b_eq=[1],
        bounds=[(0, None)] * backbones + [(None, None)],
    )
    return bool(-solution.fun > 1e-9)


def weights(samples: int, rounds: int) -> list[Measured]:
    """Images that no backbone gets right: ours, and scipy's solver on each of them."""
    logits, labels = random_logits(8 * samples)
    wrong = np.flatnonzero(~(logits.argmax(axis=2) == labels).any(axis=0))[:samples]
    logits, labels = np.ascontiguousarray(logits[:, wrong]), labels[wrong]

    def scipy() -> list[bool]:
        pairs = zip(logits.transpose(1, 0, 2).astype(float), labels, strict=True)
        return [linear_program(image, label) for image, label in pairs]

    reached = reachable(logits, labels)
    assert reached.tolist() == scipy()
    times = interleaved({"ours": lambda: reachable(logits, labels), "scipy": scipy}, rounds)
    ours = 1e3 * statistics.median(times["ours"]) / len(wrong)
    return [
        Measured(
            f"weight oracle, {len(wrong)} images that none of {FEW} backbones gets right, "
            f"{CLASSES:,} classes: linprog over ours",
            ratio(times["scipy"], times["ours"]),
            f"ours {ours:.2f} ms an image, {100 * reached.mean():.0f} % reachable; "
            + spread(times["scipy"], times["ours"]),
        )
    ]


@click.command()
@click.option("--samples", default=50_000, show_default=True)
@click.option("--weighed", default=200, show_default=True, help="Images for the weight oracle.")
@click.option("--rounds", default=15, show_default=True)
def main(samples: int, weighed: int, rounds: int) -> None:
    """All subsets of 9 and of 20 backbones, and the weight oracle."""
    start(f"Oracle: {samples:,} images, {FEW} and {MANY} backbones")
    report([*subsets(samples, rounds), *weights(weighed, min(rounds, 5))])


if __name__ == "__main__":
    main()
