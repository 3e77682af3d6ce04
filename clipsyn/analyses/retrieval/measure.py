"""Retrieval of images by captions, and of captions by images, with the backbones of a store.

All numbers are over images that every backbone could read, and their captions. Weights, and the
best single backbone that gains are over, come from pairs of the support: a pair's query is a sample
whose class is its item, so that ensembles of classifiers learn to retrieve (the cross-entropy is
InfoNCE). Where the support has no captions, nothing is fitted, and gains are over the backbone that
is best on the test queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, groupby

import numpy as np
import polars as pl

from clipsyn import __version__
from clipsyn.analyses.retrieval import (
    IMAGE_TO_TEXT,
    RECALLS,
    TEXT_TO_IMAGE,
    TRANSDUCTIVE,
    RetrievalSettings,
)
from clipsyn.analyses.retrieval.measures import (
    FUSIONS,
    Bank,
    Scorer,
    Search,
    alone,
    average_precision,
    best_ranks,
    ranks,
    weighted,
)
from clipsyn.errors import DatasetError
from clipsyn.evaluation.results.frame import (
    OVER_BEST_ON_TEST,
    WHERE,
    Measured,
    Row,
    estimate,
    frame,
    gain,
    mean,
    mean_share,
    row,
)
from clipsyn.methods.ensembles import ENSEMBLES, ORACLE
from clipsyn.methods.ensembles.base import BestSingle
from clipsyn.methods.estimator import from_text
from clipsyn.methods.numerics import Array, Mask, Rows
from clipsyn.methods.numerics.metrics import Score, ratio
from clipsyn.methods.pool import NO_LABEL, Pool
from clipsyn.names import CLEAN, FeatureKey, fingerprint
from clipsyn.settings import SINGLE
from clipsyn.stats.images import Images
from clipsyn.stats.intervals import Interval, mean_share_interval
from clipsyn.store.features import FeatureStore
from clipsyn.store.overlap import labels_to_learn
from clipsyn.store.samples import SampleTable
from clipsyn.text import LOG

_MOST_BANK = 25_000  # queries, drawn where a split has more


def measure(store: FeatureStore, settings: RetrievalSettings) -> pl.DataFrame:
    """A tidy frame with the columns of `RESULT`, and the direction.

    Datasets and backbones without captions are left out unless no dataset has any, or they are
    asked for by name. Raises MissingCell with the extract line that helps, UnknownName with near
    matches, LeakError for a support that is measured on, DatasetError where it has no pair.
    """
    groups = (_Captioned(store, keys) for keys in _captioned(store, settings))
    rows = (row for group in groups for row in _Measurement(group, settings).rows())
    return frame(rows, {"direction": pl.String})


def _captioned(store: FeatureStore, settings: RetrievalSettings) -> list[tuple[FeatureKey, ...]]:
    """The cells of each dataset, split and perturbation whose backbones embed the captions, too."""
    sides: tuple[list[FeatureKey], list[FeatureKey]] = ([], [])
    for key in settings.keys(store):
        texts = store.at("texts", key.dataset, key.split, key.backbone)
        sides[store.tree.exists(texts)].append(key)
    lacking, found = sides
    groups = [tuple(of) for _, of in groupby(found, key=lambda key: key.names[:3])]
    captioned = {of[0].names[:3] for of in groups}
    for key in lacking:
        if key.names[:3] in captioned:
            LOG.info("note: %s is left out: it embeds no captions", key)
        elif settings.datasets is not None or not found:
            store.text_embeddings(key.dataset, key.split, key.backbone)  # says what is missing
    return groups


_Asked = tuple[Search, Rows]  # one direction: what is searched; (query,) the row of each image
_Method = tuple[Scorer, Row]  # what ranks items, and what a row of results says of it


@dataclass(frozen=True)
class _Captioned:
    """Several backbones on one dataset, split and perturbation, all of which embed captions."""

    store: FeatureStore
    keys: tuple[FeatureKey, ...]

    def at(self, split: str) -> _Captioned | None:
        """The same on clean images of another split; None where one of them has no captions."""
        keys = tuple(replace(key, split=split, perturbation=CLEAN.label) for key in self.keys)
        paths = [self.store.at("texts", key.dataset, split, key.backbone) for key in keys]
        paths += (self.store.at("features", *key.names) for key in keys)
        return _Captioned(self.store, keys) if all(map(self.store.tree.exists, paths)) else None

    @property
    def place(self) -> tuple[str, str]:
        return self.keys[0].dataset, self.keys[0].split

    @property
    def backbones(self) -> tuple[str, ...]:
        return tuple(key.backbone for key in self.keys)

    @cached_property
    def samples(self) -> SampleTable:
        return self.store.samples(*self.place)

    @cached_property
    def of_images(self) -> Rows:
        """(caption,) rows of the sample table."""
        return self.store.captions(*self.place).images.astype(np.intp)

    @cached_property
    def rows(self) -> Rows:
        """Images that every backbone has an embedding of."""
        valid = [self.store.cell(key).valid() for key in self.keys]
        return np.flatnonzero(np.logical_and.reduce(valid))

    @cached_property
    def origin(self) -> list[str]:
        """Fingerprints of all that is read."""
        texts = (self.store.at("texts", *self.place, name) for name in self.backbones)
        cells = (self.store.cell(key).fingerprint() for key in self.keys)
        return [*cells, *(str(self.store.group(path)["fingerprint"]) for path in texts)]

    def asked(self, rows: Rows, captions: Rows | None = None) -> dict[str, _Asked]:
        """Both directions. rows: of images; captions: of these, all without."""
        place = np.full(len(self.samples), -1)
        place[rows] = np.arange(len(rows))
        if captions is None:
            captions = np.flatnonzero(place[self.of_images] >= 0)
        image = place[self.of_images[captions]]
        order = np.argsort(image, kind="stable")
        with_captions, query = np.unique(image[order], return_inverse=True)
        images, texts, scales = zip(
            *(self._embeddings(key, rows, captions) for key in self.keys), strict=True
        )
        queries = [of[with_captions] for of in images]
        by_text = Search(texts, images, scales, np.arange(len(captions)), image)
        by_image = Search(queries, texts, scales, query, order)
        return {
            TEXT_TO_IMAGE: (by_text, rows[image]),
            IMAGE_TO_TEXT: (by_image, rows[with_captions]),
        }

    def _embeddings(
        self, key: FeatureKey, rows: Rows, captions: Rows
    ) -> tuple[Array, Array, float]:
        texts, scale = self.store.text_embeddings(*self.place, key.backbone, key.perturbation)
        return self.store.cell(key).embeddings()[rows], texts[captions], scale

    def learnable(self, measured: _Captioned, settings: RetrievalSettings) -> Rows:
        """Images with captions, each once, that are not measured on."""
        captioned = np.full(len(self.samples), NO_LABEL, np.int32)
        captioned[np.intersect1d(self.rows, self.of_images)] = 0
        ours = replace(self.samples, labels=captioned, class_names=())
        theirs = replace(measured.samples, labels=np.zeros_like(measured.samples.labels))
        left = labels_to_learn(ours, [theirs], allow_overlap=settings.allow_overlap)
        return np.flatnonzero(left != NO_LABEL)


@dataclass(frozen=True)
class _Measurement:
    """What one group is asked."""

    group: _Captioned
    settings: RetrievalSettings

    @cached_property
    def learned_from(self) -> dict[str, tuple[_Captioned, Rows]]:
        """The support and the bank, by split, and the images of each that may be used."""
        dataset, own = self.group.place
        found = {}
        for split in dict.fromkeys((self.settings.support, self.settings.bank)):
            if split == own != self.settings.support:
                found[split] = self.group, self.group.rows
            elif other := self.group.at(split):
                found[split] = other, other.learnable(self.group, self.settings)
            else:
                LOG.info("note: nothing is learned from %s/%s: no captions", dataset, split)
        return found

    @cached_property
    def pairs(self) -> dict[str, Search]:
        """Of images of the support and a caption of each, by direction; empty without a support."""
        if self.settings.support not in self.learned_from:
            return {}
        support, rows = self.learned_from[self.settings.support]
        if len(rows) < 2:
            name = "/".join(support.place)
            raise DatasetError(f"{name} has {len(rows)} images with captions to fit on: it takes 2")
        rng = np.random.default_rng(self.settings.seed)
        rows = np.sort(rng.permutation(rows)[: self.settings.pairs])
        captions = rng.permutation(len(support.of_images))
        images, first = np.unique(support.of_images[captions], return_index=True)
        asked = support.asked(rows, captions[first[np.isin(images, rows)]])
        return {direction: search for direction, (search, _) in asked.items()}

    @cached_property
    def bank(self) -> dict[str, list[Array]]:
        """The queries that tell hubs, by direction; empty without a bank."""
        if self.settings.bank not in self.learned_from:
            return {}
        bank, rows = self.learned_from[self.settings.bank]
        rng, found = np.random.default_rng(self.settings.seed), {}
        for direction, (search, images) in bank.asked(rows).items():
            some = rng.permutation(len(images))[:_MOST_BANK]
            found[direction] = [queries[some] for queries in search.queries]
        return found

    def rows(self) -> Iterator[Row]:
        """All numbers of both directions."""
        group, perturbation = self.group, self.group.keys[0].perturbation
        of_all: Row = dict(zip(WHERE, (*group.place, perturbation, None), strict=True))
        of_all["fingerprint"] = fingerprint({"cells": group.origin})
        if not np.isin(group.of_images, group.rows).any():
            name = "/".join(group.place)
            raise DatasetError(f"{name}: no image with captions could be read by every backbone")
        for direction, (search, images) in group.asked(group.rows).items():
            shown = Images.of(group.samples.images.number[images])
            for about, measured in self._numbers(direction, search, shown):
                yield row(measured, **{**of_all, "direction": direction, **about})

    def _numbers(
        self, direction: str, search: Search, images: Images
    ) -> Iterator[tuple[Row, Measured]]:
        every, pool = self.group.backbones, self._pool(direction)
        methods = [*self._methods(direction, search, pool)]
        places = ranks(search, [score for score, _ in methods])
        best = best_ranks(search, places)
        right = best[: len(every)] == 1
        best_single = every.index(BestSingle().fit(pool).best_) if pool else None
        learned = self._learned(self.settings.support, shots=str(self.settings.pairs))

        def lead(correct: Mask) -> Measured:
            if best_single is None:
                return gain(OVER_BEST_ON_TEST, correct, right, images)
            return gain("gain", correct, right[[best_single]], images)

        for (_, about), of_pairs, of_queries in zip(methods, places, best, strict=True):
            yield from ((about, it) for it in _of_ranks(of_queries, images))
            yield about, mean_share("map", average_precision(search, of_pairs), images)
            if about["ensemble"] != SINGLE:
                yield about | learned, lead(of_queries == 1)
        if len(every) > 1:
            oracle = {"ensemble": ORACLE, "backbones": [*every]}
            yield from ((oracle, it) for it in _of_ranks(best[: len(every)].min(axis=0), images))
            yield oracle | learned, lead(right.any(axis=0))
            yield from _together(every, right, images)

    def _methods(self, direction: str, search: Search, pool: Pool | None) -> Iterator[_Method]:
        every, settings = self.group.backbones, self.settings
        for b, name in enumerate(every):
            yield alone(b), {"ensemble": SINGLE, "backbones": [name]}
        of_all: Row = {"backbones": [*every]}
        for name, score in FUSIONS.items() if len(every) > 1 else ():
            yield score, of_all | {"ensemble": name}
        for text in settings.ensembles if pool and len(every) > 1 else ():
            ensemble = from_text(ENSEMBLES, text, settings.seed).fit(pool)
            score = weighted(ensemble.weights(_unseen(search, every, ensemble.n_classes_)))
            learned = self._learned(settings.support, shots=str(settings.pairs))
            yield score, of_all | learned | {"ensemble": text}
        if queries := self.bank.get(direction):
            end = TRANSDUCTIVE if settings.bank == self.group.place[1] else ""
            learned = self._learned(settings.bank)
            for name, score in Bank.of(search, queries).scorers.items():
                yield score, of_all | learned | {"ensemble": f"{name}{end}"}

    def _pool(self, direction: str) -> Pool | None:
        """The pairs as samples: the query, whose class is its item."""
        if (pairs := self.pairs.get(direction)) is None:
            return None
        logits = pairs.similarities(slice(0, len(pairs.item))) * np.float32(sum(pairs.scales))
        every = self.group.backbones
        embeddings = dict(zip(every, pairs.queries, strict=True))
        return Pool(logits, pairs.item.astype(np.int32), every, embeddings)

    def _learned(self, split: str, **more: str) -> Row:
        """What a row says of the split that decides it, too, and `more`; nothing without it."""
        if split not in self.learned_from:
            return {}
        other, rows = self.learned_from[split]
        decisive = {"cells": [self.group.origin, other.origin], "rows": rows.tolist()}
        decisive |= {"clipsyn": [__version__], "drawn": [self.settings.seed, self.settings.pairs]}
        about = {"support": split, "seed": self.settings.seed, **more}
        return about | {"fingerprint": fingerprint(decisive)}


def _unseen(search: Search, backbones: tuple[str, ...], classes: int) -> Pool:
    """Queries as samples of ensembles whose weights depend on embeddings alone, or on nothing."""
    count = len(search.queries[0])
    logits = np.broadcast_to(np.float32(0), (count, len(backbones), classes))
    labels = np.full(count, NO_LABEL, np.int32)
    return Pool(logits, labels, backbones, dict(zip(backbones, search.queries, strict=True)))


def _of_ranks(best: Rows, images: Images) -> Iterator[Measured]:
    """best: (query,) the place of the first item found.

    The interval of the median is Woodruff's (1952): by the share of ranks that are not above it.
    """
    for k in RECALLS:
        yield mean_share(f"recall_at_{k}", best <= k, images)
    median, score = np.median(best), mean(best <= np.median(best))
    ends = np.array(mean_share_interval([best <= median], [images])) - score.value + 0.5
    interval = Interval(*np.quantile(best, ends.clip(0, 1)).tolist())
    yield Measured("median_rank", Score(float(median), score.n), interval)


def _together(
    names: tuple[str, ...], right: Mask, images: Images
) -> Iterator[tuple[Row, Measured]]:
    """right: (backbone, query) whether it ranks an item first that it should find.

    failure_overlap: of the queries that one of two misses, the share that both miss.
    """
    missed = ~right
    for b, name in enumerate(names):
        only = mean_share("unique_correct", right[b] & (right.sum(axis=0) == 1), images)
        yield {"ensemble": SINGLE, "backbones": [name]}, only
    none = mean_share("none_correct", np.asarray(missed.all(axis=0)), images)
    yield {"ensemble": ORACLE, "backbones": [*names]}, none
    for i, j in combinations(range(len(names)), 2):
        pair: Row = {"backbones": [names[i], names[j]]}
        both, either = missed[i] & missed[j], missed[i] | missed[j]
        yield pair, mean_share("double_fault", both, images)
        yield pair, estimate("failure_overlap", ratio(both.sum(), either.sum()), len(images))
