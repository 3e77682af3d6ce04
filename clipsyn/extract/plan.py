"""What would be made, told by names alone, before weights are loaded and images are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby, product
from pathlib import Path
from typing import TYPE_CHECKING

from clipsyn.catalog.backbones import resolve_backbones
from clipsyn.catalog.datasets import NAMED, find_dataset, resolve_datasets, resolve_prompts
from clipsyn.errors import DatasetError, StaleCell, UsageError
from clipsyn.extract import (
    Cost,
    ExtractSettings,
    Plan,
    PlannedCell,
    stores_logits,
    together,
    tune_process_memory,
)
from clipsyn.images.perturb import expand
from clipsyn.methods.numerics.logits import CHUNK_ROWS
from clipsyn.names import FeatureKey, Perturbation, listed
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import ANSWERS, is_vacant

if TYPE_CHECKING:
    from clipsyn.images.source import ImageSource

_Found = tuple[int | None, float | None, bool]  # width, GFLOPs, and whether its weights are here


def plan_job(path: Path, job: ExtractSettings) -> Plan:
    """What the job would do, as far as it is known without loading weights.

    Loads, downloads and writes nothing. Raises as `load_job` does for what cannot work whatever
    is here.
    """
    tune_process_memory()
    from clipsyn.extract.encoder import source_of

    found = {it.name: source_of(it).find(it) for it in resolve_backbones(job.backbones)}
    return _planned(path, job, found)


def count_parts(path: Path, job: ExtractSettings) -> float:
    """How many workers at most find something to do, by names alone, and without torch.

    Raises as `load_job` does for names of datasets, splits and perturbations, and StaleCell for
    images that are more or fewer than the store's.
    """
    backbones = [it.name for it in resolve_backbones(job.backbones)]
    plan, parts = _planned(path, job, dict.fromkeys(backbones, (None, None, False))), 0.0
    left = plan.keys.difference(() if job.replace else plan.done)
    left |= unanswered(path, plan, job.prompts)
    store = None if is_vacant(path) else FeatureStore.open(path)
    rows = store.chunk_rows if store else CHUNK_ROWS
    for place, group in groupby(plan.cells, key=lambda cell: cell.key.names[:2]):
        cells = list(group)
        images = cells[0].images
        if store and not job.replace and "/".join(place) not in plan.missing:
            _refuse_other_number(store, cells[0])
        for some in together(cell.key.perturbation for cell in cells):
            if any(cell.key in left and cell.key.perturbation in some for cell in cells):
                parts += math.inf if images is None else math.ceil(images / rows)
    return parts


def _refuse_other_number(store: FeatureStore, cell: PlannedCell) -> None:
    """Raise StaleCell where the store's sample table has more or fewer images than there are."""
    dataset, split = cell.key.dataset, cell.key.split
    if not store.tree.exists(store.at("samples", dataset, split)):
        return
    count = len(store.samples(dataset, split))
    if cell.images not in (None, count):
        raise StaleCell(
            f"{dataset}/{split} in {store.path} has {count:,} images, and there are "
            f"{cell.images:,} now: add replace=True to extract it again, or give the new images "
            "another name (NAME=PATH)",
            ("samples",),
        )


def unanswered(path: Path, plan: Plan, prompts: str) -> set[FeatureKey]:
    """The cells that are there without predictions of a prompt set; `auto` may be any of them."""
    cells = [cell for cell in plan.cells if cell.key in plan.done and cell.classes != 0]
    if not cells:
        return set()
    store, name = FeatureStore.open(path), prompts if prompts in NAMED else Path(prompts).stem
    stored = [cell for cell in (store.cell(it.key) for it in cells) if not cell.is_textless]
    sets = {  # of what is written: from class embeddings alone readers could derive the rest
        it.key: [name for kind in ANSWERS for name in store.names_in(store.at(kind, *it.key.names))]
        for it in stored
    }
    return {key for key, has in sets.items() if not (has if prompts == "auto" else name in has)}


def _planned(path: Path, job: ExtractSettings, backbones: Mapping[str, _Found]) -> Plan:
    """The plan for backbones of which so much is known."""
    datasets, splits, perturbations = asked(job)
    sizes = [_size(job, dataset, split) for dataset, split in product(datasets, splits)]
    cells = []
    for (dataset, split, images, classes, _), perturbation, name in product(
        sizes, perturbations, backbones
    ):
        width, gflops, _ = backbones[name]
        n, c, work, d = (math.nan if it is None else it for it in (images, classes, gflops, width))
        answer = (4 * c * stores_logits(perturbation, job.logits) + 2) if c else 0  # bytes an image
        cost = Cost(n, n * work, n * (2 * d + 1) / 1e6, n * answer / 1e6)
        key = FeatureKey(dataset, split, perturbation.label, name)
        cells.append(PlannedCell(key, images, classes, cost))
    missing = {f"{dataset}/{split}": why for dataset, split, _, _, why in sizes if why}
    done = () if is_vacant(path) else FeatureStore.open(path).keys()
    return Plan(cells, done, backbones, missing)


def asked(job: ExtractSettings) -> tuple[list[str], list[str], list[Perturbation]]:
    """Datasets, splits and perturbations; raises UsageError if a list is empty."""
    datasets, splits = resolve_datasets(job.datasets), _distinct(job.splits, "splits=…")
    perturbations = expand(_distinct(job.perturbations, "perturbations=…"))
    given = {"datasets": datasets, "splits": splits, "perturbations": perturbations}
    for name, named in given.items():
        if not named:
            raise UsageError(f"{name}=… is empty, perhaps a variable that is not set: name one")
    return datasets, splits, perturbations


def _distinct(texts: Sequence[str], option: str) -> list[str]:
    return list(dict.fromkeys(listed(texts, option)))


def _size(
    job: ExtractSettings, dataset: str, split: str
) -> tuple[str, str, int | None, int | None, str]:
    """Dataset, split, images, classes, and why the images are not here.

    Without them the numbers are the catalogue's; nothing is downloaded.
    """
    try:
        source = opened(job, dataset, split)
    except (DatasetError, ImportError) as error:  # the latter of a torchvision that is not here
        info = find_dataset(dataset)
        if info is None or info.shipped or split not in info.splits:
            raise
        if job.prompts not in NAMED:  # a file is looked at, though the class names are not here
            resolve_prompts(job.prompts, info.name, (), ())
        return info.name, split, info.splits[split].n, info.classes, str(error)
    if source.class_names:
        resolve_prompts(job.prompts, source.name, source.class_names, source.templates)
    return source.name, split, len(source), len(source.class_names), ""


def opened(job: ExtractSettings, dataset: str, split: str, download: bool = False) -> ImageSource:
    """The images of a split that is asked for."""
    from clipsyn.extract.images import open_source

    alone = len(_distinct(job.splits, "splits=…")) == 1
    return open_source(dataset, split, root=job.data_root, download=download, alone=alone)
