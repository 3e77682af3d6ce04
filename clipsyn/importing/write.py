"""The whole of an import: read, align, refuse what cannot be, write cell by cell."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn import __version__
from clipsyn.errors import DatasetError, StaleCell, UsageError
from clipsyn.importing.cells import Cell, align, check_labels, merged, new_table
from clipsyn.importing.classes import have_other_numbers, read_names
from clipsyn.importing.numpy_files import SUFFIXES as NUMPY
from clipsyn.importing.numpy_files import cached_features, read_numpy
from clipsyn.importing.parts import Part, Wanted
from clipsyn.importing.tables import ROLES, read_table
from clipsyn.importing.tables import SUFFIXES as TABLES
from clipsyn.metrics import accuracy
from clipsyn.schema import FORMAT_VERSION
from clipsyn.specs import check_backbone_name
from clipsyn.store.drafts import Draft
from clipsyn.store.features import FeatureStore, is_vacant
from clipsyn.store.imports import ELSEWHERE, content_digest
from clipsyn.store.samples import SampleTable

_LOG = logging.getLogger("clipsyn")
IMPORTED = {  # the columns of what `import_files` returns, a row a cell
    "dataset": pl.String,
    "split": pl.String,
    "perturbation": pl.String,
    "backbone": pl.String,
    "kind": pl.String,
    "images": pl.Int64,  # samples that were shown under the perturbation
    "valid": pl.Int64,  # of these, samples with a value
    "acc1": pl.Float64,  # over valid, labelled samples; null for embeddings
    "was": pl.String,  # new, there (the same content) or replaced
}


def import_files(store: Path, files: Sequence[Path], wanted: Wanted) -> pl.DataFrame:
    """Make cells of files and say which; all of them are checked before anything is written.

    The store is made if there is none. Raises DatasetError for content that cannot be, StaleCell
    for a name that is taken by other content, UsageError for options that do not go together.
    """
    for what in ("dataset", "split"):
        if not getattr(wanted, what).strip():
            raise UsageError(f"the {what} has no name: give one with --{what}")
    there = None if is_vacant(store) else FeatureStore.open(store)
    table = _stored_table(there, wanted)
    known = _known_names(there, table, wanted)
    paths = _expanded(files, wanted.split)
    read = [part for path in paths for part in _read(path, wanted, known)]
    _check_conditions(read, wanted)
    for part in read:
        check_backbone_name(part.backbone)
    parts = merged(read)
    if table is None:
        table, is_new = new_table(parts, wanted, known), True
    else:
        check_labels(parts, table)
        is_new = False
    cells = align(
        parts,
        table,
        intersect=wanted.intersect,
        dataset=wanted.dataset,
        split=wanted.split,
    )
    _check_classes(cells, table)
    if have_other_numbers(table.class_names):
        _LOG.info("classes are called by numbers: what the files write are names, not indices")
    opened = there or FeatureStore.create(store)
    drafts = [_draft(opened, cell, table) for cell in cells]
    rows = [
        _row(cell, table, _state(opened, cell, draft, wanted.replace))
        for cell, draft in zip(cells, drafts, strict=True)
    ]
    if is_new:
        _write_samples(opened, table)
    for cell, draft in zip(cells, drafts, strict=True):
        _write(draft, cell.arrays, _attributes(cell), replace=wanted.replace)
    _say(cells, wanted)
    _say_labels(table, store)
    return pl.DataFrame(rows, schema=IMPORTED)


def _expanded(files: Sequence[Path], split: str) -> list[Path]:
    """Files as they are; a folder stands for all files in it that can be read, sorted.

    A feature cache of CLIP_benchmark's stands for its features of the split.
    """
    found: list[Path] = []
    for path in files:
        if path.is_dir() and (features := cached_features(path, split)):
            found.append(features)
        elif path.is_dir():
            readable = [file for file in sorted(path.iterdir()) if file.suffix in (*TABLES, *NUMPY)]
            if not readable:
                raise DatasetError(f"{path} has no file to import: {_FORMATS}")
            found += readable
        else:
            found.append(path)
    return found


_FORMATS = "CSV, Parquet, npy, npz and pt are read"


def _read(path: Path, wanted: Wanted, known: Sequence[str]) -> list[Part]:
    if not path.exists():
        raise DatasetError(f"{path} does not exist")
    if path.suffix in TABLES:
        if wanted.ids or wanted.labels:
            raise UsageError(
                f"{path} has ids and labels in its columns: leave --ids, --labels away"
            )
        return read_table(path, wanted, known)
    if path.suffix in NUMPY:
        return [read_numpy(path, wanted, known)]
    raise DatasetError(f"{path} cannot be imported: {_FORMATS}")


def _check_conditions(parts: Sequence[Part], wanted: Wanted) -> None:
    """Refuse a condition that --conditions speaks of and no file has."""
    there = frozenset[str]().union(*(part.conditions for part in parts))
    if unused := sorted(wanted.conditions.keys() - there):
        raise UsageError(
            f"--conditions {unused[0]}=…: no row has that condition; "
            + (f"there are {', '.join(sorted(there))}" if there else "no column has conditions")
        )


def _stored_table(store: FeatureStore | None, wanted: Wanted) -> SampleTable | None:
    if store is None or not store.samples_path(wanted.dataset, wanted.split).exists():
        return None
    return store.samples(wanted.dataset, wanted.split)


def _known_names(
    store: FeatureStore | None, table: SampleTable | None, wanted: Wanted
) -> tuple[str, ...]:
    """Class names of the split, else of another split of the dataset, else of --classes."""
    given = read_names(wanted.classes) if wanted.classes else ()
    there = table.class_names if table else ()
    if store and not there:
        of_dataset = [names for names, _ in store.groups("samples") if names[0] == wanted.dataset]
        tables = (store.samples(*names) for names in of_dataset)
        there = next((found.class_names for found in tables if found.class_names), ())
    if given and there and given != there:
        raise DatasetError(
            f"{wanted.classes} lists other classes than {store.path if store else ''} has for "
            f"{wanted.dataset} ({len(given)} and {len(there)}): leave --classes away"
        )
    return there or given


def _check_classes(cells: Sequence[Cell], table: SampleTable) -> None:
    for cell in cells:
        if cell.kind == "embeddings":
            continue
        if not table.class_names:
            raise DatasetError(
                f"{table.dataset}/{table.split} has no class names in the store: extract it with "
                "class names first, or import under another dataset name"
            )
        if cell.kind == "logits" and (width := cell.arrays["logit"].shape[1]) != len(
            table.class_names
        ):
            raise DatasetError(
                f"{cell.key}: logits of {width} classes, where {table.dataset} has "
                f"{len(table.class_names)}"
            )


def _draft(store: FeatureStore, cell: Cell, table: SampleTable) -> Draft:
    identity = {
        "format": FORMAT_VERSION,
        "kind": cell.kind,
        "content": content_digest(cell.arrays),
        "dataset": cell.key.dataset,
        "split": cell.key.split,
        "samples": table.digest,
        "perturbation": cell.key.perturbation,
        "backbone": cell.key.backbone,
        "class_names": None if cell.kind == "embeddings" else list(table.class_names),
    }
    sizes = {"sample": len(table), "class": len(table.class_names)}
    if cell.kind == "embeddings":
        sizes["embed"] = cell.arrays["image_embedding"].shape[1]
    target = store.imports_path(cell.key)
    kind = f"imported-{cell.kind}"
    return Draft(store.path, target, kind, identity, sizes, store.chunk_rows)


def _state(store: FeatureStore, cell: Cell, draft: Draft, replace: bool) -> str:
    """What is there under the cell's name; raises StaleCell if it may not be replaced."""
    if store.features_path(cell.key).exists():
        raise StaleCell(
            f"{cell.key} was extracted into {store.path}: call what is imported something else "
            "with --backbone NAME"
        )
    changes = draft.changes()
    if changes and not replace:
        fields = tuple(name for name, _, _ in changes)
        raise StaleCell(
            f"{cell.key} was imported into {store.path} with other content "
            f"({', '.join(fields)}): add --replace, or give it another name with --backbone NAME",
            fields,
        )
    return "replaced" if changes else "there" if draft.is_published() else "new"


def _write_samples(store: FeatureStore, table: SampleTable) -> None:
    draft = Draft(
        store.path,
        store.samples_path(table.dataset, table.split),
        "samples",
        table.identity(),
        {"sample": len(table), "byte": 32},
        store.chunk_rows,
    )
    values = {
        "sample_id": np.array(table.ids, object),
        "label": table.labels,
        "content_hash": table.content,
    }
    _write(draft, values, table.attributes() | {"imported": True})


def _write(
    draft: Draft,
    values: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, Any],
    *,
    replace: bool = False,
) -> None:
    for block in draft.pending():
        rows = draft.blocks.range(block)
        part = slice(rows.start, rows.stop)
        draft.write(block, {name: array[part] for name, array in values.items()}, {})
    draft.publish(lambda _: attributes, replace=replace)


def _attributes(cell: Cell) -> dict[str, Any]:
    """What is recorded beside the identity, and never compared."""
    return {
        "invalid": dict(cell.invalid),
        "source": [{"file": path.name, "sha256": _file_digest(path)} for path in cell.files],
        "provenance": {
            "clipsyn": __version__,
            "imported": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _row(cell: Cell, table: SampleTable, was: str) -> dict[str, Any]:
    labelled = (table.labels >= 0).any() and cell.kind != "embeddings"
    score = accuracy(cell.arrays["prediction"], table.labels) if labelled else None
    return {
        "dataset": cell.key.dataset,
        "split": cell.key.split,
        "perturbation": cell.key.perturbation,
        "backbone": cell.key.backbone,
        "kind": cell.kind,
        "images": len(table) - cell.invalid.get(ELSEWHERE, 0),
        "valid": int(np.count_nonzero(cell.valid)),
        "acc1": score.value if score else None,
        "was": was,
    }


def _say(cells: Sequence[Cell], wanted: Wanted) -> None:
    """How many samples have no value and why, and how many of them all backbones have."""
    reasons: dict[str, int] = {}
    for cell in cells:
        for reason in cell.invalid.keys() - {ELSEWHERE}:
            reasons[reason] = reasons.get(reason, 0) + cell.invalid[reason]
    if reasons:
        said = "; ".join(f"{count:,} ({reason})" for reason, count in sorted(reasons.items()))
        _LOG.info(f"images without a value, over all cells: {said}")
    if wanted.intersect:
        for label in dict.fromkeys(cell.key.perturbation for cell in cells):
            valid = [cell.valid for cell in cells if cell.key.perturbation == label]
            common = int(np.logical_and.reduce(valid).sum())
            _LOG.info(f"{label}: {common:,} of {len(valid[0]):,} samples in common")


def _say_labels(table: SampleTable, store: Path) -> None:
    """How many samples have no label: nothing can be right or wrong about these."""
    where, labelled = f"{table.dataset}/{table.split}", int(np.count_nonzero(table.labels >= 0))
    if not labelled:
        _LOG.info(
            f"note: no image of {where} has a label, so there is no accuracy and no oracle: to "
            f"have them, `clipsyn rm {store} -d {table.dataset} -s {table.split}` and import files "
            f"with a column of true classes ({', '.join(ROLES['label'])})"
        )
    elif labelled < len(table):
        _LOG.info(f"note: {labelled:,} of the {len(table):,} images of {where} have a label")
