"""A support that is larger than memory: it is gone through in blocks, as often as a fit needs it.

A fit that is a sum over samples takes a `Stream` as it takes a `Pool`: both have `blocks()`, of
which a pool is one, and `minimum` needs few passes over them. Any other fit takes `sample()`, the
same images for every method.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.methods.numerics.blocks import read_ahead
from clipsyn.methods.numerics.fewshot import stratified
from clipsyn.methods.numerics.optimise import Array, minimise
from clipsyn.methods.pool import Pool

_LOG = logging.getLogger("clipsyn")
# Bytes of a pool: a larger one is streamed, and a sample of it is as large. A fit holds up to three
# times as much beside its support, so all of it stays below 4 GB.
IN_MEMORY = 1 << 30
_SAMPLE_SEED = 0  # which images a sample holds depends on their labels alone
_STEP = 1e-2  # of the differences that give the curvature
_FLATTEST = 1e-3  # curvature, in parts of the largest: no step is longer for less
_SLOPE = 1e-4  # in units of the sample's curvature: the value is within 1e-8 of the lowest
_STEPS = 15


@dataclass(frozen=True, eq=False)
class Stream:
    """Labelled, readable samples that are read again on every pass.

    about: a pool of no samples, which says all that is the same for every block. rows: (sample,)
    what `read` takes. labels: (sample,) the class index of each. parts: slices of `rows` that are
    read together, one after the other. read: row numbers, ascending, and whether embeddings are
    needed -> Pool.
    """

    about: Pool
    rows: NDArray[np.intp]
    labels: NDArray[np.int32]
    parts: Sequence[slice]
    read: Callable[[NDArray[np.intp], bool], Pool]
    view: Callable[[Pool], Pool] = lambda pool: pool
    _kept: dict[str, Pool] = field(default_factory=dict)  # the sample, once it is read

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dataset(self) -> str:
        return self.about.dataset

    @property
    def split(self) -> str:
        return self.about.split

    @property
    def backbones(self) -> tuple[str, ...]:
        return self.about.backbones

    @property
    def n_classes(self) -> int:
        return self.about.n_classes

    @property
    def size(self) -> int:
        """Bytes of all samples in memory, which one pass reads."""
        return len(self) * self.about.bytes_a_sample

    def blocks(
        self, order: Sequence[int] | None = None, *, embeddings: bool = True
    ) -> Iterator[Pool]:
        """One pass: all samples, a block at a time, the next one read while this one is used.

        order: of the blocks, by number; by default as they are stored.
        """
        chosen = range(len(self.parts)) if order is None else order
        parts = (self.rows[self.parts[number]] for number in chosen)
        yield from read_ahead(lambda rows: self.view(self.read(rows, embeddings)), parts)

    def labelled(self) -> Stream:
        return self

    def check_text(self, needing: str) -> None:
        """As `Pool.check_text`."""
        self.about.check_text(needing)

    def of_backbones(self, names: Sequence[str]) -> Stream:
        """The same samples with these backbones, in this order."""
        if tuple(names) == self.backbones:
            return self
        return replace(
            self,
            about=self.about.of_backbones(names),
            view=lambda pool: self.view(pool).of_backbones(names),
        )

    def take(self, at: NDArray[np.intp]) -> Stream:
        """The samples at these places, ascending, in the same blocks."""
        edges = np.searchsorted(at, [part.start for part in self.parts] + [len(self)]).tolist()
        parts = [slice(*edge) for edge in pairwise(edges) if edge[0] < edge[1]]
        return replace(self, rows=self.rows[at], labels=self.labels[at], parts=parts, _kept={})

    def together(self) -> Pool:
        """All samples in one pool."""
        return self.view(self.read(self.rows, True))

    def shuffled(self, seed: int) -> Iterator[Pool]:
        """Pass after pass without end: blocks of samples that come in random order.

        Blocks are read in random order, a new one on each pass. Their samples change places with
        samples drawn from a store of `IN_MEMORY` bytes, and those are given.
        """
        rng = np.random.default_rng(seed)
        room = min(len(self), max(1, IN_MEMORY // self.about.bytes_a_sample))
        kept, filled = _empty(self.about, room), 0
        while True:
            for block in self.blocks(rng.permutation(len(self.parts)).tolist()):
                first = min(len(block), room - filled)
                _write(kept, slice(filled, filled + first), block.take(slice(first)))
                filled += first
                for start in range(first, len(block), room):
                    coming = block.take(slice(start, start + room))
                    places = rng.choice(room, len(coming), replace=False)
                    given = kept.take(places)
                    _write(kept, places, coming)
                    yield given

    def sample(self) -> Pool:
        """At most `IN_MEMORY` bytes of it: of each class the same share, at least one image.

        The images are drawn once, so that all methods get the same.
        """
        if "sample" not in self._kept:
            count = max(self.n_classes, IN_MEMORY // self.about.bytes_a_sample)
            chosen = stratified(self.labels, count, _SAMPLE_SEED)
            pool = replace(self.read(self.rows[chosen], True), sample_of=len(self))
            self._kept["sample"] = pool
        return self.view(self._kept["sample"])


def _empty(about: Pool, room: int) -> Pool:
    """Room for so many samples: logits, labels and embeddings."""

    def empty(values: NDArray[Any]) -> NDArray[Any]:
        return np.empty((room, *values.shape[1:]), values.dtype)

    return replace(
        about,
        logits=empty(about.logits),
        labels=np.zeros(room, about.labels.dtype),
        embeddings={name: empty(values) for name, values in about.embeddings.items()},
        views=(),
    )


def _write(pool: Pool, places: NDArray[np.intp] | slice, coming: Pool) -> None:
    pool.logits[places] = coming.logits
    pool.labels[places] = coming.labels
    for name, values in pool.embeddings.items():
        values[places] = coming.embeddings[name]


Support = Pool | Stream


def in_memory(support: Support, called: str) -> Pool:
    """A pool as it is; of a stream a sample, with a note that `called` needs it in memory."""
    if isinstance(support, Pool):
        return support
    sample = support.sample()
    _LOG.info(
        f"note: {called} is fitted on a stratified sample of {len(sample):,} of the "
        f"{len(support):,} images of {support.dataset}/{support.split}: all of them are "
        f"{support.size / 1e9:,.1f} GB, and it cannot be fitted in passes over them"
    )
    return sample


# support, parameters -> mean over the samples, gradient: one pass
Objective = Callable[[Support, Array], tuple[float, Array]]


def minimum(
    objective: Objective,
    support: Support,
    start: Array,
    moved: Callable[[Array], Array] = np.copy,
    **options: Any,
) -> Array:
    """The parameters at the minimum of a convex `objective`; options: those of `minimise`.

    moved: takes the minimum on a sample away from where `objective` has no slope, at which a search
    would stay.

    A pool is gone through as often as L-BFGS likes. A stream costs a read a time, so the search
    starts at the minimum of a sample of it, in units of the curvature there, in which a step of
    length one leads almost to the end: about five passes, and no more than 15 steps.
    """
    if not isinstance(support, Stream):
        return minimise(lambda values: objective(support, values), start, **options)
    from scipy.optimize import minimize  # 0.2 s

    sample, bounds = support.sample(), options.get("bounds") or (-np.inf, np.inf)
    near = moved(minimum(objective, sample, start, **options))
    scale = _inverse_root(_curvature(objective, sample, near))

    def scaled(units: Array) -> tuple[float, Array]:
        values = near + scale @ units
        inside = np.clip(values, *bounds)
        value, gradient = objective(support, inside)
        return value, scale @ np.where(inside == values, gradient, 0)

    found = minimize(
        scaled,
        np.zeros(len(near)),
        jac=True,
        method="BFGS",
        options={"gtol": _SLOPE, "maxiter": _STEPS},
    )
    return np.asarray(np.clip(near + scale @ found.x, *bounds))


def _curvature(objective: Objective, sample: Support, at: Array) -> Array:
    """The Hessian by differences of the gradient: as many passes over `sample` as parameters."""
    _, slope = objective(sample, at)
    rows = [(objective(sample, at + step)[1] - slope) / _STEP for step in _STEP * np.eye(len(at))]
    return (np.array(rows) + np.array(rows).T) / 2


def _inverse_root(curvature: Array) -> Array:
    """Its inverse square root, symmetric."""
    values, vectors = np.linalg.eigh(curvature)
    values = np.maximum(values, _FLATTEST * max(values.max(), np.finfo(float).tiny))
    root: NDArray[np.float64] = (vectors / np.sqrt(values)) @ vectors.T
    return root
