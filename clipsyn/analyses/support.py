"""The support of an analysis: labelled samples of another split, to fit and choose on."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from clipsyn import __version__
from clipsyn.ensembles import ENSEMBLES
from clipsyn.errors import DatasetError, UsageError
from clipsyn.numerics.fewshot import few_shot
from clipsyn.pool import Pool
from clipsyn.settings import Shots, images_of
from clipsyn.store.samples import SampleTable
from clipsyn.store.select import matching


class Reader(Protocol):
    """Pools of one split, as `clipsyn.store.pools.PoolReader` reads them."""

    samples: SampleTable
    origin: dict[str, Any]

    def read(self, rows: NDArray[np.intp]) -> Pool: ...


class Support(NamedTuple):
    pool: Pool  # labelled, readable by every backbone
    rows: NDArray[np.intp]  # (sample,) of the sample table that `pool` holds
    origin: dict[str, Any]  # decides what is fitted: which cells, and which images of them


def read_support(reader: Reader, shots: Shots, seed: int) -> Support:
    """`shots` labelled images of each class, or all of them; the seed decides which.

    Raises DatasetError where none of them has a label and is readable.
    """
    drawn = few_shot(reader.samples.labels, images_of(shots), seed)
    whole = reader.read(drawn)
    pool = whole.labelled()
    if not len(pool):
        raise DatasetError(
            f"{reader.samples.name} has no labelled, readable image, so nothing can be fitted or "
            "chosen on it: give another support=…"
        )
    digest = hashlib.sha256(drawn.astype("<i8").tobytes()).hexdigest()
    rows = drawn[whole.readable & (whole.labels >= 0)]
    return Support(pool, rows, {"of": reader.origin, "rows": digest, "seed": seed})


def versions(ensemble: str | None) -> str:
    """Of clipsyn, and of another package that an ensemble comes from."""
    package = ENSEMBLES.package(ensemble.partition(":")[0]) if ensemble else ""
    return f"{__version__} {package}".rstrip()


def check_support(support: str, splits: Collection[str] | None) -> None:
    """Raise UsageError where the split to fit on is also one of those to measure on."""
    if any(matching(term, [support]) for term in splits or ["*"]):
        raise UsageError(
            f"{support} is both fitted on and measured on: choose another support=… or splits=…"
        )
