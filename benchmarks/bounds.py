"""What work must cost at least: operations over the rate of matrix products, bytes over bandwidths.

The rates are measured in the run that they are used in. A bound counts what the method as it is
needs: the products of its steps, however many steps there were, and each logit read once for each
evaluation. It counts no exponentials, no sums, no copies.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import seconds

from clipsyn.methods.numerics.blocks import in_blocks

HIDDEN, STEPS = 128, 600  # NLC's
EPOCHS = 20  # Tip-Adapter-F's


@dataclass(frozen=True)
class Rates:
    """Of this machine, now: operations/s in single precision, bytes/s of memory and of files."""

    operations: float
    memory: float
    files: float  # in the page cache

    @classmethod
    def measure(cls, store: Path) -> Rates:
        rng = np.random.default_rng(0)
        a = rng.standard_normal((2048, 2048), np.float32)
        out = np.empty_like(a)
        values = np.ones((2_000, 50_000), np.float32)  # 400 MB
        peaks = np.empty(len(values), np.float32)

        def largest(rows: slice) -> None:
            np.max(values[rows], axis=1, out=peaks[rows])

        files = sorted(store.rglob("logit/c.*"))[:256] or sorted(store.rglob("c.*"))[:256]
        size = sum(file.stat().st_size for file in files)
        return cls(
            2 * 2048**3 / _median(lambda: np.matmul(a, a, out=out)),
            values.nbytes / _median(lambda: in_blocks(largest, values.shape)),
            size / _median(lambda: _read(files)),
        )

    def __str__(self) -> str:
        return (
            f"products {self.operations / 1e9:,.0f} GFLOP/s, memory {self.memory / 1e9:.1f} GB/s, "
            f"files in the page cache {self.files / 1e9:.1f} GB/s"
        )


def _median(function: Callable[[], object], rounds: int = 5) -> float:
    function()
    return statistics.median(seconds(function) for _ in range(rounds))


def _read(files: Sequence[Path]) -> None:
    buffer = bytearray(max(file.stat().st_size for file in files))
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.readv(descriptor, [buffer])
        os.close(descriptor)


@dataclass(frozen=True)
class Bound:
    """What must be done, and in words why."""

    operations: float = 0.0
    memory: float = 0.0  # bytes that lie in memory
    files: float = 0.0  # bytes of files
    start: float = 0.0  # seconds that a process takes to start
    why: str = ""

    def seconds(self, rates: Rates) -> float:
        return (
            self.start
            + self.operations / rates.operations
            + self.memory / rates.memory
            + self.files / rates.files
        )

    def __add__(self, other: Bound) -> Bound:
        return Bound(
            self.operations + other.operations,
            self.memory + other.memory,
            self.files + other.files,
            self.start + other.start,
            " + ".join(filter(None, (self.why, other.why))),
        )


@dataclass(frozen=True)
class Shape:
    """Sizes that costs depend on."""

    support: int
    test: int
    classes: int
    widths: tuple[int, ...]

    @property
    def backbones(self) -> int:
        return len(self.widths)

    @property
    def width(self) -> int:
        return sum(self.widths)

    def logits(self, samples: int) -> int:
        """Bytes of the logits of so many images."""
        return 4 * samples * self.backbones * self.classes

    def embeddings(self, samples: int) -> int:
        """Bytes of the embeddings of so many images, as stored."""
        return 2 * samples * self.width


@dataclass
class Counts:
    """How often a fit did what its cost depends on."""

    evaluations: int = 0  # of functions that are minimised
    parameters: int = 0  # of those that scipy minimises, summed over the evaluations
    products: float = 0.0  # operations of the other linear fits
    steps: int = 0  # of Adam
    searched: int = 0  # weights whose accuracy was computed
    contenders: int = 0  # classes that can come first, of all support samples


Fit = Callable[[Shape, Counts], Bound]


def _nothing(_: Shape, __: Counts) -> Bound:
    return Bound()


def _once(shape: Shape, _: Counts) -> Bound:
    return Bound(memory=shape.logits(shape.support), why="logits read once")


def _one_backbone_each(shape: Shape, counts: Counts) -> Bound:
    times = counts.evaluations or shape.backbones
    size = shape.logits(shape.support) // shape.backbones
    return Bound(memory=times * size, why=f"{times} readings of a backbone's logits")


def _all_each(shape: Shape, counts: Counts) -> Bound:
    times = counts.evaluations or 1
    return Bound(memory=times * shape.logits(shape.support), why=f"logits read {times} times")


def _curvatures(shape: Shape, counts: Counts) -> Bound:
    """An evaluation reads the logits and multiplies those of every two backbones."""
    each = 2 * shape.support * shape.backbones**2 * shape.classes
    times = counts.evaluations or 1
    return Bound(times * each, why="curvature products") + _all_each(shape, counts)


def _searched(shape: Shape, counts: Counts) -> Bound:
    values = counts.contenders or shape.support * shape.classes
    operations = 2 * counts.searched * shape.backbones * values
    why = f"sums of {counts.contenders:,} classes that can win for {counts.searched} weights"
    return Bound(operations, why=why) + _once(shape, counts)


def _neighbours(shape: Shape, _: Counts) -> Bound:
    return Bound(memory=shape.embeddings(shape.support), why="embeddings read once")


def _gate(shape: Shape, counts: Counts) -> Bound:
    samples = _batch(shape) * (counts.steps or STEPS)
    return Bound(
        4 * samples * shape.width * HIDDEN, why=f"products of {counts.steps or STEPS} steps"
    )


def _batch(shape: Shape) -> int:
    """Samples of a step: of NLC's nine tenths an eighth, 32 to 512."""
    return min(512, max(32, int(0.9 * shape.support) // 8))


def _nlc(shape: Shape, counts: Counts) -> Bound:
    logits = Bound(
        memory=2 * shape.logits(_batch(shape) * (counts.steps or STEPS)),
        why="logits read forth and back",
    )
    return _gate(shape, counts) + logits


def _linear(shape: Shape, counts: Counts) -> Bound:
    operations = 4 * shape.support * counts.parameters + counts.products
    return Bound(operations, why=f"products of {counts.evaluations} evaluations")


def _keys(shape: Shape, _: Counts) -> Bound:
    return Bound(2 * shape.support**2 * shape.width, why="cosines of the support with itself")


def _tuned_keys(shape: Shape, _: Counts) -> Bound:
    operations = 4 * EPOCHS * shape.support**2 * shape.width
    return Bound(operations, why=f"cosines and gradients of {EPOCHS} epochs")


def _covariance(shape: Shape, _: Counts) -> Bound:
    squares = sum(width**2 for width in shape.widths)
    cubes = sum(width**3 for width in shape.widths)
    return Bound(2 * shape.support * squares + cubes, why="scatter, and its inverse")


ENSEMBLES: dict[str, Fit] = {
    "best-single": _once,
    "c-conf": _one_backbone_each,
    "c-log-avg": _one_backbone_each,
    "super-learner": _all_each,
    "residual-router": _curvatures,
    "gac": _searched,
    "greedy": _once,
    "stacking": _linear,
    "ola": _neighbours,
    "knora-u": _neighbours,
    "moe": _gate,
    "nlc": _nlc,
}
HEADS: dict[str, Fit] = {
    "linear-probe": _linear,
    "anchored-probe": _linear,
    "tip-adapter": _keys,
    "tip-adapter-f": _tuned_keys,
    "lda": _covariance,
}


def fitting(name: str, shape: Shape, counts: Counts) -> Bound:
    """Of a fit on the support, what it reads in memory already."""
    return {**ENSEMBLES, **HEADS}.get(name, _nothing)(shape, counts)


def applying(name: str, shape: Shape) -> Bound:
    """Of scores for all test images, their logits and embeddings in memory already."""
    test, reading = shape.test, Bound(memory=shape.logits(shape.test), why="logits read once")
    if name in ("ola", "knora-u"):
        products = 2 * test * shape.support * shape.width
        return Bound(products, why="cosines with the support") + reading
    if name in ("moe", "nlc"):
        return Bound(2 * test * shape.width * HIDDEN, why="products of the gate") + reading
    if name == "stacking":
        inputs = shape.backbones * shape.classes
        return Bound(2 * test * inputs * shape.classes, why="products with the classes") + reading
    if name.startswith("tip-adapter"):
        return Bound(2 * test * shape.support * shape.width, why="cosines with the keys")
    if name in HEADS:
        return Bound(2 * test * shape.classes * shape.width, why="products with the classes")
    return reading
