"""Files of known sources: what their columns and names say that other tables say otherwise."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from clipsyn.errors import DatasetError
from clipsyn.importing.parts import short
from clipsyn.importing.settings import ImportSettings

RESPONSES, SHAPE_BIAS = "model-vs-human", "vlm-shapebias"
COLUMNS: dict[str, tuple[str, ...]] = {  # in any case; a table that has all of them is of that kind
    # github.com/bethgelab/model-vs-human, raw-data: one file a subject and session
    RESPONSES: (
        "subj",
        "session",
        "trial",
        "rt",
        "object_response",
        "category",
        "condition",
        "imagename",
    ),
    # github.com/paulgavrikov/vlm_shapebias, raw-data: one file a model and prompt set
    SHAPE_BIAS: ("image", "response", "pred_label", "pred_conf"),
}
_IMAGENET = re.compile(r"n0\d+")
_SHAPE = re.compile(r"([a-z]+)\d+-[a-z]+\d+")  # airplane1-bicycle2: shape of the one, texture
_PROMPTS = {  # how a file of vlm-shapebias is called at its end -> the prompt set of its answers
    "_CLS": "CLS",
    "_a_photo_of_a_CLS.": "a photo of a CLS.",
    "_None": "80 templates",
}


def format_of(path: Path, columns: Sequence[str], wanted: ImportSettings) -> str | None:
    """Which of COLUMNS a table is, None for any other.

    Raises DatasetError where it is said to be one whose columns it lacks.
    """
    there = {name.strip().lower() for name in columns}
    if wanted.format == "auto":
        return next((name for name, needed in COLUMNS.items() if there.issuperset(needed)), None)
    if missing := [name for name in COLUMNS[wanted.format] if name not in there]:
        raise DatasetError(
            f"{path} has no column {', '.join(missing)}, which {wanted.format}'s files "
            f"have; its columns are {short(columns)}"
        )
    return wanted.format


def image_name(imagename: str) -> str:
    """What of an image's name is the image: the rest is trial, subject and condition.

    As model-vs-human has it: what follows the last ``_``, or the ImageNet name ``n0…_…`` there.
    """
    *_, last = parts = imagename.split("_")
    return f"{parts[-2]}_{last}" if len(parts) > 1 and _IMAGENET.match(parts[-2]) else last


def shape(image: str, path: Path) -> str:
    """The true class of a cue-conflict image, with which its name starts."""
    if (match := _SHAPE.fullmatch(image)) is None:
        raise DatasetError(
            f"{path}: image '{image}' does not say its shape, as airplane1-bicycle2 does: rename "
            "the column image to id, and add a column label"
        )
    return match[1]


def model_and_prompts(path: Path) -> tuple[str, str | None]:
    """What a file of vlm-shapebias is called after: the model, and its prompt set if known."""
    for ending, prompts in _PROMPTS.items():
        if path.stem.endswith(ending):
            return path.stem.removesuffix(ending), prompts
    return path.stem, None
