"""Where the numbers of a store come from: who made them, of what, on whose terms, citing whom.

A cell that was made elsewhere recorded less: what it does not say is None, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from clipsyn.catalog.citations import (
    ENCODERS,
    METHOD,
    SOFTWARE,
    Work,
    of_dataset,
    of_perturbation,
    of_weights,
    terms_of_weights,
    work,
)
from clipsyn.catalog.datasets import find_dataset
from clipsyn.names import FeatureKey, by_severity, parse_perturbation
from clipsyn.store.features import FeatureStore
from clipsyn.store.groups import Group
from clipsyn.text import printable

_PACKAGES = ("clipsyn", "python", "torch", "open_clip", "timm", "torchvision", "pillow", "numpy")


@dataclass(frozen=True)
class Run:
    """How cells were made: by which command, with which versions, on which device."""

    commands: tuple[str, ...]  # () where none was recorded: from Python, or by an older clipsyn
    versions: tuple[tuple[str, str], ...]
    device: str | None
    made_by: str | None  # a note of who wrote an imported cell
    hosts: tuple[str, ...] = field(default=(), compare=False)  # the machine does not matter


@dataclass(frozen=True)
class Weights:
    """The weights of a backbone, as far as the store says: of imports, nothing but the name."""

    backbone: str
    source: str | None
    digest: str | None
    precision: str | None
    files: tuple[str, ...] = ()  # that an imported cell was read from

    @property
    def shown(self) -> str | None:
        return portable(self.source) if self.source else None

    @property
    def cited(self) -> tuple[Work, ...]:
        """By the source of the weights; of an import, by its name."""
        return of_weights(self.source or self.backbone)

    @property
    def licence(self) -> str | None:
        terms = terms_of_weights(self.source) if self.source else None
        return terms.licence if terms else None


@dataclass(frozen=True)
class Images:
    """The images of one split."""

    dataset: str
    split: str
    count: int
    digest: str
    licence: str

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.split}"

    @property
    def cited(self) -> tuple[Work, ...]:
        info = find_dataset(self.dataset)
        return of_dataset(info.name) if info else ()


@dataclass(frozen=True)
class Made:
    """One cell, and where it comes from."""

    key: FeatureKey
    fingerprint: str
    imported: str | None  # what an imported cell holds
    when: str | None
    run: Run
    weights: Weights
    images: Images

    def json(self) -> dict[str, Any]:
        weights, images, run = self.weights, self.images, self.run
        return {
            **vars(self.key),
            "fingerprint": self.fingerprint,
            "imported": self.imported,
            "made": self.when,
            "commands": list(run.commands),
            "made_by": run.made_by,
            "versions": dict(run.versions),
            "device": run.device,
            "hosts": list(run.hosts),
            "weights": {
                "source": weights.source,
                "sha256": weights.digest,
                "precision": weights.precision,
                "files": list(weights.files),
                "licence": weights.licence,
                "cite": [work.key for work in weights.cited],
            },
            "images": {
                "count": images.count,
                "samples": images.digest,
                "licence": images.licence or None,
                "cite": [work.key for work in images.cited],
            },
        }


def made(store: FeatureStore, keys: Iterable[FeatureKey] | None = None) -> list[Made]:
    """Where cells come from, all of the store if `keys` is None; by severity within a split."""
    there = store.keys() if keys is None else keys
    ordered = sorted(there, key=lambda key: (key.dataset, key.split, by_severity(key.perturbation)))
    splits = dict.fromkeys((key.dataset, key.split) for key in ordered)
    images = {split: images_of(store, *split) for split in splits}
    return [_made(store, key, images[key.dataset, key.split]) for key in ordered]


def images_of(store: FeatureStore, dataset: str, split: str) -> Images:
    """What is known of the images of a split; its sample table is not read."""
    group = store.group(store.samples_path(dataset, split))
    return Images(
        dataset,
        split,
        group.sizes["sample"],
        str(group["identity"]["samples"]),
        str(group["licence"]),
    )


def portable(source: str) -> str:
    """Where weights come from, of a path its last part: what is handed on names no folders."""
    for mark in ("local-dir:", "@"):
        kind, found, path = source.partition(mark)
        if found:
            return f"{kind}{mark}{PurePath(path).name}"
    return source


def distinct_runs(cells: Sequence[Made]) -> dict[Run, list[Made]]:
    """Cells by how they were made, in order."""
    runs: dict[Run, list[Made]] = {}
    for cell in cells:
        runs.setdefault(cell.run, []).append(cell)
    return runs


def _made(store: FeatureStore, key: FeatureKey, images: Images) -> Made:
    cell = store.cell(key)
    group = cell.group()
    known = group.provenance
    return Made(
        key,
        str(group["fingerprint"]),
        cell.imported_as,
        known.get("finished") or known.get("written"),
        _run(known),
        _weights(key.backbone, group, cell.imported_as),
        images,
    )


def _run(known: Mapping[str, Any]) -> Run:
    workers = known.get("workers") or [known]
    encoder = known.get("encoder") or {}
    told = {name: [str(w[name]) for w in workers if w.get(name)] for name in ("command", "host")}
    return Run(
        tuple(dict.fromkeys(told["command"])),
        tuple(_versions(workers, encoder)),
        encoder.get("device"),
        known.get("made_by"),
        tuple(dict.fromkeys(told["host"])),
    )


def _versions(
    workers: Iterable[Mapping[str, Any]], encoder: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Name and version of each package; both versions where workers had different ones."""
    for name in _PACKAGES:
        said = dict.fromkeys(str(at[name]) for at in (*workers, encoder) if at.get(name))
        if said:
            yield name, " and ".join(said)


def _weights(backbone: str, group: Group, imported: str | None) -> Weights:
    if imported:
        files = tuple(str(file["file"]) for file in group["source"])
        return Weights(backbone, None, None, None, files)
    identity = group["identity"]["backbone"]
    named = [identity.get(name) for name in ("architecture", "pretrained")]
    source = "/".join(named) if all(named) else group.source or backbone
    return Weights(backbone, source, str(identity["weights"]), str(identity["precision"]))


# Citations


@dataclass(frozen=True)
class Citations:
    """Works with what of the cells each is cited for, in order: the method, the software, weights,
    datasets, perturbations.
    """

    works: tuple[tuple[Work, tuple[str, ...]], ...]
    unknown: tuple[str, ...]  # sentences: what no work is known for, or by its name alone

    def json(self) -> dict[str, Any]:
        works = [
            {"key": cited.key, "kind": cited.kind, **cited.fields, "for": list(reasons)}
            for cited, reasons in self.works
        ]
        return {"works": works, "unknown": list(self.unknown)}

    def bibtex(self) -> str:
        """Each entry below a line that says what it is for; there @ would begin an entry."""
        return "\n\n".join(
            f"% for {printable(', '.join(reasons)).replace('@', '(at)')}\n{cited.bibtex()}"
            for cited, reasons in self.works
        )


def citations(cells: Sequence[Made]) -> Citations:
    """What to cite for cells, which `made` gives."""
    reasons: dict[str, dict[str, None]] = {}
    for key, reason in _cited(cells):
        reasons.setdefault(key, {})[reason] = None
    found = tuple((work(key), tuple(names)) for key, names in reasons.items())
    return Citations(found, tuple(dict.fromkeys(_unknown(cells))))


def _cited(cells: Sequence[Made]) -> Iterator[tuple[str, str]]:
    """Key of a work, and a thing that it is cited for."""
    yield METHOD, "the method"
    yield SOFTWARE, "the software"
    if any(cell.imported is None for cell in cells):
        yield ENCODERS, "loading the backbones"
    names = [parse_perturbation(cell.key.perturbation).name for cell in cells]
    found = [
        *((cell.weights.cited, cell.weights.backbone) for cell in cells),
        *((cell.images.cited, cell.images.dataset) for cell in cells),
        *((of_perturbation(name), name) for name in names),
    ]
    for works, reason in found:
        yield from ((known.key, reason) for known in works)


def _unknown(cells: Sequence[Made]) -> Iterator[str]:
    yield from filter(None, map(_about_weights, cells))
    for cell in cells:
        if not cell.images.cited:
            yield f"no citation is known for the dataset {cell.images.dataset}: see its source"


def _about_weights(cell: Made) -> str | None:
    name, weights = cell.weights.backbone, cell.weights
    if cell.imported:
        what = f"{name} was imported ({cell.imported})"
        if weights.cited:
            return f"{what}: it is cited by its name, which nothing proves"
        return f"{what}: cite who made it, which the store does not know"
    if weights.cited:
        return None
    where = weights.shown or name
    if where.startswith("hf-hub:"):
        page = f"https://huggingface.co/{where.removeprefix('hf-hub:')}"
        return f"no citation is known for the weights {name}: see {page}"
    return f"no citation is known for the weights {name} ({where}): see their source"
