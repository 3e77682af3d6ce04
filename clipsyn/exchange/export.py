"""`clipsyn export`: cells of a store as a folder of files, with the bits that the store has.

`export.json` says what the files are, so that an import needs no options:

    {"format": "1.0", "layout": …, "splits": […], "classes": […], "cells": […]}

Every file is named by its path from there. What another program wrote is read with suspicion: no
path leaves the folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.errors import DatasetError, UsageError
from clipsyn.exchange import LAYOUTS
from clipsyn.exchange.card import page
from clipsyn.exchange.origins import made
from clipsyn.names import FeatureKey
from clipsyn.registry import unknown_name
from clipsyn.show.frames import guarded_output
from clipsyn.show.progress import Progress
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import exists
from clipsyn.store.samples import SampleTable
from clipsyn.store.schema import folder_name
from clipsyn.text import first_problem, foreign, parse_json

NAME = "export.json"
_FORMAT = "1.0"
_ARRAYS = {  # in the store, by what a cell holds; not every prediction has a confidence
    "embeddings": ("image_embedding",),
    "logits": ("logit",),
    "predictions": ("prediction", "confidence"),
}
ARRAYS = {  # what the store's arrays are called in an npz, as `clipsyn import` knows them
    "image_embedding": "embeddings",
    "logit": "logits",
    "prediction": "predictions",
    "confidence": "confidences",
}


@dataclass(frozen=True)
class Split:
    """A split's samples, beside their ids and labels, which stand in each cell."""

    dataset: str
    split: str
    class_names: tuple[str, ...]
    metric: str
    licence: str


@dataclass(frozen=True)
class Classes:
    """A file with the class embeddings of a backbone, and the factor of its logits."""

    file: str
    dataset: str
    prompts: str
    backbone: str


@dataclass(frozen=True)
class Cell:
    """One cell, and its file or the folder of its files."""

    file: str
    key: FeatureKey
    kind: str  # what it holds
    prompts: str | None  # of logits and predictions, where it is known
    fingerprint: str  # in the store that it is from


@dataclass(frozen=True)
class Manifest:
    layout: str
    splits: tuple[Split, ...]
    classes: tuple[Classes, ...]
    cells: tuple[Cell, ...]

    def dumps(self) -> bytes:
        content = {"format": _FORMAT, **asdict(self)}
        return json.dumps(content, ensure_ascii=False, indent=1).encode()

    def classes_of(self, cell: Cell) -> list[Classes]:
        """Those that make logits of the image embeddings of a cell."""
        names = cell.key.dataset, cell.key.backbone
        of_names = [it for it in self.classes if (it.dataset, it.backbone) == names]
        return of_names if cell.kind == "embeddings" else []


def read_manifest(folder: Path) -> Manifest:
    """What an export holds; raises DatasetError where that cannot be."""
    from pydantic import TypeAdapter, ValidationError

    path = folder / NAME
    with foreign(lambda reason: DatasetError(f"{path} cannot be read: {reason}")):
        content = parse_json(path.read_bytes())
        version = str(content["format"])
        if version.partition(".")[0] != _FORMAT.partition(".")[0]:
            raise ValueError(f"it has format {version}, and this clipsyn reads {_FORMAT}")
        try:
            return _checked(TypeAdapter(Manifest).validate_python(content))
        except ValidationError as error:
            raise ValueError(first_problem(error)) from None


def _checked(manifest: Manifest) -> Manifest:
    """What an import would pass over; what else cannot be, it finds in the files."""
    for file in [cell.file for cell in manifest.cells] + [it.file for it in manifest.classes]:
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or "\0" in file or not path.parts:
            raise ValueError(f"the path '{file}' leads out of the export")
    if not manifest.cells:
        raise ValueError("it lists no cells")
    splits = {(it.dataset, it.split) for it in manifest.splits}
    if unlisted := {(it.key.dataset, it.key.split) for it in manifest.cells} - splits:
        raise ValueError(f"there are cells of {'/'.join(min(unlisted))}, and no such split")
    return manifest


# Writing


@dataclass(frozen=True, eq=False)
class Held:
    """The rows of one cell, in the order of its samples.

    arrays: by their names in the store, beside `valid`. prompts: of logits and predictions.
    """

    key: FeatureKey
    samples: SampleTable
    kind: str
    prompts: str | None
    fingerprint: str
    valid: NDArray[np.bool_]
    arrays: dict[str, NDArray[Any]]

    @property
    def captions(self) -> list[str | None]:
        """The class name of each image, None where it has no label."""
        names = self.samples.class_names
        return [names[label] if label >= 0 else None for label in self.samples.labels]


def held(store: FeatureStore, key: FeatureKey) -> Iterator[Held]:
    """What the cell holds: once, or for each prompt set that it was imported with."""
    cell, samples = store.cell(key), store.samples(key.dataset, key.split)
    for prompts in cell.known_sets or (None,):
        group = cell.group(prompts)
        kind = cell.imported_as or "embeddings"
        yield Held(
            key,
            samples,
            kind,
            prompts,
            str(group["fingerprint"]),
            cell.valid(prompts),
            {name: group.read(name) for name in _ARRAYS[kind] if name in group["arrays"]},
        )


def write_npz(folder: Path, cell: Held) -> str:
    """All of a cell in one file."""
    names = [*cell.key.names, *([] if cell.prompts is None else [cell.prompts])]
    name = "/".join(map(folder_name, names)) + ".npz"
    arrays = {ARRAYS[array]: values for array, values in cell.arrays.items()}
    _save(folder / name, {**arrays, "valid": cell.valid, **_samples(cell)})
    return name


def write_huggingface(folder: Path, cell: Held) -> str:
    """A table with a row an image; arrays of several columns are lists, null where not valid."""
    names = (cell.key.dataset, cell.key.perturbation, cell.key.backbone, cell.prompts)
    folders = [folder_name(name) for name in names if name is not None]
    name = "/".join(("data", *folders, f"{folder_name(cell.key.split)}.parquet"))
    columns = {array: _column(values, cell.valid) for array, values in cell.arrays.items()}
    with _new(folder / name) as file:
        _frame(cell).with_columns(**columns).write_parquet(file)
    return name


WRITERS: Mapping[str, Callable[[Path, Held], str]] = {
    "npz": write_npz,
    "huggingface": write_huggingface,
}


def write_classes(
    folder: Path, names: tuple[str, str, str], embeddings: NDArray[np.float32], scale: float
) -> str:
    """The class embeddings of a dataset, prompt set and backbone."""
    name = "/".join(("classes", *map(folder_name, names))) + ".npz"
    _save(folder / name, {"class_embeddings": embeddings, "logit_scale": np.array(scale)})
    return name


def _samples(cell: Held) -> dict[str, NDArray[Any]]:
    """Ids, labels and class names as plain arrays: nothing is pickled."""
    table = cell.samples
    texts = {"ids": table.ids, "class_names": table.class_names}
    arrays = {name: np.array(values, np.str_) for name, values in texts.items()}
    return {**arrays, "labels": table.labels}


def _frame(cell: Held) -> pl.DataFrame:
    columns = {
        "sample_id": pl.Series(cell.samples.ids, dtype=pl.String),
        "label": pl.Series(cell.samples.labels),
        "class_name": pl.Series(cell.captions, dtype=pl.String),
        "valid": pl.Series(cell.valid),
    }
    return pl.DataFrame(columns)


def _column(values: NDArray[Any], valid: NDArray[np.bool_]) -> pl.Series:
    """float32 for float16, which not every reader of parquet knows: the same numbers."""
    wide = values.astype(np.float32) if values.dtype == np.float16 else values
    dtype = pl.Array(pl.Float32, wide.shape[1]) if wide.ndim > 1 else None
    column = pl.Series(wide, dtype=dtype)
    return pl.select(pl.when(pl.Series(valid)).then(column)).to_series()


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    with _new(path) as file:
        np.savez(file, **arrays)


def _new(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


def export(
    store: FeatureStore,
    output: Path,
    keys: Collection[FeatureKey],
    layout: str,
    progress: Progress,
) -> Manifest:
    """Write cells into a new folder, which is there whole or not at all, and say what it holds.

    Raises UsageError where something is in the way, where the folder would lie in a store, and for
    a layout that is not known.
    """
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    if exists(output) and not (output.is_dir() and not any(output.iterdir())):
        raise UsageError(f"{output} is there already: give a new folder, or remove it")
    with guarded_output(output), _whole(output) as folder:
        cells = list(_cells(store, folder, keys, layout, progress))
        splits = dict.fromkeys((cell.key.dataset, cell.key.split) for cell in cells)
        manifest = Manifest(
            layout,
            tuple(_split(store, *place) for place in splits),
            tuple(_classes(store, folder, cells)),
            tuple(cells),
        )
        (folder / NAME).write_bytes(manifest.dumps())
        text = _card(store, manifest)
        (folder / "README.md").write_text(text, encoding="utf-8")
    return manifest


def _cells(
    store: FeatureStore,
    folder: Path,
    keys: Collection[FeatureKey],
    layout: str,
    progress: Progress,
) -> Iterator[Cell]:
    counter = progress.add("exporting", len(keys), unit="cells")
    for key in keys:
        for cell in held(store, key):
            file = WRITERS[layout](folder, cell)
            yield Cell(file, cell.key, cell.kind, cell.prompts, cell.fingerprint)
        progress.advance(counter, 1)


def _split(store: FeatureStore, dataset: str, split: str) -> Split:
    group = store.group(store.samples_path(dataset, split))
    return Split(dataset, split, tuple(group["class_names"]), group["metric"], group["licence"])


def _classes(store: FeatureStore, folder: Path, cells: Iterable[Cell]) -> Iterator[Classes]:
    """Class embeddings of every backbone whose image embeddings are exported, once."""
    embedded = {
        (it.key.dataset, it.key.backbone): it.key for it in cells if it.kind == "embeddings"
    }
    for (dataset, backbone), key in embedded.items():
        for prompts in store.cell(key).prompt_sets():
            names = dataset, prompts, backbone
            if store.tree.exists(store.classes_path(*names)):
                file = write_classes(folder, names, *store.class_embeddings(*names))
                yield Classes(file, *names)


def _card(store: FeatureStore, manifest: Manifest) -> str:
    """A card that says how to read the files; of parquet, with the tables that the hub shows."""
    read = [
        "## Read it",
        "```sh\nclipsyn import STORE DOWNLOADED-FOLDER\n```",
        "This makes cells of the same numbers, with the same class embeddings. "
        f"`{NAME}` lists the files: dataset, split, perturbation and backbone of each.",
    ]
    more: dict[str, Any] = {}
    if manifest.layout == "huggingface":
        more["configs"] = [*_configs(manifest)]
        first = more["configs"][0]["config_name"]
        read.append(f'```text\nload_dataset(NAME, "{first}")\n```')
    return page(made(store, [cell.key for cell in manifest.cells]), read, more)


def _configs(manifest: Manifest) -> Iterator[dict[str, Any]]:
    """A table for each dataset, perturbation and backbone, with its splits."""
    tables: dict[str, list[Cell]] = {}
    for cell in manifest.cells:
        tables.setdefault(cell.file.rpartition("/")[0], []).append(cell)
    for folder, cells in tables.items():
        files = [{"split": re.sub(r"\W", "_", cell.key.split), "path": cell.file} for cell in cells]
        yield {"config_name": folder.removeprefix("data/").replace("/", "--"), "data_files": files}


@contextmanager
def _whole(output: Path) -> Iterator[Path]:
    """A folder that takes the place of `output` when it is complete."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as folder:
        partial = Path(folder, output.name)
        partial.mkdir()
        yield partial
        partial.rename(output)
