"""The folders of a store: which names they stand for, and how names become folders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from clipsyn.errors import UsageError
from clipsyn.specs import Perturbation
from clipsyn.store.files import METADATA

_LONGEST = 255  # bytes
_AMBIGUOUS_HYPHEN = re.compile(r"-(?=[-/])|(?<=[-/])-")

KINDS: dict[str, tuple[str, ...]] = {  # what the folders of each kind are called after
    "samples": ("dataset", "split"),  # which images
    "classes": ("dataset", "prompts", "backbone"),  # class embeddings
    "features": ("dataset", "split", "perturbation", "backbone"),  # image embeddings
    "logits": ("dataset", "split", "perturbation", "backbone", "prompts"),
    "predictions": ("dataset", "split", "perturbation", "backbone", "prompts"),  # without logits
    "imports": ("dataset", "split", "perturbation", "backbone"),  # what was made elsewhere
    "prompted": ("dataset", "split", "perturbation", "backbone", "prompts"),  # with a prompt set
}
Place = tuple[str, ...]  # kind and names of a group
IMPORTS = ("imports", "prompted")  # the kinds of imported cells
PROMPTS = "imported"  # what stands for a prompt set where nothing beside a cell has one
ANSWERS = ("logits", "predictions")  # what is made from features and classes: one of them a cell
ORDER = ("samples", "classes", "features", *IMPORTS, *ANSWERS)  # of publishing: sources go first


@lru_cache(4096)
def folder_name(name: str) -> str:
    """A name as one path component: ``/`` becomes ``--``, other unusual characters ``%XX``.

    Hyphens that could be read as a ``/``, a leading dot, and the dot of ``zarr.json`` are escaped,
    too. Raises UsageError for a name that is too long for a file system.
    """
    quoted = _AMBIGUOUS_HYPHEN.sub("%2D", quote(name, safe="/@=+,", errors="surrogatepass"))
    if quoted.startswith(".") or quoted == METADATA:
        quoted = quoted.replace(".", "%2E", 1)
    folder = quoted.replace("/", "--")
    if len(folder) > _LONGEST:
        raise UsageError(
            f"'{name[:40]}…' is too long for a name: it makes {len(folder)} bytes in a path, and "
            f"file systems take {_LONGEST}; shorten it"
        )
    return folder


@lru_cache(4096)
def name_of_folder(folder: str) -> str:
    return unquote(folder.replace("--", "/"), errors="surrogatepass")


def place(store: Path, path: Path) -> list[str]:
    """Kind and names of the group in the folder at `path`."""
    kind, *folders = below(store, path)
    return [kind, *map(name_of_folder, folders)]


def below(store: Path, path: Path) -> tuple[str, ...]:
    """The parts of a path in the store's folder: quicker than `relative_to`, for thousands."""
    return path.parts[len(store.parts) :]


def place_said(path: list[str], attributes: Mapping[str, Any]) -> list[str]:
    """Kind and names of a group by its attributes; those they leave open are taken from `path`.

    A group that was published before format 1.1 says where it belongs in parts: backbones were
    described by their weights.
    """
    if "place" in attributes:
        return [str(name) for name in attributes["place"]]
    kind, identity = attributes["kind"], attributes["identity"]
    if kind.startswith("imported-"):
        kind = "prompted" if "prompts" in identity else "imports"
    dimensions = KINDS.get(path[0], ())
    said = {dim: _name(dim, identity.get(dim)) for dim in dimensions}
    return [kind, *(said[dim] or name for dim, name in zip(dimensions, path[1:], strict=True))]


def _name(dimension: str, described: Any) -> str | None:
    """The name that a field of an identity tells, if any."""
    if isinstance(described, Mapping):
        if dimension == "perturbation":
            return Perturbation(**described).label
        described = described.get("name")
    return None if described is None else str(described)
