"""The whole of an import: read, align, refuse what cannot be, write cell by cell.

`tables` and `arrays` turn files into parts, one for each backbone and perturbation;
`align` finds the rows of the sample table by id. What `clipsyn export` has written becomes cells of
the same bits. docs/importing.md lists the files that can be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.catalog.datasets import find_dataset, read_class_names
from clipsyn.errors import DatasetError, UsageError
from clipsyn.exchange import ImportSettings, npz
from clipsyn.exchange.align import (
    NewCell,
    align,
    check_ids,
    check_order,
    check_parts,
    labels_of,
    new_table,
    with_ids,
)
from clipsyn.exchange.arrays import SUFFIXES as NUMPY
from clipsyn.exchange.arrays import Laid, load, part_of, read_layouts
from clipsyn.exchange.export import Split, read_exports
from clipsyn.exchange.parts import Part, class_names
from clipsyn.exchange.tables import ROLES, is_clip_retrieval, read_clip_retrieval, read_table
from clipsyn.exchange.tables import SUFFIXES as TABLES
from clipsyn.methods.numerics.metrics import accuracy
from clipsyn.names import FeatureKey, check_backbone_name
from clipsyn.registry import unknown_name
from clipsyn.show.table import Table
from clipsyn.show.tables import table_of
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import PROMPTS, exists, is_vacant
from clipsyn.store.groups import ELSEWHERE
from clipsyn.store.overlap import twin_notes
from clipsyn.store.samples import CaptionTable, SampleTable
from clipsyn.store.select import only
from clipsyn.store.writer import CellWriter
from clipsyn.text import LOG

IMPORTED = {  # the columns of what `import_files` returns, a row a cell
    "dataset": pl.String,
    "split": pl.String,
    "perturbation": pl.String,
    "backbone": pl.String,
    "prompts": pl.String,  # null where no prompt set is known
    "kind": pl.String,
    "images": pl.Int64,  # samples that were shown under the perturbation
    "valid": pl.Int64,  # of these, samples with a value
    "acc1": pl.Float64,  # over valid, labelled samples; null for embeddings alone
    "was": pl.String,  # new, there (the same content) or replaced
}
_FORMATS = "CSV, Parquet, npy, npz and pt are read"


def import_files(store: Path, files: Sequence[Path], wanted: ImportSettings) -> pl.DataFrame:
    """Make cells of files and say which; all of them are checked before anything is written.

    Splits are written one after another, since the embeddings of each may fill the memory.
    The store is made if there is none. Raises DatasetError for content that cannot be, StaleCell
    for a name that is taken by other content, UsageError for options that do not go together.
    """
    for role in wanted.columns:
        if role not in ROLES:
            raise unknown_name("role of a column", role, ROLES)
    there = None if is_vacant(store) else FeatureStore.open(store)
    laid = {path: read_layouts(path, wanted) for path in files if path.is_dir()}
    found, plain = read_exports(_expanded([it for it in files if not laid.get(it)]), wanted)
    others = [*chain(*laid.values()), *_read_files(there, plain, wanted)]
    splits: dict[Split, list[Part]] = {}
    for split, part in (*found, *_with_classes(there, others, wanted)):
        splits.setdefault(split, []).append(_called(part, wanted))
    if len({(it.dataset, it.split) for it in splits}) < len(splits):
        raise DatasetError("files of one split have different class names: import each alone")
    checked = [_checked(there, *it, wanted) for it in splits.items()]
    rows = [row for it in checked for row in _imported(store, *it, wanted)]
    return pl.DataFrame(rows, schema=IMPORTED)


def _read_files(
    there: FeatureStore | None, paths: Sequence[Path], wanted: ImportSettings
) -> list[Laid]:
    """The parts of files that are no export and have none of the layouts."""
    if not paths:
        return []
    dataset = only(there, "dataset") if there and wanted.dataset is None else wanted.dataset or ""
    for what, name in (("dataset", dataset), ("split", wanted.split)):
        if not name.strip():
            raise UsageError(f"the {what} has no name: give one with {what}=…")
    known = _known_names(there, dataset, wanted)
    parts = (part for path in paths for part in _read(path, wanted, known))
    return [(dataset, wanted.split, part) for part in parts]


def _with_classes(
    there: FeatureStore | None, laid: Sequence[Laid], wanted: ImportSettings
) -> Iterator[tuple[Split, Part]]:
    """The parts with all that is known of their splits; those of a dataset share its classes."""
    for dataset in dict.fromkeys(name for name, _, _ in laid):
        parts = [(split, part) for name, split, part in laid if name == dataset]
        info, known = find_dataset(dataset), _known_names(there, dataset, wanted)
        about = (info.metric, info.licence) if info else ("acc1", "")
        names = known or class_names([part for _, part in parts])
        for split, part in parts:
            yield Split(dataset, split, names, *about), part


def _checked(
    there: FeatureStore | None, split: Split, parts: Sequence[Part], wanted: ImportSettings
) -> tuple[SampleTable, list[Part]]:
    """All that can be told without the store's other cells, and without reading all rows."""
    table = None
    if there and exists(there.at("samples", split.dataset, split.split)):
        table = there.samples(split.dataset, split.split)
        _check_classes(split.class_names, table.class_names, table.name)
    ordered = [it for it in parts if it.ids is None and it.perturbation == parts[0].perturbation]
    parts = with_ids(parts, table)
    check_parts(parts)
    if table is None:
        table = new_table(parts, split)
    else:
        labels_of(parts, table.ids, table.labels, table.class_names)
    check_ids(parts, table, intersect=wanted.intersect)
    check_order(ordered, table, _embedded(there, table, ordered) if ordered else {})
    return table, parts


def _embedded(
    there: FeatureStore | None, table: SampleTable, parts: Sequence[Part]
) -> dict[str, NDArray[Any]]:
    """Embeddings in the store, of one other backbone under the perturbation of the parts."""
    names = {part.backbone for part in parts}
    place = (table.dataset, table.split, parts[0].perturbation)
    for (*where, backbone), _ in there.groups("features") if there else ():
        if there and tuple(where) == place and backbone not in names:
            return {backbone: there.cell(FeatureKey(*place, backbone)).embeddings()}
    return {}


def _imported(
    path: Path, table: SampleTable, parts: Sequence[Part], wanted: ImportSettings
) -> list[dict[str, Any]]:
    """Write the cells of a split, all or none."""
    cells = align(parts, table)
    store = FeatureStore.create(path) if is_vacant(path) else FeatureStore.open(path)
    with ThreadPoolExecutor(1) as reader, ExitStack() as stack:
        stack.callback(reader.shutdown, cancel_futures=True)
        digests = {it: reader.submit(npz.digest, it) for cell in cells for it in cell.part.files}
        writers = [
            _written(stack.enter_context(_writer(store, table, cell, wanted)), cell, digests)
            for cell in cells
        ]
        was = [writer.finish() for writer in writers]
    for note in twin_notes(store, table.dataset):
        LOG.info("note: %s", note)
    return [_row(store, table, *made) for made in zip(cells, writers, was, strict=True)]


def _called(part: Part, wanted: ImportSettings) -> Part:
    """Under the name that its backbone shall have."""
    part = replace(part, backbone=wanted.names.get(part.backbone, part.backbone))
    check_backbone_name(part.backbone)
    return part


def _expanded(files: Sequence[Path]) -> Iterator[Path]:
    """Files as they are; a folder stands for all files below it that can be read, sorted."""
    for path in files:
        if path.is_file():
            yield path
        elif not path.is_dir():
            raise DatasetError(f"{path} is no file or folder")
        elif is_clip_retrieval(path):
            yield path
        else:
            found = sorted(it for it in path.rglob("*") if it.suffix in (*TABLES, *NUMPY))
            if not found:
                raise DatasetError(f"{path} has no file to import: {_FORMATS}")
            yield from found


def _read(path: Path, wanted: ImportSettings, known: Sequence[str]) -> list[Part]:
    if path.suffix in TABLES or path.is_dir():
        return (read_clip_retrieval if path.is_dir() else read_table)(path, wanted, known)
    if path.suffix in NUMPY:
        return [part_of(path, load(path), wanted, known)]
    raise DatasetError(f"{path} cannot be imported: {_FORMATS}")


def _known_names(
    store: FeatureStore | None, dataset: str, wanted: ImportSettings
) -> tuple[str, ...]:
    """Class names of the split, else of another split of the dataset, else those given."""
    given = read_class_names(wanted.classes) if wanted.classes else ()
    places = [names for names, _ in store.groups("samples")] if store else []
    own = sorted((it for it in places if it[0] == dataset), key=lambda it: it[1] != wanted.split)
    there = next(filter(None, (store.samples(*it).class_names for it in own)), ()) if store else ()
    _check_classes(given, there, dataset)
    return there or given


def _check_classes(given: Sequence[str], there: Sequence[str], where: str) -> None:
    if given and there and given != there:
        raise DatasetError(
            f"{where} has other classes in the store than are given ({len(there)} and "
            f"{len(given)}): leave classes=… away, or call the dataset something else"
        )


def _writer(
    store: FeatureStore, table: SampleTable, cell: NewCell, wanted: ImportSettings
) -> CellWriter:
    return store.writer(
        table,
        cell.key.backbone,
        cell.key.perturbation,
        prompts=None if cell.part.texts else cell.prompts,  # these are of the class embeddings
        replace=wanted.replace,
    )


def _written(writer: CellWriter, cell: NewCell, digests: Mapping[Path, Future[str]]) -> CellWriter:
    """With the rows of the cell and what is recorded of it; its files are digested meanwhile."""
    part, table, writer.mended = cell.part, writer.samples, True
    if part.kind == "logits":
        writer.logits(cell.values, cell.given)
    elif part.kind == "predictions":
        classes = cell.values[:]
        writer.predictions(classes, cell.confidence, classes >= 0)
    else:
        writer.embeddings(cell.values, cell.given)
    files = [{"file": path.name, "sha256": digests[path].result()} for path in part.files]
    writer.record(invalid=cell.invalid(writer.valid), source=files)
    for name, (embeddings, scale) in part.texts.items():
        writer.classes(name, embeddings, scale)
    if of := part.captions:
        rows = {name: row for row, name in enumerate(table.ids)}
        images = np.array([rows.get(name, -1) for name in of.images], np.int32)
        captions = CaptionTable(table.dataset, table.split, of.ids, of.texts, images)
        writer.captions(captions, of.embeddings, of.scale)
    return writer


def _row(
    store: FeatureStore, table: SampleTable, cell: NewCell, writer: CellWriter, was: str
) -> dict[str, Any]:
    score = None
    if (cell.part.kind != "embeddings" or cell.part.texts) and (table.labels >= 0).any():
        score = accuracy(store.cell(cell.key).predictions(cell.prompts or PROMPTS), table.labels)
    return {
        **asdict(cell.key),
        "prompts": cell.prompts,
        "kind": cell.part.kind,
        "images": len(table) - cell.lacking[ELSEWHERE],
        "valid": int(np.count_nonzero(writer.valid)),
        "acc1": score.value if score else None,
        "was": was,
    }


def imported_table(frame: pl.DataFrame) -> Table:
    """A line for each cell that `import_files` returns; accuracies in percent."""
    shown = frame.drop("prompts") if frame["prompts"].is_null().all() else frame
    return table_of(shown, percent=["acc1"], headers={"acc1": "top-1"})
