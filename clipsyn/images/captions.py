"""Images with captions as JSON names them: COCO's form, and Karpathy's with splits.

{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}
{"images": [{"filename", "filepath" (may lack), "split", "sentences": [{"raw"}]}]}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clipsyn.errors import DatasetError
from clipsyn.images.source import ImageSource, files_there, no_split
from clipsyn.methods.pool import NO_LABEL
from clipsyn.text import foreign, parse_json, read_text

_MOST = 1 << 28  # bytes; those of COCO's training images have 150 million
_Texts = Mapping[str, list[str]]  # of each image, by its file


def open_captions(path: Path, name: str, split: str, root: Path | None = None) -> ImageSource:
    """The images of a JSON file, which lie in `root`, or else beside it; of COCO's form all.

    Ids are the files as written. Raises DatasetError for a caption of an image that is not listed.
    """
    with foreign(lambda reason: DatasetError(f"'{path}' cannot be read: {reason}")):
        content = parse_json(read_text(path, _MOST))
        is_divided = "annotations" not in content
        found = _of_split(path, content, split) if is_divided else _annotated(path, content)
    files = files_there(f"'{path}'", found, (root or path.parent,))
    return ImageSource(
        name,
        split,
        tuple(found),
        np.full(len(found), NO_LABEL, np.int32),
        captions=tuple(found.values()),
        is_divided=is_divided,
        place=lambda row: (files[row], 0, None),
    )


def _annotated(path: Path, content: Mapping[str, Any]) -> _Texts:
    names = {image["id"]: str(image["file_name"]) for image in content["images"]}
    found: dict[str, list[str]] = {name: [] for name in names.values()}
    for number, annotation in enumerate(content["annotations"]):
        if (image := annotation["image_id"]) not in names:
            raise DatasetError(
                f"'{path}': annotation {number} is of image {image}, which is none of its "
                f"{len(names):,} images"
            )
        found[names[image]].append(annotation["caption"].strip())
    return found


def _of_split(path: Path, content: Mapping[str, Any], split: str) -> _Texts:
    chosen = [image for image in content["images"] if image["split"] == split]
    if not chosen:
        raise no_split(path, split, {image["split"] for image in content["images"]})
    return {
        "/".join(filter(None, (image.get("filepath"), image["filename"]))): [
            sentence["raw"].strip() for sentence in image["sentences"]
        ]
        for image in chosen
    }
