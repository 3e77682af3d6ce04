"""Small pictures of images.

An image is shown only if it is the one that the store knows: its bytes are those that were
encoded. Pictures are made anew as WebP, so that nothing of the file but its pixels gets into the
page.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from clipsyn.catalog.datasets import look_up
from clipsyn.errors import ClipsynError, UsageError
from clipsyn.report.gallery import Example

if TYPE_CHECKING:
    from clipsyn.images.sources import ImageSource

_SIDE = 112  # pixels of a thumbnail
_QUALITY = 75  # of its WebP, which takes 40 % of a JPEG's bytes at this size


class Thumbnails:
    """Pictures of images in a folder, a tar, a manifest, or the folder of several datasets."""

    def __init__(self, path: Path, places: Iterable[tuple[str, str]]) -> None:
        """places: dataset and split of the images that are looked for.

        Raises UsageError where none of them is there.
        """
        if not path.exists():
            raise UsageError(f"there is no {path}: images=… is a folder, a tar or a manifest")
        self._sources = {place: [*_sources(path, *place)] for place in places}
        self._by_name: dict[tuple[str, str], dict[str, list[tuple[ImageSource, int]]]] = {}
        if not any(self._sources.values()):
            names = ", ".join("/".join(place) for place in self._sources)
            raise UsageError(
                f"{path} has no images of {names}: images=… is the folder, tar or manifest that "
                "they were extracted from, or the folder that has one of these for each dataset"
            )

    def of(self, example: Example) -> str | None:
        """A WebP in base64; None where the image is not there, or is another one."""
        for source, row in self._found(example):
            if not any(example.content) or source.digest(row) == example.content:
                return _webp(source, row)
        return None

    def _found(self, example: Example) -> list[tuple[ImageSource, int]]:
        """Images of that id, with or without an ending; those in a folder of their own come last.

        A tar of a folder has the folder's name before each id.
        """
        place = example.dataset, example.split
        if place not in self._by_name:
            self._by_name[place] = _by_name(self._sources.get(place, []))
        wanted = _bare(example.id)
        there = self._by_name[place].get(wanted.rpartition("/")[2], [])
        same = [it for it in there if _bare(it[0].ids[it[1]]) == wanted]
        return same + [it for it in there if _bare(it[0].ids[it[1]]).endswith(f"/{wanted}")]


def _by_name(sources: Iterable[ImageSource]) -> dict[str, list[tuple[ImageSource, int]]]:
    """Where each image is, by the last part of its id."""
    found: dict[str, list[tuple[ImageSource, int]]] = {}
    for source in sources:
        for row, name in enumerate(source.ids):
            found.setdefault(_bare(name).rpartition("/")[2], []).append((source, row))
    return found


def _bare(name: str) -> str:
    """An id without the ending of an image file."""
    from clipsyn.images.sources.files import SUFFIXES

    stem, _, ending = name.rpartition(".")
    return stem if stem and f".{ending.lower()}" in SUFFIXES else name


def _webp(source: ImageSource, row: int) -> str | None:
    from clipsyn.images.decode import UndecodableImage

    try:
        image = source.image(row)
    except UndecodableImage:
        return None
    image.info.clear()  # profiles and comments
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=_QUALITY)
    return b64encode(file.getvalue()).decode()


def _sources(path: Path, dataset: str, split: str) -> Iterator[ImageSource]:
    """Every reading of a path that has images for a dataset and split, whose names may be any."""
    from clipsyn.extract.sources import open_source
    from clipsyn.images.sources import inside
    from clipsyn.images.sources.files import open_path
    from clipsyn.images.sources.webdataset import open_tar

    if path.suffix == ".tar":
        yield open_tar(path, dataset, split)
        return
    if look_up(dataset):
        with suppress(ClipsynError, OSError):
            yield open_source(dataset, split, root=path)
    for name in (dataset, ""):
        with suppress(ClipsynError, OSError):
            (place,) = inside("images", [name], [path])
            inside("images", [split], [place])
            yield open_path(place, dataset, split, path)
