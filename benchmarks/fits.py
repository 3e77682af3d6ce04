"""One ensemble or head on a store: its fit on 16 images a class and its scores of all test images.

    python benchmarks/fits.py STORE NAME            what it took, as JSON
    python benchmarks/fits.py STORE NAME --profile  where the time went
    python benchmarks/fits.py STORE NAME --backbones RN50/openai --only-fit
                                                    one backbone, no logits for a combiner

`paper_scale.py` runs this once for each, in a process of its own, so that peaks are its own.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")  # as the command line does; before numpy
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import numpy as np
from bounds import Counts, Shape
from memory import peak_bytes
from numpy.typing import NDArray
from sampled import Sampled

from clipsyn.methods.ensembles import ENSEMBLES, residual
from clipsyn.methods.estimator import from_text
from clipsyn.methods.heads import HEADS
from clipsyn.methods.numerics import optimise
from clipsyn.methods.numerics.logits import contenders
from clipsyn.methods.pool import Pool
from clipsyn.store.features import FeatureStore
from clipsyn.store.pools import PoolReader


class Clock:
    """Wall and processor seconds of what runs inside it, added up."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    @property
    def took(self) -> dict[str, float]:
        return {"wall": self.wall, "cpu": self.cpu}

    def __enter__(self) -> None:
        self._begin = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._begin[0]
        self.cpu += time.process_time() - self._begin[1]


@contextmanager
def counted(counts: Counts) -> Iterator[None]:
    """Count what optimisers do meanwhile."""
    import scipy.optimize

    minimize, step = scipy.optimize.minimize, optimise.Adam.step
    scored, at = optimise.Linear.of, residual.Problem.at

    def minimizing(objective: Any, start: Any, *arguments: Any, **settings: Any) -> Any:
        result = minimize(objective, start, *arguments, **settings)
        counts.evaluations += result.nfev
        counts.parameters += result.nfev * len(start)
        return result

    def stepping(adam: Any, *arguments: Any) -> None:
        counts.steps += 1
        step(adam, *arguments)

    def scoring(linear: Any, inputs: Any) -> Any:
        counts.evaluations += 1
        counts.products += 4 * len(inputs) * linear.coef.size  # of a direction, and a gradient
        return scored(linear, inputs)

    def evaluating(problem: Any, parameters: Any) -> Any:
        counts.evaluations += 1
        return at(problem, parameters)

    with ExitStack() as patches:
        patches.enter_context(patch("scipy.optimize.minimize", minimizing))
        patches.enter_context(patch.object(optimise.Adam, "step", stepping))
        patches.enter_context(patch.object(optimise.Linear, "of", scoring))
        patches.enter_context(patch.object(residual.Problem, "at", evaluating))
        yield


def measure(
    store: FeatureStore, dataset: str, name: str, *, backbones: str = "*", only_fit: bool = False
) -> dict[str, Any]:
    """Seconds to read, fit and apply; the shape, what was counted, the accuracy."""
    reading, fitting, applying, counts = Clock(), Clock(), Clock(), Counts()
    with reading:
        support = PoolReader(store, dataset, "train", backbones=backbones).read()
    with counted(counts), fitting:
        estimator = fitted(name, support, only_fit=only_fit)
    counts.searched = int(getattr(estimator, "evaluations_", 0))
    if counts.searched:
        counts.contenders = sum(group.classes.size for group in contenders(support.logits))
    widths = tuple(rows.shape[1] for rows in support.embeddings.values())
    fitted_on = len(support)
    classes = support.n_classes
    del support  # the blocks of the test split take its place
    images = right = 0
    blocks = PoolReader(store, dataset, "test", backbones=backbones).blocks()
    while True:
        with reading:
            block = next(blocks, None)
        if block is None:
            break
        with applying:
            scores = apply(estimator, block)
        images += len(block)
        right += int((scores.argmax(axis=1) == block.labels).sum())
    return {
        "read": reading.wall,
        "fit": fitting.took,
        "apply": applying.took,
        "accuracy": right / images,
        "peak": peak_bytes(),
        "shape": asdict(Shape(fitted_on, images, classes, widths)),
        "counts": asdict(counts),
    }


def fitted(name: str, support: Pool, *, only_fit: bool) -> Any:
    """An ensemble on zero-shot logits, or a head, with what it gives the ensembles if asked."""
    if name in ENSEMBLES:
        return from_text(ENSEMBLES, name).fit(support)
    head = from_text(HEADS, name)
    if only_fit:
        head.fit(support)
    else:
        head.fit_transform(support)
    return head


def apply(estimator: Any, block: Pool) -> NDArray[np.float32]:
    """(sample, class) scores; a head makes those of all backbones, the last one's are judged."""
    if hasattr(estimator, "combine"):
        return np.asarray(estimator.combine(block))
    return np.asarray(estimator.transform(block).logits[:, -1])


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.argument("name")
@click.option("--dataset", help="The only one of the store, if it is not given.")
@click.option("--backbones", default="*", help="Only these: a name or a pattern.")
@click.option("--only-fit", is_flag=True, help="Of a head, no logits for a combiner.")
@click.option("--profile", is_flag=True, help="Print the functions that took most.")
def main(path: Path, name: str, *, dataset: str | None, profile: bool, **only: Any) -> None:
    """What the fit of one ensemble or head, and its scores, take on a store."""
    store = FeatureStore.open(path)
    chosen = dataset or store.keys()[0].dataset
    if profile:
        with Sampled() as sampled:
            measure(store, chosen, name, **only)
        click.echo(sampled)
    else:
        click.echo(json.dumps(measure(store, chosen, name, **only)))


if __name__ == "__main__":
    main()
