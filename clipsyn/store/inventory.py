"""The contents of a store as rows for tables, and how parts of it are removed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipsyn.errors import DamagedStore, MissingCell
from clipsyn.names import FeatureKey, fingerprint
from clipsyn.store.contents import Refuse, encoder_of
from clipsyn.store.drafts import discard, writing
from clipsyn.store.facts import groups_there
from clipsyn.store.features import FeatureStore
from clipsyn.store.folders import IMPORTS, KINDS, ORDER, Place, place
from clipsyn.store.listed import Listing
from clipsyn.store.tree import ON_DISK, Tree
from clipsyn.text import advised


@dataclass(frozen=True)
class Group:
    """One group, or what is left of it: its kind, its names by dimension, its path."""

    kind: str
    names: Mapping[str, str]
    path: Path
    tree: Tree = ON_DISK

    @property
    def place(self) -> Place:
        return (self.kind, *self.names.values())

    @property
    def size(self) -> int:
        """Bytes of its files; less while another command is removing it."""
        return self.tree.size(self.path)


def find_groups(
    store: FeatureStore, filters: Mapping[str, Collection[str]], refuse: Refuse | None = None
) -> list[Group]:
    """Groups whose names pass all filters; kinds that lack a filtered dimension are left out.

    filters: dimension of KINDS -> names. One on backbones finds features, logits and class
    embeddings, but no samples. `refuse` is told of folders that cannot be read; without it
    they are an error.
    """
    groups = []
    for kind, dimensions in KINDS.items():
        if not set(filters) <= set(dimensions):
            continue
        for names, path in store.groups(kind, refuse):
            named = dict(zip(dimensions, names, strict=True))
            if all(named[dimension] in wanted for dimension, wanted in filters.items()):
                groups.append(Group(kind, named, path, store.tree))
    return groups


def cell_rows(store: FeatureStore) -> list[dict[str, Any]]:
    """One row a cell: its names, images, width, bytes with its logits, fingerprint.

    Perturbations come in order of severity. `imported` is what an imported cell holds, None for
    one that was extracted; `embed` is None where there are no embeddings. Of a dataset that shows
    each image under one condition alone, `images` counts those of the cell's.
    """
    groups = store.tree.listed()
    try:
        return Listing(groups_there(store) if groups is None else groups).rows()
    except DamagedStore:
        lost = map(store.cell, store.keys())
        for cell in lost:
            cell.group()  # says what is lost, and what to do
        raise


def describe(store: FeatureStore) -> dict[str, Any]:
    """The store as a whole: format, every backbone with its provenance, imports, every dataset."""
    marker = store.marker()
    backbones: dict[str, Any] = {}
    for (*_, backbone), path in store.groups("features"):
        if backbone not in backbones:
            group = store.group(path)
            identity, encoder = group["identity"]["backbone"], encoder_of(group)
            kept = {name: identity[name] for name in ("weights", "precision", "preprocess")}
            backbones[backbone] = {**encoder, **kept}
    imports: dict[str, Any] = {}
    elsewhere = [group for kind in IMPORTS for group in store.groups(kind)]
    for (_, _, _, backbone, *_), path in elsewhere:
        group = store.group(path)
        entry = imports.setdefault(backbone, {"kinds": [], "files": []})
        for field, values in (("kinds", [group["identity"]["kind"]]), ("files", group["source"])):
            entry[field] += [value for value in values if value not in entry[field]]
    datasets = {}
    for (dataset, split), path in store.groups("samples"):
        group = store.group(path)
        datasets[f"{dataset}/{split}"] = {
            "images": group.sizes["sample"],
            "classes": len(group["class_names"]),
            "metric": group["metric"],
            "licence": group["licence"],
            "samples": group["identity"]["samples"],
            "imported": group.attributes.get("imported", False),
        }
    return {**marker, "backbones": backbones, "imports": imports, "datasets": datasets}


def describe_group(store: FeatureStore, name: str) -> dict[str, Any]:
    """Attributes and arrays of one group, by its path within the store."""
    path = store.path / name
    if not store.tree.seen(path) or "kind" not in store.tree.attributes(path):
        line = advised("ls", store.path)
        raise MissingCell(f"{store.path} has no group {name}: see `{line}`")
    group = store.group(path)
    shapes = {name: [str(array.numpy), *array.shape] for name, array in group.arrays.items()}
    return {**group.attributes, "arrays": shapes}


def cells_of_group(store: FeatureStore, name: str) -> list[FeatureKey]:
    """The cells that a group, by its path within the store, is or belongs to."""
    describe_group(store, name)  # says what is wrong with a name
    kind, *names = place(store.path, store.path / name)
    named = dict(zip(KINDS[kind], names, strict=True))
    named.pop("prompts", None)
    return store.keys(**{dimension: [text] for dimension, text in named.items()})


def group_digest(store: FeatureStore, group: Group) -> str:
    """A digest that changes with anything a reader sees of the group, labels included."""
    if facts := store.tree.facts(group.path):
        return str(facts["content"])
    stored = store.group(group.path)
    seen = {name: stored[name] for name in stored.attributes.keys() - {"provenance", "digest"}}
    if group.kind == "samples":
        seen["labels"] = stored.read("label").tolist()
    return fingerprint(seen)


def remove(store: FeatureStore, groups: Collection[Group]) -> None:
    """Remove groups from the store; each is removed as a whole or stays.

    Sources go after what is made from them, so that stopping midway leaves no half of a cell.
    """
    store.check_writable()
    with writing(store.path):
        for group in sorted(groups, key=lambda group: -ORDER.index(group.kind)):
            with suppress(FileNotFoundError):  # another command was faster
                discard(store.path, group.path)
