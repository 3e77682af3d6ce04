"""What the attributes of each kind of group are, declared once: readers need not look again.

A form is a function of a value, a list with the form of all items, or a mapping: of names, "?"
behind one that may be missing or null, or of `str` where any names may stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from clipsyn.methods.numerics.logits import NO_CLASS, is_scale
from clipsyn.store.schema import IMPORTED

Form = Callable[[Any], bool] | list[Any] | dict[Any, Any]
_LARGEST = 1e30  # of numbers: their products fit float64


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is kind


_TEXT, _MAPPING, _FLAG = _is(str), _is(dict), _is(bool)


def _texts(value: Any) -> bool:
    """Of thousands of classes, so not one by one."""
    return type(value) is list and set(map(type, value)) <= {str}


def _place(value: Any) -> bool:
    """A kind, and at least one name."""
    return _texts(value) and len(value) > 1


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _number(value: Any) -> bool:
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST


def _scale(value: Any) -> bool:
    return _number(value) and is_scale(value)


_BACKBONE: Form = {
    "weights": _TEXT,
    "precision": _TEXT,
    "preprocess": _MAPPING,
    "architecture?": _TEXT,
    "pretrained?": _TEXT,
}
_ENCODER: Form = {
    "source?": _TEXT,
    "device?": _TEXT,
    "gflops?": _number,
    "image_parameters?": _number,
}
_PROVENANCE: Form = {
    "encoder?": _ENCODER,
    "workers?": [_MAPPING],
    "finished?": _TEXT,
    "written?": _TEXT,
    "made_by?": _TEXT,
    "encode_seconds?": _number,
    "peak_memory_mb?": _number,
    "process_memory_mb?": _number,
}
_PROMPTS: Form = {"name": _TEXT, "templates?": _texts, "per_class?": {str: _texts}}
_ANY_GROUP: dict[Any, Any] = {
    "kind": _TEXT,
    "identity": _MAPPING,
    "place": _place,
    "arrays": _MAPPING,
    "provenance?": _PROVENANCE,
}
_ANSWERS: Form = {"identity": {"features": _TEXT, "classes": _TEXT, "prompts": _TEXT}}
_KINDS: Mapping[str, Form] = {
    "samples": {
        "identity": {"samples": _TEXT},
        "class_names": _texts,
        "metric": _TEXT,
        "licence": _TEXT,
        "imported?": _FLAG,
    },
    "classes": {
        "identity": {"backbone": _BACKBONE, "class_names": _texts, "prompts": _PROMPTS},
        "logit_scale": _scale,
    },
    "features": {
        "identity": {"samples": _TEXT, "backbone": _BACKBONE},
        "errors?": {str: _TEXT},
    },
    "logits": _ANSWERS,
    "predictions": _ANSWERS,
}
_IMPORTED_CELL: Form = {
    "identity": {
        "samples": _TEXT,
        "content": _TEXT,
        "backbone": _TEXT,
        "class_names?": _texts,
        "prompts?": _TEXT,
        "confidences?": _FLAG,
    },
    "invalid": {str: _count},
    "source": [{"file": _TEXT}],
}
_IMPORTED: Mapping[str, Form] = {
    "classes": {
        "identity": {"backbone": _TEXT, "class_names": _texts, "prompts": _PROMPTS},
        "logit_scale": _scale,
    },
    "features": _IMPORTED_CELL,
    "logits": _IMPORTED_CELL,
    "predictions": _IMPORTED_CELL,
}


def misfit(attributes: Mapping[str, Any], kind: str) -> str | None:
    """In words, what the attributes of a group in a folder of that kind are not; None if all fit.

    What they say of `arrays` is compared when these are parsed.
    """
    identity = attributes["identity"]
    imported = type(identity) is dict and identity.get("source") == IMPORTED
    form = _IMPORTED.get(kind, _KINDS[kind]) if imported else _KINDS[kind]
    for wrong in chain(_wrong(attributes, _ANY_GROUP, ""), _wrong(attributes, form, "")):
        return f"{wrong[1:]} is missing, or not what it should be"
    if attributes["kind"] != kind:
        return f"its kind is {attributes['kind'][:40]}, in a folder of {kind}"
    names = attributes.get("class_names") or identity.get("class_names") or ()
    return f"it has {len(names):,} classes, more than any" if len(names) > NO_CLASS else None


def _wrong(value: Any, form: Form, where: str) -> Iterator[str]:
    """Where a JSON value is not of a form: dotted names."""
    if callable(form):
        if not form(value):
            yield where
    elif isinstance(form, list):
        if not isinstance(value, list):
            yield where
            return
        for item in value:
            yield from _wrong(item, form[0], where)
    elif not isinstance(value, dict):
        yield where
    elif str in form:
        for name, item in value.items():
            yield from _wrong(item, form[str], f"{where}.{name}")
    else:
        for name, part in form.items():
            item = value.get(name.removesuffix("?"))
            if item is not None or not name.endswith("?"):
                yield from _wrong(item, part, f"{where}.{name.removesuffix('?')}")
