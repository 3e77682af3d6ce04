"""scikit-learn's manners for heads and ensembles, without importing it (0.85 s).

`__init__` only stores its arguments, what `fit` learns ends in an underscore, and `get_params`,
`set_params` and so `sklearn.base.clone` work. What is learned is arrays, numbers, texts and
tuples of them, or dicts of arrays: it can be written to a file without pickle.
"""

from __future__ import annotations

import inspect
from typing import Any, Self

from clipsyn.errors import UsageError
from clipsyn.registry import Registry, unknown_name


class Estimator:
    @classmethod
    def _parameters(cls) -> list[str]:
        parameters = inspect.signature(cls).parameters.values()
        return [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Constructor arguments by name; `deep` is for scikit-learn: nothing is nested here."""
        return {name: getattr(self, name) for name in self._parameters()}

    def set_params(self, **params: Any) -> Self:
        known = self._parameters()
        for name, value in params.items():
            if name not in known:
                raise unknown_name(f"parameter of {type(self).__name__}", name, known)
            setattr(self, name, value)
        return self

    def learned(self) -> dict[str, Any]:
        """What `fit` has learned, by attribute name."""
        return {
            name: value
            for name, value in vars(self).items()
            if name.endswith("_") and not name.startswith("_")
        }

    def __repr__(self) -> str:
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(type(self)).parameters.items()
        }
        changed = (
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value != defaults[name]
        )
        return f"{type(self).__name__}({', '.join(changed)})"


def from_text(registry: Registry, text: str) -> Any:
    """The estimator that ``NAME`` or ``NAME:parameter=value:…`` stands for.

    Raises UnknownName with near matches for a name or parameter, UsageError for a value.
    """
    name, *settings = text.strip().split(":")
    estimator = registry.load(name)()
    current = estimator.get_params()
    for setting in settings:
        parameter, separator, value = setting.partition("=")
        if not separator:
            raise UsageError(f"'{text}': write {name}:PARAMETER=VALUE, not '{setting}'")
        if parameter not in current:
            raise unknown_name(f"parameter of {name}", parameter, current)
        estimator.set_params(**{parameter: _value(text, current[parameter], value)})
    return estimator


def _value(text: str, current: Any, value: str) -> Any:
    """`value` as what the parameter is now: a truth value, a number, or text."""
    words = {"true": True, "false": False, "none": None}
    if value.lower() in words and not isinstance(current, str):
        return words[value.lower()]
    if isinstance(current, str):
        return value
    kinds = (int, float) if current is None or isinstance(current, bool) else (type(current),)
    for kind in kinds if not isinstance(current, bool) else ():
        try:
            return kind(value)
        except ValueError:
            continue
    wanted = "true or false" if isinstance(current, bool) else "a number"
    raise UsageError(f"'{text}': {value} is not {wanted}")
