"""The support of an analysis: labelled samples of another split, to fit and choose on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from clipsyn import __version__
from clipsyn.analyses.predicted import Predicted
from clipsyn.errors import DatasetError, TooFewSamples
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.ensembles.base import Ensemble
from clipsyn.methods.estimator import cross_fitted, from_text
from clipsyn.methods.numerics.fewshot import few_shot
from clipsyn.methods.pool import Pool
from clipsyn.settings import Shots, images_of
from clipsyn.store.overlap import learnable
from clipsyn.store.samples import SampleTable

FOLDS = 5
_LOG = logging.getLogger("clipsyn")


class Candidate(NamedTuple):
    """What is compared: a backbone on its own, an ensemble of some backbones, or a cascade."""

    ensemble: str | None  # NAME or NAME:parameter=value; None for a backbone on its own
    backbones: tuple[str, ...]  # of an ensemble or a cascade in the order they run
    threshold: float | None = None  # confidence at which an image leaves a cascade
    rule: str | None = None  # of a cascade: GIVEN by the settings, or chosen WITHIN points

    @classmethod
    def single(cls, backbone: str) -> Candidate:
        return cls(None, (backbone,))


class Reader(Protocol):
    """Pools of one split, as `clipsyn.store.pools.PoolReader` reads them."""

    samples: SampleTable
    origin: dict[str, Any]

    def read(self, rows: NDArray[np.intp]) -> Pool: ...


class Drawn(Protocol):
    """Settings that say which images of a support are learned from."""

    shots: Shots
    seed: int
    allow_overlap: bool


class Support(NamedTuple):
    pool: Pool  # labelled, readable by every backbone
    rows: NDArray[np.intp]  # (sample,) of the sample table that `pool` holds
    origin: dict[str, Any]  # decides what is fitted: which cells, and which images of them


def read_support(reader: Reader, measured: Iterable[Predicted], settings: Drawn) -> Support:
    """`shots` labelled images of each class, or all of them; the seed decides which.

    measured: whose images are not taken. Raises DatasetError where no image has a label and is
    readable, and what `learnable` does.
    """
    tables = (group.samples for group in measured)
    labels, notes = learnable(reader.samples, tables, allow_overlap=settings.allow_overlap)
    for note in notes:
        _LOG.info("note: %s", note)
    drawn = few_shot(labels, images_of(settings.shots), settings.seed)
    whole = reader.read(drawn)
    pool = whole.labelled()
    if not len(pool):
        raise DatasetError(
            f"{reader.samples.name} has no labelled, readable image, so nothing can be fitted or "
            "chosen on it: give another support=…"
        )
    digest = hashlib.sha256(drawn.astype("<i8").tobytes()).hexdigest()
    rows = drawn[whole.readable & (whole.labels >= 0)]
    return Support(pool, rows, {"of": reader.origin, "rows": digest, "seed": settings.seed})


def make_ensemble(text: str, seed: int | None = None) -> Ensemble:
    """Not fitted yet; raises UnknownName and UsageError. seed: as in `from_text`."""
    ensemble: Ensemble = from_text(ENSEMBLES, text, seed)
    return ensemble


def unseen_scores(ensemble: Ensemble, pool: Pool) -> NDArray[np.float32]:
    """(sample, class) for the pool that an ensemble was fitted on, by some like it that were not.

    Each of `FOLDS` folds is left out of a fit: of samples that it was fitted on an ensemble is too
    sure. One that learns nothing needs no folds.
    """
    if not ensemble.learns or len(ensemble.backbones_) == 1:
        return ensemble.combine(pool)
    if len(pool) < 2:
        raise TooFewSamples(
            f"{ENSEMBLES.name_of(type(ensemble))} needs at least two labelled samples of "
            f"{pool.dataset}/{pool.split}, to be judged on others than it is fitted on"
        )
    return cross_fitted(ensemble, pool, Ensemble.combine, FOLDS)


def versions(ensemble: str | None) -> str:
    """Of clipsyn, and of another package that an ensemble comes from."""
    package = ENSEMBLES.package(ensemble.partition(":")[0]) if ensemble else ""
    return f"{__version__} {package}".rstrip()
