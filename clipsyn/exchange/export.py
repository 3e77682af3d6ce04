"""`clipsyn export`: cells of a store as a folder of files, with the bits that the store has.

Each file says what it is of, as JSON, so that an import needs no options: an npz in its array
`clipsyn`, parquet in metadata of that name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars.io.plugins import register_io_source

from clipsyn.errors import DatasetError, UsageError
from clipsyn.exchange import LAYOUTS, ImportSettings, npz
from clipsyn.exchange.arrays import checked
from clipsyn.exchange.parts import Captions, Part
from clipsyn.exchange.provenance import made, page
from clipsyn.exchange.tables import readable, scanned
from clipsyn.methods.pool import as_labels
from clipsyn.names import FeatureKey, parse_perturbation
from clipsyn.registry import unknown_name
from clipsyn.settings import declared
from clipsyn.show.files import folder_whole
from clipsyn.show.progress import Progress
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import KINDS, check_format, exists, folder_name
from clipsyn.store.given import Made, Rows, blocks, class_indices, made_of
from clipsyn.store.samples import SampleTable
from clipsyn.text import foreign, parse_json

_ABOUT = "clipsyn"
_FORMAT = "2.0"
_GROUP = 1 << 13  # rows of a row group, which is read at once
_ARRAYS = {  # in the store, by what a cell holds; not every prediction has a confidence
    "embeddings": ("image_embedding",),
    "logits": ("logit",),
    "predictions": ("prediction", "confidence"),
}
_BY_ROW = ("labels", "valid", "confidences")  # beside these, and ids
_BESIDE = {"classes": ("prompts",), "texts": ("split",)}  # files beside those of cells
_NAMES = {  # what they are called in an npz, as others import them
    "image_embedding": "embeddings",
    "logit": "logits",
    "prediction": "predictions",
    "confidence": "confidences",
}


@dataclass(frozen=True, eq=False)
class Held:
    """The rows of one cell, in the order of its samples.

    arrays: by their names in the store, beside `valid`; read some rows at a time. prompts: of
    logits and predictions.
    """

    key: FeatureKey
    samples: SampleTable
    kind: str
    prompts: str | None
    valid: NDArray[np.bool_]
    arrays: Mapping[str, Made]

    @property
    def about(self) -> str:
        about = {"format": _FORMAT, "kind": self.kind, **vars(self.key), "prompts": self.prompts}
        return json.dumps(about | self.samples.attributes())


def held(store: FeatureStore, key: FeatureKey) -> Iterator[Held]:
    """What the cell holds: once, or for each prompt set that it was imported with."""
    cell, samples = store.cell(key), store.samples(key.dataset, key.split)
    kind = cell.imported_as or "embeddings"
    for prompts in cell.known_sets or (None,):
        group = cell.group(prompts)
        names = [name for name in _ARRAYS[kind] if name in group["arrays"]]
        arrays = {name: group.rows(name) for name in names}
        yield Held(key, samples, kind, prompts, cell.valid(prompts), arrays)


def write_npz(folder: Path, cell: Held) -> str:
    """All of a cell in one file, as plain arrays: nothing is pickled."""
    names = [*cell.key.names, *([] if cell.prompts is None else [cell.prompts])]
    name, table = "/".join(map(folder_name, names)) + ".npz", cell.samples
    arrays: dict[str, Any] = {_NAMES[array]: values for array, values in cell.arrays.items()}
    called = np.array(table.class_names, np.str_)
    beside = {"labels": table.labels, "ids": _texts(table.ids), "class_names": called}
    about = {_ABOUT: np.array(cell.about), "valid": cell.valid}
    npz.save(folder / name, about | arrays | beside)
    return name


def _texts(ids: Sequence[str]) -> Made:
    """Texts as numpy has them, of the length of the longest."""
    dtype = np.dtype((np.str_, max(map(len, ids))))
    return Made((len(ids),), dtype, lambda rows: np.array(ids[rows.start : rows.stop], dtype))


def write_huggingface(folder: Path, cell: Held) -> str:
    """A table with a row an image; arrays of several columns are lists, null where not valid."""
    names = (cell.key.dataset, cell.key.perturbation, cell.key.backbone, cell.prompts)
    folders = [folder_name(name) for name in names if name is not None]
    name = "/".join(("data", *folders, f"{folder_name(cell.key.split)}.parquet"))
    largest = max(cell.arrays.values(), key=lambda values: len(values.shape))

    def made(columns: list[str] | None, *_: object) -> Iterator[pl.DataFrame]:
        for rows in blocks(largest):
            frame = _frame(cell, rows)
            yield frame if columns is None else frame.select(columns)

    frame = register_io_source(made, schema=_frame(cell, slice(0, 1)).schema)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("wb") as file:
        frame.sink_parquet(file, metadata={_ABOUT: cell.about}, row_group_size=_GROUP)
    return name


def _frame(cell: Held, rows: slice) -> pl.DataFrame:
    table, valid = cell.samples, cell.valid[rows]
    names, labels = table.class_names, table.labels[rows]
    captions = [names[label] if label >= 0 else None for label in labels]
    columns = {
        "sample_id": pl.Series(list(table.ids[rows]), dtype=pl.String),
        "label": pl.Series(labels),
        "class_name": pl.Series(captions, dtype=pl.String),
        "valid": pl.Series(valid),
        **{array: _column(values[rows], valid) for array, values in cell.arrays.items()},
    }
    return pl.DataFrame(columns)


def _column(values: NDArray[Any], valid: NDArray[np.bool_]) -> pl.Series:
    """float32 for float16, which not every reader of parquet knows: the same numbers."""
    wide = values.astype(np.float32) if values.dtype == np.float16 else values
    dtype = pl.Array(pl.Float32, wide.shape[1]) if wide.ndim > 1 else None
    column = pl.Series(wide, dtype=dtype)
    return pl.select(pl.when(pl.Series(valid)).then(column)).to_series()


WRITERS: dict[str, Callable[[Path, Held], str]] = {
    "npz": write_npz,
    "huggingface": write_huggingface,
}


def _write_texts(store: FeatureStore, folder: Path, keys: Collection[FeatureKey]) -> None:
    """What classes and captions are to every backbone whose image embeddings are exported, once."""
    cells = [cell for cell in map(store.cell, keys) if cell.has_embeddings]
    places = [(it.key.dataset, name, it.key.backbone) for it in cells for name in it.prompt_sets()]
    for place in dict.fromkeys(places):
        if store.tree.exists(store.at("classes", *place)):
            embeddings, scale = store.class_embeddings(*place)
            _save_texts(folder, "classes", place, scale, {"class_embeddings": embeddings})
    for key in (cell.key for cell in cells):
        place = key.dataset, key.split, key.backbone
        if store.tree.exists(store.at("texts", *place)):
            texts, scale = store.text_embeddings(*place, key.perturbation)
            table, names = store.captions(*place[:2]), store.samples(*place[:2]).ids
            images = np.array(list(names))[table.images]
            columns = {"ids": np.array(table.ids), "captions": np.array(table.texts)}
            about = columns | {"images": images, "text_embeddings": texts}
            _save_texts(folder, "texts", place, scale, about)


def _save_texts(
    folder: Path, kind: str, place: Sequence[str], scale: float, arrays: Mapping[str, NDArray[Any]]
) -> None:
    about = {"format": _FORMAT, "kind": kind, **dict(zip(KINDS[kind], place, strict=True))}
    name = "/".join((kind, *map(folder_name, place))) + ".npz"
    told = {_ABOUT: np.array(json.dumps(about)), "logit_scale": np.array(scale)}
    npz.save(folder / name, told | {**arrays})


def export(
    store: FeatureStore,
    output: Path,
    keys: Collection[FeatureKey],
    layout: str,
    progress: Progress,
) -> None:
    """Write cells into a new folder, which is there whole or not at all, with a card.

    Raises UsageError where something is in the way, where the folder would lie in a store, and for
    a layout that is not known.
    """
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    if exists(output) and not (output.is_dir() and not any(output.iterdir())):
        raise UsageError(f"{output} is there already: give a new folder, or remove it")
    with folder_whole(output) as folder:
        counter = progress.add("exporting", len(keys), unit="cells")
        files: dict[str, str] = {}  # and the split of each
        for key in keys:
            files |= {WRITERS[layout](folder, cell): key.split for cell in held(store, key)}
            progress.advance(counter, 1)
        _write_texts(store, folder, keys)
        read, more = _how_to_read(layout, files)
        (folder / "README.md").write_text(page(made(store, keys), read, more), encoding="utf-8")


def _how_to_read(layout: str, files: Mapping[str, str]) -> tuple[list[str], dict[str, Any]]:
    """Paragraphs of the card; of parquet also what it says to the hub: a table for each dataset,
    perturbation and backbone, with its splits.
    """
    read = [
        "## Read it",
        "```sh\nclipsyn import STORE DOWNLOADED-FOLDER\n```",
        "This makes cells of the same numbers, with the same class embeddings. Each file says "
        "itself what it is of.",
    ]
    if layout == "npz":
        return read, {}
    tables: dict[str, list[dict[str, str]]] = {}
    for file, split in files.items():
        name = file.removeprefix("data/").rpartition("/")[0].replace("/", "--")
        tables.setdefault(name, []).append({"split": re.sub(r"\W", "_", split), "path": file})
    configs = [{"config_name": name, "data_files": of} for name, of in tables.items()]
    line = f'```text\nload_dataset(NAME, "{configs[0]["config_name"]}")\n```'
    return [*read, line], {"configs": configs}


# What `clipsyn import` makes of it


class Split(NamedTuple):
    """A split's samples, beside their ids and labels."""

    dataset: str
    split: str
    class_names: tuple[str, ...]
    metric: str
    licence: str


Exported = tuple[list[tuple[Split, Part]], list[Path]]  # and the files that are of others


def read_exports(paths: Iterable[Path], wanted: ImportSettings) -> Exported:
    """What `clipsyn export` has written, and the files that it has not.

    Raises DatasetError for what cannot be, UsageError for options that an export needs none of: it
    says itself what it holds.
    """
    parts: list[tuple[Split, Part]] = []
    others: list[Path] = []
    texts: dict[tuple[str, str], dict[str, Any]] = {}  # by dataset and backbone
    captions: dict[tuple[str, str, str], Captions] = {}  # by dataset, split and backbone
    for path in paths:
        with foreign(partial(_damaged, path)):
            if (about := _about(path)) is None:
                others.append(path)
                continue
            wanted.check_unset(path, declared(ImportSettings).keys() - {"replace", "intersect"})
            arrays = _arrays(path)
            if about["kind"] in _BESIDE:
                npz.digest(path)
            if about["kind"] == "classes":
                text = arrays["class_embeddings"][:], float(arrays["logit_scale"])
                of_backbone = texts.setdefault((about["dataset"], about["backbone"]), {})
                of_backbone[about["prompts"]] = text
            elif about["kind"] == "texts":
                named = ("ids", "captions", "images")
                ids, own, images = (tuple(map(str, arrays[name][:])) for name in named)
                scale, of = float(arrays["logit_scale"]), (about["dataset"], about["split"])
                told = Captions(ids, own, images, arrays["text_embeddings"][:], scale)
                captions[*of, about["backbone"]] = told
            else:
                parts.append(_part(path, about, arrays))
    for at, (split, part) in enumerate(parts):
        if part.kind == "embeddings":
            found = texts.get((split.dataset, part.backbone), {})
            its = captions.get((split.dataset, split.split, part.backbone))
            parts[at] = split, replace(part, texts=found, captions=its)
    return parts, others


def _damaged(path: Path, reason: str) -> DatasetError:
    return DatasetError(f"{path} cannot be read: {reason}")


def _about(path: Path) -> dict[str, Any] | None:
    """What a file says itself that it is of."""
    text = None
    if path.suffix == ".npz":
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            text = str(arrays[_ABOUT]) if _ABOUT in arrays.files else None
    elif path.suffix == ".parquet":
        text = pl.read_parquet_metadata(path).get(_ABOUT)
    if text is None:
        return None
    about: dict[str, Any] = parse_json(text)
    check_format(str(path), str(about["format"]), _FORMAT)
    names = ["dataset", "backbone", *_BESIDE.get(about["kind"], ())]
    if about["kind"] not in _BESIDE:
        names += ["split", "perturbation", "metric", "licence"]
        names += [] if about["prompts"] is None else ["prompts"]
    for name in names:
        if type(about[name]) is not str or not (about[name].strip() or name == "licence"):
            raise ValueError(f"its {name} is no text")
    return about


def _arrays(path: Path) -> npz.Arrays:
    """Of a table its columns, as the arrays of an npz."""
    if path.suffix == ".npz":
        return npz.load(path)
    scan, lists = scanned(path)
    with readable(path):
        frame = scan.collect()
    arrays: dict[str, Rows] = {_NAMES[name]: rows for name, rows in lists.items()}
    if (rows := arrays.get("embeddings")) is not None:
        arrays["embeddings"] = made_of(rows, np.float16, lambda part: part.astype(np.float16))
    there = {_NAMES[name]: frame[name].fill_null(0) for name in _NAMES if name in frame.columns}
    there |= {"ids": frame["sample_id"], "labels": frame["label"], "valid": frame["valid"]}
    return arrays | {name: column.to_numpy() for name, column in there.items()}


def _part(path: Path, about: Mapping[str, Any], arrays: npz.Arrays) -> tuple[Split, Part]:
    names, kind = tuple(map(str, about["class_names"])), about["kind"]
    beside = {name: arrays[name][:] for name in _BY_ROW if name in arrays}
    valid, labels, values = beside["valid"], as_labels(beside["labels"]), arrays[kind]
    ids = tuple(chain.from_iterable(arrays["ids"][rows].tolist() for rows in blocks(arrays["ids"])))
    shapes = {labels.shape, values.shape[:1], *(column.shape for column in beside.values())}
    if kind not in _ARRAYS or shapes != {(len(ids),)} or valid.dtype != np.bool_:
        raise ValueError("its arrays have not one row for each id")
    confidence = beside.get("confidences")
    split = Split(about["dataset"], about["split"], names, about["metric"], about["licence"])
    return split, Part(
        about["backbone"],
        parse_perturbation(about["perturbation"]).label,
        kind,
        tuple(map(str, ids)),
        _known(path, kind, values, valid, names),
        labels,
        files=(path,),
        confidence=None if confidence is None else confidence.astype(np.float32),
        prompts=about["prompts"],
    )


def _known(
    path: Path, kind: str, values: Rows, valid: NDArray[np.bool_], names: Sequence[str]
) -> Rows:
    """The rows with nothing in those that are not valid."""
    if kind == "predictions":
        return np.where(valid, class_indices(str(path), values[:]), np.int64(-1))
    checked(path, kind, values[:1], names)
    dtype = np.dtype(np.float32) if kind == "logits" else values.dtype

    def make(rows: slice) -> NDArray[Any]:
        with np.errstate(over="ignore"):
            part = values[rows].astype(dtype, copy=False)
        has = valid[rows, None]
        return part if has.all() else np.where(has, part, dtype.type(np.nan))

    return Made(values.shape, dtype, make)
