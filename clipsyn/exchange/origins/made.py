"""Who made the cells of a store: versions, device, date and command, from which weights and images.

A cell of an older clipsyn recorded less: what it does not say is None, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from clipsyn.catalog.citations import Work, of_dataset, of_weights, terms_of_weights
from clipsyn.catalog.datasets import find_dataset
from clipsyn.names import FeatureKey, by_severity
from clipsyn.store.contents import source_of
from clipsyn.store.features import FeatureStore
from clipsyn.store.groups import Group

_PACKAGES = ("clipsyn", "python", "torch", "open_clip", "timm", "torchvision", "pillow", "numpy")


@dataclass(frozen=True)
class Run:
    """How cells were made: by which command, with which versions, on which device."""

    commands: tuple[str, ...]  # () where none was recorded: from Python, or by an older clipsyn
    versions: tuple[tuple[str, str], ...]
    device: str | None
    made_by: str | None  # a note of who wrote an imported cell
    hosts: tuple[str, ...] = ()


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
    """Cells by how they were made, in order; the machine apart, which does not matter."""
    runs: dict[Run, list[Made]] = {}
    for cell in cells:
        run = cell.run
        runs.setdefault(Run(run.commands, run.versions, run.device, run.made_by), []).append(cell)
    return runs


def _made(store: FeatureStore, key: FeatureKey, images: Images) -> Made:
    cell = store.cell(key)
    group = cell.group()
    known = cell.provenance
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
    source = "/".join(named) if all(named) else source_of(group, backbone)
    return Weights(backbone, source, str(identity["weights"]), str(identity["precision"]))
