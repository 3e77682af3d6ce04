"""A fitted head and ensemble, with all that decides what they may be applied to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn.errors import InputError, RouterMismatch, UsageError
from clipsyn.methods.chosen import Candidate
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.ensembles.base import Ensemble, Router
from clipsyn.methods.heads import HEADS
from clipsyn.methods.heads.base import Head
from clipsyn.methods.heads.zero_shot import ZeroShot
from clipsyn.methods.numerics.fewshot import shortfall
from clipsyn.methods.numerics.logits import predictions, softmax
from clipsyn.methods.numerics.metrics import accuracy
from clipsyn.methods.pool import NO_LABEL, Pool
from clipsyn.methods.stream import Stream
from clipsyn.methods.stream import Support as Labelled
from clipsyn.names import Identity, differences, fingerprint
from clipsyn.router.backbone import FittedBackbone, fitted_backbone, shown_value
from clipsyn.text import html_table

_UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


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

    def _repr_html_(self) -> str:
        """For notebooks: each backbone and where it comes from."""
        rows = [(backbone.name, backbone.source) for backbone in self.backbones]
        return html_table(repr(self), ("backbone", "source"), rows)

    @classmethod
    def of(
        cls,
        ensemble: Ensemble,
        support: Labelled,
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
        about = support.about if isinstance(support, Stream) else support
        seen = support.labelled()
        predicted, ids = _on_its_support(ensemble, head, seen)
        right = accuracy(predicted, seen.labels)
        return cls(
            ensemble,
            head,
            tuple(fitted_backbone(about, name) for name in about.backbones),
            about.n_classes,
            about.class_names,
            about.provenance.get("prompts", {}),
            Support(
                about.dataset,
                about.split,
                about.perturbation,
                tuple(about.provenance.get("views", ())),
                shots,
                seed,
                len(seen),
                *shortfall(seen.labels, shots, about.n_classes),
                fingerprint({"ids": ids}),
                right.value if right.n else None,
                about.provenance.get("licence", ""),
                about.origin,
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

    @property
    def class_embeddings(self) -> dict[str, NDArray[np.float32]]:
        known = {b.name: b.class_embedding for b in self.backbones}
        return {name: values for name, values in known.items() if values is not None}

    @property
    def logit_scales(self) -> dict[str, float]:
        known = {b.name: b.logit_scale for b in self.backbones}
        return {name: scale for name, scale in known.items() if scale is not None}

    def combine(self, pool: Pool) -> NDArray[np.float32]:
        """Scores (sample, class); raises RouterMismatch for a pool it cannot be applied to.

        NaN where an image could not be read; InputError where the scores of others are not finite.
        """
        return self._scores(self._transformed(pool))

    def predict(self, pool: Pool) -> NDArray[np.uint16]:
        """(sample,) class index; NO_PREDICTION where an image could not be read."""
        return predictions(self.combine(pool))

    def predict_proba(self, pool: Pool) -> NDArray[np.float32]:
        """(sample, class) probabilities."""
        return np.asarray(softmax(self.combine(pool)))

    def weights(self, pool: Pool) -> NDArray[np.float32]:
        """(sample, backbone) in the order of the pool's backbones.

        Raises UsageError for an ensemble that has none.
        """
        if not isinstance(self.ensemble, Router):
            raise UsageError(f"{type(self.ensemble).__name__} does not weigh backbones")
        transformed = self._transformed(pool)
        with self._applied():
            return self.ensemble.weights(transformed.of_backbones(pool.backbones))

    def combine_and_weigh(
        self, pool: Pool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """`combine` and, of a router that has them, `weights`; the head is applied once."""
        transformed = self._transformed(pool)
        scores = self._scores(transformed)
        if not isinstance(self.ensemble, Router):
            return scores, None
        with self._applied():
            return scores, self.ensemble.weights(transformed.of_backbones(pool.backbones))

    def score(self, pool: Pool) -> float:
        """Accuracy over the samples with a label and a prediction; NaN if there is none."""
        return accuracy(self.predict(pool), pool.labels).value

    def try_out(self) -> None:
        """Apply it to two made-up images; raises InputError where that cannot be done.

        Does nothing where it needs embeddings of widths that it does not know.
        """
        embed = {name: values.shape[1] for name, values in self.class_embeddings.items()}
        if len(embed) < len(self.backbones) and self.needs_embeddings:
            return
        rng = np.random.default_rng(0)
        pool = Pool(
            rng.standard_normal((2, len(self.backbones), self.n_classes), np.float32),
            np.full(2, NO_LABEL, np.int32),
            self.names,
            {name: np.full((2, width), width**-0.5, np.float16) for name, width in embed.items()},
            class_embeddings=self.class_embeddings,
            logit_scales=self.logit_scales,
            class_names=self.class_names,
        )
        with self._applied(), np.errstate(all="ignore"):  # real images may have finite scores
            transformed = self.head.transform(pool)
            self.ensemble.combine(transformed)
            if isinstance(self.ensemble, Router):
                self.ensemble.weights(transformed)

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
            raise RouterMismatch(f"prompts ({name})", shown_value(fitted), shown_value(given))

    def _scores(self, transformed: Pool) -> NDArray[np.float32]:
        with self._applied():
            scores = self.ensemble.combine(transformed)
        lost = transformed.readable & ~np.isfinite(scores).all(axis=1)
        if lost.any():
            raise InputError(
                f"{self.method} has no finite scores for {np.count_nonzero(lost):,} of "
                f"{len(lost):,} images that were read: the router is damaged or was fitted on "
                "something else; fit it again"
            )
        return scores

    def _transformed(self, pool: Pool) -> Pool:
        self.check(pool)
        with self._applied():
            return self.head.transform(pool)

    @contextmanager
    def _applied(self) -> Iterator[None]:
        """Learned values of other types or shapes than the method's fail in as many ways."""
        try:
            yield
        except _UNFIT as error:
            raise InputError(
                f"{self.method} cannot be applied ({error!r}): the router is damaged, or was "
                "fitted on embeddings of other widths; fit it again"
            ) from error


def _on_its_support(
    ensemble: Ensemble, head: Head, seen: Labelled
) -> tuple[NDArray[np.uint16], list[str]]:
    """What is predicted for the samples it was fitted on, and their ids, in one pass."""
    predicted: list[NDArray[np.uint16]] = []
    ids: list[str] = []
    lost = 0
    for pool in seen.blocks(embeddings=head.learns or ensemble.needs_embeddings):
        scores = ensemble.combine(head.transform(pool))
        lost += int(np.count_nonzero(~np.isfinite(scores).all(axis=1)))
        predicted.append(predictions(scores))
        ids.extend(pool.ids)
    if lost:
        raise UsageError(
            f"{ensemble!r} on {head!r} has no finite scores for {lost:,} of the {len(seen):,} "
            "images that it was fitted on: fit it with less extreme parameters"
        )
    return np.concatenate(predicted or [np.empty(0, np.uint16)]), ids
