"""Sources of images. `open_source` opens all of them."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name

from clipsyn.catalog.datasets import DatasetInfo, blamed, look_up, unknown_dataset
from clipsyn.errors import DatasetError, UsageError
from clipsyn.images.sources.base import EncodedSource, ImageSource
from clipsyn.images.sources.folder import open_folder
from clipsyn.images.sources.huggingface import is_huggingface, open_huggingface
from clipsyn.images.sources.manifest import open_manifest
from clipsyn.images.sources.torchvision import open_torchvision
from clipsyn.images.sources.webdataset import is_webdataset, open_webdataset
from clipsyn.text import advised

__all__ = ["ImageSource", "open_source"]

MANIFESTS = (".csv", ".parquet")


def open_source(
    dataset: str,
    split: str,
    *,
    root: Path | None = None,
    download: bool = False,
    alone: bool = True,
) -> ImageSource:
    """The images of a dataset's split.

    `dataset` is a name or alias of the catalogue, or ``[NAME=]PATH`` of a folder of images, a
    ``.csv`` or ``.parquet`` manifest, a webdataset folder, or Parquet files of the Hugging Face
    hub. A catalogue name wins over a folder of that name in the working directory: write ``./NAME``
    for the latter. A catalogue name is looked for under `root` as manifest ``NAME.csv``
    (``vtab-dtd.csv`` for ``vtab/dtd``), then as webdataset or the hub's files, then in what ships,
    then through torchvision. What another package offers is opened by the function that its
    `source` names, which is called with split, root and download.

    Tables may name images in their own folder and in `root`. Images without splits have all of them
    under every name of one, so they need to be `alone`.

    Raises UnknownName for a name that is neither, DatasetError for what cannot be read, PluginError
    for what another package should open and cannot.
    """
    if info := look_up(dataset):
        return _open_known(info, split, root, download)
    name, path = _split_name(dataset)
    if not path.exists():
        if "=" in dataset or dataset.startswith((".", "/", "~")) or path.suffix:
            raise DatasetError(f"there is no folder or file '{path}' for dataset '{name}'")
        raise unknown_dataset(dataset, "And there is no folder or file of that name.")
    source = open_path(path, name, split, root)
    if not (alone or source.is_divided):
        output = f"{name}.csv"
        raise DatasetError(
            f"'{path}' has no splits, so each would have the same images: "
            f"`{advised('split', path, '-o', output)}` divides a folder or manifest; then give "
            f"{output} in its place"
        )
    return source


def open_path(path: Path, name: str, split: str, root: Path | None = None) -> EncodedSource:
    """The images of a split of what lies at `path`; see `open_source`."""
    if path.is_dir() and is_webdataset(path, split):
        return open_webdataset(path, name, split)
    if is_huggingface(path):
        return open_huggingface(path, name, split, root)
    if path.is_dir():
        return open_folder(path, name, split)
    if path.is_file() and path.suffix.lower() in MANIFESTS:
        return open_manifest(path, name, split, root)
    raise DatasetError(
        f"'{path}' is a file but no .csv or .parquet manifest: give a folder or a manifest"
    )


def _open_known(info: DatasetInfo, split: str, root: Path | None, download: bool) -> ImageSource:
    if info.source:
        with blamed(info.name):
            source: ImageSource = resolve_name(info.source)(split, root, download)
            return source
    cleaned = info.name.replace("/", "-")
    for manifest in (root / f"{cleaned}{end}" for end in MANIFESTS) if root else ():
        if manifest.is_file():
            return open_manifest(manifest, info.name, split, root)
    for folder in (root / f"wds_{cleaned}", root / cleaned) if root else ():
        if folder.is_dir() and (is_webdataset(folder, split) or is_huggingface(folder)):
            return open_path(folder, info.name, split, root)
    if not info.shipped:
        return open_torchvision(info, split, root, download)
    if not info.shipped_path.is_dir():
        raise DatasetError(
            f"dataset '{info.name}' should be in '{info.shipped_path}' but is not: reinstall "
            "clipsyn, or check the data folder out again"
        )
    return open_webdataset(info.shipped_path, info.name, split)


def _split_name(text: str) -> tuple[str, Path]:
    """``NAME=PATH`` apart; a path that exists is never cut at its own ``=``."""
    whole = Path(text).expanduser()
    name, separator, rest = text.partition("=")
    if not separator or whole.exists():
        name, rest = "", text
    elif not (name and rest):
        raise UsageError(f"'{text}' names no dataset: write NAME=PATH")
    path = Path(rest).expanduser()
    resolved = path.resolve()
    default = resolved.name if resolved.is_dir() else resolved.stem
    return name or default, path
