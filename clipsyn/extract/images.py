"""Names of datasets to sources; their images to the pixels that backbones read.

A source is what lies on this machine, what ships, or what torchvision reads, which needs torch: so
it is here and not in `clipsyn.images`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipsyn.catalog.datasets import (
    DatasetInfo,
    benchmark_class_names,
    imagenet_names,
    look_up,
    unknown_dataset,
)
from clipsyn.errors import DatasetError, UsageError
from clipsyn.images.archives import open_webdataset
from clipsyn.images.files import MANIFESTS, open_folder, open_path, opener
from clipsyn.images.perturb import apply, reduce_to_canvas
from clipsyn.images.source import (
    NOTHING,
    ImageSource,
    UndecodableImage,
    class_indices,
    keep_to_rasters,
    look_of,
    numbered,
    row_ids,
    to_rgb,
)
from clipsyn.methods.pool import NO_LABEL
from clipsyn.names import CLEAN, Perturbation
from clipsyn.text import advised, one_line

Preprocess = Callable[[Image.Image], NDArray[np.uint8]]
View = tuple[Perturbation, str]  # how backbones see an image: perturbed, and preprocessed in a way
_Block = TypeVar("_Block")
_AHEAD = 3  # batches being decoded while one is encoded
_SLICE = 16  # images a decoding task: enough to hide what a task costs
_BLANK = Image.new("RGB", (64, 64))

# Where torchvision's classes keep their labels; reading them there decodes no image.
_LABELS = ("targets", "labels", "_labels", "y", "_samples")


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

    Raises UnknownName for a name that is neither, DatasetError for what cannot be read.
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


def _open_known(info: DatasetInfo, split: str, root: Path | None, download: bool) -> ImageSource:
    if info.source:
        source: ImageSource = resolve_name(info.source)(split, root, download)
        return source
    cleaned = _plain(info)
    names = (*(f"{cleaned}{end}" for end in MANIFESTS), f"wds_{cleaned}", cleaned)
    for path in (root / name for name in names) if root else ():
        found = opener(path, split)
        if found and found is not open_folder:  # a mere folder is torchvision's
            return found(path, info.name, split, root)
    if not info.shipped:
        return open_torchvision(info, split, root, download)
    return open_webdataset(info.shipped_path, info.name, split)


def _split_name(text: str) -> tuple[str, Path]:
    """``NAME=PATH`` apart; a path that exists is never cut at its own ``=``."""
    path = Path(text).expanduser()
    name, separator, rest = text.partition("=")
    if not separator or path.exists():
        name = ""
    elif not (name and rest):
        raise UsageError(f"'{text}' names no dataset: write NAME=PATH")
    else:
        path = Path(rest).expanduser()
    resolved = path.resolve()
    return name or (resolved.name if resolved.is_dir() else resolved.stem), path


@dataclass(frozen=True, eq=False)
class TorchvisionSource(ImageSource):
    """Ids are the positions in torchvision's order, with leading zeros."""

    dataset: Any = field(default=None, kw_only=True)

    def digest(self, index: int) -> bytes:
        """SHA-256 of mode, size and pixels: an array dataset has no encoded file."""
        try:
            image = self._original(index)
        except UndecodableImage:
            return NOTHING
        header = f"{image.mode} {image.width}x{image.height}\n".encode()
        return hashlib.sha256(header + image.tobytes()).digest()

    def image(self, index: int) -> Image.Image:
        return to_rgb(self._original(index))

    def _original(self, index: int) -> Image.Image:
        try:
            image: Image.Image = self.dataset[index][0]
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UndecodableImage(f"damaged: {error}") from error
        return image


def open_torchvision(
    info: DatasetInfo, split: str, root: Path | None, download: bool
) -> TorchvisionSource:
    """A dataset of the catalogue, from the folder `root`.

    Raises DatasetError with the way to get it if torchvision lacks the dataset or the split, or if
    the files are not there. The network is used only with `download`. Torchvision opens images by
    itself, so from then on PIL opens rasters alone in this process.
    """
    from torchvision import datasets  # 2 s, and most sources do without

    keep_to_rasters()
    offered = {name: entry.args for name, entry in info.splits.items() if entry.args is not None}
    if root is None or split not in offered:
        lacks = "does not ship: say where it is with data_root=ROOT, in torchvision's layout"
        if root or not offered:
            lacks = f"has no split '{split}' in torchvision; it has {', '.join(offered) or 'none'}"
        raise DatasetError(
            f"dataset '{info.name}' {lacks}; or put its webdataset form into data_root=… as "
            f"wds_{_plain(info)}; {info.get}"
        )
    folder = root / info.folder if info.folder and (root / info.folder).is_dir() else root
    fetch = {} if info.torchvision == "ImageNet" else {"download": download}
    try:
        # Several of torchvision's classes print their progress to stdout.
        with contextlib.redirect_stdout(io.StringIO()):
            make = getattr(datasets, info.torchvision)
            dataset = make(root=str(folder), **offered[split], **fetch)
    except (ImportError, RuntimeError, OSError, ValueError) as error:
        raise DatasetError(
            f"dataset '{info.name}' cannot be opened in '{folder}' ({one_line(error)}); "
            f"how to get it: {info.get}"
        ) from error
    labels = _labels(dataset, info)
    return TorchvisionSource(
        info.name,
        split,
        ids=row_ids(len(labels)),
        labels=labels,
        class_names=_class_names(info, dataset) or numbered(labels),
        dataset=dataset,
    )


def _plain(info: DatasetInfo) -> str:
    return info.name.replace("/", "-")


def _labels(dataset: Any, info: DatasetInfo) -> NDArray[np.int32]:
    labels = next((getattr(dataset, name) for name in _LABELS if hasattr(dataset, name)), None)
    if labels is None:
        labels = [dataset[i][1] for i in range(len(dataset))]
    values = [entry[1] if isinstance(entry, tuple) else entry for entry in labels]
    return class_indices(
        f"dataset '{info.name}'",
        [NO_LABEL if value is None else int(value) - info.first_label for value in values],
    )


def _class_names(info: DatasetInfo, dataset: Any) -> tuple[str, ...]:
    """The catalogue's, clip-benchmark's, or else torchvision's own."""
    imagenet = imagenet_names() if info.name == "imagenet1k" else ()
    if names := imagenet or info.class_names or benchmark_class_names(info.name):
        return names
    own = getattr(dataset, "classes", None) or getattr(dataset, "categories", None) or ()
    return tuple(" ".join(name.replace("_", " ").replace("/", " ").split()) for name in own)


@dataclass(frozen=True)
class Batch:
    """Pixels of consecutive rows, by view: (n, height, width, 3) uint8.

    A row whose image cannot be decoded, or not preprocessed in that way, is blank, and has its
    reason in `errors`, by sample id. looks: what each clean image looks like, see `look_of`; 0 for
    others.
    """

    rows: range
    pixels: Mapping[View, NDArray[np.uint8]]
    errors: Mapping[View, Mapping[str, str]]
    looks: tuple[int, ...]


_Loaded = tuple[dict[View, NDArray[np.uint8]], dict[View, str], int]  # a row: pixels, errors, look


def batches(
    blocks: Iterable[tuple[_Block, ImageSource, range, Mapping[View, Preprocess]]],
    batch_size: int,
    pool: ThreadPoolExecutor,
) -> Iterator[tuple[_Block, Batch]]:
    """Batches of the rows of each block, in order, decoded ahead by `pool`.

    An image is decoded once for all views. Batches never span two blocks, so what is encoded
    together does not depend on what else is being done.
    """
    waiting: deque[tuple[_Block, ImageSource, range, list[Future[list[_Loaded]]]]] = deque()
    for block, source, rows, views in blocks:
        perturbations = len({perturbation for perturbation, _ in views})
        slice_size = max(1, _SLICE // perturbations)
        load = partial(_load, source, views)
        for start in range(rows.start, rows.stop, batch_size):
            part = range(start, min(start + batch_size, rows.stop))
            slices = [part[at : at + slice_size] for at in range(0, len(part), slice_size)]
            futures = [pool.submit(list, map(load, some)) for some in slices]
            waiting.append((block, source, part, futures))
            if len(waiting) > max(1, _AHEAD // perturbations):
                yield _collect(*waiting.popleft())
    while waiting:
        yield _collect(*waiting.popleft())


def _collect(
    block: _Block, source: ImageSource, rows: range, futures: list[Future[list[_Loaded]]]
) -> tuple[_Block, Batch]:
    pixels, errors, looks = zip(
        *(row for future in futures for row in future.result()), strict=True
    )
    named = [(source.ids[row], error) for row, error in zip(rows, errors, strict=True) if error]
    return block, Batch(
        rows,
        {view: np.stack([row[view] for row in pixels]) for view in pixels[0]},
        {view: {name: why[view] for name, why in named if view in why} for view in pixels[0]},
        looks,
    )


def _load(source: ImageSource, views: Mapping[View, Preprocess], row: int) -> _Loaded:
    pixels: dict[View, NDArray[np.uint8]] = {}
    errors: dict[View, str] = {}
    perturbed: dict[Perturbation, Image.Image] = {}
    reduced: dict[int, NDArray[np.uint8]] = {}  # by canvas
    for view, preprocess in views.items():
        try:
            if not perturbed:
                perturbed[CLEAN] = source.image(row)
            if (perturbation := view[0]) not in perturbed:
                canvas = perturbation.canvas
                if canvas not in reduced:
                    reduced[canvas] = reduce_to_canvas(np.asarray(perturbed[CLEAN]), canvas)
                image = apply(perturbation, reduced[canvas], source.ids[row])
                perturbed[perturbation] = Image.fromarray(image)
            pixels[view] = preprocess(perturbed[perturbation])
        except UndecodableImage as error:
            pixels[view], errors[view] = preprocess(_BLANK), str(error)
    is_clean = any(perturbation == CLEAN for perturbation, _ in views)
    return pixels, errors, look_of(perturbed[CLEAN]) if is_clean and perturbed else 0
