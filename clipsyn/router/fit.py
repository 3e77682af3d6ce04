"""Fit a router on a split of a store: head, ensemble, and all that decides what it may see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn.errors import InputError, RouterMismatch, UsageError
from clipsyn.methods.chosen import Candidate, choose
from clipsyn.methods.ensembles import CHOSEN, ENSEMBLES, USUAL_ENSEMBLES
from clipsyn.methods.ensembles.base import Ensemble, Router, inductive
from clipsyn.methods.estimator import from_text
from clipsyn.methods.heads import HEADS, USUAL_HEADS, ZERO_SHOT
from clipsyn.methods.heads.base import Head, ZeroShot
from clipsyn.methods.numerics import Array, Floats, Labels
from clipsyn.methods.numerics.logits import predictions, softmax, zero_shot_logits
from clipsyn.methods.numerics.metrics import accuracy
from clipsyn.methods.numerics.samples import few_shot, shortfall
from clipsyn.methods.pool import Pool, in_memory
from clipsyn.names import Identity, differences, fingerprint
from clipsyn.router import FitSettings
from clipsyn.settings import images_of, takes
from clipsyn.store.features import FeatureStore, opened
from clipsyn.store.overlap import labels_to_learn
from clipsyn.store.pools import PoolReader
from clipsyn.store.select import only


@dataclass(frozen=True, eq=False)
class FittedBackbone:
    """One backbone as it was when the router was fitted.

    identity: what decides an image embedding; {} if the pool came from no store.
    """

    name: str
    source: str
    identity: Identity
    logit_scale: float | None
    class_embedding: Floats | None  # (class, embed)

    @property
    def text(self) -> str:
        """NAME or NAME=SOURCE, as `clipsyn extract --backbones` takes it."""
        return "=".join(dict.fromkeys((self.name, self.source)))

    @property
    def precision(self) -> str:
        """The precision that it is run in; raises InputError for a backbone that cannot be run."""
        if self._unknown:
            raise self._of_arrays()
        return str(self.identity.get("precision"))

    @property
    def _unknown(self) -> bool:
        """Whether nobody wrote down which weights made its embeddings."""
        return not self.identity or "imported" in self.identity

    def logits(self, embedding: Array, rows: int) -> Floats:
        """`zero_shot_logits` of image embeddings (sample, embed) that lie in blocks of `rows`.

        Raises InputError if the router was fitted on logits that came without class embeddings.
        """
        if self.class_embedding is None or self.logit_scale is None:
            raise self._of_arrays()
        self.check_width(embedding)
        return zero_shot_logits(embedding, self.class_embedding, self.logit_scale, rows)

    def check_width(self, embedding: Array) -> None:
        """Raise RouterMismatch for embeddings (sample, embed) of another width."""
        if self.class_embedding is not None:
            ours, theirs = self.class_embedding.shape[1], embedding.shape[1]
            if ours != theirs:
                raise RouterMismatch(f"width of the embeddings of {self.name}", ours, theirs)

    def check(self, identity: Identity) -> None:
        """Raise RouterMismatch naming the first field in which `identity` differs.

        Of imported embeddings no weights are known: that they are those of extracted ones is taken
        on trust.
        """
        if not self.identity:
            raise self._of_arrays()
        if self._unknown != ("imported" in identity):
            return
        for name, fitted, given in differences(self.identity, identity):
            raise RouterMismatch(f"{name} of {self.name}", fitted, given)

    def _of_arrays(self) -> InputError:
        return InputError(
            f"the embeddings of {self.name} that the router was fitted on are plain arrays or were "
            "imported, so nothing says which weights make others like them: fit it on extracted "
            "cells, or give a store that has its embeddings of these images"
        )


def _fitted_backbone(support: Pool, name: str) -> FittedBackbone:
    """What a pool that a router was fitted on knows of a backbone."""
    source = support.provenance.get("sources", {}).get(name, name)
    embedding = support.class_embeddings.get(name)
    return FittedBackbone(
        name,
        source,
        support.provenance.get("backbones", {}).get(name, {}),
        support.logit_scales.get(name),
        None if embedding is None else np.asarray(embedding, np.float32),
    )


@dataclass(frozen=True)
class Support:
    """The samples that a router was fitted on, and how well it does on these very samples."""

    dataset: str
    split: str
    perturbation: str
    views: tuple[str, ...]  # perturbations used as augmented views
    shots: int | None  # most samples of a class; None is all
    seed: int | None
    samples: int  # labelled and readable
    classes_short: int  # with fewer than `shots` of them, but some
    classes_empty: int  # with none
    ids: str  # fingerprint of the sample ids
    accuracy: float | None
    licence: str  # of the images
    fingerprints: Mapping[str, Any]  # of the cells that were read


@dataclass(frozen=True, eq=False)
class FittedRouter:
    """Predicts from pools. Any ensemble can be in it; only some weigh backbones.

    prompts: name, templates and texts per class that the class embeddings were made from. seen:
    `SampleTable.marks` of the images that it was fitted on, with 0 where some are not known.

    >>> from clipsyn import FeatureStore, fit_router
    >>> store = FeatureStore.open("store")
    >>> router = fit_router(store, "toy", "super-learner", shots=2)
    >>> test = store.pool("toy", "test")
    >>> router.weights(test).shape  # (sample, backbone)
    (20, 2)
    >>> router.predict(test).shape  # a class index for each image
    (20,)
    """

    ensemble: Ensemble
    head: Head
    backbones: tuple[FittedBackbone, ...]
    n_classes: int
    class_names: tuple[str, ...]
    prompts: Identity
    support: Support
    seen: NDArray[np.uint64]
    candidates: tuple[Candidate, ...] = ()  # what it was chosen from, best first; not written

    def __repr__(self) -> str:
        support = self.support
        place = "/".join(name for name in (support.dataset, support.split) if name)
        return (
            f"<FittedRouter {self.method}: {len(self.backbones)} backbones, {self.n_classes:,} "
            f"classes, fitted on {support.samples:,} images{f' of {place}' if place else ''}>"
        )

    @classmethod
    def of(
        cls,
        ensemble: Ensemble,
        support: Pool,
        *,
        head: Head | None = None,
        shots: int | None = None,
        seed: int | None = None,
        marks: ArrayLike = (0,),
    ) -> FittedRouter:
        """What was fitted on `support`; without `head`, on its zero-shot logits.

        shots, seed: how `support` was chosen, for the record. marks: what is `seen`. Raises
        UsageError where its scores for these very samples are not finite: it has learned nothing.
        """
        head = head or ZeroShot().fit(support)
        seen = support.labelled()
        judged = in_memory(seen)  # of many images a sample
        scores = ensemble.combine(head.transform(judged))
        if lost := int(np.count_nonzero(~np.isfinite(scores).all(axis=1))):
            raise UsageError(
                f"{ensemble!r} on {head!r} has no finite scores for {lost:,} of the "
                f"{len(judged):,} images that it was fitted on: fit it with less extreme parameters"
            )
        right = accuracy(predictions(scores), judged.labels)
        return cls(
            ensemble,
            head,
            tuple(_fitted_backbone(support, name) for name in support.backbones),
            support.n_classes,
            support.class_names,
            support.provenance.get("prompts", {}),
            Support(
                support.dataset,
                support.split,
                support.perturbation,
                tuple(support.provenance.get("views", ())),
                shots,
                seed,
                len(seen),
                *shortfall(seen.labels, shots, support.n_classes),
                fingerprint({"ids": list(seen.ids)}),
                right.value if right.n else None,
                support.provenance.get("licence", ""),
                support.origin,
            ),
            np.array(marks, np.uint64),
        )

    @property
    def sampled(self) -> int | None:
        """Images of the sample that its head or ensemble was fitted on; None where it was all."""
        taken = [getattr(part, "sampled_", None) for part in (self.head, self.ensemble)]
        return min((count for count in taken if count), default=None)

    @property
    def method(self) -> str:
        """The ensemble's name, and the head's if it is not zero-shot: ``nlc on tip-adapter``."""
        ensemble = ENSEMBLES.name_of(type(self.ensemble))
        head = HEADS.name_of(type(self.head))
        return ensemble if isinstance(self.head, ZeroShot) else f"{ensemble} on {head}"

    @property
    def needs_embeddings(self) -> bool:
        """Whether it needs embeddings beside zero-shot logits."""
        return self.ensemble.needs_embeddings or not isinstance(self.head, ZeroShot)

    @property
    def names(self) -> tuple[str, ...]:
        """Of its backbones."""
        return tuple(backbone.name for backbone in self.backbones)

    def combine(self, pool: Pool) -> Floats:
        """Scores (sample, class), NaN where an image could not be read.

        Raises RouterMismatch for a pool that it cannot be applied to.
        """
        self.check(pool)
        return self.ensemble.combine(self.head.transform(pool))

    def predict(self, pool: Pool) -> NDArray[np.uint16]:
        """(sample,) class index; NO_PREDICTION where an image could not be read."""
        return predictions(self.combine(pool))

    def predict_proba(self, pool: Pool) -> Floats:
        """(sample, class) probabilities."""
        return np.asarray(softmax(self.combine(pool)))

    def weights(self, pool: Pool) -> Floats:
        """(sample, backbone) in the order of the pool's backbones.

        Raises UsageError for an ensemble that has none.
        """
        _, weights = self.combine_and_weigh(pool)
        if weights is None:
            raise UsageError(f"{type(self.ensemble).__name__} does not weigh backbones")
        return weights

    def combine_and_weigh(self, pool: Pool) -> tuple[Floats, Floats | None]:
        """`combine` and, of a router that has them, `weights`; the head is applied once."""
        self.check(pool)
        transformed = self.head.transform(pool)
        scores = self.ensemble.combine(transformed)
        if not isinstance(self.ensemble, Router):
            return scores, None
        return scores, self.ensemble.weights(transformed.of_backbones(pool.backbones))

    def score(self, pool: Pool) -> float:
        """Accuracy over the samples with a label and a prediction; NaN if there is none."""
        return accuracy(self.predict(pool), pool.labels).value

    def check(self, pool: Pool) -> None:
        """Raise RouterMismatch if the pool is of other backbones, classes, prompts or weights.

        What a pool does not know, such as the weights behind plain arrays, is taken on trust.
        """
        if set(pool.backbones) != set(self.names):
            raise RouterMismatch(
                "backbones", tuple(sorted(self.names)), tuple(sorted(pool.backbones))
            )
        self.check_classes(pool.n_classes, pool.class_names)
        if prompts := pool.provenance.get("prompts"):
            self.check_prompts(prompts)
        identities = pool.provenance.get("backbones", {})
        for backbone in self.backbones:
            if backbone.identity and backbone.name in identities:
                backbone.check(identities[backbone.name])
            if backbone.name in pool.embeddings:
                backbone.check_width(pool.embeddings[backbone.name])

    def check_classes(self, count: int, names: tuple[str, ...]) -> None:
        """Raise RouterMismatch for another number of classes, or other names of any."""
        if count != self.n_classes:
            raise RouterMismatch("number of classes", self.n_classes, count)
        for index, (fitted, given) in enumerate(zip(self.class_names, names, strict=False)):
            if fitted != given:
                raise RouterMismatch(f"class names (of class {index})", fitted, given)

    def check_prompts(self, prompts: Identity) -> None:
        """Raise RouterMismatch for another prompt set, or one of that name with other texts."""
        if not self.prompts:
            return
        if self.prompts["name"] != prompts["name"]:
            raise RouterMismatch("prompts", self.prompts["name"], prompts["name"])
        known = self.prompts.keys() & prompts.keys()  # of imported class embeddings, the name alone
        ours, theirs = ({name: said[name] for name in known} for said in (self.prompts, prompts))
        for name, fitted, given in differences(ours, theirs):
            raise RouterMismatch(f"prompts ({name})", fitted, given)


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
    `clipsyn.router.FitSettings` declares them. Images that the dataset's test split holds
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
    is_chosen = asked.ensemble == CHOSEN
    combiner = None if is_chosen else inductive(asked.ensemble, asked.seed)
    head = from_text(HEADS, asked.head or ZERO_SHOT, asked.seed)  # before anything is read
    store = opened(store)
    reader = PoolReader(
        store,
        asked.dataset or only(store, "dataset"),
        asked.support,
        backbones=asked.backbones,
        prompts=asked.prompts,
        views=asked.views,
    )
    rows = few_shot(_labels(reader, asked), shots, asked.seed)
    labelled = reader.support(rows)
    candidates: tuple[Candidate, ...] = ()
    if combiner:
        combiner.fit(head.fit_transform(labelled))
    else:
        heads = (asked.head,) if asked.head else USUAL_HEADS
        head, combiner, _, candidates = choose(labelled, heads, USUAL_ENSEMBLES, asked.seed)
    drawn = None if shots is None else asked.seed  # all images are the same ones for any seed
    marks = np.unique(reader.samples.marks[rows])
    router = FittedRouter.of(combiner, labelled, head=head, shots=shots, seed=drawn, marks=marks)
    return replace(router, candidates=candidates)


def _labels(reader: PoolReader, asked: FitSettings) -> Labels:
    """Of what may be learned from: no image of the dataset's test split, where the store has it."""
    place = reader.samples.dataset, "test"
    has_tests = reader.store.tree.exists(reader.store.at("samples", *place))
    tests = [reader.store.samples(*place)] if has_tests else []
    return labels_to_learn(reader.samples, tests, allow_overlap=asked.allow_overlap)
