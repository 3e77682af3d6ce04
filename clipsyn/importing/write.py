"""The whole of an import: read, align, refuse what cannot be, write cell by cell."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from clipsyn import __version__
from clipsyn.catalog.class_names import read_class_names
from clipsyn.catalog.experiments import experiment_of, experiments
from clipsyn.errors import DatasetError, StaleCell, UsageError
from clipsyn.importing.cells import NewCell, align, check_labels, merged, new_table
from clipsyn.importing.classes import have_other_numbers
from clipsyn.importing.numpy_files import SUFFIXES as NUMPY
from clipsyn.importing.numpy_files import cached_features, read_numpy
from clipsyn.importing.parts import Part
from clipsyn.importing.settings import ImportSettings
from clipsyn.importing.tables import ROLES, read_table
from clipsyn.importing.tables import SUFFIXES as TABLES
from clipsyn.numerics.metrics import accuracy
from clipsyn.schema import IDENTITY_VERSION, NO_CLASS
from clipsyn.specs import by_severity, check_backbone_name
from clipsyn.store.arrays import content_digest
from clipsyn.store.cell import ELSEWHERE, Imported
from clipsyn.store.drafts import Draft
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import exists
from clipsyn.store.marker import is_vacant
from clipsyn.store.samples import SampleTable

_LOG = logging.getLogger("clipsyn")
IMPORTED = {  # the columns of what `import_files` returns, a row a cell
    "dataset": pl.String,
    "split": pl.String,
    "perturbation": pl.String,
    "backbone": pl.String,
    "prompts": pl.String,  # null where no prompt set is known
    "kind": pl.String,
    "images": pl.Int64,  # samples that were shown under the perturbation
    "valid": pl.Int64,  # of these, samples with a value
    "acc1": pl.Float64,  # over valid, labelled samples; null for embeddings
    "was": pl.String,  # new, there (the same content) or replaced
}


def import_files(store: Path, files: Sequence[Path], wanted: ImportSettings) -> pl.DataFrame:
    """Make cells of files and say which; all of them are checked before anything is written.

    The store is made if there is none. Raises DatasetError for content that cannot be, StaleCell
    for a name that is taken by other content, UsageError for options that do not go together.
    """
    for what in ("split",) if wanted.dataset is None else ("dataset", "split"):
        if not getattr(wanted, what).strip():
            raise UsageError(f"the {what} has no name: give one with {what}=…")
    there = None if is_vacant(store) else FeatureStore.open(store)
    paths = _expanded(files, wanted.split)
    datasets = [_aligned(there, of, its) for of, its in _by_dataset(paths, wanted)]
    opened = there or FeatureStore.create(store)
    planned = [_planned(opened, one, wanted) for one in datasets]
    for one, (drafts, _) in zip(datasets, planned, strict=True):
        if one.is_new:
            facts = one.table.attributes() | {"imported": True}
            opened.samples_draft(one.table).fill(one.table.arrays(), facts)
        for cell, draft in zip(one.cells, drafts, strict=True):
            draft.fill(cell.arrays, _attributes(cell), replace=wanted.replace)
    _say([cell for one in datasets for cell in one.cells], wanted)
    for one in datasets:
        _say_labels(one.table, store)
    return pl.DataFrame([row for _, rows in planned for row in rows], schema=IMPORTED)


class _Aligned(NamedTuple):
    """The cells of one dataset, and the samples that their rows are."""

    table: SampleTable
    is_new: bool
    cells: list[NewCell]


def _by_dataset(
    paths: Sequence[Path], wanted: ImportSettings
) -> Iterator[tuple[list[Path], ImportSettings]]:
    """Files of one dataset each: the one asked for, or the experiments they are called after."""
    if wanted.dataset is not None:
        yield [*paths], wanted
        return
    names = [experiment_of(path.stem) for path in paths]
    if None in names:
        raise UsageError(
            f"{paths[names.index(None)]} is called after no experiment of model-vs-human "
            f"({', '.join(experiments())}): say what it is of with dataset=…"
        )
    for name in dict.fromkeys(filter(None, names)):
        chosen = [path for path, own in zip(paths, names, strict=True) if own == name]
        yield chosen, wanted.replaced(dataset=name)


def _aligned(there: FeatureStore | None, paths: Sequence[Path], wanted: ImportSettings) -> _Aligned:
    """Read, merged and aligned: everything that is known without the store's other cells."""
    place = wanted.dataset_name, wanted.split
    table = there.samples(*place) if there and exists(there.samples_path(*place)) else None
    known = _known_names(there, table, wanted)
    read = [_called(part, wanted) for path in paths for part in _read(path, wanted, known)]
    _check_conditions(read, wanted)
    parts = merged(read)
    is_new = table is None
    if table is None:
        table = new_table(parts, wanted, known)
    else:
        check_labels(parts, table)
    _say_conditions(parts, wanted.dataset_name)
    cells = align(parts, table, intersect=wanted.intersect)
    _check_classes(cells, table)
    if have_other_numbers(table.class_names):
        _LOG.info("classes are called by numbers: what the files write are names, not indices")
    return _Aligned(table, is_new, cells)


def _called(part: Part, wanted: ImportSettings) -> Part:
    """Under the name that its backbone shall have."""
    part = replace(part, backbone=wanted.names.get(part.backbone, part.backbone))
    check_backbone_name(part.backbone)
    return part


def _planned(
    store: FeatureStore, one: _Aligned, wanted: ImportSettings
) -> tuple[list[Draft], list[dict[str, Any]]]:
    """What will be written, and a row for each; raises StaleCell where something is in the way."""
    drafts = [_draft(store, cell, one.table) for cell in one.cells]
    rows = [
        _row(cell, one.table, _state(store, cell, draft, wanted.replace))
        for cell, draft in zip(one.cells, drafts, strict=True)
    ]
    return drafts, rows


def _expanded(files: Sequence[Path], split: str) -> list[Path]:
    """Files as they are; a folder stands for all files in it that can be read, sorted.

    A feature cache of CLIP_benchmark's stands for its features of the split.
    """
    expanded: list[Path] = []
    for path in files:
        if path.is_dir() and (features := cached_features(path, split)):
            expanded.append(features)
        elif path.is_dir():
            readable = [file for file in sorted(path.iterdir()) if file.suffix in (*TABLES, *NUMPY)]
            if not readable:
                raise DatasetError(f"{path} has no file to import: {_FORMATS}")
            expanded += readable
        else:
            expanded.append(path)
    return expanded


_FORMATS = "CSV, Parquet, npy, npz and pt are read"


def _read(path: Path, wanted: ImportSettings, known: Sequence[str]) -> list[Part]:
    if not path.exists():
        raise DatasetError(f"{path} does not exist")
    if path.suffix in TABLES:
        if wanted.ids or wanted.labels:
            raise UsageError(
                f"{path} has ids and labels in its columns: leave ids=…, labels=… away"
            )
        return read_table(path, wanted, known)
    if path.suffix in NUMPY:
        return [read_numpy(path, wanted, known)]
    raise DatasetError(f"{path} cannot be imported: {_FORMATS}")


def _check_conditions(parts: Sequence[Part], wanted: ImportSettings) -> None:
    """Refuse a condition that `wanted` speaks of and no file has."""
    there = frozenset[str]().union(*(part.conditions for part in parts))
    if unused := sorted(wanted.conditions.keys() - there):
        raise UsageError(
            f"conditions=… names {unused[0]}, and no row has that condition; "
            + (f"there are {', '.join(sorted(there))}" if there else "no column has conditions")
        )


def _known_names(
    store: FeatureStore | None, table: SampleTable | None, wanted: ImportSettings
) -> tuple[str, ...]:
    """Class names of the split, else of another split of the dataset, else those given."""
    given = read_class_names(wanted.classes, wanted.dataset_name) if wanted.classes else ()
    there = table.class_names if table else ()
    if store and not there:
        of_dataset = [
            names for names, _ in store.groups("samples") if names[0] == wanted.dataset_name
        ]
        tables = (store.samples(*names) for names in of_dataset)
        there = next((other.class_names for other in tables if other.class_names), ())
    if given and there and given != there:
        raise DatasetError(
            f"{wanted.classes} lists other classes than {store.path if store else ''} has for "
            f"{wanted.dataset_name} ({len(given)} and {len(there)}): leave classes=… away"
        )
    return there or given


def _check_classes(cells: Sequence[NewCell], table: SampleTable) -> None:
    for cell in cells:
        if cell.kind == "embeddings":
            continue
        if not table.class_names:
            raise DatasetError(
                f"{table.name} has no class names in the store: extract it with "
                "class names first, or import under another dataset name"
            )
        if cell.kind == "logits" and (width := cell.arrays["logit"].shape[1]) != len(
            table.class_names
        ):
            raise DatasetError(
                f"{cell.key}: logits of {width} classes, where {table.dataset} has "
                f"{len(table.class_names)}"
            )


def _draft(store: FeatureStore, cell: NewCell, table: SampleTable) -> Draft:
    identity = {
        "format": IDENTITY_VERSION,
        "kind": cell.kind,
        "content": content_digest(cell.arrays),
        "dataset": cell.key.dataset,
        "split": cell.key.split,
        "samples": table.digest,
        "perturbation": cell.key.perturbation,
        "backbone": cell.key.backbone,
        "class_names": None if cell.kind == "embeddings" else list(table.class_names),
    }
    if cell.prompts is not None:
        identity["prompts"] = cell.prompts
    sizes = {"sample": len(table), "class": len(table.class_names)}
    if cell.kind == "embeddings":
        sizes["embed"] = cell.arrays["image_embedding"].shape[1]
    target = store.imports_path(cell.key, cell.prompts)
    kind = f"imported-{'confidences' if 'confidence' in cell.arrays else cell.kind}"
    return store.draft(target, kind, identity, sizes)


def _state(store: FeatureStore, cell: NewCell, draft: Draft, replace: bool) -> str:
    """What is there under the cell's name; raises StaleCell if it may not be replaced."""
    if exists(store.features_path(cell.key)):
        raise StaleCell(
            f"{cell.key} was extracted into {store.path}: call what is imported something else "
            "with backbone=NAME"
        )
    there = store.cell(cell.key)
    if isinstance(there, Imported) and bool(there.sets) != (cell.prompts is not None):
        has = "no" if cell.prompts else "a"
        raise StaleCell(
            f"{cell.key} was imported into {store.path} under {has} prompt set: give what is "
            "imported another name with backbone=NAME"
        )
    changes = draft.changes()
    if changes and not replace:
        fields = tuple(name for name, _, _ in changes)
        raise StaleCell(
            f"{cell.key} was imported into {store.path} with other content "
            f"({', '.join(fields)}): add replace=True, or give it another name with backbone=NAME",
            fields,
        )
    return "replaced" if changes else "there" if draft.is_published() else "new"


def _attributes(cell: NewCell) -> dict[str, Any]:
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


def _row(cell: NewCell, table: SampleTable, was: str) -> dict[str, Any]:
    labelled = (table.labels >= 0).any() and cell.kind != "embeddings"
    score = accuracy(cell.arrays["prediction"], table.labels) if labelled else None
    return {
        **asdict(cell.key),
        "prompts": cell.prompts,
        "kind": cell.kind,
        "images": len(table) - cell.invalid.get(ELSEWHERE, 0),
        "valid": int(np.count_nonzero(cell.valid)),
        "acc1": score.value if score else None,
        "was": was,
    }


def _say(cells: Sequence[NewCell], wanted: ImportSettings) -> None:
    """How many samples have no value and why, and how many of them all backbones have."""
    reasons: dict[str, int] = {}
    for cell in cells:
        for reason in cell.invalid.keys() - {ELSEWHERE}:
            reasons[reason] = reasons.get(reason, 0) + cell.invalid[reason]
    late = sum(
        int(np.count_nonzero(cell.arrays["prediction"] == NO_CLASS))
        for cell in cells
        if cell.kind == "predictions"
    )
    if late:
        _LOG.info(
            f"{late:,} answers na count as wrong, as model-vs-human has it; na=left-out makes "
            "them no predictions"
        )
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
    where, labelled = table.name, int(np.count_nonzero(table.labels >= 0))
    if not labelled:
        _LOG.info(
            f"note: no image of {where} has a label, so there is no accuracy and no oracle: to "
            f"have them, `clipsyn rm {store} -d {table.dataset} -s {table.split}` and import files "
            f"with a column of true classes ({', '.join(ROLES['label'])})"
        )
    elif labelled < len(table):
        _LOG.info(f"note: {labelled:,} of the {len(table):,} images of {where} have a label")


def _say_conditions(parts: Sequence[Part], dataset: str) -> None:
    """Which perturbation each condition of an experiment became."""
    known = {
        name: part.perturbation for part in parts if part.experiment for name in part.conditions
    }
    named = sorted(known.items(), key=lambda item: by_severity(item[1]))
    if len(set(known.values())) > 1:
        said = ", ".join(f"{name} is {label}" for name, label in named)
        _LOG.info(f"{dataset}: {said}")
