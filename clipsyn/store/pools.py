"""Reads a Pool: several backbones of a store on the same samples.

Cells of one store share the sample table of their split, which is checked on every read, so rows
with the same number are the same image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import UsageError
from clipsyn.methods import pool as memory
from clipsyn.methods.numerics.blocks import read_ahead
from clipsyn.methods.numerics.logits import NO_CLASS, NO_PREDICTION
from clipsyn.methods.pool import Embeddings, Pool, Room, on_disk
from clipsyn.names import CLEAN, FeatureKey, fingerprint
from clipsyn.store.arrays import spans
from clipsyn.store.cell import Cell
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import PROMPTS
from clipsyn.store.groups import Group, replaced_meanwhile
from clipsyn.store.samples import SampleTable
from clipsyn.store.select import Names, prompt_sets, select
from clipsyn.text import LOG

_LOGIT_BYTES = 4
_SURE = 1000.0  # a logit beside which the others' probabilities are 0
# rows of a pool that lie in one chunk: of the split, read together; in these; in the pool
_Part = tuple[range, slice | NDArray[np.intp], slice]
_LEAST = 1e-6  # keeps the predicted class first where its confidence is rounded to 1 / classes


class PoolReader:
    """Pools of one dataset, split, perturbation and prompt set, whole or in blocks of rows.

    backbones: names, patterns, or None for all with a cell there. prompts: a name, or None where
    the store has only one. votes: backbones with imported predictions alone (`silent`) take part,
    with logits that give the predicted class its imported confidence and all others equal shares;
    without confidences (`unsure`) the predicted class has all. Backbones with imported embeddings
    and no class embeddings (`without_text`) have logits 0, which heads may replace. Raises
    MissingCell with the extract line that helps.
    """

    def __init__(
        self,
        store: FeatureStore,
        dataset: str,
        split: str,
        *,
        perturbation: str = CLEAN.label,
        backbones: Names = None,
        prompts: str | None = None,
        views: Sequence[str] = (),
        votes: bool = False,
    ) -> None:
        self.store = store
        self.samples: SampleTable = store.samples(dataset, split)
        self.keys = select(
            store, dataset=dataset, split=split, perturbation=perturbation, backbone=backbones
        )
        cells = [store.cell(key) for key in self.keys]
        texts = [cell for cell in cells if cell.has_logits or not cell.has_embeddings]
        self.without_text = frozenset(self.backbones) - {cell.key.backbone for cell in texts}
        self.prompts = prompts or self._only_prompts(texts)
        self.perturbation = self.keys[0].perturbation
        self.views = self._read_views(views)
        silent = (cell.key.backbone for cell in texts if votes and not cell.has_logits)
        self.silent = frozenset(silent)
        unsure = (cell.key.backbone for cell in cells if not cell.has_confidences)
        self.unsure = self.silent.intersection(unsure)
        self._embedded = [cell.key for cell in cells if cell.has_embeddings]
        self._with_text = [cell.key for cell in texts if cell.has_embeddings]
        labels = fingerprint({"labels": self.samples.labels.tolist()})
        # fingerprints of everything the pool is read from: by backbone, and of the labels
        self.origin: dict[str, Any] = {**self._stored(), "labels": labels}
        self.classes = {
            key.backbone: store.class_embeddings(dataset, self.prompts, key.backbone)
            for key in self._with_text
        }

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def backbones(self) -> tuple[str, ...]:
        return tuple(key.backbone for key in self.keys)

    def _stored(self) -> dict[str, Any]:
        """Fingerprints of the groups that are in the store now."""
        views = [key for view in self.views for key in view]
        return {
            "features": {
                key.backbone: self.store.cell(key).fingerprint(self.prompts) for key in self.keys
            },
            "views": [self.store.cell(key).fingerprint() for key in views],
            "classes": {key.backbone: self._classes(key)["fingerprint"] for key in self._with_text},
        }

    def _classes(self, key: FeatureKey) -> Group:
        return self.store.classes(key.dataset, self.prompts, key.backbone)

    def origin_of(self, backbone: str) -> dict[str, Any]:
        """What decides the numbers of one backbone in this pool.

        Of the other backbones these are the samples that they could not read, which count for none.
        """
        names = [key.backbone for view in self.views for key in view]
        views = zip(names, self.origin["views"], strict=True)
        return {
            "features": self.origin["features"][backbone],
            "views": [one for name, one in views if name == backbone],
            "classes": self.origin["classes"].get(backbone),
            "labels": self.origin["labels"],
            "unreadable": self._unreadable,
        }

    @cached_property
    def _unreadable(self) -> list[int]:
        """Rows that some backbone has no embedding or prediction for."""
        each = [self.store.cell(key).valid(self.prompts) for key in self.keys]
        rows: list[int] = np.flatnonzero(~np.logical_and.reduce(each)).tolist()
        return rows

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What a router fitted on the pool must know, to be applied to the same backbones later.

        backbones: name -> what decides an image embedding. sources: name -> where its weights were
        loaded from. prompts: name, templates and texts of the class embeddings. views: labels of
        the augmented views. licence: of the images. Of imported embeddings name and width are
        known, of imported logits nothing.
        """
        encoders = {key.backbone: self.store.cell(key).encoder() for key in self._embedded}
        texts = [self._classes(key)["identity"]["prompts"] for key in self._with_text[:1]]
        return {
            "backbones": {name: identity for name, (identity, _) in encoders.items()},
            "sources": {name: source for name, (_, source) in encoders.items()},
            "prompts": texts[0] if texts else {},
            "views": [view[0].perturbation for view in self.views],
            "licence": self.samples.licence,
        }

    def support(self, rows: NDArray[np.intp]) -> Pool:
        """What a fit gets: the samples at `rows`, ascending.

        Where they are too large for memory their arrays lie in temporary files, and samples without
        a label, and unreadable ones, are left out.
        """
        if len(rows) * self.bytes_a_sample <= memory.IN_MEMORY:
            return self.read(rows)
        known = (self.samples.labels[rows] >= 0) & ~np.isin(rows, self._unreadable)
        pool = self.read(rows[known], room=on_disk)
        vars(pool)["readable"] = np.ones(len(pool), bool)  # or it would be read to be looked at
        return pool

    def read(
        self,
        rows: NDArray[np.intp] | None = None,
        *,
        embeddings: bool = True,
        room: Room = np.empty,
    ) -> Pool:
        """The samples at `rows`, ascending, or all of them. room: makes the arrays.

        embeddings: False where nothing needs them, often a quarter of the bytes. Raises StaleCell
        where another command replaces any of it meanwhile.
        """
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows)
        if not len(chosen):
            return self.read(np.arange(1), embeddings=embeddings).take(chosen)
        started = time.monotonic()
        parts = [*self._parts(chosen)]
        logits = room((len(chosen), len(self.keys), self._n_classes), np.float32)
        keys = [self._embedded, *self.views] if embeddings else []
        images, *views = [self._room(one, len(chosen), room) for one in keys] or [{}]

        def fill(out: NDArray[Any], values: Callable[[range], NDArray[Any]], part: _Part) -> None:
            span, at, place = part
            out[place] = values(span)[at]

        filled: list[tuple[NDArray[Any], Callable[[range], NDArray[Any]]]] = [
            (logits[:, column], partial(self._logits, key)) for column, key in enumerate(self.keys)
        ]
        for some, arrays in zip(keys, [images, *views], strict=False):
            filled += [(arrays[key.backbone], self.store.cell(key).embeddings) for key in some]
        with ThreadPoolExecutor(self.store.tree.lanes) as threads:
            for done in [threads.submit(fill, *one, part) for one in filled for part in parts]:
                done.result()
        if not self._stored().items() <= self.origin.items():
            raise replaced_meanwhile(self.store.path, self.samples.name)
        LOG.debug(
            f"read {len(chosen):,} samples of {self.samples.name} · {self.perturbation} · "
            f"{self.prompts}, {len(self.keys)} backbones, in {time.monotonic() - started:.2f} s"
        )
        return Pool(
            logits,
            self.samples.labels[chosen],
            self.backbones,
            embeddings=images,
            views=tuple(views),
            class_embeddings={name: values for name, (values, _) in self.classes.items()},
            logit_scales={name: scale for name, (_, scale) in self.classes.items()},
            class_names=self.samples.class_names,
            ids=self._ids(chosen),
            dataset=self.samples.dataset,
            split=self.samples.split,
            perturbation=self.perturbation,
            prompts=self.prompts,
            origin=self.origin,
            provenance=self.provenance,
            without_text=self.without_text,
        )

    def _ids(self, rows: NDArray[np.intp]) -> tuple[str, ...]:
        ids = self.samples.ids
        if rows[-1] - rows[0] == len(rows) - 1:
            return tuple(ids[rows[0] : rows[-1] + 1])
        return tuple(ids[row] for row in rows)

    def _logits(self, key: FeatureKey, rows: range) -> NDArray[np.float32]:
        """(sample, class); 0 without text; of predictions alone, log odds for the predicted one."""
        if key.backbone in self.without_text:
            valid = self.store.cell(key).valid()[rows.start : rows.stop, None]
            return np.where(valid, np.zeros(self._n_classes, np.float32), np.float32(np.nan))
        if key.backbone not in self.silent:
            return self.store.cell(key).logits(self.prompts, rows)
        predicted = self.store.cell(key).predictions(self.prompts)[rows.start : rows.stop]
        if none := np.count_nonzero(predicted == NO_CLASS):
            raise UsageError(
                f"{key}: {none:,} answers are none of the classes, and no vote: import them as "
                "missing (an empty prediction), or choose others with backbones=…"
            )
        sure = self._log_odds(key, rows)[:, None]
        logits = np.where(np.equal.outer(predicted, np.arange(self._n_classes)), sure, 0)
        logits[predicted == NO_PREDICTION] = np.nan
        return np.asarray(logits, np.float32)

    def _log_odds(self, key: FeatureKey, rows: range) -> NDArray[np.float64]:
        """(sample,) log odds, above 0, of the predicted class against each of the others."""
        if key.backbone in self.unsure:
            return np.full(len(rows), _SURE)
        confidences = self.store.cell(key).confidences(self.prompts)[rows.start : rows.stop]
        p = confidences.astype(np.float64)
        with np.errstate(divide="ignore"):
            odds = np.log(p * max(1, self._n_classes - 1)) - np.log1p(-p)
        clipped: NDArray[np.float64] = np.clip(odds, _LEAST, _SURE)
        return clipped

    def blocks(self, *, embeddings: bool = True) -> Iterator[Pool]:
        """All samples, in order, a bounded number at a time; the next are read meanwhile."""

        def read(rows: range) -> Pool:
            return self.read(np.arange(rows.start, rows.stop), embeddings=embeddings)

        yield from read_ahead(read, spans(len(self), self._unit, self.bytes_a_sample))

    @property
    def bytes_a_sample(self) -> int:
        """Of a pool with embeddings and views."""
        rooms = (self._room(keys, 1, np.empty) for keys in (self._embedded, *self.views))
        embeddings = sum(one.nbytes for room in rooms for one in room.values())
        return _LOGIT_BYTES * len(self.keys) * self._n_classes + embeddings

    @cached_property
    def _unit(self) -> int:
        """Rows of one matrix product."""
        return self.store.product_rows(len(self))

    @cached_property
    def _chunk(self) -> int:
        """Rows of the largest chunk: some units, where one process wrote it."""
        groups = [self.store.cell(key).holding("valid", self.prompts) for key in self.keys]
        largest = max(it.rows for group in groups for it in group.arrays.values())
        return self._unit * max(1, largest // self._unit)

    def _only_prompts(self, cells: Sequence[Cell]) -> str:
        """The prompt set that all backbones with text have, if there is just one."""
        if not cells:
            return PROMPTS
        each = [set(prompt_sets(cell, None, cell.prompt_sets())) for cell in cells]
        common = set.intersection(*each)
        if len(common) != 1:
            sets = ", ".join(sorted(common)) or "none in common"
            raise UsageError(
                f"{self.store.path} has more than one prompt set for {self.samples.dataset} or "
                f"none that all backbones share ({sets}): say which with prompts=…"
            )
        return common.pop()

    def _read_views(self, patterns: Sequence[str]) -> list[list[FeatureKey]]:
        """The cells of each augmented view, a perturbation that is no condition of its own here."""
        if not patterns:
            return []
        first = self.keys[0]
        where = {"dataset": first.dataset, "split": first.split, "backbone": self.backbones}
        by_view: dict[str, list[FeatureKey]] = {}
        for key in select(self.store, perturbation=patterns, **where):
            by_view.setdefault(key.perturbation, []).append(key)
        for label, cells in by_view.items():
            for key in self.keys:
                if (wanted := replace(key, perturbation=label)) not in cells:
                    self.store.cell(wanted).group()  # says what is missing
        return list(by_view.values())

    @property
    def _n_classes(self) -> int:
        return len(self.samples.class_names)

    def _parts(self, rows: NDArray[Any]) -> Iterator[_Part]:
        """`rows`, a chunk of the store at a time: of it whole units alone are read."""
        edges = np.flatnonzero(np.diff(rows // self._chunk, prepend=-1, append=len(self)))
        for first, last in pairwise(edges.tolist()):
            start, stop = (int(rows[row]) // self._unit * self._unit for row in (first, last - 1))
            span = range(start, min(stop + self._unit, len(self)))
            at = rows[first:last] - start
            whole = at[-1] - at[0] == len(at) - 1
            yield span, slice(at[0], at[-1] + 1) if whole else at, slice(first, last)

    def _room(self, keys: Sequence[FeatureKey], count: int, room: Room) -> Embeddings:
        """Empty arrays (sample, embed) for so many samples."""
        groups = {key.backbone: self.store.cell(key).holding("image_embedding") for key in keys}
        return {
            name: room((count, group.sizes["embed"]), np.float16) for name, group in groups.items()
        }
