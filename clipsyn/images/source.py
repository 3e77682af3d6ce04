"""What extraction needs of a set of images, and how encoded bytes become RGB pixels.

The pixels are those of torchvision's ``pil_loader``: the first frame, ``convert("RGB")`` for
palette, alpha and CMYK images, no rotation by EXIF. One thing differs: samples of 16 bits keep
their upper 8, where PIL clips them and gives a white image.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from PIL import Image, UnidentifiedImageError

from clipsyn.catalog.datasets import DatasetInfo, find_dataset
from clipsyn.errors import DatasetError
from clipsyn.methods.numerics.blocks import usable_cores
from clipsyn.methods.numerics.logits import NO_CLASS
from clipsyn.methods.pool import NO_LABEL
from clipsyn.show.progress import Progress
from clipsyn.store.files import folder_name, read_file, write_file
from clipsyn.store.samples import SampleTable, check_samples
from clipsyn.text import few, one_line

# Rasters alone: of the formats that PIL also reads, EPS runs a program, and a file's name says
# nothing of its format.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

# Of one image, checked against its header before a pixel is decoded. PIL bounds what texts and
# profiles of a PNG unpack to; of frames the first alone is decoded.
MOST_BYTES = 1 << 28  # encoded
MOST_PIXELS = 1 << 27
MOST_SCANS = 64  # of a JPEG: each is a pass over all pixels, and encoders make 10 or so
MOST_NARROW = 200  # times as long as wide: the shorter side is what is resized

NOTHING = hashlib.sha256(b"").digest()  # of an empty file, and of one that cannot be read
_DIGEST = hashlib.sha256().digest_size
_HASHED_TOGETHER = 64  # a task for every image would need 1.6 KB of memory for each

Place = tuple[Path, int, int | None]  # a file, from which byte, and how many; None for all


class UndecodableImage(Exception):
    """The bytes cannot be decoded as an image; it says why, on one line."""


def decode(data: bytes) -> Image.Image:
    """The first frame of an encoded image, as RGB.

    Raises UndecodableImage for an empty or truncated file, for bytes that are no image of
    `FORMATS`, and for an image that asks for more than the limits above.
    """
    if not data:
        raise UndecodableImage("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image, data)
            image.load()
            return to_rgb(image)
    except UndecodableImage:
        raise
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise UndecodableImage(f"not an image of a format that is read ({kinds})") from error
    except Exception as error:  # a header can lead PIL's parsers to any
        raise UndecodableImage(f"damaged: {one_line(error)}") from error


def _check_size(image: Image.Image, data: bytes) -> None:
    """Raise UndecodableImage for an image beyond the limits."""
    shorter, longer = sorted(image.size)
    size = f"{image.width} x {image.height} pixels"
    if shorter * longer > MOST_PIXELS:
        raise UndecodableImage(f"too large: {size}")
    if not shorter or longer > MOST_NARROW * shorter:
        raise UndecodableImage(f"too narrow: {size}")
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > MOST_SCANS:
        raise UndecodableImage(f"too many scans: more than {MOST_SCANS}")


def to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        samples = np.asarray(image) >> 8
        return Image.fromarray(np.clip(samples, 0, 255).astype(np.uint8)).convert("RGB")
    # A palette's transparency does not reach RGB; left in place it makes PIL warn of its loss.
    image.info.pop("transparency", None)
    return image if image.mode == "RGB" else image.convert("RGB")


def keep_to_rasters() -> None:
    """Hold what opens images by itself to `FORMATS` and `MOST_PIXELS`, in all of this process."""
    Image.init()
    Image.ID[:] = FORMATS
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # PIL warns of so many, and refuses twice as many


_SLIGHT = 2  # grey levels by which encoding moves a mean over a part of the image
_LEAST = 16  # steps of the 64, below which the image is nearly empty: such images are all alike


def look_of(image: Image.Image) -> int:
    """The difference hash: where brightness rises between neighbours of 9 x 8 means, row by row.

    0, which says nothing, for an image of one colour, or with next to nothing on it.
    """
    small = image.convert("L").resize((9, 8), Image.Resampling.BOX)
    steps = np.diff(np.asarray(small, np.int16), axis=1)
    if np.count_nonzero(np.abs(steps) > _SLIGHT) < _LEAST:
        return 0
    return int.from_bytes(np.packbits(steps > _SLIGHT).tobytes(), "big")


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Images in a frozen order, each with an id and perhaps a label; checked on creation.

    Ids are unique and their order does not depend on the file system. `labels` are class indices,
    -1 where there is none. `templates` are prompts that come with the images, `captions` the texts
    of each where there are any, `notes` sentences for the user. `place` says where the encoded
    image of a row lies. Without `is_divided` every split has all of the images.

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
    captions: Sequence[Sequence[str]] = ()
    is_divided: bool = field(default=True, kw_only=True)
    place: Callable[[int], Place] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        where = f"dataset '{self.name}', split '{self.split}'"
        check_samples(where, self.ids, self.labels, len(self.class_names))
        for sample_id in self.ids:
            if not sample_id.isascii() and sample_id.encode(errors="ignore").decode() != sample_id:
                raise DatasetError(
                    f"{where}: the file name {sample_id!r} is not UTF-8; rename the file"
                )
        object.__setattr__(self, "notes", (*self.notes, *self._remarks()))

    def _remarks(self) -> list[str]:
        remarks = []
        if bare := sum(not texts for texts in self.captions):
            remarks.append(f"{self.name}: {bare:,} of {len(self):,} images have no caption")
        if twice := [f"'{name}'" for name, n in Counter(self.class_names).items() if n > 1]:
            remarks.append(
                f"{self.name}: classes share the name {few(twice, 5)}; they stay separate classes, "
                "their logits tie and the lowest index wins"
            )
        if info := self.info:
            remarks += info.remarks(self.split, len(self), len(self.class_names))
        elif self.class_names[:1] == ("0",):
            remarks.append(f"{self.name}: no class names given, so the classes are called 0, 1, …")
        return remarks

    @property
    def info(self) -> DatasetInfo | None:
        """What the catalogue knows of the dataset."""
        return find_dataset(self.name)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> bytes:
        """The encoded image; raises OSError. Several threads may call this, digest and image."""
        assert self.place
        return read_at(*self.place(index))

    def digest(self, index: int) -> bytes:
        """SHA-256 of the image as stored (32 bytes); that of b"" if it cannot be read."""
        try:
            return hashlib.sha256(self.read(index)).digest()
        except OSError:
            return NOTHING

    def image(self, index: int) -> Image.Image:
        """The decoded RGB image; raises `UndecodableImage`."""
        try:
            data = self.read(index)
        except OSError as error:
            raise UndecodableImage(f"cannot be read: {error.strerror or error}") from error
        return decode(data)


def sample_table(
    source: ImageSource, progress: Progress, shared: Path | None = None
) -> SampleTable:
    """The source's sample table, every image read and hashed.

    shared: a folder to which workers that do this at the same time add their hashes, and take those
    of others from. They begin at different images.
    """
    counter = progress.add(f"{source.name}/{source.split}: reading", len(source))
    folder = shared and shared / folder_name(source.name) / folder_name(source.split)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)

    def digests(part: range) -> bytes:
        file = folder / str(part.start) if folder else None
        content = read_file(file) if file and file.exists() else b""
        if len(content) != _DIGEST * len(part):
            content = b"".join(map(source.digest, part))
            if file:
                write_file(file, content)
        progress.advance(counter, len(part))
        return content

    rows = range(len(source))
    parts = [rows[start : start + _HASHED_TOGETHER] for start in rows[::_HASHED_TOGETHER]]
    turns = random.sample(parts, len(parts)) if folder else parts
    with ThreadPoolExecutor(usable_cores()) as pool:
        made = dict(zip(turns, pool.map(digests, turns), strict=True))
    progress.finish(counter)
    content = b"".join(made[part] for part in parts)
    info = source.info
    return SampleTable(
        dataset=source.name,
        split=source.split,
        ids=source.ids,
        labels=source.labels,
        content=np.frombuffer(content, np.uint8).reshape(-1, _DIGEST),
        class_names=source.class_names,
        metric=info.metric if info else "acc1",
        licence=info.licence if info else "",
    )


def class_indices(where: str, values: ArrayLike) -> NDArray[np.int32]:
    """(sample,) labels; raises DatasetError for what is neither a class nor `NO_LABEL`."""
    labels = np.asarray(values)
    outside = (labels < NO_LABEL) | (labels >= NO_CLASS)
    if outside.any():
        row = int(outside.argmax())
        raise DatasetError(
            f"{where}: row {row + 1} has label {int(labels[row])}: labels count from 0 to at most "
            f"{NO_CLASS - 1:,}, and {NO_LABEL} is unlabelled"
        )
    return labels.astype(np.int32)


def whole_labels(where: str, column: pl.Series) -> NDArray[np.int32]:
    """`class_indices` of a column of whole numbers; null is unlabelled."""
    return class_indices(where, column.cast(pl.Float64).fill_null(NO_LABEL))  # of any width


def row_ids(rows: int) -> tuple[str, ...]:
    """The numbers of rows, with leading zeros."""
    width = max(6, len(str(rows)))
    return tuple(f"{row:0{width}d}" for row in range(rows))


def numbered(labels: NDArray[np.int32]) -> tuple[str, ...]:
    """Names of classes that nothing names: 0, 1, …"""
    return tuple(map(str, range(int(labels.max(initial=NO_LABEL)) + 1)))


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


def files_there(
    where: str, names: Iterable[str], folders: Iterable[Path | None]
) -> tuple[Path, ...]:
    """As `inside`, of files that exist; a dangling link is one that cannot be read."""
    paths = inside(where, names, folders)
    if missing := [path for path in paths if not (path.exists() or path.is_symlink())]:
        raise DatasetError(
            f"{where}: {len(missing)} of {len(paths)} files do not exist, the first is "
            f"'{missing[0]}': paths start at the table's folder, or say where images are with "
            "data_root=…"
        )
    return paths


def no_split(path: Path, split: str, known: Iterable[str]) -> DatasetError:
    """The error for a split that a dataset does not have."""
    there = ", ".join(sorted(known)) or "none"
    return DatasetError(f"'{path}' has no split '{split}'; it has {there} (give one with splits=…)")


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
        data = os.pread(descriptor, wanted, offset)
    finally:
        os.close(descriptor)
    if len(data) < wanted:
        raise OSError(f"'{path.name}' ends before it")
    return data
