"""Images of other datasets, told apart by the classes of one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from clipsyn.analyses.predicted import Predicted
from clipsyn.errors import MissingCell, StaleCell, UsageError
from clipsyn.methods.numerics.logits import CHUNK_ROWS, zero_shot_logits
from clipsyn.methods.pool import NO_LABEL, Pool
from clipsyn.names import FeatureKey, differences
from clipsyn.store.features import FeatureStore
from clipsyn.store.overlap import held
from clipsyn.store.pools import PoolReader
from clipsyn.store.select import Names, select

_LOG = logging.getLogger("clipsyn")
_ROWS = 4 * CHUNK_ROWS  # of a block


@dataclass(frozen=True, eq=False)
class Foreign:
    """The images of one foreign dataset, of the same split and perturbation as the own ones."""

    reader: PoolReader  # of the own ones
    keys: Mapping[str, FeatureKey]  # by backbone
    is_other: NDArray[np.bool_]  # (sample,) False for an image that the own dataset holds too

    @property
    def dataset(self) -> str:
        return next(iter(self.keys.values())).dataset

    @property
    def fingerprints(self) -> dict[str, str]:
        store = self.reader.store
        return {name: store.fingerprint(key) for name, key in self.keys.items()}

    def blocks(self) -> Iterator[Pool]:
        """All samples in order, with logits of the own classes and no labels."""
        store, n = self.reader.store, len(self.is_other)
        for start in range(0, n, _ROWS):
            span = range(start, min(start + _ROWS, n))
            embeddings = {name: store.embeddings(key, span) for name, key in self.keys.items()}
            logits = [
                zero_shot_logits(images, *self.reader.classes[name])
                for name, images in embeddings.items()
            ]
            yield Pool(
                np.stack(logits, axis=1),
                np.full(len(span), NO_LABEL, np.int32),
                tuple(embeddings),
                embeddings=embeddings,
                class_embeddings={name: of for name, (of, _) in self.reader.classes.items()},
                logit_scales={name: scale for name, (_, scale) in self.reader.classes.items()},
            )


def foreign_sets(group: Predicted, reader: PoolReader, names: Names) -> list[Foreign]:
    """Each foreign dataset that `names` stand for, the own one aside.

    Raises MissingCell with the extract line for a backbone that has not seen the foreign images,
    UsageError for cells without embeddings, and what `clipsyn.store.select.select` does.
    """
    own = group.keys[0]
    keys = select(
        group.store,
        dataset=names,
        split=own.split,
        perturbation=own.perturbation,
        backbone=reader.backbones,
    )
    foreign = []
    for dataset, cells in groupby(keys, key=lambda key: key.dataset):
        if dataset != own.dataset:
            by_backbone = {key.backbone: key for key in cells}
            wanted = {
                name: FeatureKey(dataset, own.split, own.perturbation, name)
                for name in reader.backbones
            }
            for of_own, key in zip(reader.keys, wanted.values(), strict=True):
                if key.backbone not in by_backbone:
                    line = group.store.extract_line(key)
                    raise MissingCell(f"{group.store.path} has no {key}: run `{line}`")
                _check(group.store, of_own, key)
            foreign.append(Foreign(reader, wanted, _is_other(group, dataset)))
    return foreign


def _check(store: FeatureStore, own: FeatureKey, foreign: FeatureKey) -> None:
    """Refuse images that cannot be compared with the own classes."""
    for key in (own, foreign):
        if not store.cell(key).has_embeddings:
            raise UsageError(
                f"{key} was imported without embeddings, and foreign images need them, to be "
                "compared with the classes: choose others with foreign=… or backbones=…"
            )
    (ours, _), (theirs, _) = store.cell(own).encoder(), store.cell(foreign).encoder()
    if changed := [name for name, _, _ in differences(ours, theirs) if name != "pixels"]:
        raise StaleCell(
            f"{foreign} is not of the same weights as {own} ({', '.join(changed)}): run "
            f"`{store.extract_line(foreign, '--replace')}`",
            tuple(changed),
        )


def _is_other(group: Predicted, dataset: str) -> NDArray[np.bool_]:
    """(sample,) of the foreign images, whether the own dataset does not hold them, too."""
    other = group.store.samples(dataset, group.samples.split)
    is_other = ~held(other.marks, group.samples.marks)
    if shared := np.count_nonzero(~is_other):
        _LOG.info(f"{shared:,} images of {other.name} stand in {group.samples.name}: not foreign")
    return is_other
