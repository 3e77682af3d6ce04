"""One cell of a store, extracted or imported: what it holds, and its numbers.

A cell with embeddings, which every extracted one is, has logits of every prompt set whose class
embeddings are stored: stored beside it, or derived. Any other cell was imported: it holds
predictions (perhaps with their confidences) or logits (which bring their predictions), of one or
several prompt sets, or of no known one. Readers need not ask which of these a cell is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.errors import DamagedStore, MissingCell, StaleCell
from clipsyn.methods.numerics.logits import predictions, zero_shot_logits
from clipsyn.names import FeatureKey, Identity, differences
from clipsyn.store.arrays import Layout, spans
from clipsyn.store.files import ANSWERS, HELD, PROMPTS, below, folder_name
from clipsyn.store.groups import Group

if TYPE_CHECKING:
    from clipsyn.store.features import FeatureStore

# is called with a range of rows, their logits and their predictions
Look = Callable[[range, NDArray[np.float32], NDArray[np.uint16]], None]


@dataclass(frozen=True)
class Cell:
    """A cell of that name, whether there or not, of the images that the sample table lists now.

    Reading raises MissingCell where the cell, or what is asked of it, is not there, StaleCell where
    it was made from other images, classes or weights than are stored now, and DamagedStore.
    `prompts` is needed where the cell was imported with several prompt sets.
    """

    store: FeatureStore
    key: FeatureKey

    # What it is

    @cached_property
    def sets(self) -> Mapping[str, Path]:
        """The folders of imported logits or predictions, by prompt set; none beside embeddings.

        `PROMPTS` stands for no known set.
        """
        if self.store.tree.exists(self._features):
            return {}
        there = {
            name: folder / folder_name(name)
            for folder in reversed(self._answers.values())  # of both, logits win
            for name in self.store.names_in(folder)
        }
        imported = any(self.store.is_imported(there[name]) for name in sorted(there))
        return dict(sorted(there.items())) if imported else {}

    @property
    def known_sets(self) -> list[str]:
        """The prompt sets that it was imported with, where these are known."""
        return [] if PROMPTS in self.sets else list(self.sets)

    @cached_property
    def imported_as(self) -> str | None:
        """Predictions, logits or embeddings; None of an extracted cell, or where there is none."""
        if self.sets:
            return HELD[below(self.store.path, self.path)[0]]
        there = self.store.tree.exists(self._features)
        return "embeddings" if there and self.store.is_imported(self._features) else None

    @property
    def has_embeddings(self) -> bool:
        return not self.sets

    @property
    def has_logits(self) -> bool:
        return self.imported_as == "logits" or self._has_text

    @property
    def has_predictions(self) -> bool:
        return bool(self.sets) or self._has_text

    @property
    def has_confidences(self) -> bool:
        """Whether it is known how sure each prediction is: from logits, or imported with it."""
        return self.has_logits or "confidence" in self.group().arrays

    @property
    def _has_text(self) -> bool:
        """Whether its embeddings are compared with class embeddings: those of CLIPs always are."""
        is_clip = self.imported_as is None and not self.is_textless
        return self.has_embeddings and (is_clip or bool(self.prompt_sets()))

    @property
    def is_textless(self) -> bool:
        """Whether a backbone that has no text tower made it."""
        there = self.store.tree.exists(self._features)
        return there and self.store.is_textless(self._features)

    def prompt_sets(self) -> list[str]:
        """Names of the prompt sets that it has predictions for, sorted.

        Predictions of no known set stand beside those of every set of the dataset.
        """
        classes = self.store.at("classes", self.key.dataset)
        names = self.store.names_in(classes)
        if PROMPTS in self.sets:
            return [name for name in names if self.store.names_in(classes / folder_name(name))] or [
                PROMPTS
            ]
        if self.sets:
            return list(self.sets)
        own, exists = folder_name(self.key.backbone), self.store.tree.exists
        with_classes = {name for name in names if exists(classes / folder_name(name) / own)}
        every = sorted(with_classes.union(*map(self.store.names_in, self._answers.values())))
        if self.imported_as is None:
            return every
        return [name for name in every if self.store.is_imported(self._classes(name))]

    # Where it is

    @property
    def path(self) -> Path:
        """The folder of its group, of the first where it was imported with several prompt sets."""
        return next(iter(self.sets.values()), self._features)

    @property
    def size(self) -> int:
        """Bytes on disk, with the logits and predictions of all prompt sets."""
        tree = self.store.tree
        answers = [path / name for path in self._answers.values() for name in tree.folders(path)]
        return sum(map(tree.size, (self._features, *answers)))

    @cached_property
    def _features(self) -> Path:
        return self.store.at("features", *self.key.names)

    @cached_property
    def _answers(self) -> dict[str, Path]:
        """The folders of its logits and of its predictions, each with one for each prompt set."""
        return {kind: self.store.at(kind, *self.key.names) for kind in ANSWERS}

    def _classes(self, prompts: str) -> Path:
        return self.store.at("classes", self.key.dataset, prompts, self.key.backbone)

    # Its groups

    def group(self, prompts: str | None = None) -> Group:
        """The stored group, whatever images it was made from."""
        if self.sets:
            chosen = PROMPTS if PROMPTS in self.sets else prompts or min(self.sets)
            if chosen not in self.sets:
                has = ", ".join(self.sets)
                raise MissingCell(f"{self.key} was imported with prompts {has}, not '{prompts}'")
            return self.store.group(self.sets[chosen])
        if not self.store.tree.exists(self._features):
            for kind, folder in self._answers.items():
                if self.store.tree.exists(folder):
                    raise self._lost(kind, "features")
            raise MissingCell(
                f"{self.store.path} has no {self.key}: run `{self.store.extract_line(self.key)}`"
            )
        return self.store.group(self._features)

    def holding(self, array: str, prompts: str | None = None) -> Group:
        """The group that has an array, once it is known to be of what the store lists now."""
        group = self.group(prompts)
        self._check_is_current(group)
        if array in group.arrays:
            return group
        what = f"{array.replace('image_', '')}s"
        made = f"{'imported' if group.imported else 'extracted'} as {HELD[group.kind]}"
        raise MissingCell(
            f"{self.key} was {made}, without {what}: choose other cells with backbones=…, or "
            f"import {what} under another name"
        )

    def stored(self, kind: str, prompts: str) -> Group | None:
        """The stored group of `kind`, logits or predictions, that follows from its embeddings.

        None where there is none; raises StaleCell if it is of other embeddings.
        """
        key, store = self.key, self.store
        features = self.holding("image_embedding")
        path = self._answers[kind] / folder_name(prompts)
        stored = store.group(path) if store.tree.exists(path) else None
        if stored and stored.imported:
            raise DamagedStore(
                f"{stored.name} in {store.path} was imported, and there are embeddings of that "
                "name, too: remove one of the two with `clipsyn rm`"
            )
        if stored and not store.tree.exists(self._classes(prompts)):
            raise self._lost(kind, f"class embeddings of prompts '{prompts}'")
        classes = store.classes(key.dataset, prompts, key.backbone)
        if classes["identity"]["class_names"] != self._samples["class_names"]:
            made = f"class embeddings of {key.dataset} for {key.backbone}"
            raise self.stale(f"{made} are of other class names", "class_names", prompts=prompts)
        if stored is None:  # else it was made from both; other weights may have the same name
            ours, theirs = (group["identity"]["backbone"] for group in (features, classes))
            if changes := tuple(name for name, _, _ in differences(ours, theirs, "backbone")):
                both = f"image and class embeddings of {key} are not of the same backbone"
                raise self.stale(both, *changes, prompts=prompts)
            return None
        for name, source in (("features", features), ("classes", classes)):
            if stored["identity"][name] != source["fingerprint"]:
                made = f"the {kind} of {key} were made from other {name} than stored now"
                raise self.stale(made, name, prompts=prompts)
        return stored

    # Its numbers

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a table of cells shows of it, from an index where there is one."""
        if (known := self.store.tree.facts(self.path)) is not None:
            return known
        group = self.group()
        return {**group.facts, "fingerprint": group["fingerprint"]}

    def valid(self, prompts: str | None = None) -> NDArray[np.bool_]:
        """(sample,) whether there is an embedding or a prediction."""
        return self.holding("valid", prompts).read("valid")

    def fingerprint(self, prompts: str | None = None) -> str:
        return str(self.holding("valid", prompts)["fingerprint"])

    def embeddings(self, rows: range | None = None) -> NDArray[np.float16]:
        """(sample, embed) unit norm; NaN rows where the image could not be decoded."""
        return self.holding("image_embedding").read("image_embedding", rows)

    def logits(self, prompts: str, rows: range | None = None) -> NDArray[np.float32]:
        """(sample, class): stored, or derived from the embeddings by the same function."""
        if not self._has_text:
            return self.holding("logit", prompts).read("logit", rows)
        if stored := self.stored("logits", prompts):
            return stored.read("logit", rows)
        return self._derived_logits(prompts, rows)

    def blocks(self) -> list[range]:
        """Ranges that cover all rows in order: whole chunks, embeddings and logits a small part of
        memory.
        """
        layout = next(iter(self.holding("valid").arrays.values()))
        row_bytes = max(layout.row_bytes, 4 * len(self._samples["class_names"]))
        return spans(layout.shape[0], layout.rows, row_bytes)

    def predictions(self, prompts: str, look: Look | None = None) -> NDArray[np.uint16]:
        """(sample,) class index of the largest logit, NO_PREDICTION where there is none.

        look: is shown each block of logits where they are derived.
        """
        if not self._has_text:
            return self.holding("prediction", prompts).read("prediction")
        for kind in ANSWERS:
            if stored := self.stored(kind, prompts):
                return stored.read("prediction")
        found = []
        for rows in self.blocks():
            logits = self._derived_logits(prompts, rows)
            found.append(predictions(logits))
            if look:
                look(rows, logits, found[-1])
        return np.concatenate(found)

    def confidences(self, prompts: str) -> NDArray[np.float32]:
        """(sample,) probability of the predicted class, as it was imported without logits."""
        return self.holding("confidence", prompts).read("confidence")

    def encoder(self) -> tuple[Identity, str]:
        """What of the backbone decides the embeddings, and where its weights were loaded from.

        Of imported embeddings name and width are known.
        """
        if not self.has_embeddings:
            raise MissingCell(f"{self.key} was imported: what encoded its images is not known")
        group = self.holding("image_embedding")
        if group.imported:
            width = group.sizes["embed"]
            return {"imported": self.key.backbone, "embed": width}, self.key.backbone
        decisive = {**group["identity"]["backbone"], "pixels": group["identity"]["pixels"]}
        return decisive, group.source or self.key.backbone

    def _derived_logits(self, prompts: str, rows: range | None) -> NDArray[np.float32]:
        features = self.holding("image_embedding")
        classes = self.store.classes(self.key.dataset, prompts, self.key.backbone)
        return zero_shot_logits(
            features.read("image_embedding", rows),
            classes.read("class_embedding"),
            classes["logit_scale"],
            rows=self._unit(features.arrays["image_embedding"]),
        )

    def _unit(self, layout: Layout) -> int:
        """Rows of one matrix product: a chunk that one process wrote is some of these."""
        unit = self.store.product_rows(layout.shape[0])
        return layout.rows if layout.rows % unit else unit

    # What cannot be

    @property
    def _samples(self) -> Group:
        return self.store.group(self.store.at("samples", self.key.dataset, self.key.split))

    def _check_is_current(self, group: Group) -> None:
        """Refuse what was made from, or imported for, others than the sample table lists now."""
        identity, samples = group["identity"], self._samples
        if identity["samples"] != samples["identity"]["samples"]:
            field = "samples"
        elif identity.get("class_names") not in (samples["class_names"], None):
            field = "class_names"
        else:
            return
        now = "than the store's sample table lists now"
        if not group.imported:
            raise self.stale(f"{self.key} was extracted from other images {now}", field)
        raise StaleCell(
            f"{self.key} was imported for other {field.replace('_', ' ')} {now} ({field}): import "
            "it again with `clipsyn import --replace`, or choose other cells with backbones=…",
            (field,),
        )

    def stale(self, what: str, *fields: str, prompts: str = "") -> StaleCell:
        """The error for a cell of other `fields`, with the line that makes it again."""
        options = ("--prompts", prompts) if prompts else ()
        line = self.store.extract_line(self.key, *options, "--replace")
        return StaleCell(f"{what} ({', '.join(fields)}): run `{line}`", fields)

    def _lost(self, kind: str, what: str) -> DamagedStore:
        return DamagedStore(
            f"{self.store.path} has {kind} of {self.key}, but the {what} that they were made from "
            f"are lost: put them back, or run `{self.store.extract_line(self.key)}`"
        )


def with_prompt_sets(cells: Iterable[Cell]) -> Iterator[tuple[Cell, list[str]]]:
    """Cells with their prompt sets, which are looked up once for those that share them."""
    known: dict[tuple[str, str], list[str]] = {}
    for cell in cells:
        if cell.imported_as:
            yield cell, cell.prompt_sets()
            continue
        about = cell.key.dataset, cell.key.backbone
        if about not in known:
            known[about] = cell.prompt_sets()
        yield cell, known[about]
