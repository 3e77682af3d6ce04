"""The feature store: cells under their names, trusted by their fingerprints.

Reading never writes. `docs/store.md` specifies the format, `store.folders` lists the folders.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DamagedStore, DatasetError, MissingCell, StaleCell
from clipsyn.methods.numerics.logits import CHUNK_ROWS
from clipsyn.methods.pool import Pool
from clipsyn.names import CLEAN, FeatureKey, Identity, Location, parse_perturbation
from clipsyn.store import files
from clipsyn.store.cell import Cell
from clipsyn.store.contents import Contents, did_you_mean
from clipsyn.store.drafts import Draft, scratch
from clipsyn.store.marker import (
    is_store,
    is_vacant,
    place_of,
    read_marker,
    write_marker,
    written_at,
)
from clipsyn.store.samples import SampleTable, add_looks, correct
from clipsyn.text import advised, html_table

if TYPE_CHECKING:
    from clipsyn.store.writer import CellWriter

_LOOKS = 4


class FeatureStore(Contents):
    """A folder of cells, here or at a URL. Open one with `open`, make one with `create`.

    >>> from clipsyn import FeatureStore
    >>> store = FeatureStore.open("store")
    >>> [str(key) for key in store.keys(split=["test"], perturbation=["clean"])]
    ['toy/test · clean · fake/one', 'toy/test · clean · fake/two']
    >>> store.pool("toy", "test")
    <Pool toy · test · clean · simple: 20 samples, 2 backbones, 3 classes>
    """

    @classmethod
    def open(cls, path: Path | str) -> FeatureStore:
        """Open the store at a path or URL.

        URLs are of published stores: file, http, https, s3, gs and az. Of these only what is read
        travels, and is kept in a cache on this machine.

        Raises StoreError if no store is there, UnsupportedFormat if it is newer.
        """
        path = place_of(path)
        if isinstance(path, Location):
            from clipsyn.remote.published import open_published  # above: it reads as this does

            tree = open_published(path)
            return cls(path, int(tree.marker(path)["chunk_rows"]), tree)
        return cls(path, int(read_marker(path)["chunk_rows"]))

    @classmethod
    def create(cls, path: Path | str, chunk_rows: int = CHUNK_ROWS) -> FeatureStore:
        """Open the store at `path`, making it first if nothing is there."""
        path = place_of(path)
        if isinstance(path, Location):
            raise written_at(path)
        if not is_store(path) and is_vacant(path):
            write_marker(path, chunk_rows)
        return cls.open(path)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """For notebooks: the number of cells of each dataset, split and perturbation."""
        counts = Counter((key.dataset, key.split, key.perturbation) for key in self.keys())
        heads = ("dataset", "split", "perturbation", "backbones")
        return html_table(repr(self), heads, [(*where, n) for where, n in counts.items()])

    def check_writable(self) -> None:
        """Raise StoreError for a store at a URL."""
        if isinstance(self.path, Location):
            raise written_at(self.path)

    def marker(self) -> dict[str, Any]:
        """What `clipsyn.json` says: format version, id of the store, rows of a chunk."""
        return self.tree.marker(self.path)

    # Reading

    def samples(self, dataset: str, split: str) -> SampleTable:
        """The sample table of a split; raises MissingCell if there is none.

        Labels that another command is correcting are read again.
        """
        path = self.samples_path(dataset, split)
        if not self.tree.exists(path):
            elsewhere = self._only_imported(dataset=dataset)
            verb = ("import", self.made_in, "FILE…") if elsewhere else ("extract", self.made_in)
            there = [FeatureKey(name, part, "", "") for (name, part), _ in self.groups("samples")]
            near = did_you_mean(FeatureKey(dataset, split, "", ""), there)
            raise MissingCell(
                f"{self.path} has no samples of {dataset}/{split}{near}: run "
                f"`{advised(*verb, '--dataset', dataset, '--split', split)}`"
            )
        try:
            return SampleTable.read(dataset, split, self.group(path))
        except (DamagedStore, StaleCell):
            with files.locked(path, shared=True):
                return self._samples_again(dataset, split)

    def _samples_again(self, dataset: str, split: str) -> SampleTable:
        """Several times, since not every file system has locks."""
        path = self.samples_path(dataset, split)
        for _ in range(_LOOKS):
            try:
                return SampleTable.read(dataset, split, self.group(path))
            except (DamagedStore, StaleCell):
                time.sleep(0.05)
        return SampleTable.read(dataset, split, self.group(path))

    def no_labels(self, *places: tuple[str, str]) -> DatasetError:
        """The error for splits, dataset and split of each, none of whose samples has a label."""
        dataset, split = places[0]
        advice = "extract a labelled folder or a manifest with a label column"
        if self.group(self.samples_path(dataset, split)).attributes.get("imported"):
            advice = (
                f"`{advised('rm', self.made_in, '-d', dataset, '-s', split)}`, then import files "
                "with a column of true classes"
            )
        names = ", ".join("/".join(place) for place in places)
        return DatasetError(f"{names} has no labels, so nothing can be learned or judged: {advice}")

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

    def prompt_sets(self, key: FeatureKey) -> list[str]:
        """Prompt sets with class embeddings, or logits, for this backbone and dataset.

        Imported predictions of no known set stand beside those of every set of the dataset.
        """
        return self.cell(key).prompt_sets()

    def embeddings(self, key: FeatureKey, rows: range | None = None) -> NDArray[np.float16]:
        """(sample, embed) unit norm; NaN rows where the image could not be decoded."""
        return self.cell(key).embeddings(rows)

    def valid(self, key: FeatureKey, prompts: str | None = None) -> NDArray[np.bool_]:
        """(sample,) whether there is an embedding or a prediction."""
        return self.cell(key).valid(prompts)

    def fingerprint(self, key: FeatureKey, prompts: str | None = None) -> str:
        """Of a cell; prompts: which, where it was imported with several sets."""
        return self.cell(key).fingerprint(prompts)

    def logits(
        self, key: FeatureKey, prompts: str, rows: range | None = None
    ) -> NDArray[np.float32]:
        """(sample, class): stored, or derived from the embeddings by the same function."""
        return self.cell(key).logits(prompts, rows)

    def predictions(self, key: FeatureKey, prompts: str) -> NDArray[np.uint16]:
        """(sample,) class index of the largest logit, NO_PREDICTION where there is none."""
        return self.cell(key).predictions(prompts)

    def confidences(self, key: FeatureKey, prompts: str) -> NDArray[np.float32]:
        """(sample,) probability of the predicted class, as it was imported without logits."""
        return self.cell(key).confidences(prompts)

    def classes_fingerprint(self, dataset: str, prompts: str, backbone: str) -> str:
        return str(self.classes(dataset, prompts, backbone)["fingerprint"])

    def prompts_identity(self, dataset: str, prompts: str, backbone: str) -> Identity:
        """Name, templates and texts per class that class embeddings were made from."""
        identity: Identity = self.classes(dataset, prompts, backbone)["identity"]["prompts"]
        return identity

    def class_embeddings(
        self, dataset: str, prompts: str, backbone: str
    ) -> tuple[NDArray[np.float32], float]:
        """(class, embed) unit norm, and the backbone's logit scale."""
        classes = self.classes(dataset, prompts, backbone)
        return classes.read("class_embedding"), classes["logit_scale"]

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
        what made the numbers. replace: instead of other content under that name.

        Used in a ``with`` block. The cell is visible when the block has ended, and an exception in
        it leaves the store as it was. Rows may come in blocks, so memory need not hold them all.

        Raises StaleCell where the name is taken, DatasetError where the store has other samples.

        >>> import numpy as np
        >>> from clipsyn import FeatureStore, SampleTable
        >>> store = FeatureStore.open("store")
        >>> samples = SampleTable.of("digits", "test", ["a", "b"], [0, 1], ["zero", "one"])
        >>> with store.writer(samples, "mine") as cell:
        ...     cell.classes("simple", np.eye(2), scale=100.0)
        ...     cell.embeddings([[0.6, 0.8]])
        ...     cell.embeddings([[0.0, 1.0]])
        >>> store.pool("digits", "test").logits[:, 0].round()
        array([[ 60.,  80.],
               [  0., 100.]], dtype=float32)
        """
        from clipsyn.store.writer import CellWriter

        self.check_writable()
        label = parse_perturbation(perturbation).label
        key = FeatureKey(samples.dataset, samples.split, label, backbone)
        return CellWriter(self, samples, key, prompts=prompts, made_by=made_by, replace=replace)

    def draft(self, target: Path, kind: str, identity: Identity, sizes: dict[str, int]) -> Draft:
        """What will be published at `target`, or is there already; see `Draft`."""
        self.check_writable()
        return Draft(self.path, target, kind, identity, sizes, self.chunk_rows)

    def samples_draft(self, table: SampleTable) -> Draft:
        """The draft of a sample table."""
        target = self.samples_path(table.dataset, table.split)
        return self.draft(target, "samples", table.identity(), {"sample": len(table), "byte": 32})

    def annotate(self, table: SampleTable) -> None:
        """Correct labels and class names of a frozen sample table; its images stay the same."""
        self.check_writable()
        path = self.samples_path(table.dataset, table.split)
        with files.writing(self.path), files.locked(path):
            correct(self.group(path), table, scratch(self.path))

    def add_looks(self, dataset: str, split: str, looks: NDArray[np.uint64]) -> None:
        """Complete a frozen sample table by what its images look like: see `SampleTable`."""
        self.check_writable()
        path = self.samples_path(dataset, split)
        with files.writing(self.path), files.locked(path):
            add_looks(self.group(path), looks, scratch(self.path))


def opened(store: FeatureStore | Path | str) -> FeatureStore:
    """The store of a public function, which takes the path or URL of one, too."""
    return FeatureStore.open(store) if isinstance(store, Path | str) else store
