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
from clipsyn.ensembles import ENSEMBLES
from clipsyn.errors import DatasetError
from clipsyn.numerics.fewshot import few_shot
from clipsyn.pool import Pool
from clipsyn.settings import Shots, images_of
from clipsyn.store.overlap import learnable
from clipsyn.store.samples import SampleTable

_LOG = logging.getLogger("clipsyn")


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


def versions(ensemble: str | None) -> str:
    """Of clipsyn, and of another package that an ensemble comes from."""
    package = ENSEMBLES.package(ensemble.partition(":")[0]) if ensemble else ""
    return f"{__version__} {package}".rstrip()
