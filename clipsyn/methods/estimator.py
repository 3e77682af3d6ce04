"""scikit-learn's manners for heads and ensembles, which its tools take, without `BaseEstimator`.

Importing that takes 1.4 s of processor time, more than a small `fit` or `predict` does altogether.

The constructor only stores its arguments, what `fit` learns ends in an underscore, and
`get_params`, `set_params` and so `sklearn.base.clone` work. Ours are dataclasses: a field is a
parameter, declared with what it may be, which `fit` checks, or is learned. What is learned is
arrays, numbers, texts and tuples of them, or dicts of arrays: it can be written to a file without
pickle.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import copy
from dataclasses import field, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike

from clipsyn.errors import InputError, LeakError, RouterMismatch, UsageError
from clipsyn.methods.numerics import Floats, Mask
from clipsyn.methods.numerics.samples import stratified_folds
from clipsyn.methods.pool import Pool, as_labels, in_memory
from clipsyn.registry import Registry, unknown_name
from clipsyn.settings import WHOLE, Constraint, Kind


def parameter(default: Any, kind: Kind, *, keyword: bool = False, **bounds: Any) -> Any:
    """A field of an estimator; `bounds` are those of `Constraint`. None is allowed as a default."""
    if default is None:
        bounds.setdefault("instead_of_none", "chosen on the support")
    constraint = Constraint(kind, **bounds)
    return field(default=default, kw_only=keyword, metadata={"constraint": constraint})


def seed(*, keyword: bool = False) -> Any:
    """The seed of all that a fit draws; never None: a fit can be done again."""
    return parameter(0, WHOLE, least=0, keyword=keyword)


def learned() -> Any:
    """A field of an estimator that `fit` sets."""
    return field(init=False)


class Estimator:
    """What heads and ensembles have in common.

    - Data of the test split cannot reach `fit`.
    - Backbones are worked on in the order of their names, and found by name: a pool that holds
      them in another order gives the same numbers.
    - `fit` leaves out samples without a label, and those that some backbone has no logits for.
    """

    learns: ClassVar[bool] = True  # False: there is nothing to fit, and no label is needed
    needs_text: ClassVar[bool] = True  # False: works where a backbone has no zero-shot logits
    needs_embeddings: ClassVar[bool] = False  # True: logits alone will not do
    needs_logits: ClassVar[bool] = True  # False: what each backbone predicts will do
    needs_confidences: ClassVar[bool] = False  # True: with the probability of that
    knows_classes: ClassVar[bool] = False  # True: what is learned is about the classes seen
    any_size: ClassVar[bool] = False  # True: fits on a support that is larger than memory
    kind: ClassVar[str | None] = None  # what scikit-learn calls it
    learns_from_views: ClassVar[bool] = False  # True: also from augmented views of the support

    @property
    def needs_views(self) -> bool:
        """Whether it looks at augmented views of what it answers for."""
        return False

    backbones_: tuple[str, ...]
    n_classes_: int
    sampled_: int  # samples fitted on, where they are a sample of a support larger than memory

    def fit(self, support: Pool | ArrayLike, labels: ArrayLike | None = None) -> Self:
        """Learn from labelled samples.

        support: a Pool, or logits (sample, backbone, class) beside labels (sample,). Of a support
        that is larger than memory those that do not take `any_size` get a stratified sample of
        1 GiB, and `sampled_` is the number of its images. Raises LeakError for a pool of the test
        split, InputError where there is nothing to learn from, or too little. Where it raises, an
        earlier fit stays.
        """
        known = self._learnable(as_pool(support, labels))
        fitted = copy(self)  # nothing is left of an earlier fit, on what may be other backbones
        for name in self.learned():
            delattr(fitted, name)
        fitted.backbones_ = tuple(sorted(known.backbones))
        fitted.n_classes_ = known.n_classes
        if self.learns and known.sample_of:
            fitted.sampled_ = len(known)
        fitted._learn(known.of_backbones(fitted.backbones_))
        vars(self).clear()
        vars(self).update(vars(fitted))
        return self

    def _learn(self, support: Pool) -> None:
        self._fit(support)

    def _fit(self, support: Pool) -> None:
        """Learn from samples that are all labelled and readable, at least one if it `learns`.

        With `any_size` the arrays may be larger than memory, in files: to be read in blocks.
        """

    @classmethod
    def constraints(cls) -> dict[str, Constraint]:
        """What each parameter may be, by name; a class of others need not declare it."""
        fields = getattr(cls, "__dataclass_fields__", {})
        about = {name: fields[name].metadata for name in cls._parameters() if name in fields}
        return {name: it["constraint"] for name, it in about.items() if it}

    @classmethod
    def _parameters(cls) -> list[str]:
        return list(inspect.signature(cls).parameters)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments by name. `deep` is scikit-learn's: no parameter is an estimator."""
        return {name: getattr(self, name) for name in self._parameters()}

    def set_params(self, **params: Any) -> Self:
        known = self._parameters()
        for name, value in params.items():
            if name not in known:
                raise unknown_name(f"parameter of {type(self).__name__}", name, known)
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn's tools ask an estimator for."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type=self.kind,
            target_tags=TargetTags(required=self.learns),
            classifier_tags=ClassifierTags() if self.kind else None,
            requires_fit=self.learns,
            input_tags=InputTags(two_d_array=False, three_d_array=True, allow_nan=True),
        )

    def check_parameters(self) -> None:
        """Raise UsageError for a parameter that is not what it may be."""
        for name, constraint in self.constraints().items():
            constraint.accepted(name, getattr(self, name))

    def _learnable(self, support: Pool) -> Pool:
        """The samples of `support` that can be learned from; of too many, a sample if need be.

        Raises UsageError for a parameter that is not what it may be, LeakError for a pool of the
        test split, InputError where no sample is left.
        """
        self.check_parameters()
        called = type(self).__name__
        if support.split == "test":
            raise LeakError(
                f"{called} was given the test split of {support.dataset or 'a dataset'} to fit: "
                "use its training or validation split"
            )
        if self.needs_text:
            support.check_text(called)
        if self.learns and not self.any_size:
            support = in_memory(support, called)
        known = support.labelled()
        if self.learns and not len(known):
            raise InputError(
                f"{called} has no labelled, readable sample to fit: give a support set with labels"
            )
        return known

    def _aligned(self, pool: Pool) -> Pool:
        """`pool` with the backbones in the order of `fit`; refuses other backbones or classes."""
        if not hasattr(self, "backbones_"):
            raise UsageError(f"{type(self).__name__} is not fitted yet: call fit(support)")
        if set(pool.backbones) != set(self.backbones_):
            raise RouterMismatch("backbones", self.backbones_, tuple(sorted(pool.backbones)))
        if pool.n_classes != self.n_classes_:
            raise RouterMismatch("number of classes", self.n_classes_, pool.n_classes)
        if self.needs_text:
            pool.check_text(type(self).__name__)
        return pool.of_backbones(self.backbones_)

    def learned(self) -> dict[str, Any]:
        """What `fit` has learned, by attribute name."""
        return {k: v for k, v in vars(self).items() if k.endswith("_") and not k.startswith("_")}

    def __repr__(self) -> str:
        declared, given = inspect.signature(type(self)).parameters, self.get_params()
        changed = (f"{name}={it!r}" for name, it in given.items() if it != declared[name].default)
        return f"{type(self).__name__}({', '.join(changed)})"


def as_pool(pool: Pool | ArrayLike, labels: ArrayLike | None = None) -> Pool:
    """A Pool as it is; an array of logits, with labels, as a Pool.

    A Pool brings its labels, if it has any. scikit-learn gives them once more, and to an ensemble
    after a head those of all samples that the head learned from. Raises UsageError for others.
    """
    if not isinstance(pool, Pool):
        return Pool.of(pool, labels)
    if labels is None:
        return pool
    given = as_labels(labels)
    if (pool.labels < 0).all():
        return replace(pool, labels=given)
    if len(given) < len(pool) or (len(given) == len(pool) and (given != pool.labels).any()):
        raise UsageError(
            "a Pool brings its labels, and these are others: give them to Pool.of, or beside an "
            "array of logits"
        )
    return pool


def cross_fitted(
    estimator: Any,
    pool: Pool,
    answer: Callable[[Any, Pool], Floats],
    folds: int,
    random_state: int | None = None,
) -> Floats:
    """`answer(fitted, samples)` for all of at least two samples, from fits that have not seen them.

    Each fold is left out of the fit of a head or an ensemble like this one, and answered by it.
    """
    fits = left_out(estimator, pool, folds, random_state)
    parts = [(held, answer(fitted, unseen)) for held, fitted, unseen in fits]
    answers = np.empty((len(pool), *parts[0][1].shape[1:]), np.float32)
    for held, found in parts:
        answers[held] = found
    return answers


def left_out(
    estimator: Any, pool: Pool, folds: int, random_state: int | None = None
) -> Iterator[tuple[Mask, Any, Pool]]:
    """Fold by fold: which samples it has, a fit like this one without them, and they."""
    for held in stratified_folds(pool.labels, folds, random_state=random_state):
        seen, unseen = (pool.take(np.flatnonzero(rows)) for rows in (~held, held))
        yield held, type(estimator)(**estimator.get_params()).fit(seen), unseen


def from_text(registry: Registry, text: str, seed: int | None = None) -> Any:
    """The estimator that ``NAME`` or ``NAME:parameter=value:…`` stands for.

    A value is none, true, false, a number or a text. seed: the `random_state`, if the estimator
    has one and the text does not set it.
    Raises UnknownName with near matches for a name or parameter, UsageError for a value.
    """
    name, *settings = (part.strip() for part in text.split(":"))
    estimator = registry.load(name)()
    known, constraints = estimator._parameters(), estimator.constraints()
    if seed is not None and "random_state" in known:
        estimator.set_params(random_state=seed)  # before what the text sets, which wins
    for setting in settings:
        parameter, separator, value = (part.strip() for part in setting.partition("="))
        if not separator:
            raise UsageError(f"'{text}': write {name}:PARAMETER=VALUE, not '{setting}'")
        if parameter not in known:
            raise unknown_name(f"parameter of {name}", parameter, known)
        read = _read(value)
        if parameter in constraints:
            read = constraints[parameter].accepted(f"'{text}': {parameter}", read)  # as it is kept
        setattr(estimator, parameter, read)
    return estimator


def _read(value: str) -> Any:
    """None, a truth value, a number, or else the text."""
    words = {"true": True, "false": False, "none": None}
    if value.lower() in words:
        return words[value.lower()]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    return value
