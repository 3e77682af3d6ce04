"""The feature store: cells under their names, trusted by their fingerprints.

    samples/<dataset>/<split>/                              which images
    classes/<dataset>/<prompts>/<backbone>/                 class embeddings
    features/<dataset>/<split>/<perturbation>/<backbone>/   image embeddings
    logits/<dataset>/<split>/<perturbation>/<backbone>/<prompts>/
    imports/<dataset>/<split>/<perturbation>/<backbone>/    what was made elsewhere
    prompted/<dataset>/<split>/<perturbation>/<backbone>/<prompts>/    with a prompt set

Reading never writes. `docs/store.md` specifies the format.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DamagedStore, MissingCell, StaleCell
from clipsyn.logits import predictions, zero_shot_logits
from clipsyn.pool import Pool
from clipsyn.printable import html_table
from clipsyn.registry import near_matches
from clipsyn.schema import CHUNK_ROWS
from clipsyn.specs import FeatureKey, Identity, differences
from clipsyn.store import files
from clipsyn.store.drafts import scratch, writing
from clipsyn.store.folders import KINDS, folder_name, name_of_folder
from clipsyn.store.groups import Groups, Refuse, StoredGroup
from clipsyn.store.imports import FOLDERS as IMPORTS
from clipsyn.store.imports import PROMPTS, Imported, chosen_of, prompt_sets_in
from clipsyn.store.marker import is_store, is_vacant, read_marker, write_marker
from clipsyn.store.samples import SampleTable, correct

_WITH_CELLS = ("features", *IMPORTS, "logits")
_LOOKS = 4
_ALIKE = 0.8  # of 1: what is missing may as well be a name that is still to be extracted


class FeatureStore:
    """A folder of cells. Open one with `open`, make one with `create`."""

    def __init__(self, path: Path, chunk_rows: int) -> None:
        self.path = path
        self.chunk_rows = chunk_rows
        self._groups = Groups(path)

    @classmethod
    def open(cls, path: Path | str) -> FeatureStore:
        """Open a store; raises StoreError if none is there, UnsupportedFormat if it is newer."""
        path = Path(path)
        return cls(path, int(read_marker(path)["chunk_rows"]))

    @classmethod
    def create(cls, path: Path | str, chunk_rows: int = CHUNK_ROWS) -> FeatureStore:
        """Open the store at `path`, making it first if nothing is there."""
        path = Path(path)
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

    def marker(self) -> dict[str, Any]:
        """What `clipsyn.json` says: format version, id of the store, rows of a chunk."""
        return read_marker(self.path)

    # Where things are

    def samples_path(self, dataset: str, split: str) -> Path:
        return self._groups.at("samples", dataset, split)

    def classes_path(self, dataset: str, prompts: str, backbone: str) -> Path:
        return self._groups.at("classes", dataset, prompts, backbone)

    def features_path(self, key: FeatureKey) -> Path:
        return self._groups.at("features", *key.names)

    def logits_path(self, key: FeatureKey, prompts: str) -> Path:
        return self._groups.at("logits", *key.names, prompts)

    def imports_path(self, key: FeatureKey, prompts: str | None = None) -> Path:
        if prompts is None:
            return self._groups.at("imports", *key.names)
        return self._groups.at("prompted", *key.names, prompts)

    # What there is

    def groups(
        self, kind: str, refuse: Refuse | None = None
    ) -> Iterator[tuple[tuple[str, ...], Path]]:
        """Names and path of every group of a kind, and of what is left of one, sorted.

        `refuse` is told of folders that cannot be read; without it they are an error.
        """
        return self._groups.find(kind, refuse)

    def group(self, path: Path) -> StoredGroup:
        """The group in a folder of the store; raises DamagedStore if it is not what belongs there.

        All that is read of a store is read through this.
        """
        return self._groups.open(path)

    def keys(
        self,
        *,
        dataset: Collection[str] | None = None,
        split: Collection[str] | None = None,
        perturbation: Collection[str] | None = None,
        backbone: Collection[str] | None = None,
    ) -> list[FeatureKey]:
        """Keys of the finished cells, extracted and imported, sorted; None is no filter.

        Logits without the features that they were made from are a cell of which a part is lost.
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

    def imported(self, key: FeatureKey, prompts: str | None = None) -> Imported | None:
        """The cell, if it was made elsewhere; of several prompt sets the asked-for, or first, one.

        Raises MissingCell where there are others than `prompts`.
        """
        path = self.imports_path(key)
        if not files.exists(path):
            if not (there := prompt_sets_in(self.imports_path(key, "any").parent)):
                return None
            path = self.imports_path(key, chosen_of(key, prompts, there))
        return Imported(key, path, self.samples_path(key.dataset, key.split), self.group)

    def prompt_sets(self, key: FeatureKey) -> list[str]:
        """Prompt sets with class embeddings, or logits, for this backbone and dataset.

        Imported predictions of no known set stand beside those of every set of the dataset.
        """
        if there := prompt_sets_in(self.imports_path(key, "any").parent):
            return there
        cell = self.imported(key)
        if cell and not cell.has_predictions:
            return []
        of_dataset = self._groups.at("classes", key.dataset)
        if cell:
            found = [name for name in files.folders(of_dataset) if files.folders(of_dataset / name)]
            return sorted(map(name_of_folder, found)) or [PROMPTS]
        own = folder_name(key.backbone)
        found = [
            name for name in files.folders(of_dataset) if files.exists(of_dataset / name / own)
        ]
        with_logits = self._groups.at("logits", *key.names)
        return sorted(map(name_of_folder, {*found, *files.folders(with_logits)}))

    # Reading

    def samples(self, dataset: str, split: str) -> SampleTable:
        """The sample table of a split; raises MissingCell if there is none.

        Labels that another command corrects just now are looked at again.
        """
        path = self.samples_path(dataset, split)
        if not files.exists(path):
            elsewhere = dataset in self._only_imported("dataset")
            verb = f"import {self.path} FILE…" if elsewhere else f"extract {self.path}"
            there = [FeatureKey(of, part, "", "") for (of, part), _ in self.groups("samples")]
            near = _did_you_mean(FeatureKey(dataset, split, "", ""), there)
            raise MissingCell(
                f"{self.path} has no samples of {dataset}/{split}{near}: run "
                f"`clipsyn {verb} --dataset {dataset} --split {split}`"
            )
        for _ in range(_LOOKS):
            try:
                return SampleTable.read(dataset, split, self.group(path))
            except (DamagedStore, StaleCell):
                time.sleep(0.05)
        return SampleTable.read(dataset, split, self.group(path))

    def pool(self, dataset: str, split: str, **which: Any) -> Pool:
        """Several backbones on the same samples, in memory.

        which: `perturbation` (a label), `backbones` (names or patterns), `prompts` (a name),
        `views` (perturbations that are augmented views). For a part of the samples, or more than
        memory holds, see `clipsyn.store.pools.PoolReader`, which takes the same.
        """
        from clipsyn.store.pools import PoolReader

        return PoolReader(self, dataset, split, **which).read()

    def embeddings(self, key: FeatureKey, rows: range | None = None) -> NDArray[np.float16]:
        """(sample, embed) unit norm; NaN rows where the image could not be decoded."""
        return self.cell(key, "image_embedding").read("image_embedding", rows)

    def valid(self, key: FeatureKey, prompts: str | None = None) -> NDArray[np.bool_]:
        return self.cell(key, "valid", prompts).read("valid")

    def fingerprint(self, key: FeatureKey, prompts: str | None = None) -> str:
        """Of a cell; prompts: which, where it was imported with several sets."""
        return str(self.cell(key, "valid", prompts)["fingerprint"])

    def classes_fingerprint(self, dataset: str, prompts: str, backbone: str) -> str:
        return str(self._classes(dataset, prompts, backbone)["fingerprint"])

    def encoder(self, key: FeatureKey) -> tuple[Identity, str]:
        """What of a cell's backbone decides its embeddings, and where that was loaded from."""
        cell = self._features(key)
        decisive = {**cell["identity"]["backbone"], "pixels": cell["identity"]["pixels"]}
        return decisive, _source_of(cell, key.backbone)

    def prompts_identity(self, dataset: str, prompts: str, backbone: str) -> Identity:
        """Name, templates and texts per class that class embeddings were made from."""
        found: Identity = self._classes(dataset, prompts, backbone)["identity"]["prompts"]
        return found

    def class_embeddings(
        self, dataset: str, prompts: str, backbone: str
    ) -> tuple[NDArray[np.float32], float]:
        """(class, embed) unit norm, and the backbone's logit scale."""
        classes = self._classes(dataset, prompts, backbone)
        return classes.read("class_embedding"), classes["logit_scale"]

    def logits(
        self, key: FeatureKey, prompts: str, rows: range | None = None
    ) -> NDArray[np.float32]:
        """(sample, class): stored, or derived from the embeddings by the same function."""
        if cell := self.imported(key, prompts):
            return cell.holding("logit").read("logit", rows)
        if stored := self._logits(key, prompts):
            return stored.read("logit", rows)
        return self._derived_logits(key, prompts, rows)

    def predictions(self, key: FeatureKey, prompts: str) -> NDArray[np.uint16]:
        """(sample,) class index of the largest logit, NO_PREDICTION where there is none."""
        if cell := self.imported(key, prompts):
            return cell.holding("prediction").read("prediction")
        if stored := self._logits(key, prompts):
            return stored.read("prediction")
        return predictions(self._derived_logits(key, prompts, None))

    def confidences(self, key: FeatureKey, prompts: str) -> NDArray[np.float32]:
        """(sample,) probability of the predicted class, as it was imported without logits."""
        return self.cell(key, "confidence", prompts).read("confidence")

    def has_confidences(self, key: FeatureKey) -> bool:
        """Whether it is known how sure each prediction is: from logits, or imported with it."""
        cell = self.imported(key)
        return self.has_logits(key) or (cell is not None and cell.has_confidences)

    def has_logits(self, key: FeatureKey) -> bool:
        """Whether there are logits beside the predictions; only imported cells may lack them."""
        cell = self.imported(key)
        return cell is None or cell.kind == "logits"

    def cell(
        self, key: FeatureKey, array: str = "valid", prompts: str | None = None
    ) -> StoredGroup:
        """The cell, extracted or imported, of the images that the store's sample table lists.

        Raises MissingCell if it is not there or has not the array, StaleCell if it is of others.
        """
        imported = self.imported(key, prompts)
        return imported.holding(array) if imported else self._features(key)

    def found(self, key: FeatureKey) -> StoredGroup:
        """The group of a cell, extracted or imported, whatever it was made from."""
        if imported := self.imported(key):
            return imported.group
        path = self.features_path(key)
        if not files.exists(path):
            if files.exists(self._groups.at("logits", *key.names)):
                raise self._lost(key, "features")
            near = _did_you_mean(key, self.keys())
            raise MissingCell(f"{self.path} has no {key}{near}: run `{self.extract_line(key)}`")
        return self.group(path)

    def _lost(self, key: FeatureKey, what: str) -> DamagedStore:
        return DamagedStore(
            f"{self.path} has logits of {key}, but the {what} that they were made from are lost: "
            f"put them back, or run `{self.extract_line(key)}`"
        )

    def _features(self, key: FeatureKey) -> StoredGroup:
        cell = self.found(key)
        listed = self.group(self.samples_path(key.dataset, key.split))["identity"]["samples"]
        if cell["identity"]["samples"] != listed:
            raise StaleCell(
                f"{key} was extracted from other images than the store's sample table lists now "
                f"(samples): run `{self.extract_line(key)} --replace`",
                ("samples",),
            )
        return cell

    def _classes(self, dataset: str, prompts: str, backbone: str) -> StoredGroup:
        path = self.classes_path(dataset, prompts, backbone)
        if not files.exists(path):
            source = self._sources.get(backbone, backbone)
            there = [names for names, _ in self.groups("classes")]
            sets = {name for of, name, by in there if (of, by) == (dataset, backbone)}
            known = [FeatureKey(of, "", "", by) for of, _, by in there]
            near = _did_you_mean(FeatureKey(dataset, "", "", backbone), known)
            near = f" (there are {', '.join(sorted(sets))})" if sets else near
            raise MissingCell(
                f"{self.path} has no class embeddings of {dataset} for {backbone} with prompts "
                f"'{prompts}'{near}: run `clipsyn extract {self.path} --dataset {dataset} "
                f"--backbones {source} --prompts {prompts}`"
            )
        return self.group(path)

    def _logits(self, key: FeatureKey, prompts: str) -> StoredGroup | None:
        """The stored logits, if they are there, having checked what logits are made from."""
        features = self._features(key)
        path = self.logits_path(key, prompts)
        stored = self.group(path) if files.exists(path) else None
        if stored and not files.exists(self.classes_path(key.dataset, prompts, key.backbone)):
            raise self._lost(key, f"class embeddings of prompts '{prompts}'")
        classes = self._classes(key.dataset, prompts, key.backbone)
        self._check_class_names(key, prompts, classes)
        if stored is None:
            self._check_encoders(key, prompts, features, classes)
            return None
        for name, source in (("features", features), ("classes", classes)):
            if stored["identity"][name] != source["fingerprint"]:
                raise StaleCell(
                    f"the logits of {key} were made from other {name} than stored now ({name}): "
                    f"run `{self.extract_line(key)} --prompts {prompts} --replace`",
                    (name,),
                )
        return stored

    def check_sources(self, key: FeatureKey, prompts: str) -> None:
        """Raise StaleCell where logits are not of the embeddings that are stored beside them."""
        self._logits(key, prompts)

    def _check_encoders(
        self, key: FeatureKey, prompts: str, features: StoredGroup, classes: StoredGroup
    ) -> None:
        """Refuse embeddings of images and of classes that other weights of one name have made."""
        of = [group["identity"]["backbone"] for group in (features, classes)]
        if changes := tuple(name for name, _, _ in differences(of[0], of[1], "backbone")):
            raise StaleCell(
                f"image and class embeddings of {key} are not of the same backbone "
                f"({', '.join(changes)}): run "
                f"`{self.extract_line(key)} --prompts {prompts} --replace`",
                changes,
            )

    def _check_class_names(self, key: FeatureKey, prompts: str, classes: StoredGroup) -> None:
        samples = self.group(self.samples_path(key.dataset, key.split))
        if classes["identity"]["class_names"] != samples["class_names"]:
            raise StaleCell(
                f"class embeddings of {key.dataset} for {key.backbone} are of other class names "
                f"(class_names): run `{self.extract_line(key)} --prompts {prompts} --replace`",
                ("class_names",),
            )

    def _derived_logits(
        self, key: FeatureKey, prompts: str, rows: range | None
    ) -> NDArray[np.float32]:
        features = self._features(key)
        classes, scale = self.class_embeddings(key.dataset, prompts, key.backbone)
        block_rows = features.layout("image_embedding").rows
        images = features.read("image_embedding", rows)
        return zero_shot_logits(images, classes, scale, rows=block_rows)

    def extract_line(self, key: FeatureKey) -> str:
        """The command that makes a cell; of a backbone known from imports alone, another import."""
        perturb = "" if key.perturbation == "clean" else f" --perturb {key.perturbation}"
        cells = f"--dataset {key.dataset} --split {key.split}{perturb}"
        if key.backbone in self._only_imported("backbone"):
            return f"clipsyn import {self.path} FILE… --backbone {key.backbone} {cells}"
        backbone = self._sources.get(key.backbone, key.backbone)
        return f"clipsyn extract {self.path} --backbones {backbone} {cells}"

    @cached_property
    def _sources(self) -> dict[str, str]:
        """[NAME=]SOURCE of every backbone in the store, as it was when it was extracted."""
        found = {}
        for (*_, backbone), path in self.groups("features"):
            if backbone not in found:
                source = _source_of(self.group(path), backbone)
                found[backbone] = backbone if source == backbone else f"{backbone}={source}"
        return found

    def _only_imported(self, dimension: str) -> set[str]:
        """Datasets, or backbones, that nothing was extracted of."""
        at = KINDS["features"].index(dimension)
        elsewhere = {names[at] for kind in IMPORTS for names, _ in self.groups(kind)}
        return elsewhere - {names[at] for names, _ in self.groups("features")}

    # Changing

    def annotate(self, table: SampleTable) -> None:
        """Correct labels and class names of a frozen sample table; its images stay the same."""
        group = self.group(self.samples_path(table.dataset, table.split))
        with writing(self.path):
            correct(group, table, scratch(self.path))


def _did_you_mean(key: FeatureKey, there: Collection[FeatureKey]) -> str:
    """Names of the store that a name of a key may have been meant for, to stand in a message."""
    found: list[str] = []
    for field, name in vars(key).items():
        known = {getattr(other, field) for other in there}
        if name not in known:
            found += near_matches(name, sorted(known), _ALIKE)
    return f" (did you mean {', '.join(found)}?)" if found else ""


def _source_of(group: StoredGroup, default: str) -> str:
    provenance = group.attributes.get("provenance", {})
    return str(provenance.get("encoder", {}).get("source", default))
