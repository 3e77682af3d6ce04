"""The names that imported cells go by, and the digest of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

PROMPTS = "imported"  # what stands for a prompt set where nothing beside them has one
IMPORTS = ("imports", "prompted")  # folders of cells without, and with, a known prompt set
ELSEWHERE = "shown under another condition"  # why most rows of a condition have no value


def content_digest(values: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over the arrays of a cell, sorted by name: name, type, shape, bytes."""
    hasher = hashlib.sha256()
    for name, array in sorted(values.items()):
        little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        hasher.update(f"{name}\0{array.dtype.name}\0{array.shape}\0".encode())
        hasher.update(little.reshape(-1).view("u1").data)
    return hasher.hexdigest()
