"""A folder of images: a class per sub-folder, or flat and unlabelled."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from clipsyn.catalog.texts import find_class_names, imagenet_names
from clipsyn.errors import DatasetError
from clipsyn.images.sources.base import UNLABELLED, EncodedSource, read_at
from clipsyn.text import advised, counted

_PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif")
_RASTERS = (".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
SUFFIXES = frozenset((*_PHOTOS, *_RASTERS))
SPLITS = frozenset(("train", "training", "trainval", "val", "valid", "validation", "dev", "test"))

_WORDNET_ID = re.compile(r"n\d{8}")
_IMAGENET = (1000, "n01440764", "n15075141")  # classes, the first and the last of them


@dataclass(frozen=True, eq=False)
class FolderSource(EncodedSource):
    """Files below `root`; ids are their paths from there, with ``/``."""

    root: Path = field(default=Path(), kw_only=True)

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(map(self.root.resolve().joinpath, self.ids))

    def read(self, index: int) -> bytes:
        return read_at(self.root / self.ids[index])


def open_folder(path: Path, name: str, split: str, _root: Path | None = None) -> FolderSource:
    """Images of ``PATH/<split>/`` if there is such a split, else of PATH.

    Sub-folders are classes in sorted order, taken from all splits together so that a class
    missing in one shifts no label. Without sub-folders the images are unlabelled. Class names are
    those of a `classnames.txt` or `classnames.json` inside PATH or the split, or beside it as
    ``PATH.classnames.txt``; else open_clip's if the folders are ImageNet-1k's; else the
    folders'. Hidden files and files without an image suffix are skipped
    and counted in `notes`; a file with image suffix stays, whatever is in it.
    """
    return _opened(path, _split_root(path, split), name, split)


def open_undivided(path: Path, name: str) -> FolderSource:
    """All images of a folder that has no splits; those beside the class folders are unlabelled.

    Raises DatasetError for a folder with splits.
    """
    folders = _subfolders(path)
    is_split_layout = set(folders) <= SPLITS
    if splits := [
        name for name in folders if name in SPLITS and (is_split_layout or _subfolders(path / name))
    ]:
        raise DatasetError(
            f"'{path}' has splits already ({', '.join(splits)}): "
            f"`{advised('extract', 'STORE', '-d', path, '-s', ','.join(splits))}` takes them"
        )
    return _opened(path, path, name, "all", loose=True)


def _opened(path: Path, root: Path, name: str, split: str, loose: bool = False) -> FolderSource:
    """loose: whether images beside the class folders stay, as unlabelled ones."""
    parts, skipped = _list_images(root)
    classes = _class_folders(path, root, parts)
    if not any(len(part) > 1 for part in parts):
        classes = []
    kept = [part for part in parts if len(part) > 1] if classes and not loose else parts
    class_names, remark = _class_names(path, root, name, classes)
    index = {folder: i for i, folder in enumerate(classes)}
    return FolderSource(
        name,
        split,
        ids=tuple("/".join(part) for part in kept),
        labels=np.array([index.get(part[0], UNLABELLED) for part in kept], dtype=np.int32),
        class_names=class_names,
        notes=(*remark, *_notes(name, root, skipped, len(parts) - len(kept))),
        root=root,
        is_divided=root != path,
    )


def _split_root(path: Path, split: str) -> Path:
    """``PATH/<split>`` if that is a split, and not a class of the same name."""
    folders = set(_subfolders(path))
    is_split_layout = folders <= SPLITS | {split}
    if split in folders and (is_split_layout or _subfolders(path / split)):
        return path / split
    if folders and is_split_layout:
        raise DatasetError(
            f"'{path}' has no split '{split}'; it has {', '.join(sorted(folders))} "
            "(give one with splits=…)"
        )
    return path


def _subfolders(path: Path) -> list[str]:
    try:
        return sorted(x.name for x in path.iterdir() if x.is_dir() and not x.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"folder '{path}' cannot be read: {error.strerror}") from error


def _class_folders(path: Path, root: Path, parts: list[tuple[str, ...]]) -> list[str]:
    classes = set(_subfolders(root))
    if root != path:
        siblings = (set(_subfolders(path)) & SPLITS) - {root.name}
        classes |= {folder for sibling in siblings for folder in _subfolders(path / sibling)}
    return sorted(classes)


def _list_images(root: Path) -> tuple[list[tuple[str, ...]], int]:
    """Path parts of every image below `root`, sorted by class, and the number of other files."""
    files = list(_walk(root, (), (root.resolve(),)))
    parts = [part for part, is_image in files if is_image]
    skipped = len(files) - len(parts)
    if not parts:
        held = f"{skipped} other files" if skipped else "it is empty"
        raise DatasetError(
            f"there is no image in '{root}' ({held}); images end in {', '.join(_PHOTOS)} or such"
        )
    return sorted(parts), skipped


def _walk(
    folder: Path, above: tuple[str, ...], ancestors: tuple[Path, ...]
) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Files below a folder; follows symbolic links, but never into a folder that contains them."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DatasetError(f"folder '{folder}' cannot be read: {error.strerror}") from error
    for entry in entries:
        if entry.name.startswith(".") or (not above and entry.name.startswith("classnames.")):
            continue
        part = (*above, entry.name)
        if entry.is_dir():
            target = Path(entry.path).resolve()
            if target not in ancestors:
                yield from _walk(Path(entry.path), part, (*ancestors, target))
        else:
            # A dangling link is a row that cannot be read; a pipe or socket is no row at all.
            is_file = entry.is_file() or not Path(entry.path).exists()
            yield part, is_file and Path(entry.name).suffix.lower() in SUFFIXES


def _class_names(
    path: Path, root: Path, name: str, classes: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    here = path.absolute()  # "." has no name
    beside = here.with_name(f"{here.name}.classnames")
    places = (root / "classnames", path / "classnames", beside)
    names, source = find_class_names(places, name, classes)
    if source is None:
        return _names_of_folders(name, classes)
    if classes and len(names) != len(classes):
        raise DatasetError(
            f"'{source}' has {len(names)} class names for {len(classes)} class folders in '{root}'"
        )
    return names, ()


def _names_of_folders(name: str, classes: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The folders' names; a WordNet id would make a prompt that no text tower understands."""
    if not classes or not all(_WORDNET_ID.fullmatch(folder) for folder in classes):
        return tuple(classes), ()
    if (len(classes), classes[0], classes[-1]) == _IMAGENET:
        note = f"{name}: the folders are ImageNet-1k's, so the class names are open_clip's"
        return imagenet_names(), (note,)
    return tuple(classes), (
        f"{name}: the class names are WordNet ids such as {classes[0]}, which make poor prompts: "
        "give names in a classnames.txt or classnames.json",
    )


def _notes(name: str, root: Path, skipped: int, loose: int) -> tuple[str, ...]:
    notes = []
    if skipped:
        notes.append(
            f"{name}: {counted(skipped, 'file')} without an image suffix skipped in '{root}'"
        )
    if loose:
        notes.append(
            f"{name}: {counted(loose, 'image')} beside the class folders of '{root}' left out"
        )
    return tuple(notes)
