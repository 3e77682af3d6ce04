"""Several backbones on the same samples, in memory: what heads and ensembles work on.

A pool is immutable. Row i of every array is one sample; `backbones` is the order of the second
axis of `logits`. Pools come from `FeatureStore.pool`, or from plain arrays by `Pool.of`.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from clipsyn.errors import InputError
from clipsyn.methods.numerics import Array, Floats, Labels, Mask
from clipsyn.methods.numerics.logits import MOST_CLASSES, squares
from clipsyn.methods.numerics.samples import stratified
from clipsyn.registry import unknown_name
from clipsyn.text import LOG

NO_LABEL = -1
# Bytes of a pool: the arrays of a larger support lie in files, and a sample of it is as large. A
# fit holds up to three times as much beside its support, so all of it stays below 4 GB.
IN_MEMORY = 1 << 30
_SAMPLE_SEED = 0  # which images a sample holds depends on their labels alone
_NORM_TOLERANCE = 0.01  # float16 rounds a norm by less than 0.001
Embeddings = Mapping[str, Array]  # backbone -> (sample or class, embed), unit norm
Room = Callable[[tuple[int, ...], Any], Array]  # shape, dtype -> an array


@dataclass(frozen=True, eq=False)
class Pool:
    """Logits of several backbones for the same samples, with what is known of the samples.

    >>> from clipsyn import Pool
    >>> logits = [[[2, 0], [0, 1]], [[3, 1], [0, 2]], [[0, 4], [1, 0]]]
    >>> pool = Pool.of(logits, labels=[0, 0, 1], backbones=["one", "two"], split="train")
    >>> pool.logits.shape  # (sample, backbone, class)
    (3, 2, 2)
    >>> pool.of_backbones(["two"]).take([0, 2]).labels
    array([0, 1], dtype=int32)
    """

    logits: Floats  # (sample, backbone, class); NaN rows where an image is unreadable
    labels: Labels  # (sample,) class index, NO_LABEL where there is none
    backbones: tuple[str, ...]
    embeddings: Embeddings = field(default_factory=dict)
    views: tuple[Embeddings, ...] = ()  # augmented views of the same samples
    class_embeddings: Embeddings = field(default_factory=dict)
    logit_scales: Mapping[str, float] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    dataset: str = ""
    split: str = ""
    perturbation: str = "clean"
    prompts: str = ""
    origin: Mapping[str, Any] = field(default_factory=dict)  # fingerprints of the cells read
    provenance: Mapping[str, Any] = field(default_factory=dict)  # see PoolReader.provenance
    sample_of: int = 0  # samples of the support that it was drawn from; 0 where it is all of it
    without_text: frozenset[str] = frozenset()  # backbones without class embeddings: logits are 0

    def __post_init__(self) -> None:
        if self.logits.ndim != 3 or self.logits.shape[1] != len(self.backbones):
            raise InputError(
                f"logits of {len(self.backbones)} backbones are (sample, backbone, class), "
                f"not {self.logits.shape}"
            )
        if len(set(self.backbones)) != len(self.backbones):
            raise InputError(f"a backbone stands twice in {', '.join(self.backbones)}")
        self._check_labels()
        for embeddings in (self.embeddings, *self.views):
            for name, values in embeddings.items():
                if values.ndim != 2 or len(values) != len(self.logits):
                    raise InputError(
                        f"embeddings of {name} are ({len(self.logits)}, embed), not {values.shape}"
                    )

    @classmethod
    def of(
        cls,
        logits: ArrayLike,
        labels: ArrayLike | None = None,
        embeddings: Sequence[ArrayLike] | Mapping[str, ArrayLike] = (),
        *,
        backbones: Sequence[str] = (),
        split: str = "",
        class_names: Sequence[str] = (),
    ) -> Pool:
        """A pool of plain arrays: logits (sample, backbone, class), labels (sample,), embeddings.

        embeddings: (sample, embed) of unit norm, or NaN, for each backbone, in order or by name.
        Without `backbones` they are called 0, 1, 2, …
        """
        array = np.asarray(logits, np.float32, order="C")  # BLAS rounds others in another way
        if array.ndim != 3:
            raise InputError(f"logits are (sample, backbone, class), not {array.shape}")
        count, width = array.shape[1], len(str(array.shape[1] - 1))
        names = tuple(backbones) or tuple(f"{index:0{width}}" for index in range(count))
        if not isinstance(embeddings, Mapping):
            if len(embeddings) not in (0, count):
                raise InputError(f"{count} backbones have {len(embeddings)} arrays of embeddings")
            embeddings = dict(zip(names, embeddings, strict=False))
        missing = np.full(len(array), NO_LABEL, np.int32)
        pool = cls(
            array,
            missing if labels is None else as_labels(labels),
            names,
            {name: np.asarray(values) for name, values in embeddings.items()},
            split=split,
            class_names=tuple(class_names),
        )
        for name, values in pool.embeddings.items():
            check_unit_norm(f"embeddings of {name}", np.sqrt(squares(values)))
        return pool

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def shape(self) -> tuple[int, ...]:
        """(sample, backbone, class)."""
        return self.logits.shape

    def __getitem__(self, rows: Any) -> Pool:
        """As `take`; scikit-learn, which splits pools, writes ``pool[rows, ...]``."""
        return self.take(rows[0] if isinstance(rows, tuple) else rows)

    def __repr__(self) -> str:
        where = [self.dataset, self.split, self.perturbation, self.prompts]
        place = " · ".join(name for name in where if name)
        samples, backbones, classes = self.logits.shape
        return f"<Pool {place}: {samples:,} samples, {backbones} backbones, {classes:,} classes>"

    @property
    def n_classes(self) -> int:
        return int(self.logits.shape[2])

    @property
    def bytes_a_sample(self) -> int:
        """Of logits, embeddings and views."""
        views = (values for view in self.views for values in view.values())
        arrays = (self.logits, *self.embeddings.values(), *views)
        return sum(array.itemsize * math.prod(array.shape[1:]) for array in arrays)

    @property
    def is_too_large(self) -> bool:
        """Whether its arrays lie in files because memory has no room for them."""
        return isinstance(self.logits, np.memmap) and self.nbytes > IN_MEMORY

    @property
    def nbytes(self) -> int:
        return len(self) * self.bytes_a_sample

    @cached_property
    def readable(self) -> Mask:
        """(sample,) whether every backbone has finite logits for it."""
        # a sum is cheaper than a look at every value, and BLAS sums three times as fast as numpy;
        # inf - inf is NaN too. A pass over the memory, so only once for a pool and its parts.
        ones = np.ones(self.n_classes, self.logits.dtype)
        with np.errstate(invalid="ignore", over="ignore"):
            finite: Mask = np.isfinite(self.logits @ ones).all(axis=1)
        doubtful = np.flatnonzero(~finite)  # a sum of finite numbers may be too large, too
        finite[doubtful] = np.isfinite(self.logits[doubtful]).all(axis=(1, 2))
        return finite

    def let_go(self) -> None:
        """`let_go` of its arrays."""
        let_go(self.logits, *self.embeddings.values())

    def labelled(self) -> Pool:
        """Only the samples that can be learned from: readable, and with a label."""
        keep = self.readable & (self.labels >= 0)
        return self if keep.all() else self.take(np.flatnonzero(keep))

    def features(self) -> Floats:
        """(sample, sum of embed): the unit-norm embeddings of all backbones side by side."""
        if lacking := [name for name in self.backbones if name not in self.embeddings]:
            raise InputError(
                f"there are no embeddings of {', '.join(lacking)}: use an ensemble that needs "
                "logits alone, such as log-avg or super-learner, extract these backbones, or give "
                "Pool.of(…, embeddings=…)"
            )
        widths = [self.embeddings[name].shape[1] for name in self.backbones]
        out = np.empty((len(self), sum(widths)), np.float32)
        parts = np.split(out, np.cumsum(widths)[:-1], axis=1)
        for name, part in zip(self.backbones, parts, strict=True):
            part[...] = self.embeddings[name]
        return out

    def take(self, rows: Array | slice) -> Pool:
        """The samples at `rows` (indices), in that order; a slice shares the arrays."""
        numbers = range(len(self))[rows] if isinstance(rows, slice) else rows
        part = replace(
            self,
            logits=self.logits[rows],
            labels=self.labels[rows],
            embeddings={name: values[rows] for name, values in self.embeddings.items()},
            views=tuple({name: view[name][rows] for name in view} for view in self.views),
            ids=tuple(self.ids[row] for row in numbers) if self.ids else (),
        )
        if (readable := vars(self).get("readable")) is not None:
            vars(part)["readable"] = readable[rows]
        return part

    def with_logits(self, logits: Floats) -> Pool:
        """The same samples with the logits of a head, which views have not."""
        return replace(self, logits=logits, views=(), without_text=frozenset())

    def check_text(self, needing: str) -> None:
        """Raise InputError where a backbone has no zero-shot logits, which `needing` needs."""
        if lacking := sorted(self.without_text.intersection(self.backbones)):
            raise InputError(
                f"there is no text for {', '.join(lacking)}, and {needing} needs zero-shot logits: "
                "use the head linear-probe, lda or tip-adapter, or choose other backbones with "
                "backbones=…"
            )

    def of_backbones(self, names: Sequence[str]) -> Pool:
        """The same samples with these backbones, in this order; itself if nothing changes.

        Neighbours in the order of this pool share its memory.
        """
        if tuple(names) == self.backbones:
            return self
        for name in names:
            if name not in self.backbones:
                raise unknown_name("backbone", name, self.backbones)
        columns = [self.backbones.index(name) for name in names]
        run = slice(columns[0], columns[-1] + 1) if columns else slice(0)
        neighbours = columns == list(range(run.start or 0, run.stop))
        logits = self.logits[:, run] if neighbours else self.logits.take(columns, axis=1)
        part = replace(self, logits=logits, backbones=tuple(names))
        if (readable := vars(self).get("readable")) is not None and readable.all():
            vars(part)["readable"] = readable
        return part

    def of_classes(self, classes: Sequence[int]) -> Pool:
        """The samples of these classes, with the logits of these classes alone.

        Class i of the result is ``classes[i]`` of this pool.
        """
        position = np.full(self.n_classes + 1, NO_LABEL, np.int32)  # the last stands for NO_LABEL
        position[list(classes)] = np.arange(len(classes))
        rows = np.flatnonzero(position[self.labels] != NO_LABEL)
        part = self.take(rows)
        chosen = list(classes)
        return replace(
            part,
            logits=np.ascontiguousarray(part.logits[:, :, chosen]),
            labels=position[part.labels],
            class_embeddings={
                name: values[chosen] for name, values in self.class_embeddings.items()
            },
            class_names=tuple(self.class_names[c] for c in chosen) if self.class_names else (),
        )

    def _check_labels(self) -> None:
        if self.labels.shape != (len(self.logits),):
            raise InputError(
                f"{len(self.logits)} samples need as many labels, not {self.labels.shape}"
            )
        if len(self.labels) and not NO_LABEL <= self.labels.min() <= self.labels.max() < (
            self.n_classes
        ):
            raise InputError(
                f"labels go from 0 to {self.n_classes - 1} ({NO_LABEL} where there is none), "
                f"not from {self.labels.min()} to {self.labels.max()}"
            )
        if self.class_names and len(self.class_names) != self.n_classes:
            raise InputError(f"{self.n_classes} classes have {len(self.class_names)} names")


def in_memory(support: Pool, called: str = "") -> Pool:
    """A pool as it is; of one that is too large a sample, with a note that `called` needs it so.

    Of each class the sample has the same share, at least one image, and is the same for all.
    """
    if not support.is_too_large:
        return support
    count = max(support.n_classes, IN_MEMORY // support.bytes_a_sample)
    chosen = stratified(support.labels, count, _SAMPLE_SEED)
    if called:
        LOG.info(
            f"note: {called} is fitted on a stratified sample of {len(chosen):,} of the "
            f"{len(support):,} images of {support.dataset}/{support.split}: all of them are "
            f"{support.nbytes / 1e9:,.1f} GB, and it cannot be fitted on an array in a file"
        )
    return replace(support.take(chosen), sample_of=len(support))


def joined(parts: Iterable[Pool], count: int, room: Room = np.empty) -> tuple[Mask, Pool]:
    """(count,) which samples of consecutive parts are readable; these, without labels and views.

    room: makes the arrays.
    """
    readable, filled = np.zeros(count, np.bool_), 0
    whole, at = None, 0
    for part in parts:
        readable[at : at + len(part)] = part.readable
        some = part.take(np.flatnonzero(part.readable))
        whole = whole or _empty(some, count, room)
        rows = slice(filled, filled + len(some))
        whole.logits[rows] = some.logits
        for name, values in some.embeddings.items():
            whole.embeddings[name][rows] = values
        at, filled = at + len(part), rows.stop
        part.let_go()
        whole.let_go()
    assert whole
    vars(whole)["readable"] = np.ones(count, bool)  # or it would be read to be looked at
    return readable, whole.take(slice(filled))


def _empty(like: Pool, count: int, room: Room) -> Pool:
    images = {name: room((count, it.shape[1]), it.dtype) for name, it in like.embeddings.items()}
    logits = room((count, *like.shape[1:]), like.logits.dtype)
    labels = np.full(count, NO_LABEL, np.int32)
    return replace(like, logits=logits, labels=labels, embeddings=images, views=(), ids=())


def on_disk(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array in a temporary file, which goes with it; raises InputError where the disk is full.

    All bytes are taken at once: a process that finds no room when it writes would be killed.
    """
    dtype = np.dtype(dtype)
    size = dtype.itemsize * math.prod(shape)
    if not size:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="clipsyn-") as file:
        try:
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "r+", shape=shape)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{tempfile.gettempdir()} has no room for {size / 1e9:,.1f} GB ({error}): set "
                "TMPDIR to a folder with more, or learn from fewer images with shots=…"
            ) from error


def let_go(*arrays: Array) -> None:
    """Free the memory that arrays in files take; what is read again comes back."""
    for array in arrays:
        base: Any = array
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            base.madvise(mmap.MADV_DONTNEED)


def check_unit_norm(what: str, norms: Array) -> None:
    """Raise InputError for norms (row,) of `what` that are not 1, nor NaN."""
    if wrong := norms[np.abs(norms - 1) > _NORM_TOLERANCE].tolist():
        raise InputError(
            f"{len(wrong):,} of {len(norms):,} {what} are not of unit norm, one has "
            f"{wrong[0]:.3g}: divide them by np.linalg.norm(embeddings, axis=1, keepdims=True)"
        )


def as_labels(labels: ArrayLike) -> Labels:
    """(sample,) class indices; raises InputError for texts, and for what is none of the classes."""
    array = np.asarray(labels)
    if array.dtype.kind not in "biuf":
        raise InputError(
            f"labels are class indices, the columns of the logits, not {array.dtype}: for texts "
            "give np.unique(labels, return_inverse=True)[1] if classes are in alphabetical order"
        )
    with np.errstate(invalid="ignore", over="ignore"):
        indices = array.astype(np.int32)
    if (wrong := array[(indices != array) | (indices < NO_LABEL) | (indices >= MOST_CLASSES)]).size:
        raise InputError(
            f"labels are class indices from 0 to {MOST_CLASSES - 1:,}, and {NO_LABEL} where there "
            f"is none, not {wrong.flat[0]}"
        )
    return indices
