"""Every stored array, declared once. `docs/store.md` is the same in prose.

Shapes and chunks follow from named dimensions: `sample` arrays are cut into chunks of
`chunk_rows` rows by the full width, all others are one chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clipsyn.errors import UnsupportedFormat

FORMAT_VERSION = "2.0"  # of a store: readers refuse another major version
IDENTITY_VERSION = "2.0"  # of identities: with another one, all cells are made again
MOST_CHUNK_ROWS = 1 << 20
IMPORTED = "imported"  # the `source` in the identity of what was made elsewhere


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

_VALID = ArraySpec(
    "valid", ("sample",), "bool", False, "False where there is no embedding or prediction"
)
_CONFIDENCE = ArraySpec(
    "confidence", ("sample",), "float32", NAN, "of the predicted class, 0 to 1; NaN where not valid"
)
_PREDICTION = ArraySpec(
    "prediction",
    ("sample",),
    "uint16",
    65535,
    "lowest index of the largest logit; 65535 where not valid; 65534, of imports, for an answer "
    "that is none of the classes",
)
GROUPS: dict[str, tuple[ArraySpec, ...]] = {
    "samples": (
        ArraySpec(
            "sample_id",
            ("sample",),
            "string",
            "",
            "unique within the split; the row's name for ever",
        ),
        ArraySpec("label", ("sample",), "int32", -1, "class index, -1 where there is none"),
        ArraySpec("content_hash", ("sample", "byte"), "uint8", 0, "SHA-256 of the image as stored"),
        ArraySpec(LOOK, ("sample",), "uint64", 0, "64-bit difference hash; 0 where not known"),
    ),
    "classes": (
        ArraySpec(
            "class_embedding",
            ("class", "embed"),
            "float32",
            NAN,
            "unit norm; mean over the prompts",
        ),
    ),
    "features": (
        ArraySpec(
            "image_embedding",
            ("sample", "embed"),
            "float16",
            NAN,
            "unit norm; NaN where not valid",
        ),
        _VALID,
    ),
    "logits": (
        ArraySpec(
            "logit",
            ("sample", "class"),
            "float32",
            NAN,
            "scale times cosine, of imports any; NaN where not valid",
        ),
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
