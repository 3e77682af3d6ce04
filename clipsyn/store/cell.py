"""One cell of a store, extracted or imported: what it holds, and its numbers.

Both kinds answer the same questions, so readers need not ask where a cell was made. A cell with
embeddings, which every extracted one is, has logits of every prompt set whose class embeddings are
stored: stored beside it, or derived. Any other imported cell holds predictions (perhaps with their
confidences) or logits (which bring their predictions), of no known prompt set or of several.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DamagedStore, MissingCell, StaleCell
from clipsyn.methods.numerics.logits import NO_CLASS, predictions, zero_shot_logits
from clipsyn.names import FeatureKey, Identity, differences
from clipsyn.store.contents import Contents, did_you_mean, source_of
from clipsyn.store.facts import facts_of
from clipsyn.store.folders import ANSWERS, PROMPTS, folder_name
from clipsyn.store.groups import StoredGroup
from clipsyn.store.schema import GROUPS

_HOLDERS = {  # what a cell that holds an array is imported as
    "prediction": "predictions",
    "confidence": "confidences",
    "logit": "logits",
    "image_embedding": "embeddings",
}


@dataclass(frozen=True)
class _Cell(ABC):
    """What both kinds have. It reads of the images that the sample table lists now.

    Reading raises MissingCell where the cell, or what is asked of it, is not there, StaleCell where
    it was made from other images, classes or weights than are stored now, and DamagedStore.
    `prompts` is needed where the cell was imported with several prompt sets.
    """

    store: Contents
    key: FeatureKey

    @abstractmethod
    def group(self, prompts: str | None = None) -> StoredGroup:
        """The stored group, whatever images it was made from."""

    @property
    @abstractmethod
    def path(self) -> Path:
        """The folder of its group, of the first where it was imported with several prompt sets."""

    def known(self, fact: str) -> Any:
        """What an index says of it, so that it need not be read; None where there is none."""
        return (self.store.tree.facts(self.path) or {}).get(fact)

    def counts(self) -> tuple[int, int]:
        """Images of its perturbation, and how many of these have no embedding or prediction."""
        if (images := self.known("images")) is not None:
            return images, self.known("bad") or 0
        facts = facts_of(self.group())
        return facts["images"], facts["bad"]

    @property
    def width(self) -> int:
        """Of its embeddings."""
        known = self.known("embed")
        return int(known or self.group().sizes["embed"])

    @abstractmethod
    def holding(self, array: str, prompts: str | None = None) -> StoredGroup:
        """The group that has an array, once it is known to be of what the store lists now."""

    @property
    def _samples(self) -> StoredGroup:
        return self.store.group(self.store.samples_path(self.key.dataset, self.key.split))

    def _check_sizes(self, group: StoredGroup, *sources: StoredGroup) -> StoredGroup:
        """Raise DamagedStore for arrays that are not as long as those that they belong to."""
        samples = self._samples  # looks at the file each time
        sizes = {"class": len(samples["class_names"])}
        for source in (samples, *sources):
            sizes |= source.sizes
        wrong = [dim for dim, length in group.sizes.items() if sizes.get(dim, length) != length]
        if wrong:
            raise DamagedStore(
                f"{group.name} in {self.store.path} is not as long in '{wrong[0]}' as what it "
                "belongs to: remove it with `clipsyn rm`, and make it again"
            )
        return group

    def _checked(self, predicted: NDArray[np.uint16]) -> NDArray[np.uint16]:
        """Raise DamagedStore for class indices that are none."""
        if len(wrong := predicted[predicted < NO_CLASS]) and wrong.max() >= len(
            self._samples["class_names"]
        ):
            raise DamagedStore(f"{self.key} in {self.store.path} predicts classes that are none")
        return predicted

    def valid(self, prompts: str | None = None) -> NDArray[np.bool_]:
        """(sample,) whether there is an embedding or a prediction."""
        return self.holding("valid", prompts).read("valid")

    def fingerprint(self, prompts: str | None = None) -> str:
        return str(self.holding("valid", prompts)["fingerprint"])

    def embeddings(self, rows: range | None = None) -> NDArray[np.float16]:
        """(sample, embed) unit norm; NaN rows where the image could not be decoded."""
        return self.holding("image_embedding").read("image_embedding", rows)

    def confidences(self, prompts: str) -> NDArray[np.float32]:
        """(sample,) probability of the predicted class, as it was imported without logits."""
        return self.holding("confidence", prompts).read("confidence")

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Library versions, device, date and costs, as they were recorded."""
        return self.group().attributes.get("provenance") or {}


class _Embedded(_Cell):
    """Embeddings; logits and predictions that are stored beside them or derived from them."""

    def prompt_sets(self) -> list[str]:
        """Names of the prompt sets that it has predictions for, sorted."""
        own = folder_name(self.key.backbone)
        classes = self.store.at("classes", self.key.dataset)
        with_classes = {
            name
            for name in self.store.names_in(classes)
            if self.store.tree.exists(classes / folder_name(name) / own)
        }
        return sorted(with_classes.union(*map(self.store.names_in, self._answers.values())))

    def logits(self, prompts: str, rows: range | None = None) -> NDArray[np.float32]:
        """(sample, class): stored, or derived from the embeddings by the same function."""
        if stored := self.stored("logits", prompts):
            return stored.read("logit", rows)
        return self._derived_logits(prompts, rows)

    def predictions(self, prompts: str) -> NDArray[np.uint16]:
        """(sample,) class index of the largest logit, NO_PREDICTION where there is none."""
        for kind in ANSWERS:
            if stored := self.stored(kind, prompts):
                return self._checked(stored.read("prediction"))
        return predictions(self._derived_logits(prompts, None))

    def stored(self, kind: str, prompts: str) -> StoredGroup | None:
        """The stored group of `kind`, logits or predictions, if there is one.

        Raises StaleCell if it is of other embeddings.
        """
        key, store = self.key, self.store
        features = self.holding("image_embedding")
        path = self._answers[kind] / folder_name(prompts)
        stored = store.group(path) if store.tree.exists(path) else None
        made_from = store.classes_path(key.dataset, prompts, key.backbone)
        if stored and not store.tree.exists(made_from):
            raise self._lost(kind, f"class embeddings of prompts '{prompts}'")
        classes = store.classes(key.dataset, prompts, key.backbone)
        self._check_class_names(prompts, classes)
        self._check_sizes(classes, features)
        if stored is None:
            self._check_encoders(prompts, features, classes)
            return None
        for name, source in (("features", features), ("classes", classes)):
            if stored["identity"][name] != source["fingerprint"]:
                made = f"the {kind} of {key} were made from other {name} than stored now"
                raise self._stale(made, name, prompts=prompts)
        return self._check_sizes(stored, features)

    def _check_class_names(self, prompts: str, classes: StoredGroup) -> None:
        if classes["identity"]["class_names"] != self._samples["class_names"]:
            made = f"class embeddings of {self.key.dataset} for {self.key.backbone}"
            raise self._stale(f"{made} are of other class names", "class_names", prompts=prompts)

    def _check_encoders(self, prompts: str, features: StoredGroup, classes: StoredGroup) -> None:
        """Refuse embeddings of images and of classes that other weights of one name have made."""
        ours, theirs = features["identity"]["backbone"], classes["identity"]["backbone"]
        if changes := tuple(name for name, _, _ in differences(ours, theirs, "backbone")):
            both = f"image and class embeddings of {self.key} are not of the same backbone"
            raise self._stale(both, *changes, prompts=prompts)

    def _derived_logits(self, prompts: str, rows: range | None) -> NDArray[np.float32]:
        features = self.holding("image_embedding")
        classes = self.store.classes(self.key.dataset, prompts, self.key.backbone)
        logits = zero_shot_logits(
            features.read("image_embedding", rows),
            classes.read("class_embedding"),
            classes["logit_scale"],
            rows=features.arrays["image_embedding"].rows,
        )
        # a coordinate that is not finite makes all logits of its row so
        if (np.isfinite(logits[:, 0]) != features.read("valid", rows)).any():
            raise DamagedStore(
                f"{features.name} in {self.store.path} has embeddings that are not numbers: remove "
                "it with `clipsyn rm`, and make it again"
            )
        return logits

    @property
    def _answers(self) -> dict[str, Path]:
        """The folders of its logits and of its predictions, each with one for each prompt set."""
        return {kind: self.store.at(kind, *self.key.names) for kind in ANSWERS}

    def _extract_line(self, *options: str) -> str:
        return self.store.extract_line(self.key, *options)

    def _stale(self, what: str, *fields: str, prompts: str = "") -> StaleCell:
        options = ("--prompts", prompts) if prompts else ()
        line = self._extract_line(*options, "--replace")
        return StaleCell(f"{what} ({', '.join(fields)}): run `{line}`", fields)

    def _lost(self, kind: str, what: str) -> DamagedStore:
        return DamagedStore(
            f"{self.store.path} has {kind} of {self.key}, but the {what} that they were made from "
            f"are lost: put them back, or run `{self._extract_line()}`"
        )


class Extracted(_Embedded):
    """What clipsyn has made of images, with the weights that it knows."""

    imported_as = None
    has_embeddings = has_logits = has_predictions = has_confidences = True

    @property
    def prompts_from(self) -> Path:
        """The folder that decides the prompt sets: cells of a backbone share both, or neither."""
        return self.store.at("classes", self.key.dataset)

    @property
    def path(self) -> Path:
        return self.store.features_path(self.key)

    def group(self, prompts: str | None = None) -> StoredGroup:
        path = self.path
        if not self.store.tree.exists(path):
            for kind, folder in self._answers.items():
                if self.store.tree.exists(folder):
                    raise self._lost(kind, "features")
            near = did_you_mean(self.key, self.store.keys())
            raise MissingCell(
                f"{self.store.path} has no {self.key}{near}: run `{self._extract_line()}`"
            )
        return self.store.group(path)

    def holding(self, array: str, prompts: str | None = None) -> StoredGroup:
        group = self.group()
        if group["identity"]["samples"] != self._samples["identity"]["samples"]:
            now = "than the store's sample table lists now"
            raise self._stale(f"{self.key} was extracted from other images {now}", "samples")
        if array == "confidence":
            raise MissingCell(
                f"{self.key} was extracted, so it has logits and no confidences beside them: the "
                "largest softmax of its logits says how sure each prediction is"
            )
        return self._check_sizes(group)

    def encoder(self) -> tuple[Identity, str]:
        """What of the backbone decides the embeddings, and where its weights were loaded from."""
        group = self.holding("image_embedding")
        decisive = {**group["identity"]["backbone"], "pixels": group["identity"]["pixels"]}
        return decisive, source_of(group, self.key.backbone)

    @property
    def size(self) -> int:
        """Bytes on disk, with the logits and predictions of all prompt sets."""
        return sum(map(self.store.tree.size, (self.path, *self._answers.values())))


@dataclass(frozen=True)
class Imported(_Embedded):
    """A cell that was made elsewhere.

    Predictions and logits are of no known prompt set, or of those in `sets`. Embeddings may have
    class embeddings beside them.
    """

    sets: tuple[str, ...] = ()

    @property
    def imported_as(self) -> str:
        """Predictions, logits or embeddings."""
        return str(self.known("imported") or self.group()["identity"]["kind"])

    @property
    def path(self) -> Path:
        return self._folder / folder_name(self.sets[0]) if self.sets else self._folder

    @property
    def has_embeddings(self) -> bool:
        return self.imported_as == "embeddings"

    @property
    def has_logits(self) -> bool:
        return self.imported_as == "logits" or self._has_text

    @property
    def has_predictions(self) -> bool:
        return not self.has_embeddings or self._has_text

    @property
    def _has_text(self) -> bool:
        """Whether there are class embeddings that its embeddings are compared with."""
        return self.has_embeddings and bool(self.prompt_sets())

    @property
    def has_confidences(self) -> bool:
        """Whether it is known how sure each prediction is: from logits, or imported with it."""
        return self.has_logits or self.group()["kind"] == "imported-confidences"

    @property
    def prompts_from(self) -> Path:
        if self.sets or self.has_embeddings:
            return self._folder
        return self.store.at("imports", self.key.dataset)

    def prompt_sets(self) -> list[str]:
        """Predictions of no known set stand beside those of every set of the dataset."""
        if self.sets:
            return list(self.sets)
        if self.has_embeddings:
            return [name for name in super().prompt_sets() if self._is_ours(name)]
        classes = self.store.at("classes", self.key.dataset)
        there = self.store.names_in
        filled = [name for name in there(classes) if there(classes / folder_name(name))]
        return filled or [PROMPTS]

    def _is_ours(self, prompts: str) -> bool:
        """Whether class embeddings were made elsewhere, too, and not extracted under that name."""
        path = self.store.classes_path(self.key.dataset, prompts, self.key.backbone)
        facts = self.store.tree.facts(path)
        if facts is not None:
            return facts.get("imported") == "embeddings"
        return bool(self.store.group(path)["identity"]["backbone"] == self.key.backbone)

    def group(self, prompts: str | None = None) -> StoredGroup:
        if not self.sets:
            return self.store.group(self.store.imports_path(self.key))
        chosen = self.sets[0] if prompts is None else prompts
        if chosen not in self.sets:
            raise MissingCell(
                f"{self.key} was imported with the prompts {', '.join(self.sets)}, not '{prompts}'"
            )
        return self.store.group(self.store.imports_path(self.key, chosen))

    def holding(self, array: str, prompts: str | None = None) -> StoredGroup:
        group = self.group(prompts)
        self._check_is_current(group)
        if array not in {spec.name for spec in GROUPS[group["kind"]]}:
            raise MissingCell(
                f"{self.key} was imported as {group['identity']['kind']}, without "
                f"{_HOLDERS[array]}: choose other cells with backbones=…, or import "
                f"{_HOLDERS[array]} under another name"
            )
        return self._check_sizes(group)

    def _check_is_current(self, group: StoredGroup) -> None:
        samples = self._samples
        current = {"samples": samples["identity"]["samples"], "class_names": samples["class_names"]}
        for field, value in current.items():
            if group["identity"].get(field) not in (value, None):
                raise StaleCell(
                    f"{self.key} was imported for other {field.replace('_', ' ')} than the "
                    f"store's sample table lists now ({field}): import it again with "
                    "`clipsyn import --replace`, or choose other cells with backbones=…",
                    (field,),
                )

    def logits(self, prompts: str, rows: range | None = None) -> NDArray[np.float32]:
        if self._has_text:
            return super().logits(prompts, rows)
        return self.holding("logit", prompts).read("logit", rows)

    def predictions(self, prompts: str) -> NDArray[np.uint16]:
        if self._has_text:
            return super().predictions(prompts)
        return self._checked(self.holding("prediction", prompts).read("prediction"))

    def encoder(self) -> tuple[Identity, str]:
        """What is known of it: its name and the width of its embeddings."""
        if not self.has_embeddings:
            raise MissingCell(f"{self.key} was imported: what encoded its images is not known")
        width = self.holding("image_embedding").sizes["embed"]
        return {"imported": self.key.backbone, "embed": width}, self.key.backbone

    @property
    def size(self) -> int:
        return sum(map(self.store.tree.size, (self._folder, *self._answers.values())))

    @property
    def _folder(self) -> Path:
        return self.store.at("prompted" if self.sets else "imports", *self.key.names)


Cell = Extracted | Imported  # as `cell_at` makes them


def cell_at(store: Contents, key: FeatureKey) -> Cell:
    """The cell of that name, imported if one was imported, else extracted, whether there or not."""
    if store.tree.exists(store.imports_path(key)):
        return Imported(store, key)
    if sets := store.names_in(store.at("prompted", *key.names)):
        return Imported(store, key, tuple(sets))
    return Extracted(store, key)
