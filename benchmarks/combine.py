"""Fitting and applying ensembles: against bare matrix products, PyTorch, an extraction, and memory.

    python benchmarks/combine.py

Nine backbones with the widths of the paper's, random embeddings and logits. The time of NLC's epoch
is that of a fit of five epochs minus that of one epoch, divided by four. All sides share one
process.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")  # as the command line does; before numpy
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import Measured, interleaved, ratio, report, seconds, spread, start, workplace
from memory import peak_bytes
from numpy.typing import NDArray

from clipsyn.extract import tune_process_memory

tune_process_memory()  # as extraction does; before torch
import subjects  # noqa: E402
import torch  # noqa: E402

from clipsyn.extract.images import open_source  # noqa: E402
from clipsyn.methods.ensembles import ENSEMBLES  # noqa: E402
from clipsyn.methods.ensembles.base import LogAverage  # noqa: E402
from clipsyn.methods.ensembles.nlc import NLC  # noqa: E402
from clipsyn.methods.ensembles.weighted import SuperLearner  # noqa: E402
from clipsyn.methods.numerics.blocks import in_blocks  # noqa: E402
from clipsyn.methods.pool import Pool  # noqa: E402

WIDTHS = (512, 1024, 512, 512, 640, 768, 768, 768, 1024)  # the paper's nine backbones: 6,528
CLASSES = 1_000
BATCH, HIDDEN = 512, 128  # NLC's own for sets of this size
SHORT, LONG = 1, 5  # epochs


def random_pool(samples: int) -> Pool:
    """Without embeddings; each backbone is sure of the true class for about half the samples."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, samples).astype(np.int32)
    labels[:CLASSES] = np.arange(CLASSES)  # the first thousand are one image a class
    logits = np.empty((samples, len(WIDTHS), CLASSES), np.float32)
    rng.standard_normal(out=logits, dtype=np.float32)
    logits *= 3
    sure = 12 * (rng.random((samples, len(WIDTHS))) < 0.5)
    logits[np.arange(samples)[:, None], np.arange(len(WIDTHS)), labels[:, None]] += sure
    return Pool.of(logits, labels)


def first(pool: Pool, samples: int) -> Pool:
    """The first samples of `pool`, which shares their logits, with random embeddings."""
    rng = np.random.default_rng(1)
    embeddings = {
        name: unit(rng.standard_normal((samples, width), dtype=np.float32))
        for name, width in zip(pool.backbones, WIDTHS, strict=True)
    }
    part = pool.take(slice(0, samples))
    return replace(part, embeddings=embeddings)


def unit(rows: NDArray[np.float32]) -> NDArray[np.float16]:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float16)


def fit(pool: Pool, epochs: int) -> None:
    NLC(steps=1, epochs=epochs, holdout=0, batch_size=BATCH).fit(pool)


def products(pool: Pool, features: NDArray[np.float32]) -> Callable[[], None]:
    """One epoch of NLC's matrix products and nothing else, into arrays that exist already."""
    rng = np.random.default_rng(2)
    first_layer = rng.standard_normal((features.shape[1], HIDDEN), dtype=np.float32)
    last_layer = rng.standard_normal((HIDDEN, len(WIDTHS)), dtype=np.float32)
    gradient, active = np.empty_like(first_layer), np.empty((BATCH, HIDDEN), np.float32)
    slope = np.empty_like(active)

    def batch(x: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
        hidden, back = active[: len(x)], slope[: len(x)]
        np.matmul(x, first_layer, out=hidden)
        weights = (hidden @ last_layer)[:, None]
        in_blocks(partial(sums_and_back, logits, weights), logits.shape)
        hidden.T @ weights[:, 0]
        np.matmul(weights[:, 0], last_layer.T, out=back)
        np.matmul(x.T, back, out=gradient)

    def epoch() -> None:
        for begin in range(0, len(pool), BATCH):
            batch(features[begin : begin + BATCH], pool.logits[begin : begin + BATCH])

    return epoch


def sums_and_back(logits: NDArray[Any], weights: NDArray[Any], rows: slice) -> None:
    scores = weights[rows] @ logits[rows]
    logits[rows] @ scores.transpose(0, 2, 1)


def plain_torch(pool: Pool, features: NDArray[np.float32]) -> Callable[[], None]:
    """One epoch in plain PyTorch: batches are rows of whole tensors."""
    tensors = [
        torch.from_numpy(array) for array in (features, pool.logits, pool.labels.astype(int))
    ]

    def batches() -> Iterator[list[torch.Tensor]]:
        for rows in torch.split(torch.randperm(len(pool)), BATCH):
            yield [tensor[rows] for tensor in tensors]

    return torch_epoch(features.shape[1], batches)


def loader_torch(pool: Pool, features: NDArray[np.float32]) -> Callable[[], None]:
    """One epoch of the usual loop over a DataLoader."""
    tensors = [
        torch.from_numpy(array) for array in (features, pool.logits, pool.labels.astype(int))
    ]
    data = torch.utils.data.TensorDataset(*tensors)
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=True)
    return torch_epoch(features.shape[1], lambda: iter(loader))


def torch_epoch(
    width: int, batches: Callable[[], Iterator[Sequence[torch.Tensor]]]
) -> Callable[[], None]:
    model = torch.nn.Sequential(
        torch.nn.Linear(width, HIDDEN),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN, len(WIDTHS)),
        torch.nn.Softplus(),
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-4, weight_decay=0.01)

    def epoch() -> None:
        for x, logits, labels in batches():
            scores = (model(x)[:, None] @ logits)[:, 0] / len(WIDTHS)
            loss = torch.nn.functional.cross_entropy(scores, labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()

    return epoch


def fitting(pool: Pool, rounds: int) -> list[Measured]:
    features = pool.features()
    sides: dict[str, Callable[[], object]] = {
        "short": partial(fit, pool, SHORT),
        "long": partial(fit, pool, LONG),
        "products": products(pool, features),
        "plain": plain_torch(pool, features),
        "loader": loader_torch(pool, features),
    }
    times = interleaved(sides, rounds)
    epoch = difference(times["long"], times["short"])
    bare, loop, loader = times["products"], times["plain"], times["loader"]
    shown = f"{1e3 * statistics.median(epoch):.0f} ms"
    return [
        Measured(
            f"NLC, {len(pool):,} samples: an epoch over its bare matrix products",
            ratio(epoch, bare),
            f"{shown} against {1e3 * statistics.median(bare):.0f}; {spread(epoch, bare)}",
            ceiling=1.4,
        ),
        Measured(
            "PyTorch on rows of whole tensors over ours",
            ratio(loop, epoch),
            f"{1e3 * statistics.median(loop):.0f} ms against {shown}; {spread(loop, epoch)}",
        ),
        Measured(
            "PyTorch with a DataLoader over ours",
            ratio(loader, epoch),
            f"{1e3 * statistics.median(loader):.0f} ms; {spread(loader, epoch)}",
        ),
    ]


def difference(long: Sequence[float], short: Sequence[float]) -> list[float]:
    """Seconds of an epoch, without what a fit does once."""
    return [(a - b) / (LONG - SHORT) for a, b in zip(long, short, strict=True)]


def one_shot(pool: Pool, folder: Path) -> list[Measured]:
    """Fits on one image a class, against one pass of ViT-B-32 over as many JPEGs."""
    fits = {name: seconds(partial(ENSEMBLES.load(name)().fit, pool)) for name in ENSEMBLES}
    encoders = subjects.load([subjects.random_backbone(folder, "ViT-B-32")], "cpu")
    source = open_source(str(subjects.write_photographs(folder, len(pool))), "test")
    took = seconds(partial(subjects.extract, folder / "store", encoders, source))
    without_gac = sum(fits.values()) - fits["gac"]
    slowest = sorted(fits.items(), key=lambda pair: -pair[1])[:4]
    return [
        Measured(
            f"fit of NLC on {len(pool):,} images over one pass of ViT-B-32",
            fits["nlc"] / took,
            f"{fits['nlc']:.2f} s against {took:.1f} s",
            ceiling=0.1,
        ),
        Measured(
            "all ensembles but gac together over the same",
            without_gac / took,
            ", ".join(f"{name} {value:.2f} s" for name, value in slowest),
            ceiling=1,
        ),
    ]


def combining(pool: Pool, rounds: int) -> list[Measured]:
    """`combine` against the bandwidth of memory: bytes read and written a second, on all cores."""
    learner = SuperLearner().fit(pool.take(slice(0, CLASSES)))
    copied = np.empty_like(pool.logits[: len(pool) // 2])
    halves = pool.logits[: len(copied)], pool.logits[-len(copied) :]
    with ThreadPoolExecutor() as threads:
        sides: dict[str, Callable[[], object]] = {
            "copy": partial(side_by_side, threads, partial(copy, halves[0], copied), len(copied)),
            "read": partial(side_by_side, threads, partial(read, halves[1]), len(copied)),
            "log-avg": partial(LogAverage().combine, pool),
            "super-learner": partial(learner.combine, pool),
        }
        times = interleaved(sides, rounds)
    moved = {"copy": 2 * copied.nbytes, "read": copied.nbytes}
    combined = pool.logits.nbytes + 4 * len(pool) * CLASSES
    rates = {name: [moved.get(name, combined) / t / 1e9 for t in times[name]] for name in times}
    best = [max(pair) for pair in zip(rates["copy"], rates["read"], strict=True)]
    memory = ", ".join(f"{name} {statistics.median(rates[name]):.1f}" for name in moved)
    return [
        Measured(
            f"combine of {name} over {len(pool):,} x {len(WIDTHS)} x {CLASSES:,}: of the bandwidth",
            100 * ratio(rates[name], best),
            f"{statistics.median(rates[name]):.1f} GB/s; memory: {memory}",
            floor=40,
            unit="%",
        )
        for name in ("log-avg", "super-learner")
    ]


def side_by_side(threads: ThreadPoolExecutor, work: Callable[[slice], None], rows: int) -> None:
    step = 500  # 18 MB
    list(threads.map(work, [slice(begin, begin + step) for begin in range(0, rows, step)]))


def copy(source: NDArray[Any], target: NDArray[Any], rows: slice) -> None:
    target[rows] = source[rows]


def read(source: NDArray[Any], rows: slice) -> None:
    source[rows].max()


def extra_memory(pool: Pool) -> Measured:
    """What `combine` needs at its peak beyond the pool and the scores it returns (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = peak_bytes()
    scores = LogAverage().combine(pool)
    extra = (peak_bytes() - before - scores.nbytes) / 1e6
    detail = (
        f"the logits are {pool.logits.nbytes / 1e6:,.0f} MB, the scores {scores.nbytes / 1e6:,.0f}"
    )
    return Measured("extra memory of combine at its peak", extra, detail, ceiling=100, unit="MB")


@click.command()
@click.option("--samples", default=50_000, show_default=True, help="To combine.")
@click.option("--fitted", default=16_000, show_default=True, help="To fit NLC on.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Keep images and models there.")
def main(samples: int, fitted: int, rounds: int, folder: Path | None) -> None:
    """Seconds of fitting NLC and all ensembles, and GB/s of combining."""
    start(f"Combine: {len(WIDTHS)} backbones, {sum(WIDTHS):,} features, {CLASSES:,} classes")
    pool = random_pool(samples)
    results = [extra_memory(pool), *combining(pool, rounds)]  # before anything freed is reused
    results += fitting(first(pool, fitted), rounds)
    with workplace(folder) as place:
        results += one_shot(first(pool, CLASSES), Path(place))
    report(results)


if __name__ == "__main__":
    main()
