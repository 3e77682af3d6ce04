"""Fit a router on a split of a store."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.chosen import Candidate, choose
from clipsyn.methods.ensembles import CHOSEN, ENSEMBLES, USUAL_ENSEMBLES
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.estimator import from_text
from clipsyn.methods.heads import HEADS, USUAL_HEADS, ZERO_SHOT
from clipsyn.methods.heads.base import Head
from clipsyn.methods.numerics.samples import few_shot
from clipsyn.methods.pool import Pool
from clipsyn.router.fitted import FittedRouter
from clipsyn.router.settings import FitSettings
from clipsyn.settings import images_of, takes
from clipsyn.store.features import FeatureStore, opened
from clipsyn.store.overlap import learnable
from clipsyn.store.pools import PoolReader
from clipsyn.store.select import only_dataset

_LOG = logging.getLogger("clipsyn")


@takes(FitSettings)
def fit_router(
    store: FeatureStore | Path | str,
    dataset: str | None = None,
    ensemble: str = CHOSEN,
    **settings: Any,
) -> FittedRouter:
    """Fit a head and an ensemble on `shots` images of each class of a dataset's support split.

    dataset: None for the only one of the store.
    settings: head, shots, seed, support, allow_overlap, backbones, prompts, views, as
    `clipsyn.router.settings.FitSettings` declares them. Images that the dataset's test split holds
    too are not learned from: see `clipsyn.store.overlap.learnable`. ensemble, head: ``NAME`` or
    ``NAME:parameter=value``; unless an ensemble is named, `clipsyn.methods.chosen.choose` chooses
    both among the usual ones. seed: which images the shots are, and the `random_state` of a method
    whose text sets none, as in `clipsyn evaluate`. The labels are read first, then only what the
    chosen images need. Images that are more than 1 GiB in memory are put into a temporary file; a
    method that cannot be fitted so takes a sample of 1 GiB (see `FittedRouter.sampled`).

    >>> from clipsyn import FeatureStore, fit_router
    >>> fit_router(FeatureStore.open("store"), "toy", "log-avg", head="lda", shots=2)
    <FittedRouter log-avg on lda: 2 backbones, 3 classes, fitted on 6 images of toy/train>
    """
    asked = FitSettings(dataset, ensemble, **settings)
    shots = images_of(asked.shots)
    methods = _methods(asked)  # knows the names before anything is read
    store = opened(store)
    reader = PoolReader(
        store,
        asked.dataset or only_dataset(store),
        asked.support,
        backbones=asked.backbones,
        prompts=asked.prompts,
        views=asked.views,
    )
    rows = few_shot(_labels(reader, asked), shots, asked.seed)
    labelled = reader.support(rows)
    head, combiner, candidates = _fitted(labelled, asked, *methods)
    drawn = None if shots is None else asked.seed  # all images are the same ones for any seed
    marks = np.unique(reader.samples.marks[rows])
    router = FittedRouter.of(combiner, labelled, head=head, shots=shots, seed=drawn, marks=marks)
    return replace(router, candidates=candidates)


def _methods(asked: FitSettings) -> tuple[Head, Ensemble | None]:
    """Not fitted yet; no ensemble where it is to be chosen. Raises UnknownName and UsageError."""
    is_chosen = asked.ensemble == CHOSEN
    ensemble = None if is_chosen else from_text(ENSEMBLES, asked.ensemble, asked.seed)
    return from_text(HEADS, asked.head or ZERO_SHOT, asked.seed), ensemble


def _fitted(
    support: Pool, asked: FitSettings, head: Head, ensemble: Ensemble | None
) -> tuple[Head, Ensemble, tuple[Candidate, ...]]:
    """The method that is named, or the one that the support chooses with what it is chosen from."""
    if ensemble:
        return head, ensemble.fit(head.fit_transform(support)), ()
    heads = (asked.head,) if asked.head else USUAL_HEADS
    choice = choose(support, heads, USUAL_ENSEMBLES, asked.seed)
    return choice.head, choice.ensemble, choice.candidates


def _labels(reader: PoolReader, asked: FitSettings) -> NDArray[np.int32]:
    """Of what may be learned from: no image of the dataset's test split, where the store has it."""
    place = reader.samples.dataset, "test"
    has_tests = reader.store.tree.exists(reader.store.samples_path(*place))
    tests = [reader.store.samples(*place)] if has_tests else []
    labels, notes = learnable(reader.samples, tests, allow_overlap=asked.allow_overlap)
    for note in notes:
        _LOG.info("note: %s", note)
    return labels
