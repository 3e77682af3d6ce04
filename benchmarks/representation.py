"""CKA and Procrustes distance of all pairs of backbones, against their bare matrix products.

    python benchmarks/representation.py

Random embeddings of the widths of the paper's nine backbones that have something in common, in
half precision and in memory, as a store gives them. The bare products start from single precision.
"""

from __future__ import annotations

import statistics
import tracemalloc
from collections.abc import Callable
from itertools import combinations_with_replacement
from typing import Any

import click
import numpy as np
from common import Measured, interleaved, ratio, report, spread, start
from numpy.typing import NDArray

from clipsyn.analyses.representation.measures import similarities

WIDTHS = (1024, 512, 640, 768, 1024, 512, 512, 768, 768)
SHARED = 64  # directions that all have in common
Embeddings = list[NDArray[Any]]


def random_embeddings(samples: int) -> Embeddings:
    """(sample, embed) float16 of each backbone, unit norm, around a mean that is not 0."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal((samples, SHARED), np.float32)
    found = []
    for width in WIDTHS:
        x = common @ rng.standard_normal((SHARED, width), np.float32)
        x += 8 * rng.standard_normal(x.shape, np.float32) + 4
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        found.append(x.astype(np.float16))
    return found


def every_product(arrays: Embeddings) -> None:
    """X'Y of all pairs, also of each with itself: the products that HSIC is made of."""
    for i, j in combinations_with_replacement(range(len(arrays)), 2):
        np.matmul(arrays[i].T, arrays[j])


def explicit_cka(x: NDArray[Any], y: NDArray[Any]) -> float:
    """With n x n kernels, as Song et al. 2012, equation 5, has it."""

    def hsic(k: NDArray[Any], m: NDArray[Any]) -> float:
        n = len(k)
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        total = k.sum() * m.sum() / ((n - 1) * (n - 2))
        cross = 2 / (n - 2) * (k.sum(axis=0) @ m.sum(axis=1))
        return float((np.vdot(k, m) + total - cross) / (n * (n - 3)))

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / float(np.sqrt(hsic(k, k) * hsic(m, m)))


def check(embeddings: Embeddings) -> None:
    """The same numbers as explicit kernels give, on a few of the samples."""
    few = [x[:1_500] for x in embeddings[:3]]
    found = similarities(few)["cka"][0]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        expected = explicit_cka(few[i].astype(np.float64), few[j].astype(np.float64))
        assert abs(found[i, j] - expected) < 1e-3, (found[i, j], expected)


def all_pairs(samples: int, rounds: int) -> list[Measured]:
    embeddings = random_embeddings(samples)
    check(embeddings)
    single = [x.astype(np.float32) for x in embeddings]
    sides: dict[str, Callable[[], object]] = {
        "ours": lambda: similarities(embeddings),
        "bare": lambda: every_product(single),
    }
    times = interleaved(sides, rounds)
    seconds = {name: statistics.median(taken) for name, taken in times.items()}
    pairs = len(WIDTHS) * (len(WIDTHS) - 1) // 2
    operations = samples * (sum(WIDTHS) ** 2 + sum(width**2 for width in WIDTHS))
    return [
        Measured(
            f"CKA and Procrustes of all {pairs} pairs, {samples:,} samples: over bare products",
            ratio(times["ours"], times["bare"]),
            f"{seconds['ours']:.1f} s against {seconds['bare']:.1f} s "
            f"({operations / seconds['bare'] / 1e9:.0f} GFLOP/s); "
            + spread(times["ours"], times["bare"]),
            ceiling=2,
        ),
        extra_memory(embeddings),
    ]


def extra_memory(embeddings: Embeddings) -> Measured:
    """What is allocated at the peak, beside the embeddings."""
    tracemalloc.start()
    similarities(embeddings)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    held = sum(x.nbytes for x in embeddings) / 1e9
    return Measured(
        "extra memory at its peak", peak / 1e9, f"of embeddings of {held:.2f} GB", unit="GB"
    )


@click.command()
@click.option("--samples", default=50_000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(samples: int, rounds: int) -> None:
    """CKA and Procrustes distance of nine backbones."""
    start(f"Representation: {samples:,} samples, {len(WIDTHS)} backbones")
    report(all_pairs(samples, rounds))


if __name__ == "__main__":
    main()
