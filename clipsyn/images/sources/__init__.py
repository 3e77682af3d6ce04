"""What extraction needs of a set of images, and the code that sources of files share."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from clipsyn.catalog.datasets import DatasetInfo, find_dataset
from clipsyn.errors import DatasetError
from clipsyn.images.decode import ENCODED, MOST_BYTES, UndecodableImage, decode, returned, take
from clipsyn.methods.numerics.blocks import usable_cores
from clipsyn.methods.numerics.logits import NO_CLASS
from clipsyn.show.progress import Progress
from clipsyn.store.samples import SampleTable, check_samples
from clipsyn.text import few

UNLABELLED = -1
_HASHED_TOGETHER = 64  # a task for every image would need 1.6 KB of memory for each


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Images in a frozen order, each with an id and perhaps a label; checked on creation.

    Ids are unique and their order does not depend on the file system. `labels` are class indices,
    -1 where there is none. `templates` are prompts that come with the images. `notes` are sentences
    for the user: skipped files, class names used twice, unexpected counts.

    Raises DatasetError if there is no image, an id occurs twice or is no Unicode, or a label
    has no class name.
    """

    name: str
    split: str
    ids: tuple[str, ...]
    labels: NDArray[np.int32]
    class_names: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_divided: bool = field(default=True, kw_only=True)  # else every split has all of the images

    def __post_init__(self) -> None:
        where = f"dataset '{self.name}', split '{self.split}'"
        check_samples(where, self.ids, self.labels, len(self.class_names))
        for sample_id in self.ids:
            if not sample_id.isascii() and sample_id.encode(errors="ignore").decode() != sample_id:
                raise DatasetError(
                    f"{where}: the file name {sample_id!r} is not UTF-8; rename the file"
                )
        object.__setattr__(self, "notes", (*self.notes, *self._remarks()))

    def __len__(self) -> int:
        return len(self.ids)

    def digest(self, index: int) -> bytes:
        """SHA-256 of the image as stored (32 bytes); that of b"" if it cannot be read.

        This and `image` may be called from several threads at once.
        """
        raise NotImplementedError

    def image(self, index: int) -> Image.Image:
        """The decoded RGB image; raises `UndecodableImage`."""
        raise NotImplementedError

    @property
    def metric(self) -> str:
        """``acc1`` or ``mean_per_class_recall``: the headline metric of the dataset."""
        return self._info.metric if self._info else "acc1"

    @property
    def licence(self) -> str:
        """Empty where it is not known."""
        return self._info.licence if self._info else ""

    @cached_property
    def _info(self) -> DatasetInfo | None:
        return find_dataset(self.name)

    def _remarks(self) -> list[str]:
        remarks = []
        if twice := [f"'{name}'" for name, n in Counter(self.class_names).items() if n > 1]:
            remarks.append(
                f"{self.name}: classes share the name {few(twice, 5)}; they stay separate classes, "
                "their logits tie and the lowest index wins"
            )
        if self._info:
            remarks += self._info.remarks(self.split, len(self), len(self.class_names))
        return remarks


def class_indices(where: str, values: ArrayLike) -> NDArray[np.int32]:
    """(sample,) labels; raises DatasetError for what is neither a class nor `UNLABELLED`."""
    labels = np.asarray(values)
    outside = (labels < UNLABELLED) | (labels >= NO_CLASS)
    if outside.any():
        row = int(outside.argmax())
        raise DatasetError(
            f"{where}: row {row + 1} has label {int(labels[row])}: labels count from 0 to at most "
            f"{NO_CLASS - 1:,}, and {UNLABELLED} is unlabelled"
        )
    return labels.astype(np.int32)


def whole_labels(where: str, column: pl.Series) -> NDArray[np.int32]:
    """`class_indices` of a column of whole numbers; null is unlabelled."""
    return class_indices(where, column.cast(pl.Float64).fill_null(UNLABELLED))  # of any width


def row_ids(rows: int) -> tuple[str, ...]:
    """The numbers of rows, with leading zeros."""
    width = max(6, len(str(rows)))
    return tuple(f"{row:0{width}d}" for row in range(rows))


def numbered(labels: NDArray[np.int32]) -> tuple[str, ...]:
    """Names of classes that nothing names: 0, 1, …"""
    return tuple(map(str, range(int(labels.max(initial=UNLABELLED)) + 1)))


def inside(where: str, names: Iterable[str], folders: Iterable[Path | None]) -> tuple[Path, ...]:
    """Files that a table names, from the first of the folders on.

    Raises DatasetError for one that is in none of them. Links are followed: image sets often
    consist of them.
    """
    given = [folder for folder in folders if folder is not None]
    here = given[0].resolve()  # from where a path may lead upwards
    forms = (form for folder in given for form in (folder.absolute(), folder.resolve()))
    allowed = tuple(f"{str(form).rstrip('/')}/" for form in forms)
    paths = [os.path.normpath(here / name) for name in names]
    if outside := [path for path in paths if not f"{path}/".startswith(allowed) or "\0" in path]:
        raise DatasetError(
            f"{where}: '{outside[0]}' is not in '{here}': move the table to a folder that has "
            "all of its images, or name that folder with data_root=…"
        )
    return tuple(map(Path, paths))


def open_regular(path: Path) -> int:
    """A descriptor of a file; raises OSError for a pipe or device, which may never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("no regular file")
    return descriptor


def read_at(path: Path, offset: int = 0, size: int | None = None) -> bytes:
    """A file or a part of it, of at most `MOST_BYTES`, in one positional read; raises OSError.

    Opening costs 10 µs and leaves no descriptor to share or run out of.
    """
    descriptor = open_regular(path)
    try:
        wanted = os.fstat(descriptor).st_size if size is None else size
        if wanted > MOST_BYTES:
            raise OSError(f"it has {wanted:,} bytes, more than {MOST_BYTES:,}")
        take(ENCODED, wanted)
        data = os.pread(descriptor, wanted, offset)
    finally:
        os.close(descriptor)
    if len(data) < wanted:
        raise OSError(f"'{path.name}' ends before it")
    return data


class EncodedSource(ImageSource):
    """A source whose images are encoded files, whole or as parts of an archive."""

    def read(self, index: int) -> bytes:
        """The encoded image; raises OSError."""
        raise NotImplementedError

    def digest(self, index: int) -> bytes:
        try:
            return hashlib.sha256(self.read(index)).digest()
        except OSError:
            return hashlib.sha256(b"").digest()

    def image(self, index: int) -> Image.Image:
        try:
            data = self.read(index)
        except OSError as error:
            raise UndecodableImage(f"cannot be read: {error.strerror or error}") from error
        return decode(data)


def sample_table(source: ImageSource, progress: Progress) -> SampleTable:
    """The source's sample table, every image read and hashed."""
    counter = progress.add(f"{source.name}/{source.split}: reading", len(source))
    digest = returned()(source.digest)

    def digests(part: range) -> bytes:
        content = b"".join(map(digest, part))
        progress.advance(counter, len(part))
        return content

    rows = range(len(source))
    parts = [rows[start : start + _HASHED_TOGETHER] for start in rows[::_HASHED_TOGETHER]]
    with ThreadPoolExecutor(usable_cores()) as pool:
        content = b"".join(pool.map(digests, parts))
    progress.finish(counter)
    return SampleTable(
        dataset=source.name,
        split=source.split,
        ids=source.ids,
        labels=source.labels,
        content=np.frombuffer(content, np.uint8).reshape(-1, 32),
        class_names=source.class_names,
        metric=source.metric,
        licence=source.licence,
    )
