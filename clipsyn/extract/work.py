"""The work of an extraction: encoders, images and drafts, compared with what the store holds.

This reads images (to hash them) and the store, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from clipsyn.catalog.texts import resolve_prompts
from clipsyn.errors import DatasetError, StaleCell
from clipsyn.extract import Cost, Plan, PlannedCell, PlannedSplit, stores_logits
from clipsyn.extract.encoder import Encoder
from clipsyn.extract.images import PIXELS_VERSION
from clipsyn.images.sources import ImageSource, sample_table
from clipsyn.names import FeatureKey, Identity, Perturbation, PromptSet
from clipsyn.show.progress import Progress
from clipsyn.store.drafts import Draft, stale
from clipsyn.store.features import FeatureStore
from clipsyn.store.samples import SampleTable, changed_samples
from clipsyn.store.schema import ANSWERS, IDENTITY_VERSION
from clipsyn.text import advised


@dataclass(frozen=True, eq=False)
class ClassesWork:
    """Class embeddings of one backbone for one dataset and prompt set."""

    encoder: Encoder
    prompts: PromptSet
    class_names: tuple[str, ...]
    draft: Draft


@dataclass(frozen=True, eq=False)
class CellWork:
    """One feature cell, and what is made from it if there are class embeddings.

    `answers` are its logits, or its predictions without logits. A published group of the other kind
    (`superseded`) is stale then, or holds less.
    """

    key: FeatureKey
    encoder: Encoder
    perturbation: Perturbation
    draft: Draft
    classes: ClassesWork | None
    answers: Draft | None
    superseded: Draft | None

    @cached_property
    def images_left(self) -> int:
        return sum(len(self.draft.blocks.range(block)) for block in self.draft.pending())

    @property
    def cost(self) -> Cost:
        """Of what is not there yet, as if a tower whose GFLOPs are not known took none."""
        classes = 0
        if self.classes and self.answers and not self.answers.is_published():
            classes = len(self.classes.class_names)
        has_logits = self.answers is not None and self.answers.kind == "logits"
        images, gflops = self.draft.blocks.samples, self.encoder.gflops or 0.0
        left, width = self.images_left, self.encoder.embed_dim
        return Cost.of(images, left, gflops, width, classes, has_logits=has_logits)

    @property
    def is_needed(self) -> bool:
        """Whether embeddings, class embeddings, logits or predictions are still to be made."""
        drafts = [self.draft, self.answers, self.classes.draft if self.classes else None]
        return not all(draft.is_published() for draft in drafts if draft)


@dataclass(frozen=True)
class SplitWork:
    """One split of one dataset: the samples and every cell that is asked for on them."""

    source: ImageSource
    table: SampleTable
    samples: Draft
    cells: tuple[CellWork, ...]

    def corrects(self, store: FeatureStore) -> bool:
        """Whether labels or class names in the store differ from the source's."""
        if not self.samples.is_published():
            return True
        stored = store.samples(self.table.dataset, self.table.split)
        return (
            stored.attributes() != self.table.attributes()
            or not (stored.labels == self.table.labels).all()
        )


@dataclass(frozen=True)
class Work:
    store: FeatureStore
    splits: tuple[SplitWork, ...]
    replace: bool
    notes: tuple[str, ...]

    @property
    def cells(self) -> Iterator[CellWork]:
        return (cell for split in self.splits for cell in split.cells)

    @property
    def is_needed(self) -> bool:
        return any(cell.is_needed for cell in self.cells) or any(
            split.corrects(self.store) for split in self.splits
        )

    @property
    def classes(self) -> list[ClassesWork]:
        """Each set of class embeddings once, though several splits and perturbations use it."""
        by_target = {cell.classes.draft.target: cell.classes for cell in self.cells if cell.classes}
        return list(by_target.values())

    def plan(self) -> Plan:
        """As it stands: what is done, what the rest costs."""
        cells = []
        for split in self.splits:
            table = split.table
            size = PlannedSplit(table.dataset, table.split, len(table), len(table.class_names))
            cells += [
                PlannedCell(size, cell.perturbation, cell.key.backbone, cell.cost)
                for cell in split.cells
            ]
        return Plan(cells, {cell.key for cell in self.cells if not cell.is_needed})

    def summary(self) -> str:
        if any(cell.is_needed for cell in self.cells):
            return self.plan().summary()
        correct = ", labels or class names are to be corrected" if self.is_needed else ""
        return f"all {len([*self.cells]):,} cells are there{correct}"


@dataclass(frozen=True)
class Wanted:
    """What an extraction is asked for; everything but the images is loaded and resolved."""

    encoders: Sequence[Encoder]
    sources: Sequence[ImageSource]
    perturbations: Sequence[Perturbation]
    prompts: str | None = None  # see `resolve_prompts`
    logits: str = "clean"  # see `stores_logits`
    replace: bool = False


def load_work(store: FeatureStore, wanted: Wanted, progress: Progress) -> Work:
    """Compare what is wanted with what the store holds.

    Raises StaleCell, naming the field, if a name is taken by something made from other images,
    weights, prompts or settings and `replace` is not set; then nothing has been changed.
    """
    _check_class_names(wanted.sources)
    splits, notes = [], []
    for source in wanted.sources:
        table = sample_table(source, progress)
        prompts, note = _prompts(source, wanted.prompts)
        splits.append(_split_work(store, wanted, source, table, prompts))
        notes += [*source.notes, note]
    work = Work(store, tuple(splits), wanted.replace, tuple(dict.fromkeys(filter(None, notes))))
    _refuse_imported(work)
    if not wanted.replace:
        _refuse_stale(work)
    return work


def _prompts(source: ImageSource, spec: str | None) -> tuple[PromptSet | None, str]:
    if not source.class_names:
        return None, f"{source.name} has no class names: image embeddings only"
    return resolve_prompts(spec, source.name, source.class_names, source.templates)


def _split_work(
    store: FeatureStore,
    wanted: Wanted,
    source: ImageSource,
    table: SampleTable,
    prompts: PromptSet | None,
) -> SplitWork:
    texts = [_classes_work(store, e, table, prompts) if prompts else None for e in wanted.encoders]
    cells = []
    for perturbation in wanted.perturbations:
        for encoder, classes in zip(wanted.encoders, texts, strict=True):
            key = FeatureKey(table.dataset, table.split, perturbation.label, encoder.backbone.name)
            draft = _feature_draft(store, key, encoder, perturbation, table)
            wants = stores_logits(perturbation, wanted.logits)
            both = _answer_drafts(store, key, draft, classes, wants) if classes else (None, None)
            cells.append(CellWork(key, encoder, perturbation, draft, classes, *both))
    return SplitWork(source, table, store.samples_draft(table), tuple(cells))


def _classes_work(
    store: FeatureStore, encoder: Encoder, table: SampleTable, prompts: PromptSet
) -> ClassesWork:
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
    target = store.classes_path(table.dataset, prompts.name, encoder.backbone.name)
    sizes = {"class": len(table.class_names), "embed": encoder.embed_dim}
    draft = store.draft(target, "classes", identity, sizes)
    return ClassesWork(encoder, prompts, table.class_names, draft)


def _feature_draft(
    store: FeatureStore,
    key: FeatureKey,
    encoder: Encoder,
    perturbation: Perturbation,
    table: SampleTable,
) -> Draft:
    identity: Identity = {
        **table.identity(),
        "backbone": encoder.identity,
        "perturbation": perturbation.identity(),
        "pixels": PIXELS_VERSION,
    }
    sizes = {"sample": len(table), "embed": encoder.embed_dim}
    return store.draft(store.features_path(key), "features", identity, sizes)


def _answer_drafts(
    store: FeatureStore, key: FeatureKey, features: Draft, classes: ClassesWork, wants_logits: bool
) -> tuple[Draft, Draft]:
    """The logits or the predictions to make, and those of the other kind.

    Logits that are there already are kept, whatever is wanted.
    """
    identity: Identity = {
        "format": IDENTITY_VERSION,
        "features": features.fingerprint,
        "classes": classes.draft.fingerprint,
        "prompts": classes.prompts.name,
    }
    sizes = {"sample": features.sizes["sample"], "class": len(classes.class_names)}
    logits, predictions = (
        store.draft(store.at(kind, *key.names, classes.prompts.name), kind, identity, sizes)
        for kind in ANSWERS
    )
    if wants_logits or logits.is_published():
        return logits, predictions
    return predictions, logits


def _check_class_names(sources: Sequence[ImageSource]) -> None:
    """A class is known by its index, so all splits of a dataset must have the same classes."""
    known: dict[str, ImageSource] = {}
    for source in sources:
        other = known.setdefault(source.name, source)
        if source.class_names != other.class_names:
            raise DatasetError(
                f"{source.name}: its splits {other.split} and {source.split} have different "
                f"classes ({len(other.class_names)} and {len(source.class_names)}); list all class "
                "names in one classnames.txt"
            )


def _refuse_imported(work: Work) -> None:
    """A name stands for one cell: what was imported is never extracted over."""
    for cell in work.cells:
        if work.store.cell(cell.key).imported_as:
            raise StaleCell(
                f"{cell.key} was imported into {work.store.path}: give the backbone another name "
                "(NAME=SOURCE), or remove the import, "
                f"`{advised('rm', work.store.path, '--backbones', cell.key.backbone)}`"
            )


def _refuse_stale(work: Work) -> None:
    for split in work.splits:
        if split.samples.changes():
            old = work.store.samples(split.table.dataset, split.table.split)
            raise StaleCell(
                f"{old.dataset}/{old.split} in {work.store.path} was made from other images: "
                f"{changed_samples(old, split.table)}; add replace=True to extract it again, or "
                "give the new images another name (NAME=PATH)",
                ("samples",),
            )
    drafts = [*(classes.draft for classes in work.classes), *(cell.draft for cell in work.cells)]
    drafts += [draft for cell in work.cells for draft in (cell.answers, cell.superseded) if draft]
    for draft in drafts:
        if changes := draft.changes():
            raise stale(work.store.path, draft.target, changes)
