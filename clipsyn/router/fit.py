"""Fit a router on a split of a store."""

from __future__ import annotations

from collections.abc import Sequence

from clipsyn.ensembles import ENSEMBLES
from clipsyn.errors import UsageError
from clipsyn.estimator import from_text
from clipsyn.heads import HEADS
from clipsyn.numerics.fewshot import few_shot
from clipsyn.router.fitted import FittedRouter
from clipsyn.store.features import FeatureStore
from clipsyn.store.pools import PoolReader
from clipsyn.store.select import Names


def fit_router(
    store: FeatureStore,
    dataset: str,
    ensemble: str,
    *,
    head: str = "zero-shot",
    shots: int | None = None,
    seed: int = 0,
    support: str = "train",
    backbones: Names = None,
    prompts: str | None = None,
    views: Sequence[str] = (),
) -> FittedRouter:
    """Fit a head and an ensemble on `shots` images of each class of a dataset's support split.

    ensemble, head: ``NAME`` or ``NAME:parameter=value``. shots: None takes every labelled image.
    seed: which images the shots are, and the `random_state` of a method whose text sets none, as
    in `clipsyn evaluate`. The labels are read first, then only what the chosen images need.

    >>> from clipsyn import FeatureStore, fit_router
    >>> fit_router(FeatureStore.open("store"), "toy", "log-avg", head="lda", shots=2)
    <FittedRouter log-avg on lda: 2 backbones, 3 classes, fitted on 6 images of toy/train>
    """
    if shots is not None and shots < 1:
        raise UsageError(f"at least one shot, or all of them (full), not {shots}")
    if seed < 0:
        raise UsageError(f"a seed is at least 0, not {seed}")
    combiner, fitted_head = from_text(ENSEMBLES, ensemble, seed), from_text(HEADS, head, seed)
    reader = PoolReader(
        store, dataset, support, backbones=backbones, prompts=prompts, views=tuple(views)
    )
    pool = reader.read(few_shot(reader.samples.labels, shots, seed))
    combiner.fit(fitted_head.fit_transform(pool))
    drawn = None if shots is None else seed  # all images are the same ones for any seed
    return FittedRouter.of(combiner, pool, head=fitted_head, shots=shots, seed=drawn)
