"""The feature store: which cells it holds and where, under their names.

Reading never writes. `docs/store.md` specifies the format, `store.files` lists the folders.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.catalog.datasets import find_dataset
from clipsyn.errors import DamagedStore, DatasetError, MissingCell, StaleCell, StoreError
from clipsyn.methods.numerics.logits import CHUNK_ROWS
from clipsyn.methods.pool import Pool
from clipsyn.names import CLEAN, MARKER, FeatureKey, Identity, Location, parse_perturbation
from clipsyn.store import files
from clipsyn.store.arrays import Blocks
from clipsyn.store.cell import Cell
from clipsyn.store.drafts import Draft, make_groups, scratch
from clipsyn.store.files import Place
from clipsyn.store.groups import ON_DISK, Group, Tree, replaced_meanwhile
from clipsyn.store.samples import MOST_IDS, CaptionTable, SampleTable, add_looks, correct
from clipsyn.text import advised

if TYPE_CHECKING:
    from clipsyn.store.writer import CellWriter

_SETTLED_NS = 100_000_000  # file systems have coarse clocks: a younger file could change unseen
_MOST_KNOWN = 1024


class FeatureStore:
    """A folder of cells, here or at a URL. Open one with `open`, make one with `create`.

    >>> from clipsyn import FeatureStore
    >>> store = FeatureStore.open("store")
    >>> [str(key) for key in store.keys(split=["test"], perturbation=["clean"])]
    ['toy/test · clean · fake/one', 'toy/test · clean · fake/two']
    >>> store.pool("toy", "test")
    <Pool toy · test · clean · simple: 20 samples, 2 backbones, 3 classes>
    """

    def __init__(self, path: Path, chunk_rows: int, tree: Tree = ON_DISK) -> None:
        self.path = path
        self.chunk_rows = chunk_rows
        self.tree = tree
        self._known: dict[Path, Group] = {}

    @classmethod
    def open(cls, path: Path | str) -> FeatureStore:
        """Open the store at a path or URL.

        URLs are of published stores: file, http, https, s3, gs and az. Of these only what is read
        travels, and is kept in a cache on this machine. Raises StoreError if no store is there.
        """
        path, tree = files.place_of(path), ON_DISK
        if isinstance(path, Location):
            from clipsyn.remote.published import Published  # above: it reads as this does

            tree = Published(path)
        try:
            return cls(path, int(tree.marker(path)["chunk_rows"]), tree)
        except (FileNotFoundError, NotADirectoryError):
            if files.is_store(path):  # made by another process between the two looks
                return cls.open(path)
            what = f"is no feature store: make one with `{advised('extract', path, '…')}`"
            if not files.is_vacant(path):
                what = "holds something else than a feature store: give another path"
            raise StoreError(f"{path} {what}") from None

    @classmethod
    def create(cls, path: Path | str, chunk_rows: int = CHUNK_ROWS) -> FeatureStore:
        """Open the store at `path`, making it first if nothing is there."""
        path = files.place_of(path)
        if isinstance(path, Location):
            raise files.written_at(path)
        if not files.is_store(path) and files.is_vacant(path):
            about = {"store_id": secrets.token_hex(16), "chunk_rows": chunk_rows}
            content = json.dumps({"format": files.FORMAT_VERSION, **about}, indent=2).encode()
            path.mkdir(parents=True, exist_ok=True)
            files.write_file(path / MARKER, content, scratch=scratch(path))
            make_groups(path, path)
        return cls.open(path)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r})"

    def check_writable(self) -> None:
        """Raise StoreError for a store at a URL."""
        if isinstance(self.path, Location):
            raise files.written_at(self.path)

    def product_rows(self, samples: int) -> int:
        """Rows that one matrix product takes, of so many samples: the same for every reader."""
        return Blocks(samples, self.chunk_rows).rows

    # Where things are

    def at(self, kind: str, *names: str) -> Path:
        """The folder of a group, or of all groups below the names that are given."""
        return self.path.joinpath(kind, *map(files.folder_name, names))

    # What there is

    def datasets(self) -> list[str]:
        """Names of the datasets that have a folder, sorted."""
        return sorted({name for kind in files.KINDS for name in self.names_in(self.path / kind)})

    def groups(
        self, kind: str, datasets: Collection[str] | None = None
    ) -> Iterator[tuple[tuple[str, ...], Path]]:
        """Names and path of each folder of a group, or of what is left of it, sorted."""
        paths = [
            self.path / kind / folder
            for folder in self.tree.folders(self.path / kind)
            if datasets is None or files.name_of_folder(folder) in datasets
        ]
        self.tree.look_in(paths)
        for _ in files.KINDS[kind][1:]:
            paths = [path / name for path in paths for name in self.tree.folders(path)]
        for path in paths:
            yield tuple(map(files.name_of_folder, files.below(self.path, path)[1:])), path

    def places(self, datasets: Collection[str] | None = None) -> list[Place]:
        """Kind and names of every group, sorted by name: the groups of a cell are neighbours."""
        groups = ((kind, *it) for kind in files.KINDS for it, _ in self.groups(kind, datasets))
        return sorted(groups, key=lambda place: place[1:])

    def group(self, path: Path) -> Group:
        """The group in a folder of the store; raises DamagedStore if another one belongs there.

        Every reader of a store comes through here. Groups are remembered for as long as their file
        stays the same.
        """
        seen, known = self.tree.seen(path), self._known.get(path)
        if known and seen and known.seen == seen:
            return known
        try:
            attributes = self.tree.attributes(path)
        except DamagedStore:
            if self.tree.seen(path) != seen or not self.tree.exists(path):
                raise replaced_meanwhile(self.path, str(path.relative_to(self.path))) from None
            raise
        group = Group(self.path, path, attributes, seen, self.tree)
        if seen and time.time_ns() - seen[1] > _SETTLED_NS:
            if len(self._known) >= _MOST_KNOWN:  # the oldest goes
                self._known.pop(next(iter(self._known)), None)
            self._known[path] = group
        return group

    def is_imported(self, path: Path) -> bool:
        """Whether the group in a folder was made elsewhere; who reads a damaged one is told so."""
        return "imported" in self._facts(path)

    def is_textless(self, path: Path) -> bool:
        """Whether the embeddings in a folder are of a backbone that has no text tower."""
        return "textless" in self._facts(path)

    def _facts(self, path: Path) -> Mapping[str, Any]:
        facts = self.tree.facts(path)
        try:
            return self.group(path).facts if facts is None else facts
        except DamagedStore:
            return {}

    def keys(self, **filters: Collection[str] | None) -> list[FeatureKey]:
        """Keys of the finished cells, and of those a part of which is lost, sorted.

        filters: dataset, split, perturbation or backbone -> names; None is no filter.
        """
        datasets = filters.get("dataset")
        there = {names[:4] for kind in files.CELLS for names, _ in self.groups(kind, datasets)}
        keys = (FeatureKey(*names) for names in sorted(there))
        wanted = {field: names for field, names in filters.items() if names is not None}
        return [
            key for key in keys if all(getattr(key, field) in wanted[field] for field in wanted)
        ]

    def names_in(self, folder: Path) -> list[str]:
        """The names of the folders in a folder of the store, sorted; [] if it does not exist."""
        return sorted(map(files.name_of_folder, self.tree.folders(folder)))

    def extract_line(self, key: FeatureKey, *options: str, others: Collection[str] = ()) -> str:
        """The command that makes a cell, and the same cell of other backbones."""
        if key.perturbation != CLEAN.label:
            options = "--perturb", key.perturbation, *options
        return self._line([key.backbone, *others], key.dataset, "--split", key.split, *options)

    def _line(self, names: Collection[str], dataset: str, *options: str) -> str:
        """The command for backbones: an import where all are imported; … is what it cannot know."""
        sources = [self._sources.get(name, name) for name in names]
        images = dataset if find_dataset(dataset) else f"{dataset}=…"
        start = ["extract", self.made_in, "--backbones", ",".join(filter(None, sources)) or "…"]
        if sources and not any(sources):
            images, start = dataset, ["import", self.made_in, "FILE…", "--backbone", min(names)]
        return advised(*start, "--dataset", images, *options)

    @property
    def made_in(self) -> str:
        """The store that a command can write to: of your own, for what lies at a URL."""
        return "STORE" if isinstance(self.path, Location) else str(self.path)

    @cached_property
    def _sources(self) -> dict[str, str | None]:
        """[NAME=]SOURCE of every backbone, as it was when it was extracted; None of imports."""
        sources: dict[str, str | None] = {}
        for (*_, backbone), path in self.groups("features"):
            if sources.get(backbone) is None and not self.is_imported(path):
                source = self.group(path).source
                sources[backbone] = backbone if source == backbone else f"{backbone}={source}"
        return dict.fromkeys((key.backbone for key in self.keys()), None) | sources

    # Reading

    def samples(self, dataset: str, split: str) -> SampleTable:
        """The sample table of a split; raises MissingCell if there is none."""
        path = self.at("samples", dataset, split)
        if not self.tree.exists(path):
            line = self._line(self._sources, dataset, "--split", split)
            raise MissingCell(f"{self.path} has no samples of {dataset}/{split}: run `{line}`")
        try:
            return SampleTable.read(dataset, split, self.group(path))
        except (DamagedStore, StaleCell):  # another command may be correcting labels
            with files.locked(path, shared=True):
                time.sleep(0.05)  # not every file system has locks
                return SampleTable.read(dataset, split, self.group(path))

    def no_labels(self, *places: tuple[str, str]) -> DatasetError:
        """The error for splits, dataset and split of each, none of whose samples has a label."""
        names = ", ".join("/".join(place) for place in places)
        return DatasetError(
            f"{names} has no labels, so nothing can be learned or judged: extract or import them; "
            f"what is there goes by `{advised('rm', self.made_in, '-d', places[0][0])}`"
        )

    def classes(self, dataset: str, prompts: str, backbone: str) -> Group:
        """The class embeddings of a backbone; raises MissingCell where there are none."""
        path = self.at("classes", dataset, prompts, backbone)
        if not self.tree.exists(path):
            raise MissingCell(
                f"{self.path} has no class embeddings of {dataset} for {backbone} with prompts "
                f"'{prompts}': run `{self._line([backbone], dataset, '--prompts', prompts)}`"
            )
        return self.group(path)

    def class_embeddings(
        self, dataset: str, prompts: str, backbone: str
    ) -> tuple[NDArray[np.float32], float]:
        """(class, embed) unit norm, and the backbone's logit scale."""
        classes = self.classes(dataset, prompts, backbone)
        return classes.read("class_embedding"), classes["logit_scale"]

    def captions(self, dataset: str, split: str) -> CaptionTable:
        """The captions of a split; raises MissingCell if there are none, StaleCell if of others."""
        return CaptionTable.read(dataset, split, self._captions(dataset, split))

    def text_embeddings(
        self, dataset: str, split: str, backbone: str, perturbation: str = CLEAN.label
    ) -> tuple[NDArray[np.float16], float]:
        """(caption, embed) unit norm, in the order of `captions`, and the backbone's logit scale.

        Raises MissingCell where there are none, StaleCell for those of other captions, or of other
        weights than the backbone's image embeddings under the perturbation.
        """
        captions = self._captions(dataset, split)
        key = FeatureKey(dataset, split, perturbation, backbone)
        if not self.tree.exists(path := self.at("texts", dataset, split, backbone)):
            what = f"{captions.name} by {backbone}: run `{self.extract_line(key)}`"
            raise MissingCell(f"{self.path} has no embeddings of {what}")
        group, line = self.group(path), self.extract_line(key, "--replace")
        group.check_of("captions", captions, line)
        if self.tree.exists(features := self.at("features", *key.names)):
            group.check_of("backbone", self.group(features), line)
        return group.read("text_embedding"), group["logit_scale"]

    def _captions(self, dataset: str, split: str) -> Group:
        path = self.at("captions", dataset, split)
        if not self.tree.exists(path):
            line = self._line(self._sources, dataset, "--split", split)
            what = f"{dataset}/{split}: run `{line}` where the dataset has some"
            raise MissingCell(f"{self.path} has no captions of {what}")
        group, samples = self.group(path), self.group(self.at("samples", dataset, split))
        group.check_of("samples", samples, self._line((), dataset, "--split", split, "--replace"))
        return group

    def pool(self, dataset: str, split: str, **which: Any) -> Pool:
        """Several backbones on the same samples, in memory.

        which: `perturbation` (a label), `backbones` (names or patterns), `prompts` (a name),
        `views` (perturbations that are augmented views). For a part of the samples, or more than
        memory holds, see `clipsyn.store.pools.PoolReader`, which takes the same.
        """
        from clipsyn.store.pools import PoolReader

        return PoolReader(self, dataset, split, **which).read()

    def cell(self, key: FeatureKey) -> Cell:
        """The cell of that name, extracted or imported, which says what it holds and reads it.

        It need not be there: reading it raises MissingCell then.
        """
        return Cell(self, key)

    # Changing

    def writer(
        self,
        samples: SampleTable,
        backbone: str,
        perturbation: str = CLEAN.label,
        *,
        prompts: str | None = None,
        made_by: str = "",
        replace: bool = False,
    ) -> CellWriter:
        """Write a cell of embeddings, logits or predictions that were made elsewhere.

        samples: those of the store (`samples`), or new ones (`SampleTable.of`), which are written
        too. prompts: the prompt set of logits or predictions, if it is known. made_by: a note on
        what made the numbers. replace: instead of other content under that name. In a ``with``
        block: the cell is visible when it has ended, and an exception leaves the store as it was.
        Raises StaleCell where the name is taken, DatasetError where the store has other samples.

        >>> import numpy as np
        >>> from clipsyn import FeatureStore, SampleTable
        >>> store = FeatureStore.open("store")
        >>> samples = SampleTable.of("digits", "test", ["a", "b"], [0, 1], ["zero", "one"])
        >>> with store.writer(samples, "mine") as cell:
        ...     cell.classes("simple", np.eye(2), scale=100.0)
        ...     cell.embeddings([[0.6, 0.8], [0.0, 1.0]])
        >>> store.pool("digits", "test").logits[:, 0].round()
        array([[ 60.,  80.],
               [  0., 100.]], dtype=float32)
        """
        from clipsyn.store.writer import CellWriter

        self.check_writable()
        label = parse_perturbation(perturbation).label
        key = FeatureKey(samples.dataset, samples.split, label, backbone)
        return CellWriter(self, samples, key, prompts=prompts, made_by=made_by, replace=replace)

    def draft(
        self, target: Path, kind: str, identity: Identity, sizes: dict[str, int], most_rows: int = 0
    ) -> Draft:
        """What will be published at `target`, or is there already; see `Draft`."""
        self.check_writable()
        return Draft(self.path, target, kind, identity, sizes, self.chunk_rows, most_rows)

    def answers_draft(
        self, kind: str, key: FeatureKey, prompts: str, features: Draft, classes: Draft
    ) -> Draft:
        """The draft of logits or predictions that follow from embeddings and classes."""
        identity: Identity = {
            "format": files.IDENTITY_VERSION,
            "features": features.fingerprint,
            "classes": classes.fingerprint,
            "prompts": prompts,
        }
        sizes = {"sample": features.sizes["sample"], "class": classes.sizes["class"]}
        path = self.at(kind, *key.names, prompts)
        return self.draft(path, kind, identity, sizes, features.blocks.rows)

    def samples_draft(self, table: SampleTable) -> Draft:
        """The draft of a sample table."""
        target = self.at("samples", table.dataset, table.split)
        sizes = {"sample": len(table), "byte": 32}
        return self.draft(target, "samples", table.identity(), sizes, MOST_IDS)

    def captions_draft(self, captions: CaptionTable, samples: SampleTable) -> Draft:
        """The draft of a table of captions, of these samples."""
        target, count = self.at("captions", captions.dataset, captions.split), len(captions)
        identity, sizes = captions.identity(samples), {"caption": count}
        return self.draft(target, "captions", identity, sizes, files.MOST_CHUNK_ROWS)

    def annotate(self, table: SampleTable) -> None:
        """Correct labels and class names of a frozen sample table; its images stay the same."""
        self.check_writable()
        path = self.at("samples", table.dataset, table.split)
        with files.locked(path):
            correct(self.group(path), table, scratch(self.path))

    def add_looks(self, dataset: str, split: str, looks: NDArray[np.uint64]) -> None:
        """Complete a frozen sample table by what its images look like: see `SampleTable`."""
        self.check_writable()
        path = self.at("samples", dataset, split)
        with files.locked(path):
            add_looks(self.group(path), looks, scratch(self.path))


def opened(store: FeatureStore | Path | str) -> FeatureStore:
    """The store of a public function, which takes the path or URL of one, too."""
    return FeatureStore.open(store) if isinstance(store, Path | str) else store
