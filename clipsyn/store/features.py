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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DamagedStore, MissingCell, StaleCell
from clipsyn.numerics.logits import predictions, zero_shot_logits
from clipsyn.pool import Pool
from clipsyn.printable import html_table
from clipsyn.schema import CHUNK_ROWS
from clipsyn.specs import FeatureKey, Identity, differences
from clipsyn.store import files
from clipsyn.store.contents import Contents, did_you_mean, source_of
from clipsyn.store.drafts import scratch, writing
from clipsyn.store.groups import StoredGroup
from clipsyn.store.marker import is_store, is_vacant, read_marker, write_marker
from clipsyn.store.samples import SampleTable, correct

_LOOKS = 4


class FeatureStore(Contents):
    """A folder of cells. Open one with `open`, make one with `create`."""

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
            near = did_you_mean(FeatureKey(dataset, split, "", ""), there)
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
        return decisive, source_of(cell, key.backbone)

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
            near = did_you_mean(key, self.keys())
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
            near = did_you_mean(FeatureKey(dataset, "", "", backbone), known)
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

    # Changing

    def annotate(self, table: SampleTable) -> None:
        """Correct labels and class names of a frozen sample table; its images stay the same."""
        group = self.group(self.samples_path(table.dataset, table.split))
        with writing(self.path):
            correct(group, table, scratch(self.path))
