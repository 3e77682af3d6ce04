"""Sources of images: `open_path` opens what lies in a folder or file, whatever its layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clipsyn.errors import DatasetError
from clipsyn.images.sources.base import EncodedSource
from clipsyn.images.sources.folder import open_folder
from clipsyn.images.sources.huggingface import is_huggingface, open_huggingface
from clipsyn.images.sources.manifest import open_manifest
from clipsyn.images.sources.webdataset import is_webdataset, open_webdataset

MANIFESTS = (".csv", ".parquet")


def open_path(path: Path, name: str, split: str, root: Path | None = None) -> EncodedSource:
    """The images of a split of what lies at `path`; tables may name images in `root`, too."""
    found = opener(path, split)
    if found is None:
        raise DatasetError(
            f"'{path}' is a file but no .csv or .parquet manifest: give a folder or a manifest"
        )
    return found(path, name, split, root)


def opener(path: Path, split: str) -> Callable[..., EncodedSource] | None:
    """What opens the layout of `path`; None where nothing does, or nothing is there."""
    if is_webdataset(path, split):
        return open_webdataset
    if is_huggingface(path):
        return open_huggingface
    if path.is_dir():
        return open_folder
    return open_manifest if path.is_file() and path.suffix.lower() in MANIFESTS else None
