"""The verb `extract`: names in, a filled store out. The command line and recipes both call this.

Importing this module is cheap; torch and open_clip come with the first job.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from clipsyn.catalog.backbones import cost_of, resolve_backbones
from clipsyn.catalog.datasets import find_dataset, resolve_datasets
from clipsyn.catalog.texts import NAMED, resolve_prompts
from clipsyn.errors import DatasetError, UsageError
from clipsyn.extract import ExtractSettings, Plan, PlannedBackbone, PlannedSplit, planned_cells
from clipsyn.images.perturb import expand
from clipsyn.methods.numerics.blocks import usable_cores
from clipsyn.methods.numerics.logits import CHUNK_ROWS
from clipsyn.names import (
    Perturbation,
    listed,
    parse_shard,
)
from clipsyn.show.progress import Progress
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import is_vacant

if TYPE_CHECKING:
    from clipsyn.extract.run import RunSettings
    from clipsyn.extract.work import Work
    from clipsyn.images.sources import ImageSource

_T = TypeVar("_T")
_LOG = logging.getLogger("clipsyn")
_CPU_BATCH, _GPU_BATCH = 64, 256


def plan_job(path: Path, job: ExtractSettings) -> Plan:
    """What the job would do, as far as it is known without loading weights.

    Loads, downloads and writes nothing. Raises as `load_job` does for what cannot work whatever
    is here.
    """
    tune_process_memory()
    from clipsyn.extract.encoder import resolve_device, resolve_precision
    from clipsyn.extract.weights import look_for

    settings_for(job)
    resolve_precision(job.precision, resolve_device(job.device))
    datasets, splits, perturbations = _asked(job)
    backbones = [
        PlannedBackbone(b.name, *look_for(b), known.image_gflops if (known := cost_of(b)) else None)
        for b in resolve_backbones(job.backbones)
    ]
    sizes = _of_each(datasets, splits, partial(_planned_split, job))
    cells = planned_cells(backbones, sizes, perturbations, job.logits)
    done = () if is_vacant(path) else FeatureStore.open(path).keys()
    return Plan(cells, done, backbones, sizes)


def load_job(path: Path, job: ExtractSettings, progress: Progress) -> tuple[Work, RunSettings]:
    """Load backbones, read images, and compare with the store at `path`; writes nothing."""
    tune_process_memory()
    from clipsyn.extract.encoder import load_encoder
    from clipsyn.extract.work import Wanted, load_work

    store = FeatureStore(path, CHUNK_ROWS) if is_vacant(path) else FeatureStore.open(path)
    store.check_writable()
    settings = settings_for(job)
    datasets, splits, perturbations = _asked(job)
    sources = _of_each(datasets, splits, partial(_opened, job, download=job.download))
    encoders = [
        load_encoder(backbone, device=job.device, precision=job.precision)
        for backbone in resolve_backbones(job.backbones)
    ]
    wanted = Wanted(encoders, sources, perturbations, job.prompts, job.logits, job.replace)
    return load_work(store, wanted, progress), settings


def run_job(work: Work, settings: RunSettings, progress: Progress) -> None:
    """Make the store if there is none, and do the work."""
    from clipsyn.extract.run import run

    FeatureStore.create(work.store.path, work.store.chunk_rows)
    run(work, settings, progress)


def _asked(job: ExtractSettings) -> tuple[list[str], list[str], list[Perturbation]]:
    """Datasets, splits and perturbations; raises UsageError if a list is empty."""
    datasets, splits = resolve_datasets(job.datasets), _distinct(job.splits, "splits=…")
    perturbations = expand(_distinct(job.perturbations, "perturbations=…"))
    asked = {"datasets": datasets, "splits": splits, "perturbations": perturbations}
    for name, named in asked.items():
        if not named:
            raise UsageError(f"{name}=… is empty, perhaps a variable that is not set: name one")
    return datasets, splits, perturbations


def _planned_split(job: ExtractSettings, dataset: str, split: str) -> PlannedSplit:
    """The images if they are here, else the catalogue's numbers; nothing is downloaded."""
    try:
        source = _opened(job, dataset, split)
    except DatasetError as error:
        info = find_dataset(dataset)
        if info is None or info.shipped or split not in info.splits:
            raise
        if job.prompts not in NAMED:  # a file is looked at, though the class names are not here
            resolve_prompts(job.prompts, info.name, (), ())
        return PlannedSplit(info.name, split, info.splits[split].n, info.classes, str(error))
    if source.class_names:
        resolve_prompts(job.prompts, source.name, source.class_names, source.templates)
    return PlannedSplit(source.name, split, len(source), len(source.class_names))


def _opened(job: ExtractSettings, dataset: str, split: str, download: bool = False) -> ImageSource:
    from clipsyn.extract.sources import open_source

    alone = len(_distinct(job.splits, "splits=…")) == 1
    return open_source(dataset, split, root=job.data_root, download=download, alone=alone)


def _of_each(
    datasets: Sequence[str], splits: Sequence[str], look: Callable[[str, str], _T]
) -> list[_T]:
    """look(dataset, split) of every split; raises DatasetError naming all that it fails for."""
    seen: list[_T] = []
    failed: dict[str, DatasetError] = {}
    for dataset in datasets:
        try:
            seen += [look(dataset, split) for split in splits]
        except DatasetError as error:
            failed[dataset] = error
    if len(failed) == 1:
        raise next(iter(failed.values()))
    if failed:
        for name, reason in failed.items():
            _LOG.info("note: %s: %s", name, reason)
        raise DatasetError(
            f"{len(failed)} of {len(datasets)} datasets cannot be read ({', '.join(failed)}), "
            "each for the reason above: mend that, or leave them out of datasets=…"
        )
    return seen


def settings_for(job: ExtractSettings) -> RunSettings:
    """The settings of the run on this machine."""
    from clipsyn.extract.encoder import resolve_device
    from clipsyn.extract.run import RunSettings

    on_cpu = resolve_device(job.device).type == "cpu"
    cores = usable_cores()
    return RunSettings(
        batch_size=job.batch_size or (_CPU_BATCH if on_cpu else _GPU_BATCH),
        workers=job.workers or min(cores, 16),
        lanes=min(cores, 8) if on_cpu else 1,
        shard=parse_shard(job.shard),
        max_bad=job.max_bad,
    )


def _distinct(texts: Sequence[str], option: str) -> list[str]:
    return list(dict.fromkeys(listed(texts, option)))


def tune_process_memory() -> None:
    """What must be set before torch is imported; docs/dev/decisions.md says what it gains."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            # glibc: keep freed activations instead of faulting them in anew
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
            libc.mallopt(_M_ARENA_MAX, 1)  # other threads' own arenas give large blocks back


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of malloc.h
