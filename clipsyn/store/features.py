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

import json
import secrets
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.documents import parse_json
from clipsyn.errors import MissingCell, StaleCell, StoreError, UnsupportedFormat
from clipsyn.logits import predictions, zero_shot_logits
from clipsyn.pool import Pool
from clipsyn.schema import CHUNK_ROWS, FORMAT_VERSION
from clipsyn.specs import FeatureKey, Identity, differences
from clipsyn.store import arrays
from clipsyn.store.drafts import WIP, make_groups, scratch, writing
from clipsyn.store.folders import KINDS, folder_name, name_of_folder
from clipsyn.store.imports import FOLDERS as IMPORTS
from clipsyn.store.imports import PROMPTS, Imported, chosen_of, prompt_sets_in
from clipsyn.store.samples import SampleTable

_MARKER = "clipsyn.json"


def _other_thing(path: Path) -> StoreError:
    return StoreError(f"{path} holds something else than a feature store: give another path")


def is_vacant(path: Path) -> bool:
    """Whether a store can be made there: nothing is, or a folder with no file that is whole."""
    if not path.exists():
        return True
    return path.is_dir() and all(file.name == WIP for file in path.iterdir())


def is_store(path: Path) -> bool:
    return (path / _MARKER).is_file()


class FeatureStore:
    """A folder of cells. Open one with `open`, make one with `create`."""

    def __init__(self, path: Path, chunk_rows: int) -> None:
        self.path = path
        self.chunk_rows = chunk_rows

    @classmethod
    def open(cls, path: Path | str) -> FeatureStore:
        """Open a store; raises StoreError if none is there, UnsupportedFormat if it is newer."""
        path = Path(path)
        try:
            marker = cls(path, CHUNK_ROWS).marker()
            version, chunk_rows = str(marker["format"]), int(marker["chunk_rows"])
        except (FileNotFoundError, NotADirectoryError):
            if is_store(path):  # made by another process between the two looks
                return cls.open(path)
            if not is_vacant(path):
                raise _other_thing(path) from None
            raise StoreError(
                f"{path} is no feature store: make one with `clipsyn extract {path} …`"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise UnsupportedFormat(f"{path / _MARKER} cannot be read: {error}") from error
        if version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
            raise UnsupportedFormat(
                f"{path} has format {version}, this clipsyn reads {FORMAT_VERSION}: "
                "pip install --upgrade clipsyn"
            )
        return cls(path, chunk_rows)

    @classmethod
    def create(cls, path: Path | str, chunk_rows: int = CHUNK_ROWS) -> FeatureStore:
        """Open the store at `path`, making it first if nothing is there."""
        path = Path(path)
        if is_store(path) or not is_vacant(path):
            return cls.open(path)
        marker = {
            "format": FORMAT_VERSION,
            "store_id": secrets.token_hex(16),
            "chunk_rows": chunk_rows,
        }
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            content = json.dumps(marker, indent=2).encode()
            arrays.write_file(path / _MARKER, content, scratch=scratch(path))
            make_groups(path, path)
        return cls.open(path)

    def marker(self) -> dict[str, Any]:
        """What `clipsyn.json` says: format version, id of the store, rows of a chunk."""
        marker: dict[str, Any] = parse_json((self.path / _MARKER).read_bytes())
        return marker

    # Where things are

    def samples_path(self, dataset: str, split: str) -> Path:
        return self._path("samples", dataset, split)

    def classes_path(self, dataset: str, prompts: str, backbone: str) -> Path:
        return self._path("classes", dataset, prompts, backbone)

    def features_path(self, key: FeatureKey) -> Path:
        return self._path("features", key.dataset, key.split, key.perturbation, key.backbone)

    def logits_path(self, key: FeatureKey, prompts: str) -> Path:
        return self._path("logits", key.dataset, key.split, key.perturbation, key.backbone, prompts)

    def imports_path(self, key: FeatureKey, prompts: str | None = None) -> Path:
        kind, of_prompts = ("imports", ()) if prompts is None else ("prompted", (prompts,))
        names = key.dataset, key.split, key.perturbation, key.backbone
        return self._path(kind, *names, *of_prompts)

    def _path(self, kind: str, *names: str) -> Path:
        return self.path.joinpath(kind, *map(folder_name, names))

    # What there is

    def groups(self, kind: str) -> Iterator[tuple[tuple[str, ...], Path]]:
        """Names and path of every finished group of a kind, sorted."""
        depth = "*/" * len(KINDS[kind])
        for file in sorted(self.path.glob(f"{kind}/{depth}{arrays.METADATA}")):
            names = file.parent.relative_to(self.path / kind).parts
            yield tuple(map(name_of_folder, names)), file.parent

    def keys(
        self,
        *,
        dataset: Collection[str] | None = None,
        split: Collection[str] | None = None,
        perturbation: Collection[str] | None = None,
        backbone: Collection[str] | None = None,
    ) -> list[FeatureKey]:
        """Keys of the finished cells, extracted and imported, sorted; None is no filter."""
        filters = (dataset, split, perturbation, backbone)
        kinds = ("features", *IMPORTS)
        there = {names[:4] for kind in kinds for names, _ in self.groups(kind)}
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
        if not path.exists():
            if not (there := prompt_sets_in(self.imports_path(key, "any").parent)):
                return None
            path = self.imports_path(key, chosen_of(key, prompts, there))
        return Imported(key, path, self.samples_path(key.dataset, key.split))

    def prompt_sets(self, key: FeatureKey) -> list[str]:
        """Prompt sets with class embeddings for this backbone and dataset.

        Imported predictions of no known set stand beside those of every set of the dataset.
        """
        if there := prompt_sets_in(self.imports_path(key, "any").parent):
            return there
        cell = self.imported(key)
        if cell and not cell.has_predictions:
            return []
        found = {
            prompts
            for (dataset, prompts, name), _ in self.groups("classes")
            if dataset == key.dataset and (cell or name == key.backbone)
        }
        return sorted(found) or ([PROMPTS] if cell else [])

    # Reading

    def samples(self, dataset: str, split: str) -> SampleTable:
        path = self.samples_path(dataset, split)
        if not path.exists():
            elsewhere = dataset in self._only_imported("dataset")
            verb = f"import {self.path} FILE…" if elsewhere else f"extract {self.path}"
            raise MissingCell(
                f"{self.path} has no samples of {dataset}/{split}: run "
                f"`clipsyn {verb} --dataset {dataset} --split {split}`"
            )
        attributes = arrays.read_attributes(path)
        return SampleTable(
            dataset=dataset,
            split=split,
            ids=tuple(arrays.read(path / "sample_id")),
            labels=arrays.read(path / "label"),
            content=arrays.read(path / "content_hash"),
            class_names=tuple(attributes["class_names"]),
            metric=attributes["metric"],
            licence=attributes["licence"],
        )

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
        return arrays.read(self._cell(key, "image_embedding"), rows)

    def valid(self, key: FeatureKey, prompts: str | None = None) -> NDArray[np.bool_]:
        return arrays.read(self._cell(key, "valid", prompts))

    def fingerprint(self, key: FeatureKey, prompts: str | None = None) -> str:
        """Of a cell; prompts: which, where it was imported with several sets."""
        path = self._cell(key, "valid", prompts).parent
        return str(arrays.read_attributes(path)["fingerprint"])

    def classes_fingerprint(self, dataset: str, prompts: str, backbone: str) -> str:
        return str(arrays.read_attributes(self._classes(dataset, prompts, backbone))["fingerprint"])

    def encoder(self, key: FeatureKey) -> tuple[Identity, str]:
        """What of a cell's backbone decides its embeddings, and where that was loaded from."""
        attributes = arrays.read_attributes(self._features(key))
        identity = attributes["identity"]
        decisive = {**identity["backbone"], "pixels": identity["pixels"]}
        return decisive, _source_of(attributes, key.backbone)

    def prompts_identity(self, dataset: str, prompts: str, backbone: str) -> Identity:
        """Name, templates and texts per class that class embeddings were made from."""
        path = self._classes(dataset, prompts, backbone)
        found: Identity = arrays.read_attributes(path)["identity"]["prompts"]
        return found

    def class_embeddings(
        self, dataset: str, prompts: str, backbone: str
    ) -> tuple[NDArray[np.float32], float]:
        """(class, embed) unit norm, and the backbone's logit scale."""
        path = self._classes(dataset, prompts, backbone)
        return arrays.read(path / "class_embedding"), arrays.read_attributes(path)["logit_scale"]

    def logits(
        self, key: FeatureKey, prompts: str, rows: range | None = None
    ) -> NDArray[np.float32]:
        """(sample, class): stored, or derived from the embeddings by the same function."""
        if cell := self.imported(key, prompts):
            return arrays.read(cell.array("logit"), rows)
        if (stored := self._logits(key, prompts)) is not None:
            return arrays.read(stored / "logit", rows)
        return self._derived_logits(key, prompts, rows)

    def predictions(self, key: FeatureKey, prompts: str) -> NDArray[np.uint16]:
        """(sample,) class index of the largest logit, NO_PREDICTION where there is none."""
        if cell := self.imported(key, prompts):
            return arrays.read(cell.array("prediction"))
        if (stored := self._logits(key, prompts)) is not None:
            return arrays.read(stored / "prediction")
        return predictions(self._derived_logits(key, prompts, None))

    def confidences(self, key: FeatureKey, prompts: str) -> NDArray[np.float32]:
        """(sample,) probability of the predicted class, as it was imported without logits."""
        return arrays.read(self._cell(key, "confidence", prompts))

    def has_confidences(self, key: FeatureKey) -> bool:
        """Whether it is known how sure each prediction is: from logits, or imported with it."""
        cell = self.imported(key)
        return self.has_logits(key) or (cell is not None and cell.has_confidences)

    def has_logits(self, key: FeatureKey) -> bool:
        """Whether there are logits beside the predictions; only imported cells may lack them."""
        cell = self.imported(key)
        return cell is None or cell.kind == "logits"

    def _cell(self, key: FeatureKey, array: str, prompts: str | None = None) -> Path:
        """Where an array of a cell is, extracted or imported."""
        cell = self.imported(key, prompts)
        return cell.array(array) if cell else self._features(key) / array

    def _features(self, key: FeatureKey) -> Path:
        path = self.features_path(key)
        if not path.exists():
            raise MissingCell(f"{self.path} has no {key}: run `{self.extract_line(key)}`")
        of_samples = arrays.read_attributes(self.samples_path(key.dataset, key.split))["identity"]
        of_cell = arrays.read_attributes(path)["identity"]
        if of_cell["samples"] != of_samples["samples"]:
            raise StaleCell(
                f"{key} was extracted from other images than the store's sample table lists now "
                f"(samples): run `{self.extract_line(key)} --replace`",
                ("samples",),
            )
        return path

    def _classes(self, dataset: str, prompts: str, backbone: str) -> Path:
        path = self.classes_path(dataset, prompts, backbone)
        if not path.exists():
            source = self._sources.get(backbone, backbone)
            raise MissingCell(
                f"{self.path} has no class embeddings of {dataset} for {backbone} with prompts "
                f"'{prompts}': run `clipsyn extract {self.path} --dataset {dataset} "
                f"--backbones {source} --prompts {prompts}`"
            )
        return path

    def _logits(self, key: FeatureKey, prompts: str) -> Path | None:
        """Where the stored logits are, if they are, having checked what logits are made from."""
        features = self._features(key)
        classes = self._classes(key.dataset, prompts, key.backbone)
        self._check_class_names(key, prompts, classes)
        path = self.logits_path(key, prompts)
        if not path.exists():
            self._check_encoders(key, prompts, features, classes)
            return None
        identity = arrays.read_attributes(path)["identity"]
        for name, source in (("features", features), ("classes", classes)):
            if identity[name] != arrays.read_attributes(source)["fingerprint"]:
                raise StaleCell(
                    f"the logits of {key} were made from other {name} than stored now ({name}): "
                    f"run `{self.extract_line(key)} --prompts {prompts} --replace`",
                    (name,),
                )
        return path

    def _check_encoders(self, key: FeatureKey, prompts: str, features: Path, classes: Path) -> None:
        """Refuse embeddings of images and of classes that other weights of one name have made."""
        of = [arrays.read_attributes(path)["identity"]["backbone"] for path in (features, classes)]
        if changes := tuple(name for name, _, _ in differences(of[0], of[1], "backbone")):
            raise StaleCell(
                f"image and class embeddings of {key} are not of the same backbone "
                f"({', '.join(changes)}): run "
                f"`{self.extract_line(key)} --prompts {prompts} --replace`",
                changes,
            )

    def _check_class_names(self, key: FeatureKey, prompts: str, classes: Path) -> None:
        named = arrays.read_attributes(classes)["identity"]["class_names"]
        samples = self.samples_path(key.dataset, key.split)
        if named != arrays.read_attributes(samples)["class_names"]:
            raise StaleCell(
                f"class embeddings of {key.dataset} for {key.backbone} are of other class names "
                f"(class_names): run `{self.extract_line(key)} --prompts {prompts} --replace`",
                ("class_names",),
            )

    def _derived_logits(
        self, key: FeatureKey, prompts: str, rows: range | None
    ) -> NDArray[np.float32]:
        array = self._features(key) / "image_embedding"
        classes, scale = self.class_embeddings(key.dataset, prompts, key.backbone)
        block_rows = arrays.layout(array).rows
        return zero_shot_logits(arrays.read(array, rows), classes, scale, rows=block_rows)

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
                source = _source_of(arrays.read_attributes(path), backbone)
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
        path = self.samples_path(table.dataset, table.split)
        label = path / "label"
        blocks = arrays.layout(label).blocks
        with writing(self.path):
            for block in range(blocks.count):
                rows = blocks.range(block)
                labels = table.labels[rows.start : rows.stop]
                if not np.array_equal(arrays.read(label, rows), labels):
                    arrays.write_block(label, block, labels, scratch(self.path))
            attributes = arrays.read_attributes(path)
            if attributes != (corrected := attributes | table.attributes()):
                arrays.write_attributes(path, corrected, scratch(self.path))


def replaced_meanwhile(store: Path, dataset: str, split: str) -> StaleCell:
    """The error for what another command replaces while it is read in parts."""
    return StaleCell(
        f"{dataset}/{split} in {store} was replaced while it was read: run the same command again"
    )


def _source_of(attributes: dict[str, Any], default: str) -> str:
    return str(attributes.get("provenance", {}).get("encoder", {}).get("source", default))
