"""What is to be made: names in; encoders, images and drafts out, compared with what a store holds.

`load_job` loads weights and hashes images, refuses what would be of others than the store's, and
writes nothing. Importing this module is cheap; torch and open_clip come with the first job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from clipsyn.catalog.backbones import resolve_backbones
from clipsyn.catalog.datasets import resolve_prompts
from clipsyn.errors import StaleCell, UsageError
from clipsyn.extract import PIXELS_VERSION, ExtractSettings, stores_logits, tune_process_memory
from clipsyn.extract.plan import asked, opened
from clipsyn.methods.numerics.logits import CHUNK_ROWS
from clipsyn.names import FeatureKey, Identity, Perturbation, PromptSet
from clipsyn.show.progress import Progress
from clipsyn.store.drafts import Draft, stale
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import ANSWERS, IDENTITY_VERSION, is_vacant
from clipsyn.store.samples import CaptionTable, SampleTable, changed_samples, check_fits
from clipsyn.text import advised

if TYPE_CHECKING:
    from clipsyn.extract.encoder import Encoder
    from clipsyn.images.source import ImageSource


@dataclass(frozen=True, eq=False)
class Texts:
    """What the classes of a dataset, or the captions of a split, are to one backbone."""

    encoder: Encoder
    what: str  # as progress names them
    rows: Sequence[Sequence[str]]  # the prompts of each class, or the text of each caption
    draft: Draft


@dataclass(frozen=True, eq=False)
class Cell:
    """One feature cell, and what is made from it if there are class embeddings.

    `answers` are its logits, or its predictions without logits. A published group of the other kind
    (`superseded`) is stale then, or holds less.
    """

    key: FeatureKey
    encoder: Encoder
    perturbation: Perturbation
    draft: Draft
    classes: Texts | None
    captions: Texts | None
    answers: Draft | None
    superseded: Draft | None

    @property
    def texts(self) -> list[Texts]:
        """What is to be there before it is published."""
        return [it for it in (self.classes, self.captions) if it]

    @property
    def images_left(self) -> int:
        return sum(len(self.draft.blocks.range(block)) for block in self.draft.pending())

    @property
    def is_needed(self) -> bool:
        """Whether embeddings of images or texts, logits or predictions are still to be made."""
        drafts = [self.draft, self.answers, *(it.draft for it in self.texts)]
        return not all(draft.is_published() for draft in drafts if draft)


@dataclass(frozen=True, eq=False)
class Split:
    """One split of one dataset: the samples and every cell that is asked for on them."""

    source: ImageSource
    table: SampleTable
    samples: Draft
    captions: tuple[CaptionTable, Draft] | None
    cells: tuple[Cell, ...]

    @property
    def drafts(self) -> list[Draft]:
        """What is to be there beside the cells."""
        return [self.samples, *(self.captions[1:] if self.captions else ())]

    def corrects(self, store: FeatureStore) -> bool:
        """Whether labels or class names in the store differ from the source's."""
        if not all(draft.is_published() for draft in self.drafts):
            return True
        stored, table = store.samples(self.table.dataset, self.table.split), self.table
        same_labels = (stored.labels == table.labels).all()
        return not same_labels or stored.attributes() != table.attributes()


@dataclass(frozen=True)
class Work:
    store: FeatureStore
    splits: tuple[Split, ...]
    job: ExtractSettings
    notes: tuple[str, ...]

    @property
    def cells(self) -> Iterator[Cell]:
        return (cell for split in self.splits for cell in split.cells)

    @property
    def is_needed(self) -> bool:
        return any(cell.is_needed for cell in self.cells) or any(
            split.corrects(self.store) for split in self.splits
        )

    @property
    def texts(self) -> list[Texts]:
        """Each once, though several splits and perturbations use it."""
        by_target = {it.draft.target: it for cell in self.cells for it in cell.texts}
        return list(by_target.values())

    def summary(self) -> str:
        cells = list(self.cells)
        if needed := [cell for cell in cells if cell.is_needed]:
            images = sum(cell.images_left for cell in needed)
            return (
                f"{len(needed):,} of {len(cells):,} cells to make: {images:,} images through a "
                "backbone"
            )
        correct = ", labels or class names are to be corrected" if self.is_needed else ""
        return f"all {len(cells):,} cells are there{correct}"


def load_job(path: Path, job: ExtractSettings, progress: Progress) -> Work:
    """Load backbones, read images, and compare with the store at `path`."""
    tune_process_memory()
    from clipsyn.extract.encoder import load_encoder

    store = FeatureStore(path, CHUNK_ROWS) if is_vacant(path) else FeatureStore.open(path)
    store.check_writable()
    datasets, splits, perturbations = asked(job)
    sources = [opened(job, *it, download=job.download) for it in product(datasets, splits)]
    encoders = [
        load_encoder(backbone, device=job.device, precision=job.precision)
        for backbone in resolve_backbones(job.backbones)
    ]
    return load_work(store, job, encoders, sources, perturbations, progress=progress)


def run_job(work: Work, progress: Progress) -> None:
    """Make the store if there is none, and do the work."""
    from clipsyn.extract.run import RunSettings, run

    run(work, RunSettings.of(work.job), progress)


def load_work(
    store: FeatureStore,
    job: ExtractSettings,
    encoders: Sequence[Encoder],
    sources: Sequence[ImageSource],
    perturbations: Sequence[Perturbation],
    *,
    progress: Progress,
) -> Work:
    """Hash the images, and compare what is wanted with what the store holds.

    Raises StaleCell, naming the field, if a name is taken by something made from other images,
    weights, prompts or settings and `job.replace` is not set; then nothing has been changed.
    UsageError for two sources of one name and split.
    """
    from clipsyn.images.source import sample_table

    splits: list[Split] = []
    notes: list[str] = []
    for source in sources:
        if any((it.table.dataset, it.table.split) == (source.name, source.split) for it in splits):
            raise UsageError(f"two datasets are called '{source.name}': name one with NAME=PATH")
        table = sample_table(source, progress, job.hashes)
        others = [split.table for split in splits if split.table.dataset == table.dataset]
        check_fits(others, table, store.path)
        kept = "embeddings of images and captions" if any(source.captions) else "image embeddings"
        prompts, note = None, f"{source.name} has no class names: {kept} only"
        if names := source.class_names:
            prompts, note = resolve_prompts(job.prompts, source.name, names, source.templates)
        captions = CaptionTable.of(table, source.captions) if any(source.captions) else None
        texts = [
            (
                _classes(store, it, table, prompts) if prompts and it.tells_classes else None,
                _captions(store, it, captions) if captions and it.reads_texts else None,
            )
            for it in encoders
        ]
        cells = tuple(
            _cell(store, encoder, its, table, perturbation, logits=job.logits)
            for perturbation in perturbations
            for encoder, its in zip(encoders, texts, strict=True)
        )
        listed = (captions, store.captions_draft(captions, table)) if captions else None
        splits.append(Split(source, table, store.samples_draft(table), listed, cells))
        notes += [*source.notes, note]
        if captions:
            bare = [it.backbone.name for it in encoders if not it.reads_texts]
            notes += [f"{name} has no text tower: captions are left out" for name in bare]
    bare = [it.backbone.name for it in encoders if not it.tells_classes]
    notes += [f"{name} has no text tower: image embeddings only" for name in bare]
    work = Work(store, tuple(splits), job, tuple(dict.fromkeys(filter(None, notes))))
    _refuse_others(work)
    return work


def _classes(
    store: FeatureStore, encoder: Encoder, table: SampleTable, prompts: PromptSet
) -> Texts:
    identity: Identity = {
        "format": IDENTITY_VERSION,
        "backbone": encoder.identity,
        "dataset": table.dataset,
        "class_names": list(table.class_names),
        "prompts": {
            "name": prompts.name,
            "templates": list(prompts.templates),
            "per_class": {name: list(texts) for name, texts in prompts.per_class.items()},
        },
    }
    if encoder.classes is not None and len(encoder.classes) != len(table.class_names):
        raise UsageError(
            f"'{encoder.backbone.name}' tells {len(encoder.classes):,} classes apart, and "
            f"{table.dataset} has {len(table.class_names):,}: take its features, without ':logits'"
        )
    target = store.at("classes", table.dataset, prompts.name, encoder.backbone.name)
    sizes = {"class": len(table.class_names), "embed": encoder.embed_dim}
    draft = store.draft(target, "classes", identity, sizes)
    rows = [prompts.prompts(name) for name in table.class_names]
    return Texts(encoder, f"prompts {prompts.name}", rows, draft)


def _captions(store: FeatureStore, encoder: Encoder, table: CaptionTable) -> Texts:
    identity: Identity = {
        "format": IDENTITY_VERSION,
        "backbone": encoder.identity,
        "dataset": table.dataset,
        "split": table.split,
        "captions": table.digest,
    }
    target = store.at("texts", table.dataset, table.split, encoder.backbone.name)
    sizes = {"caption": len(table), "embed": encoder.embed_dim}
    rows = [(text,) for text in table.texts]
    what = f"captions of {table.dataset}/{table.split}"
    return Texts(encoder, what, rows, store.draft(target, "texts", identity, sizes))


def _cell(
    store: FeatureStore,
    encoder: Encoder,
    texts: tuple[Texts | None, Texts | None],
    table: SampleTable,
    perturbation: Perturbation,
    *,
    logits: str,
) -> Cell:
    key = FeatureKey(table.dataset, table.split, perturbation.label, encoder.backbone.name)
    identity: Identity = {
        **table.identity(),
        "backbone": encoder.identity,
        "perturbation": perturbation.identity(),
        "pixels": PIXELS_VERSION,
    }
    sizes = {"sample": len(table), "embed": encoder.embed_dim}
    draft = store.draft(store.at("features", *key.names), "features", identity, sizes)
    answers, superseded = (None, None)
    if classes := texts[0]:
        prompts = classes.draft.identity["prompts"]["name"]
        answers, superseded = (
            store.answers_draft(kind, key, prompts, draft, classes.draft) for kind in ANSWERS
        )
        if not (stores_logits(perturbation, logits) or answers.is_published()):
            answers, superseded = superseded, answers  # logits that are there are kept
    return Cell(key, encoder, perturbation, draft, *texts, answers, superseded)


def _refuse_others(work: Work) -> None:
    """Raise StaleCell for names of something else; what was imported is never replaced."""
    for cell in work.cells:
        if work.store.cell(cell.key).imported_as:
            raise StaleCell(
                f"{cell.key} was imported into {work.store.path}: give the backbone another name "
                "(NAME=SOURCE), or remove the import, "
                f"`{advised('rm', work.store.path, '--backbones', cell.key.backbone)}`"
            )
    if work.job.replace:
        return
    for split in work.splits:
        if split.samples.changes():
            old = work.store.samples(split.table.dataset, split.table.split)
            raise StaleCell(
                f"{old.dataset}/{old.split} in {work.store.path} was made from other images: "
                f"{changed_samples(old, split.table)}; add replace=True to extract it again, or "
                "give the new images another name (NAME=PATH)",
                ("samples",),
            )
    drafts = [*(it.draft for it in work.texts), *(cell.draft for cell in work.cells)]
    drafts += [it.captions[1] for it in work.splits if it.captions]
    drafts += [draft for cell in work.cells for draft in (cell.answers, cell.superseded) if draft]
    for draft in drafts:
        if changes := draft.changes():
            raise stale(work.store.path, draft.target, changes)
