"""What a store holds and where, and the command that makes what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from clipsyn.errors import DamagedStore, MissingCell, StoreError
from clipsyn.names import FeatureKey, Location
from clipsyn.registry import near_matches
from clipsyn.store import files
from clipsyn.store.folders import ANSWERS, KINDS, folder_name, name_of_folder
from clipsyn.store.groups import Group
from clipsyn.store.schema import IMPORTED
from clipsyn.store.tree import ON_DISK, Tree
from clipsyn.text import advised

_WITH_CELLS = ("features", *ANSWERS)
_ALIKE = 0.8  # of 1; high, since a missing name may well be new
_SETTLED_NS = 100_000_000  # file systems have coarse clocks: a younger file could change unseen
_MOST_KNOWN = 1024

Refuse = Callable[[StoreError], None]


class Contents:
    """Paths, names and groups of a store; `FeatureStore` reads the numbers."""

    def __init__(self, path: Path, chunk_rows: int, tree: Tree = ON_DISK) -> None:
        self.path = path
        self.chunk_rows = chunk_rows
        self.tree = tree
        self._known: dict[Path, Group] = {}
        self._sound: set[Path] = set()  # folders above groups, none of them a link

    @property
    def made_in(self) -> str:
        """The store that a command can write to: of your own, for what lies at a URL."""
        return "STORE" if isinstance(self.path, Location) else str(self.path)

    # Where things are

    def at(self, kind: str, *names: str) -> Path:
        """The folder of a group, or of all groups below the names that are given."""
        return self.path.joinpath(kind, *map(folder_name, names))

    def samples_path(self, dataset: str, split: str) -> Path:
        return self.at("samples", dataset, split)

    def classes_path(self, dataset: str, prompts: str, backbone: str) -> Path:
        return self.at("classes", dataset, prompts, backbone)

    def features_path(self, key: FeatureKey) -> Path:
        return self.at("features", *key.names)

    def places(self, key: FeatureKey) -> Iterator[Path]:
        """The folders of all that is read of a cell."""
        yield self.samples_path(key.dataset, key.split)
        for kind in _WITH_CELLS:
            yield self.at(kind, *key.names)
        for prompts in self.names_in(self.at("classes", key.dataset)):
            yield self.classes_path(key.dataset, prompts, key.backbone)

    # What there is

    def groups(
        self, kind: str, refuse: Refuse | None = None
    ) -> Iterator[tuple[tuple[str, ...], Path]]:
        """Names and path of every folder where a group of a kind belongs, sorted.

        There is a group in each, or what is left of one. `refuse` is told of folders that cannot
        be read; without it they are an error.
        """
        for folders in _below(self.tree, self.path / kind, len(KINDS[kind]), refuse):
            yield tuple(map(name_of_folder, folders)), self.path.joinpath(kind, *folders)

    def group(self, path: Path) -> Group:
        """The group in a folder of the store; raises DamagedStore if another one belongs there.

        Every reader of a store comes through here. Groups are remembered for as long as their file
        stays the same.
        """
        seen = self.tree.seen(path)
        known = self._known.get(path)
        if known and seen and known.seen == seen:
            return known
        if self.tree is ON_DISK and path.parent not in self._sound:
            files.check_folders(self.path, path.parent)
            self._sound.add(path.parent)
        group = Group(self.path, path, self.tree.attributes(path), seen, self.tree)
        if seen and time.time_ns() - seen[1] > _SETTLED_NS:
            if len(self._known) >= _MOST_KNOWN:  # the oldest goes
                self._known.pop(next(iter(self._known)), None)
            self._known[path] = group
        return group

    def is_imported(self, path: Path) -> bool:
        """Whether the group in a folder was made elsewhere; of a damaged one, what it still says.

        Who reads it is told of the damage.
        """
        if (facts := self.tree.facts(path)) is not None:
            return "imported" in facts
        try:
            return self.group(path).imported
        except DamagedStore:
            with suppress(DamagedStore):
                identity = self.tree.attributes(path).get("identity")
                return isinstance(identity, dict) and identity.get("source") == IMPORTED
            return False

    def classes(self, dataset: str, prompts: str, backbone: str) -> Group:
        """The class embeddings of a backbone; raises MissingCell where there are none."""
        path = self.classes_path(dataset, prompts, backbone)
        if not self.tree.exists(path):
            source = self._sources.get(backbone, backbone)
            sets, known = set(), []
            for (its_dataset, its_prompts, its_backbone), _ in self.groups("classes"):
                known.append(FeatureKey(its_dataset, "", "", its_backbone))
                if (its_dataset, its_backbone) == (dataset, backbone):
                    sets.add(its_prompts)
            near = did_you_mean(FeatureKey(dataset, "", "", backbone), known)
            near = f" (there are {', '.join(sorted(sets))})" if sets else near
            wanted = "--dataset", dataset, "--backbones", source, "--prompts", prompts
            raise MissingCell(
                f"{self.path} has no class embeddings of {dataset} for {backbone} with prompts "
                f"'{prompts}'{near}: run `{advised('extract', self.made_in, *wanted)}`"
            )
        return self.group(path)

    def keys(
        self,
        *,
        dataset: Collection[str] | None = None,
        split: Collection[str] | None = None,
        perturbation: Collection[str] | None = None,
        backbone: Collection[str] | None = None,
    ) -> list[FeatureKey]:
        """Keys of the finished cells, extracted and imported, sorted; None is no filter.

        Logits or predictions without the features that they were made from are a cell of which a
        part is lost.
        """
        filters = (dataset, split, perturbation, backbone)
        there = {names[:4] for kind in _WITH_CELLS for names, _ in self.groups(kind)}
        return [
            FeatureKey(*names)
            for names in sorted(there)
            if all(
                wanted is None or name in wanted
                for name, wanted in zip(names, filters, strict=True)
            )
        ]

    def names_in(self, folder: Path) -> list[str]:
        """The names of the folders in a folder of the store, sorted; [] if it does not exist."""
        return sorted(map(name_of_folder, self.tree.folders(folder)))

    # What is not there

    def extract_line(self, key: FeatureKey, *options: str) -> str:
        """The command that makes a cell: an import, if the backbone has imported cells alone."""
        cells = ["--dataset", key.dataset, "--split", key.split]
        if key.perturbation != "clean":
            cells += ["--perturb", key.perturbation]
        cells += options
        if self._only_imported(backbone=key.backbone):
            return advised("import", self.made_in, "FILE…", "--backbone", key.backbone, *cells)
        backbone = self._sources.get(key.backbone, key.backbone)
        return advised("extract", self.made_in, "--backbones", backbone, *cells)

    @cached_property
    def _sources(self) -> dict[str, str]:
        """[NAME=]SOURCE of every backbone in the store, as it was when it was extracted."""
        sources = {}
        for (*_, backbone), path in self.groups("features"):
            if backbone not in sources and not self.is_imported(path):
                source = source_of(self.group(path), backbone)
                sources[backbone] = backbone if source == backbone else f"{backbone}={source}"
        return sources

    def _only_imported(self, **name: str) -> bool:
        """Whether a dataset, or backbone, has imported cells alone, and any."""
        keys = self.keys(**{dimension: [wanted] for dimension, wanted in name.items()})
        made_here = (key for key in keys if not self._is_made_elsewhere(key))
        return bool(keys) and not any(made_here)

    def _is_made_elsewhere(self, key: FeatureKey) -> bool:
        paths = [self.features_path(key)]
        if not self.tree.exists(paths[0]):
            folders = [self.at(kind, *key.names) for kind in ANSWERS]
            paths = [folder / name for folder in folders for name in self.tree.folders(folder)]
        return any(map(self.is_imported, paths))


def _below(
    tree: Tree, folder: Path, depth: int, refuse: Refuse | None
) -> Iterator[tuple[str, ...]]:
    """Names of the folders `depth` levels below, each with the names of those above it."""
    try:
        names = tree.folders(folder)
    except StoreError as error:
        if refuse is None:
            raise
        refuse(error)
        return
    for name in names:
        if depth == 1:
            yield (name,)
        else:
            for rest in _below(tree, folder / name, depth - 1, refuse):
                yield (name, *rest)


def did_you_mean(key: FeatureKey, there: Collection[FeatureKey]) -> str:
    """The end of a message: names of the store that are like the unknown names of a key."""
    near: list[str] = []
    for field, name in vars(key).items():
        known = {getattr(other, field) for other in there}
        if name not in known:
            near += near_matches(name, sorted(known), _ALIKE)
    return f" (did you mean {', '.join(near)}?)" if near else ""


def source_of(group: Group, default: str) -> str:
    return str(encoder_of(group).get("source") or default)


def encoder_of(group: Group) -> Mapping[str, Any]:
    """What was recorded of the encoder, if anything was."""
    return (group.attributes.get("provenance") or {}).get("encoder") or {}
