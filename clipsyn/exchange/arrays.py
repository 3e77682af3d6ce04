"""Arrays: logits (row, class), embeddings (row, embed) or predictions (row,).

From npy, npz and files with one tensor of torch's; and from folders of features as others publish
them, every dataset, split and backbone at once. All of these test on ``val`` where there is no
``test``:

- ZLaP (github.com/vladan-stojnic/ZLaP): ``DATASET/BACKBONE_SPLIT_feats.npy`` of any norm with
  ``_targets.npy``, and ``DATASET/classifiers/BACKBONE_text_classifier.npy``, (embed, class).
- Tip-Adapter (github.com/gaopengcuhk/Tip-Adapter): ``DATASET/SPLIT_f.pt`` with ``_l.pt``, and of
  labelled images ``keys_16shots.pt``, (embed, row), with ``values_16shots.pt``, one-hot.
- CLIP_benchmark (github.com/LAION-AI/CLIP_benchmark): ``BACKBONE/features_SPLIT.pt`` with
  ``targets_SPLIT.pt``.
"""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DatasetError, UsageError
from clipsyn.exchange import ImportSettings, npz
from clipsyn.exchange.npz import Arrays
from clipsyn.exchange.parts import Part, Texts, as_logits
from clipsyn.names import parse_perturbation
from clipsyn.store.files import PROMPTS
from clipsyn.store.given import Made, Rows, made_of
from clipsyn.text import LOG, check_pickle, few, foreign

TORCH = (".pt", ".pth")
SUFFIXES = (".npy", ".npz", *TORCH)
_KINDS = ("predictions", "logits", "probabilities", "embeddings")  # arrays of an npz
_ROUNDED = 1e-6  # how far rounding to float32 takes a norm from 1
# none of the folders holds the logit scale: OpenAI's and LAION's models have this
_SCALE = np.array(100.0)
_UNUSED = ("split", "kind", "columns", "intersect")


def part_of(path: Path, arrays: Arrays, wanted: ImportSettings, known: Sequence[str]) -> Part:
    """The part that arrays are, as an npz calls them; `known` are class names, if there are any."""
    kind, values = _find(path, arrays, wanted)
    ids, labels = (
        _texts(path, name, arrays[name]) if name in arrays else None for name in ("ids", "labels")
    )
    if ids is None and not wanted.row_order:
        raise UsageError(
            f"{path} has no ids: write them into an npz, np.savez(FILE, logits=…, ids=…), or "
            "give row_order=True if its rows are the samples in the store's order"
        )
    if ids and "" in ids:
        raise DatasetError(f"{path}: row {ids.index('')} has no id")
    kind, values = checked(path, kind, values, known)
    for name, texts in (("ids", ids), ("labels", labels)):
        if texts is not None and len(texts) != len(values):
            raise DatasetError(f"{path}: {len(values):,} rows have {len(texts):,} {name}")
    perturbation = parse_perturbation(wanted.perturbation).label
    prompts = wanted.prompts or PROMPTS
    return Part(
        wanted.backbone or path.stem,
        perturbation,
        kind,
        ids,
        values,
        labels,
        files=(path,),
        prompts=wanted.prompts,
        texts=class_texts(path, arrays, prompts) if kind == "embeddings" else {},
    )


def class_texts(path: Path, arrays: Arrays, prompts: str) -> Texts:
    """The class embeddings of an npz, with their logit scale; none where it has none."""
    if "class_embeddings" not in arrays:
        return {}
    _, values = checked(path, "embeddings", np.asarray(arrays["class_embeddings"]), ())
    norms = np.linalg.norm(np.asarray(values, np.float64), axis=1, keepdims=True)
    scale = arrays.get("logit_scale", np.array(()))
    if (
        scale.size != 1
        or scale.dtype.kind not in "fiu"
        or not (np.isfinite(norms) & (norms > 0)).all()
    ):
        raise DatasetError(
            f"{path}: class embeddings are finite, of norm above 0, and have one logit_scale, the "
            "factor of the logits: 100 for OpenAI's models"
        )
    unit = np.asarray(values) / (1 if (abs(norms - 1) < _ROUNDED).all() else norms)
    return {prompts: (unit.astype(np.float32), float(scale.reshape(-1)[0]))}


def array_of(path: Path) -> Rows:
    """The one array of an npy or pt."""
    (values,) = load(path).values()
    return values


def load(path: Path) -> dict[str, Rows]:
    """The arrays of a file by name; nothing pickled is ever run."""
    return {path.name: read_tensor(path)} if path.suffix in TORCH else npz.load(path)


def _find(path: Path, arrays: Arrays, wanted: ImportSettings) -> tuple[str, Rows]:
    """The array that is to be imported, and its kind where it is known."""
    if len(arrays) == 1:
        (values,) = arrays.values()
        return wanted.kind, values
    there = [kind for kind in _KINDS if kind in arrays and wanted.kind in ("auto", kind)]
    if len(there) != 1:
        which = f"several ({', '.join(there)}): choose with kind=…" if there else "none"
        raise DatasetError(
            f"{path} should hold one array of {', '.join(_KINDS)}, and holds {which}; its arrays "
            f"are {few(list(arrays))}"
        )
    return there[0], arrays[there[0]]


def checked(path: Path, kind: str, values: Rows, known: Sequence[str]) -> tuple[str, Rows]:
    """Kind and values of a shape and type that go together; DatasetError if none does."""
    if kind == "auto":
        kind = _kind_of(path, values, known)
    if kind == "predictions":
        return kind, np.array(_texts(path, kind, values), object)
    shape = values.shape
    if len(shape) != 2 or values.dtype.kind not in "fiu" or not math.prod(shape):
        raise DatasetError(
            f"{path}: {kind} are numbers (row, {'embed' if kind == 'embeddings' else 'class'}), "
            f"not {values.dtype} {shape}"
        )
    if kind == "embeddings":
        return kind, values
    if known and shape[1] != len(known):
        raise DatasetError(
            f"{path}: {kind} of {len(known)} classes are (row, {len(known)}), not {shape}"
        )
    return "logits", as_logits(values, kind, str(path))


def _kind_of(path: Path, values: Rows, known: Sequence[str]) -> str:
    """What an array must be by its shape: (row, class) may only be told where classes are known."""
    if len(values.shape) == 1:
        return "predictions"
    if len(values.shape) == 2 and values.shape[1] == len(known):
        return "auto"
    raise DatasetError(
        f"{path}: {values.shape} could be logits or embeddings: say kind=logits, "
        "kind=probabilities or kind=embeddings"
    )


def _texts(path: Path, what: str, rows: Rows) -> tuple[str, ...]:
    """Numbers and texts as texts: 3, 3.0 and "3" are the same class."""
    values = np.asarray(rows)
    if values.ndim != 1 or values.dtype.kind not in "biufSU":
        raise DatasetError(f"{path}: {what} are (row,), not {values.dtype} {values.shape}")
    if values.dtype.kind == "f":
        texts = (f"{v:.0f}" if v.is_integer() else str(v) for v in values)
        return tuple("" if text == "nan" else text for text in texts)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    return tuple(str(value).strip() for value in values)


# One tensor of torch's
#
# Such a file is a zip: ``data.pkl`` tells type and shape, ``data/KEY`` is what they are of. The
# pickle is read by an unpickler that knows the names of tensors and no other, so that nothing in a
# file is ever run.


_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",  # the upper half of a float32
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
}


def read_tensor(path: Path) -> Rows:
    """The tensor as an array of its own type (bfloat16 as float32).

    Raises DatasetError for anything but one dense tensor in torch's zip format.
    """
    with foreign(partial(_no_tensor, path)), zipfile.ZipFile(path) as file:
        (record,) = (name for name in file.namelist() if name.endswith("/data.pkl"))
        _check_sizes(path, file)
        pickled = file.read(record)
        check_pickle(pickled)
        tensor = _Tensors(path, pickled, file, record.removesuffix("data.pkl")).load()
    if not isinstance(tensor, np.ndarray | Made):
        raise _no_tensor(path, f"it holds a {type(tensor).__name__}")
    return tensor


def _no_tensor(path: Path, reason: str) -> DatasetError:
    return DatasetError(
        f"{path} cannot be read as one tensor of torch's ({reason}): convert it, python -c "
        f"\"import numpy, torch; numpy.save('{path.stem}.npy', torch.load('{path}', "
        'weights_only=True).float().cpu().numpy())"'
    )


def _check_sizes(path: Path, file: zipfile.ZipFile) -> None:
    """Raise ValueError for what is not as large as it says: torch compresses nothing."""
    on_disk = path.stat().st_size
    for member in file.infolist():
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > on_disk:
            raise ValueError(f"{member.filename} would be {member.file_size:,} bytes, compressed")


class _Storage(NamedTuple):
    """The numbers of a tensor, one after another."""

    lying: npz.Lying
    length: int
    dtype: np.dtype[Any]
    is_bfloat16: bool

    def rows(self, offset: int, shape: Sequence[int]) -> Rows:
        """They are read when they are asked for if they are many."""
        rows = self.lying.rows(offset * self.dtype.itemsize, shape, self.dtype)
        if self.is_bfloat16:
            return made_of(rows, "f4", lambda part: (part.astype("u4") << 16).view("f4"))
        native = self.dtype.newbyteorder("=")
        return made_of(rows, native, lambda part: part.astype(native, copy=False))


class _Tensors(pickle.Unpickler):
    def __init__(self, path: Path, pickled: bytes, file: zipfile.ZipFile, folder: str) -> None:
        super().__init__(BytesIO(pickled))
        self._path, self._file, self._folder = path, file, folder
        self._values: _Storage | None = None  # of the one tensor, taken once: a pickle of a hundred
        # bytes may ask for them a million times

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            **{("torch", storage): storage for storage in _STORAGES},
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no tensor")
        return known[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        if self._values is not None:
            raise pickle.UnpicklingError("it holds several tensors")
        _, storage, key, *_ = pid
        order = f"{self._folder}byteorder"
        is_big = order in self._file.namelist() and self._file.read(order) == b"big"
        dtype = np.dtype(_STORAGES[storage]).newbyteorder(">" if is_big else "<")
        member = self._file.getinfo(f"{self._folder}data/{key}")
        lying = npz.unpacked(self._path, self._file, member)
        is_half = storage == "BFloat16Storage"
        self._values = _Storage(lying, member.file_size // dtype.itemsize, dtype, is_half)
        return self._values

    def _tensor(
        self, storage: _Storage, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any
    ) -> Rows:
        if storage is not self._values:
            raise pickle.UnpicklingError("it holds several tensors")
        self._values = storage._replace(length=0)
        last = sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        count = math.prod(size)
        if min((offset, *size, *stride)) < 0 or max(count, offset + last + 1) > storage.length:
            raise ValueError("its shape does not fit its numbers")
        steps = tuple(math.prod(size[at + 1 :]) for at in range(len(size)))
        if size and count and tuple(stride) == steps:
            return storage.rows(offset, size)
        values = np.asarray(storage.rows(0, (storage.length,)))
        taken = [step * values.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(values[offset:], size, taken).copy()


class _Layout(NamedTuple):
    features: str  # the name of a file, with its split and maybe its backbone
    labels: str  # the file beside it
    folder: str = "dataset"  # what the folder is called after
    texts: str = ""  # the file of class embeddings, (embed, class)
    is_cache: bool = False  # features are (embed, row), and labels one-hot


_LAYOUTS = (
    _Layout(
        r"(?P<backbone>.+)_(?P<split>train|val|test)_feats\.npy",
        "{backbone}_{split}_targets.npy",
        texts="classifiers/{backbone}_text_classifier.npy",
    ),
    _Layout(r"(?P<split>val|test)_f\.pt", "{split}_l.pt"),
    _Layout(r"keys_(?P<split>\d+shots)\.pt", "values_{split}.pt", is_cache=True),
    _Layout(r"features_(?P<split>\w+)\.pt", "targets_{split}.pt", folder="backbone"),
)


class _Found(NamedTuple):
    """A file of features: its layout, what its name says, and what the features are of."""

    path: Path
    layout: _Layout
    names: Mapping[str, str]
    dataset: str
    backbone: str

    @property
    def labels(self) -> Path:
        return self.path.with_name(self.layout.labels.format(**self.names))


Laid = tuple[str, str, Part]  # dataset, split and what is of it


def read_layouts(folder: Path, wanted: ImportSettings) -> list[Laid]:
    """All features in a folder that has one of the layouts; [] for another.

    What is left out is logged with its reason. Raises DatasetError for files that cannot be, and
    where nothing is left; UsageError for options that go with no layout, and for a name that the
    layout lacks.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    found = [it for path in paths for it in _found(path, wanted)]
    if not found:
        return []
    wanted.check_unset(folder, _UNUSED)
    parts = [(it, part) for it in found if (part := _part(it, wanted))]
    told = {file for it in found for file in (it.path, it.labels)}
    told |= {file for _, part in parts for file in part.files}
    if others := [str(path.relative_to(folder)) for path in paths if path not in told]:
        LOG.info(f"{folder}: {len(others):,} files are not read ({few(others)})")
    if not parts:
        raise DatasetError(f"{folder}: none of its features can be imported")
    tested = {it.dataset for it in found if it.names["split"] == "test"}

    def is_test(it: _Found) -> bool:
        return it.names["split"] == "val" and it.dataset not in tested

    return [(it.dataset, "test" if is_test(it) else it.names["split"], part) for it, part in parts]


def _found(path: Path, wanted: ImportSettings) -> Iterator[_Found]:
    for layout in _LAYOUTS:
        if match := re.fullmatch(layout.features, path.name):
            names, of = match.groupdict(), {}
            for what in ("dataset", "backbone"):
                there = {layout.folder: path.resolve().parent.name, **names}.get(what, "")
                of[what] = getattr(wanted, what) or there
                if not of[what].strip():
                    raise UsageError(f"{path} does not say its {what}: give one with {what}=…")
            yield _Found(path, layout, names, **of)


def _part(found: _Found, wanted: ImportSettings) -> Part | None:
    """The features with their labels and class embeddings; None, logged, if they have no label."""
    if not found.labels.exists():
        LOG.warning(f"{found.path} is left out: there is no {found.labels.name}")
        return None
    values, labels = array_of(found.path), np.asarray(array_of(found.labels))
    if found.layout.is_cache:
        values, labels = np.asarray(values).T, _of_one_hot(found.labels, labels)
    if labels.ndim == 2:
        LOG.warning(f"{found.path} is left out: its images have several labels each")
        return None
    arrays, files = {"embeddings": values, "labels": labels}, [found.path, found.labels]
    texts = found.path.parent / found.layout.texts.format(**found.names)
    if texts.is_file():
        arrays |= {"class_embeddings": np.asarray(array_of(texts)).T, "logit_scale": _SCALE}
        files.append(texts)
    else:
        LOG.info(f"{found.path}: no class embeddings, so no zero-shot predictions")
    asked = wanted.replaced(backbone=found.backbone, kind="embeddings", row_order=True)
    return replace(part_of(found.path, arrays, asked, ()), files=tuple(files))


def _of_one_hot(path: Path, values: NDArray[Any]) -> NDArray[np.intp]:
    """The classes of rows that are 1 for one class and 0 for the others."""
    if values.ndim != 2 or ((values != 0).sum(axis=1) != 1).any():
        raise DatasetError(f"{path}: {values.shape} are not one class a row, as a cache has them")
    return np.nonzero(values)[1]
