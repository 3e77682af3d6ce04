"""The datasets clipsyn knows by name, read from `datasets.toml`. Nothing here opens an image."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from clipsyn.catalog import data_dir
from clipsyn.errors import UnknownName
from clipsyn.names import listed
from clipsyn.registry import plugin, unknown_name
from clipsyn.text import counted


@dataclass(frozen=True)
class SplitInfo:
    """How many images a split holds, and how torchvision is asked for it.

    `n` is None where the count is not fixed; `args` is None where torchvision lacks the split.
    """

    n: int | None = None
    args: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class DatasetInfo:
    """One row of the catalogue; `datasets.toml` says what the fields mean."""

    name: str
    title: str
    metric: str
    licence: str
    classes: int | None = None
    aliases: tuple[str, ...] = ()
    splits: Mapping[str, SplitInfo] = field(default_factory=dict)
    torchvision: str = ""
    folder: str = ""
    first_label: int = 0
    prompts: str = ""
    names: str = ""
    class_names: tuple[str, ...] = ()
    get: str = ""
    warning: str = ""
    shipped: bool = False
    source: str = ""  # of another package: see `open_source` in clipsyn.extract.images

    @property
    def where(self) -> str:
        """Where its images come from, if no webdataset lies in the root of data."""
        if self.shipped:
            return "shipped"
        return "torchvision" if self.torchvision else "webdataset"

    @property
    def shipped_path(self) -> Path:
        return data_dir() / "eval" / self.name

    def remarks(self, split: str, n: int, classes: int) -> list[str]:
        """What differs between the images found and those the catalogue expects."""
        remarks = []
        expected = self.splits.get(split, SplitInfo()).n
        if expected is not None and n != expected:
            remarks.append(
                f"{counted(n, 'image')} where its {split} split usually has {expected:,}"
            )
        if self.classes is not None and classes and classes != self.classes:
            remarks.append(
                f"{counted(classes, 'class', 'classes')} where it usually has {self.classes}"
            )
        advice = f" ({self.warning})" if self.warning else ""
        return [f"{self.name}: {remark}{advice}" for remark in remarks]


@cache
def catalogue() -> tuple[DatasetInfo, ...]:
    """The datasets of clipsyn's own catalogue: the paper's, then those that ship."""
    text = (Path(__file__).parent / "datasets.toml").read_text(encoding="utf-8")
    return tuple(_row(entry) for entry in tomllib.loads(text)["dataset"])


def find_dataset(name: str) -> DatasetInfo | None:
    """The dataset called `name`, an alias of it or its webdataset folder (``wds_vtab-dtd``).

    One of another package is found once `look_up` was asked for it.
    """
    return _index().get(_plain(name))


def look_up(name: str) -> DatasetInfo | None:
    """Like `find_dataset`, in other packages too: only for a name that the user gave."""
    if find_dataset(name) is None and (info := plugin("datasets", name)):
        _index()[_plain(name)] = info
    return find_dataset(name)


def unknown_dataset(name: str, hint: str = "") -> UnknownName:
    known = {alias for info in catalogue() for alias in (info.name, *info.aliases)}
    return unknown_name("dataset", name, known.union(collections()), hint)


def collections() -> dict[str, tuple[str, ...]]:
    """Names that stand for several datasets."""
    shipped = tuple(info.name for info in catalogue() if info.shipped)
    return {
        "shipped": shipped,
        "emoji": tuple(name for name in shipped if name.startswith("emoji-")),
        "paper": tuple(info.name for info in catalogue() if not info.shipped),
    }


def resolve_datasets(texts: Sequence[str]) -> list[str]:
    """Expand comma lists and collections; catalogue names in their canonical form, no repeats.

    Anything else (``[NAME=]PATH``) is passed on as it is; a path that exists is not cut at commas.
    """
    resolved: list[str] = []
    for text in texts:
        whole = bool(text.strip()) and Path(text.partition("=")[2] or text).exists()
        for name in [text.strip()] if whole else listed([text], "datasets=…"):
            info = look_up(name)
            resolved += collections().get(name, (info.name if info else name,))
    return list(dict.fromkeys(resolved))


@cache
def _index() -> dict[str, DatasetInfo]:
    index: dict[str, DatasetInfo] = {}
    for info in catalogue():
        for name in {_plain(alias) for alias in (info.name, *info.aliases)}:
            if name in index:
                raise ValueError(f"dataset name '{name}' stands twice in the catalogue")
            index[name] = info
    return index


def _plain(name: str) -> str:
    """One spelling for ``wds/vtab/dtd``, ``wds_vtab-dtd`` and ``vtab/dtd``."""
    return name.lower().removeprefix("wds/").removeprefix("wds_").replace("/", "-")


def _row(entry: dict[str, Any]) -> DatasetInfo:
    splits = {name: SplitInfo(**split) for name, split in entry.pop("splits", {}).items()}
    fields: dict[str, Any] = {
        key: tuple(x) if isinstance(x, list) else x for key, x in entry.items()
    }
    return DatasetInfo(**fields, splits=splits)
