"""What is compared of a group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clipsyn.specs import differences, fingerprint
from clipsyn.store.groups import StoredGroup

_FACTS = ("class_names", "metric", "licence", "logit_scale")  # read beside the arrays
_COMPARED = ("kind", "fingerprint", "arrays", *_FACTS)


def content_of(group: StoredGroup) -> str:
    """A digest of what readers see of a group.

    It is the same wherever and whenever the same numbers were made: dates, devices, versions and
    the names of imported files are no part of it.
    """
    seen = {name: group[name] for name in _COMPARED if name in group.attributes}
    return fingerprint(seen)


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Names of the fields in which the attributes of two groups of one place differ.

    Of groups of one identity these are facts, and arrays with other values.
    """
    fields = [name for name, _, _ in differences(ours.get("identity"), theirs.get("identity"))]
    if fields:
        return fields
    fields = [name for name in _FACTS if ours.get(name) != theirs.get(name)]
    changes = differences(ours.get("arrays"), theirs.get("arrays"))
    return fields + sorted({f"values of {name.partition('.')[0]}" for name, _, _ in changes})
