"""What a store has, declared once: kinds of groups, their folders and arrays.

`docs/store.md` is the same in prose. Shapes and chunks follow from named dimensions: `sample`
arrays are cut into chunks of `chunk_rows` rows by the full width, all others are one chunk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from clipsyn.errors import UnsupportedFormat, UsageError
from clipsyn.store.files import METADATA

FORMAT_VERSION = "2.0"  # of a store: readers refuse another major version
IDENTITY_VERSION = "2.0"  # of identities: with another one, all cells are made again
MOST_CHUNK_ROWS = 1 << 20
IMPORTED = "imported"  # the `source` in the identity of what was made elsewhere
_LONGEST = 255  # bytes of a folder's name
_AMBIGUOUS_HYPHEN = re.compile(r"-(?=[-/])|(?<=[-/])-")

KINDS: dict[str, tuple[str, ...]] = {  # what the folders of each kind are called after
    "samples": ("dataset", "split"),  # which images
    "classes": ("dataset", "prompts", "backbone"),  # class embeddings
    "features": ("dataset", "split", "perturbation", "backbone"),  # image embeddings
    "logits": ("dataset", "split", "perturbation", "backbone", "prompts"),
    "predictions": ("dataset", "split", "perturbation", "backbone", "prompts"),  # without logits
}
Place = tuple[str, ...]  # kind and names of a group
PROMPTS = "imported"  # stands for the prompt set of what was imported and is of no known one
ANSWERS = ("logits", "predictions")  # made from features and classes, or imported without these
ORDER = tuple(KINDS)  # of publishing: sources go first


def check_format(what: str, version: str, ours: str = FORMAT_VERSION) -> None:
    """Raise UnsupportedFormat for another major version; a newer minor one is read."""
    if version.partition(".")[0] != ours.partition(".")[0]:
        raise UnsupportedFormat(
            f"{what} has format {version[:40]}, this clipsyn reads {ours}: "
            "pip install --upgrade clipsyn"
        )


@dataclass(frozen=True)
class ArraySpec:
    name: str
    dims: tuple[str, ...]
    dtype: str  # Zarr's name: numpy's, or "string" for variable-length UTF-8
    fill: float | int | bool | str
    doc: str


NAN = float("nan")
LOOK = "look"  # the array that a table need not have: of imported images nobody knows it

_VALID = ArraySpec("valid", ("sample",), "bool", False, "whether there is a value")
_CONFIDENCE = ArraySpec("confidence", ("sample",), "float32", NAN, "NaN where not valid")
_PREDICTION = ArraySpec(
    "prediction", ("sample",), "uint16", 65535, "65534: none of the classes; 65535: not valid"
)
GROUPS: dict[str, tuple[ArraySpec, ...]] = {
    "samples": (
        ArraySpec("sample_id", ("sample",), "string", "", "unique within the split, for ever"),
        ArraySpec("label", ("sample",), "int32", -1, "class index, -1 where there is none"),
        ArraySpec("content_hash", ("sample", "byte"), "uint8", 0, "SHA-256 of the image as stored"),
        ArraySpec(LOOK, ("sample",), "uint64", 0, "64-bit difference hash; 0 where not known"),
    ),
    "classes": (
        ArraySpec("class_embedding", ("class", "embed"), "float32", NAN, "unit norm, of prompts"),
    ),
    "features": (
        ArraySpec("image_embedding", ("sample", "embed"), "float16", NAN, "NaN where not valid"),
        _VALID,
    ),
    "logits": (
        ArraySpec("logit", ("sample", "class"), "float32", NAN, "NaN where not valid"),
        _PREDICTION,
    ),
    "predictions": (_PREDICTION,),
}
HELD = {"features": "embeddings", "logits": "logits", "predictions": "predictions"}  # as users say


def arrays_of(kind: str, identity: Mapping[str, Any]) -> tuple[ArraySpec, ...]:
    """The arrays of a group. Imported logits and predictions have no features beside them."""
    if kind not in ("logits", "predictions") or identity.get("source") != IMPORTED:
        return GROUPS[kind]
    with_confidences = kind == "predictions" and identity.get("confidences") is True
    return (*GROUPS[kind], *((_CONFIDENCE,) if with_confidences else ()), _VALID)


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
