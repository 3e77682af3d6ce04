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
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn.errors import InputError, LeakError, RouterMismatch, UsageError
from clipsyn.methods.numerics.folds import stratified_folds
from clipsyn.methods.pool import Pool, as_labels
from clipsyn.methods.stream import Stream, Support, in_memory
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
    """A field of an estimator that `fit` sets. A router's file is read by its type."""
    return field(init=False)


class Estimator:
    learns: ClassVar[bool] = True  # False: there is nothing to fit, and no label is needed
    needs_text: ClassVar[bool] = True  # False: works where a backbone has no zero-shot logits
    streams: ClassVar[bool] = False  # True: a support larger than memory is fitted on in passes

    backbones_: tuple[str, ...]
    n_classes_: int
    sampled_: int  # samples fitted on, where they are a sample of a support larger than memory

    @classmethod
    def constraints(cls) -> dict[str, Constraint]:
        """What each parameter may be, by name; a class of others need not declare it."""
        fields = {"random_state": seed(), **getattr(cls, "__dataclass_fields__", {})}
        declared = {name: it.metadata.get("constraint") for name, it in fields.items()}
        return {name: declared[name] for name in cls._parameters() if declared.get(name)}

    @classmethod
    def _parameters(cls) -> list[str]:
        parameters = inspect.signature(cls).parameters.values()
        return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]

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
        from sklearn.utils import InputTags, Tags, TargetTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=self.learns),
            requires_fit=self.learns,
            input_tags=InputTags(two_d_array=False, three_d_array=True, allow_nan=True),
        )

    def check_parameters(self) -> None:
        """Raise UsageError for a parameter that is not what it may be."""
        for name, constraint in self.constraints().items():
            constraint.accepted(name, getattr(self, name))

    @contextmanager
    def _whole_fit(self) -> Iterator[None]:
        """A fit that raises, or is interrupted, leaves everything as it was."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    def _learnable(self, support: Support) -> Support:
        """The samples of `support` that can be learned from; of a stream, a sample if need be.

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
        if self.learns and not self.streams:
            support = in_memory(support, called)
        known = support.labelled()
        if self.learns and not len(known):
            raise InputError(
                f"{called} has no labelled, readable sample to fit: give a support set with labels"
            )
        return known

    def _note_sample(self, support: Support) -> None:
        """Keep in mind, as what was learned, that `support` is a sample of a larger one."""
        vars(self).pop("sampled_", None)
        if self.learns and isinstance(support, Pool) and support.sample_of:
            self.sampled_ = len(support)

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
        return {
            name: value
            for name, value in vars(self).items()
            if name.endswith("_") and not name.startswith("_")
        }

    def __repr__(self) -> str:
        declared = inspect.signature(type(self)).parameters
        changed = (
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value != declared[name].default
        )
        return f"{type(self).__name__}({', '.join(changed)})"


def as_support(support: Support | ArrayLike, labels: ArrayLike | None) -> Support:
    """A stream as it is, anything else as `as_pool` has it."""
    return support if isinstance(support, Stream) else as_pool(support, labels)


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
    if len(given) == len(pool):
        known = np.array_equal(given, pool.labels)
    else:
        known = not Counter(pool.labels.tolist()) - Counter(given.tolist())
    if not known:
        raise UsageError(
            "a Pool brings its labels, and these are others: give them to Pool.of, or beside an "
            "array of logits"
        )
    return pool


def cross_fitted(
    estimator: Any,
    pool: Pool,
    answer: Callable[[Any, Pool], NDArray[np.float32]],
    folds: int,
    random_state: int | None = None,
) -> NDArray[np.float32]:
    """`answer(fitted, samples)` for all of at least two samples, from fits that have not seen them.

    Each fold is left out of the fit of a head or an ensemble like this one, and answered by it.
    """
    answers = np.empty(0, np.float32)
    for held, fitted, unseen in left_out(estimator, pool, folds, random_state):
        found = answer(fitted, unseen)
        if not len(answers):
            answers = np.empty((len(pool), *found.shape[1:]), np.float32)
        answers[held] = found
    return answers


def left_out(
    estimator: Any, pool: Pool, folds: int, random_state: int | None = None
) -> Iterator[tuple[NDArray[np.bool_], Any, Pool]]:
    """Fold by fold: which samples it has, a fit like this one without them, and they."""
    for held in stratified_folds(pool.labels, folds, random_state=random_state):
        seen, unseen = (pool.take(np.flatnonzero(rows)) for rows in (~held, held))
        yield held, type(estimator)(**estimator.get_params()).fit(seen), unseen


def from_text(registry: Registry, text: str, seed: int | None = None) -> Any:
    """The estimator that ``NAME`` or ``NAME:parameter=value:…`` stands for.

    A value is read as what the constructor says the parameter is (bool, int, float, str, None).
    seed: the `random_state`, if the estimator has one and the text does not set it.
    Raises UnknownName with near matches for a name or parameter, UsageError for a value.
    """
    name, *settings = (part.strip() for part in text.split(":"))
    estimator = registry.create(name)
    known = inspect.signature(type(estimator)).parameters
    if seed is not None and "random_state" in known:
        estimator.set_params(random_state=seed)  # before what the text sets, which wins
    for setting in settings:
        parameter, separator, value = (part.strip() for part in setting.partition("="))
        if not separator:
            raise UsageError(f"'{text}': write {name}:PARAMETER=VALUE, not '{setting}'")
        if parameter not in known:
            raise unknown_name(f"parameter of {name}", parameter, known)
        kinds = _text(known[parameter].annotation).split(" | ")
        estimator.set_params(**{parameter: _value(text, kinds, value)})
    return estimator


def _text(annotation: Any) -> str:
    """As it is written, whether or not annotations are texts where the class is defined."""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _value(text: str, kinds: list[str], value: str) -> Any:
    for kind in kinds:
        try:
            return _READERS[kind][1](value)
        except (KeyError, ValueError):
            continue
    wanted = " or ".join(_READERS[kind][0] for kind in kinds if kind in _READERS)
    raise UsageError(
        f"'{text}': {value or 'nothing'} is not {wanted or 'a value of this parameter'}"
    )


def _finite(value: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


# how a parameter's type is called, and read: KeyError or ValueError if that is not what it is
_READERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "bool": ("true or false", lambda value: {"true": True, "false": False}[value.lower()]),
    "int": ("a whole number", int),
    "float": ("a number", _finite),
    "str": ("a text", str),
    "None": ("none", lambda value: {"none": None}[value.lower()]),
}
