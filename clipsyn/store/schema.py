"""Every stored array, declared once. `docs/store.md` is the same in prose.

Shapes and chunks follow from named dimensions: `sample` arrays are cut into chunks of
`chunk_rows` rows by the full width, all others are one chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

from clipsyn.errors import UnsupportedFormat

FORMAT_VERSION = "2.0"  # of a store: readers refuse another major version
IDENTITY_VERSION = "2.0"  # of identities: with another one, all cells are made again
MOST_CHUNK_ROWS = 1 << 20


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

SAMPLES = (
    ArraySpec(
        "sample_id", ("sample",), "string", "", "unique within the split; the row's name for ever"
    ),
    ArraySpec("label", ("sample",), "int32", -1, "class index, -1 where there is none"),
    ArraySpec("content_hash", ("sample", "byte"), "uint8", 0, "SHA-256 of the image as stored"),
)
CLASSES = (
    ArraySpec(
        "class_embedding", ("class", "embed"), "float32", NAN, "unit norm; mean over the prompts"
    ),
)
FEATURES = (
    ArraySpec(
        "image_embedding", ("sample", "embed"), "float16", NAN, "unit norm; NaN where not valid"
    ),
    ArraySpec("valid", ("sample",), "bool", False, "False where the image could not be decoded"),
)
PREDICTIONS = (
    ArraySpec(
        "prediction",
        ("sample",),
        "uint16",
        65535,
        "lowest index of the largest logit; 65535 where not valid",
    ),
)
LOGITS = (
    ArraySpec(
        "logit", ("sample", "class"), "float32", NAN, "scale times cosine; NaN where not valid"
    ),
    *PREDICTIONS,
)


# Imported cells: their kind says what they hold beside `valid`.
_IMPORTED = ArraySpec("valid", ("sample",), "bool", False, "False where the source has no value")
_IMPORTED_PREDICTION = ArraySpec(
    "prediction",
    ("sample",),
    "uint16",
    65535,
    "class index; 65535 where not valid, 65534 for an answer that is none of the classes",
)
_IMPORTED_CONFIDENCE = ArraySpec(
    "confidence", ("sample",), "float32", NAN, "of the predicted class, 0 to 1; NaN where not valid"
)
_IMPORTED_LOGIT = ArraySpec(
    "logit", ("sample", "class"), "float32", NAN, "of any scale; NaN where not valid"
)

GROUPS: dict[str, tuple[ArraySpec, ...]] = {
    "samples": SAMPLES,
    "classes": CLASSES,
    "features": FEATURES,
    "logits": LOGITS,
    "predictions": PREDICTIONS,
    "imported-predictions": (_IMPORTED_PREDICTION, _IMPORTED),
    "imported-confidences": (_IMPORTED_PREDICTION, _IMPORTED_CONFIDENCE, _IMPORTED),
    "imported-logits": (_IMPORTED_LOGIT, _IMPORTED_PREDICTION, _IMPORTED),
    "imported-embeddings": (FEATURES[0], _IMPORTED),
}
