"""A fitted head, ensemble and backbones, with all that decides what they may be applied to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn.catalog.backbones import known_backbones
from clipsyn.errors import InputError, RouterMismatch, UsageError
from clipsyn.methods.chosen import Candidate
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.ensembles.base import Ensemble, Router
from clipsyn.methods.heads import HEADS
from clipsyn.methods.heads.base import Head, ZeroShot
from clipsyn.methods.numerics.logits import predictions, softmax, zero_shot_logits
from clipsyn.methods.numerics.metrics import Score, accuracy
from clipsyn.methods.numerics.samples import shortfall
from clipsyn.methods.pool import Pool, in_memory
from clipsyn.names import Identity, differences, fingerprint
from clipsyn.text import html_table

_DIGEST = 64  # characters of a SHA-256
_UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, eq=False)
class FittedBackbone:
    """One backbone as it was when the router was fitted.

    identity: what decides an image embedding; {} if the pool came from no store.
    """

    name: str
    source: str
    identity: Identity
    logit_scale: float | None
    class_embedding: NDArray[np.float32] | None  # (class, embed)

    @property
    def text(self) -> str:
        """NAME or NAME=SOURCE, as `clipsyn extract --backbones` takes it."""
        return "=".join(dict.fromkeys((self.name, self.source)))

    @property
    def is_imported(self) -> bool:
        """Whether its embeddings were made elsewhere, by weights that nobody wrote down."""
        return "imported" in self.identity

    @property
    def precision(self) -> str:
        """The precision that it is run in; raises InputError for a backbone that cannot be run."""
        if not self.identity:
            raise self._of_arrays()
        if self.is_imported:
            raise InputError(
                f"the embeddings of {self.name} were imported, so what makes others like them is "
                "not known: give a store that has its embeddings of these images"
            )
        return str(self.identity.get("precision"))

    def logits(self, embedding: NDArray[Any], rows: int) -> NDArray[np.float32]:
        """`zero_shot_logits` of image embeddings (sample, embed) that lie in blocks of `rows`.

        Raises InputError if the router was fitted on logits that came without class embeddings, and
        RouterMismatch for embeddings of another width.
        """
        if self.class_embedding is None or self.logit_scale is None:
            raise self._of_arrays()
        ours, theirs = self.class_embedding.shape[1], embedding.shape[1]
        if ours != theirs:
            raise RouterMismatch(f"width of the embeddings of {self.name}", ours, theirs)
        return zero_shot_logits(embedding, self.class_embedding, self.logit_scale, rows)

    def check(self, identity: Identity) -> None:
        """Raise RouterMismatch naming the first field in which `identity` differs.

        Of imported embeddings no weights are known: that they are those of extracted ones is taken
        on trust.
        """
        if not self.identity:
            raise self._of_arrays()
        if self.is_imported != ("imported" in identity):
            return
        for name, fitted, given in differences(self.identity, identity):
            raise RouterMismatch(f"{name} of {self.name}", _shown(fitted), _shown(given))

    def _of_arrays(self) -> InputError:
        return InputError(
            "the router was fitted on plain arrays or imported logits, so nothing says whether "
            f"other embeddings of {self.name} are of the same backbone: fit it on extracted cells"
        )


def _fitted_backbone(support: Pool, name: str) -> FittedBackbone:
    """What a pool that a router was fitted on knows of a backbone."""
    source = support.provenance.get("sources", {}).get(name, name)
    if name in {backbone.name for backbone in known_backbones()["zoo"]}:
        source = name  # the folder of the shipped weights is another one on each machine
    embedding = support.class_embeddings.get(name)
    return FittedBackbone(
        name,
        source,
        support.provenance.get("backbones", {}).get(name, {}),
        support.logit_scales.get(name),
        None if embedding is None else np.asarray(embedding, np.float32),
    )


def _shown(value: Any) -> str:
    """A value for a message: a digest by its beginning, a long list by its first items."""
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else str(value)
    if len(text) == _DIGEST and text.isalnum():
        return f"{text[:12]}…"
    return text if len(text) <= 2 * _DIGEST else f"{text[: 2 * _DIGEST]}…"


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
        right = _on_its_support(ensemble, head, in_memory(seen))
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
            raise RouterMismatch(f"prompts ({name})", _shown(fitted), _shown(given))

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


def _on_its_support(ensemble: Ensemble, head: Head, seen: Pool) -> Score:
    """Its accuracy on the samples that it was fitted on; of many, on a sample of them."""
    scores = ensemble.combine(head.transform(seen))
    if lost := int(np.count_nonzero(~np.isfinite(scores).all(axis=1))):
        raise UsageError(
            f"{ensemble!r} on {head!r} has no finite scores for {lost:,} of the {len(seen):,} "
            "images that it was fitted on: fit it with less extreme parameters"
        )
    return accuracy(predictions(scores), seen.labels)
