"""Cells made elsewhere, written from Python or by an import; see `FeatureStore.writer`.

The rows of a cell go into a draft block by block, so that memory holds one block. The draft gets
its identity, which has a digest of all rows, when the last one is there. Nothing is visible before
the cell is published; samples and class embeddings, which it needs, go first.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn import __version__
from clipsyn.errors import DatasetError, InputError, StaleCell, UsageError
from clipsyn.methods.numerics.logits import is_scale, predictions, zero_shot_logits
from clipsyn.methods.pool import check_unit_norm
from clipsyn.names import FeatureKey, Identity, check_backbone_name
from clipsyn.store import arrays, files
from clipsyn.store.drafts import Draft, discard
from clipsyn.store.features import FeatureStore
from clipsyn.store.folders import ANSWERS, PROMPTS
from clipsyn.store.rows import (
    Rows,
    blanked,
    class_indices,
    known_rows,
    matrix,
    stored_confidences,
    stored_predictions,
)
from clipsyn.store.samples import SampleTable, check_fits
from clipsyn.store.schema import HELD, IDENTITY_VERSION, IMPORTED
from clipsyn.text import running

_CALL = "call what is imported something else with backbone=NAME"
NO_VALUE = "no value"  # why a row is not valid, where nothing else is said


class _Classes(NamedTuple):
    """Class embeddings of one prompt set."""

    embeddings: NDArray[np.float32]  # (class, embed)
    scale: float


class CellWriter:
    """Writes one cell; made by `FeatureStore.writer`, which says how to use it.

    A cell holds embeddings, logits or predictions. Each of these methods takes the next rows, in
    the order of the samples, and may be called for one block of rows after another. `valid`, (row,)
    bool, is False where an image has no value; what the other arrays hold there is ignored.

    All raise InputError for arrays that cannot be, UsageError for what does not go together.
    """

    def __init__(
        self,
        store: FeatureStore,
        samples: SampleTable,
        key: FeatureKey,
        *,
        prompts: str | None,
        made_by: str,
        replace: bool,
    ) -> None:
        self.store, self.samples, self.key = store, samples, key
        self.prompts = None if prompts == PROMPTS else prompts  # that name says that none is known
        self.replace = replace
        self._provenance, self._recorded = _provenance(made_by), dict[str, Any]()
        self._classes: dict[str, _Classes] = {}  # by prompt set
        self._rows: Rows | None = None
        self._was: str | None = None
        self._drafts: list[Draft] = []  # of all that is written
        check_backbone_name(key.backbone)
        self._check_samples()
        self._check_name()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                with files.locked(self.store.path):  # of two at once the second looks again
                    self._was = self._checked(self._written())
                    self._publish()
        finally:
            for draft in self._drafts:
                draft.drop()

    # What is written

    def embeddings(self, rows: ArrayLike, valid: ArrayLike | None = None) -> None:
        """Append image embeddings, (row, embed) of unit norm; they are stored in float16."""
        values, known = self._given("embeddings", rows, valid)
        stored = blanked(values, known, np.float16)
        check_unit_norm(str(self.key), stored)
        sizes = {"embed": values.shape[1]}
        self._append("features", {"image_embedding": stored, "valid": known}, sizes)

    def logits(self, rows: ArrayLike, valid: ArrayLike | None = None) -> None:
        """Append logits of any scale, (row, class), and the predictions that follow from them."""
        values, known = self._given("logits", rows, valid)
        self._check_count("logits", values.shape[1])
        stored = blanked(values, known, np.float32)
        rows_of: dict[str, NDArray[Any]] = {"logit": stored, "valid": known}
        rows_of["prediction"] = predictions(stored)
        self._append("logits", rows_of, {"class": values.shape[1]})

    def predictions(
        self,
        rows: ArrayLike,
        confidences: ArrayLike | None = None,
        valid: ArrayLike | None = None,
    ) -> None:
        """Append predicted classes, (row,) indices, and the probability of each, (row,) 0 to 1.

        65534 (`clipsyn.methods.numerics.logits.NO_CLASS`) is an answer that is none of the classes:
        it is wrong.
        """
        where, count = str(self.key), self._n_classes("predictions")
        values = class_indices(where, rows)
        known = known_rows(where, "predictions", values, valid)
        stored = stored_predictions(where, values, known, count)
        rows_of: dict[str, NDArray[Any]] = {"prediction": stored, "valid": known}
        if confidences is not None:
            rows_of["confidence"] = stored_confidences(where, confidences, known)
        self._append("predictions", rows_of)

    def classes(self, prompts: str, embeddings: ArrayLike, scale: float) -> None:
        """The class embeddings of a prompt set, (class, embed) of unit norm, and the logit scale.

        With them image embeddings have zero-shot logits, ``scale * image embedding @ class
        embedding.T``, which are stored. The class embeddings of a backbone are the same for all
        splits of a dataset.
        """
        what = f"class embeddings '{prompts}'"
        values, _ = self._given(what, embeddings)
        self._check_count(what, len(values))
        check_unit_norm(f"classes by {self.key.backbone}", values)
        if not is_scale(scale):
            raise InputError(
                f"{self.key}: the logit scale is from 1e-6 to 1e6, such as 100, not {scale}"
            )
        self._classes[prompts] = _Classes(values.astype(np.float32), float(scale))
        self._check_widths()

    def record(self, **attributes: Any) -> None:
        """What the cell's attributes say beside its identity, such as `source`; docs/store.md."""
        self._recorded |= attributes

    # When all is written

    def finish(self) -> str:
        """Whether the cell is new, there (the same content) or replaced, once nothing forbids it.

        Leaving the block does it. Raises InputError where rows are missing, and StaleCell where
        other content has the name.
        """
        if self._was is None:
            self._was = self._checked(self._written())
        return self._was

    def _written(self) -> Rows:
        if self._rows is None:
            raise UsageError(
                f"{self.key}: nothing was written: give embeddings, logits or predictions"
            )
        embedded = self._rows.draft.kind == "features"
        if self._classes and not embedded:
            raise UsageError(f"{self.key}: class embeddings go with image embeddings alone")
        if self.prompts is not None and embedded:
            raise UsageError(
                f"{self.key}: image embeddings depend on no prompts: leave prompts=… away"
            )
        if self._rows.count < len(self.samples):
            raise InputError(
                f"{self.key}: {self._rows.count:,} rows, where {self.samples.name} has "
                f"{len(self.samples):,} samples"
            )
        return self._rows

    def _checked(self, rows: Rows) -> str:
        self._check_name()
        rows.identify(self.key, self.samples, self.prompts)
        where = f"{self.store.path} with other content"
        was = self._state(rows.draft, f"{self.key} was imported into {where}")
        others = [path for path in self._others(rows) if self.store.is_imported(path)]
        if others and not self.replace:
            kind = HELD[others[0].relative_to(self.store.path).parts[0]]
            raise self._taken(f"{self.key} was imported into {self.store.path} as {kind}", "kind")
        for prompts in self._classes:
            draft = self._classes_draft(prompts)
            named = f"class embeddings '{prompts}' of {self.key.backbone} for {self.key.dataset}"
            if files.exists(draft.target) and not self.store.is_imported(draft.target):
                raise StaleCell(f"{named} were extracted into {self.store.path}: {_CALL}")
            self._state(draft, f"{named} are in {where}")
        return "replaced" if others else was

    def _publish(self) -> None:
        """Make everything ready before anything is visible; a cell comes after what it needs."""
        rows = self._written()
        texts = {prompts: self._written_classes(prompts) for prompts in self._classes}
        logits = [self._written_logits(prompts, draft, rows) for prompts, draft in texts.items()]
        facts = self.samples.attributes() | {"imported": True}
        self.store.samples_draft(self.samples).fill(self.samples.arrays(), facts)
        renewed = any(draft.is_taken() for draft in texts.values())
        for prompts, draft in texts.items():
            about = {"logit_scale": self._classes[prompts].scale, "provenance": self._provenance}
            self._release(draft, about)
        if self.replace and (renewed or self._was != "there"):
            kept = [draft.target for draft in logits if draft.is_published()]
            for path in self._others(rows):
                if path not in kept:
                    discard(self.store.path, path)
        self._release(rows.draft, self._about(rows))
        for draft in logits:
            self._release(draft, {})

    def _release(self, draft: Draft, about: Mapping[str, Any]) -> None:
        draft.publish(lambda _: about, replace=self.replace)

    def _about(self, rows: Rows) -> dict[str, Any]:
        invalid = {NO_VALUE: rows.invalid} if rows.invalid else {}
        made = {"invalid": invalid, "source": [], "provenance": self._provenance}
        return {**made, **self._recorded}

    def _written_classes(self, prompts: str) -> Draft:
        self._drafts.append(draft := self._classes_draft(prompts))
        if draft.pending():
            draft.write(0, {"class_embedding": self._classes[prompts].embeddings}, {})
        return draft

    def _written_logits(self, prompts: str, classes: Draft, rows: Rows) -> Draft:
        """Logits block by block, from the embeddings that were written."""
        identity: Identity = {
            "format": IDENTITY_VERSION,
            "features": rows.draft.fingerprint,
            "classes": classes.fingerprint,
            "prompts": prompts,
        }
        sizes = {"sample": len(self.samples), "class": classes.sizes["class"]}
        path = self.store.at("logits", *self.key.names, prompts)
        draft = self.store.draft(path, "logits", identity, sizes)
        self._drafts.append(draft)
        embeddings, scale = self._classes[prompts]
        for block in draft.pending():
            images = rows.draft.read("image_embedding", block)
            logits = zero_shot_logits(images, embeddings, scale, rows=len(images))
            draft.write(block, {"logit": logits, "prediction": predictions(logits)}, {})
        return draft

    def _others(self, rows: Rows) -> list[Path]:
        """Groups of that name that cannot stand beside what is written, imported or derived.

        Of other prompt sets, imported answers can, and derived ones stand beside embeddings alone.
        """
        embedded, own = rows.draft.kind == "features", self.prompts or PROMPTS
        paths = [self.store.features_path(self.key)]
        for kind in ANSWERS:
            for name in self.store.names_in(self.store.at(kind, *self.key.names)):
                path = self.store.at(kind, *self.key.names, name)
                if embedded or name == own or not self.store.is_imported(path):
                    paths.append(path)
        return [path for path in paths if path != rows.draft.target and files.exists(path)]

    # Identities

    def _path(self, kind: str) -> Path:
        """Where the group of that kind is, or will be."""
        if kind == "features":
            return self.store.features_path(self.key)
        return self.store.at(kind, *self.key.names, self.prompts or PROMPTS)

    def _classes_draft(self, prompts: str) -> Draft:
        classes = self._classes[prompts]
        scale = np.array([classes.scale])
        values = {"class_embedding": classes.embeddings, "logit_scale": scale}
        identity: Identity = {
            "format": IDENTITY_VERSION,
            "source": IMPORTED,
            "backbone": self.key.backbone,
            "dataset": self.key.dataset,
            "class_names": list(self.samples.class_names),
            "prompts": {"name": prompts},
            "content": arrays.content_digest(values),
        }
        count, width = classes.embeddings.shape
        path = self.store.classes_path(self.key.dataset, prompts, self.key.backbone)
        return self.store.draft(path, "classes", identity, {"class": count, "embed": width})

    def _state(self, draft: Draft, is_there: str) -> str:
        """new, there or replaced; raises StaleCell if what is there may not be replaced."""
        changes = draft.changes()
        if changes and not self.replace:
            raise self._taken(is_there, *(name for name, _, _ in changes))
        return "replaced" if changes else "there" if draft.is_published() else "new"

    def _taken(self, is_there: str, *fields: str) -> StaleCell:
        return StaleCell(
            f"{is_there} ({', '.join(fields)}): add replace=True, or give it another name with "
            "backbone=NAME",
            fields,
        )

    # What cannot be

    def _check_samples(self) -> None:
        dataset, split = self.samples.dataset, self.samples.split
        there = [names[1] for names, _ in self.store.groups("samples") if names[0] == dataset]
        splits = [split] if split in there else there
        tables = [self.store.samples(dataset, name) for name in splits]
        check_fits(tables, self.samples, self.store.path)

    def _check_name(self) -> None:
        there = self.store.cell(self.key)
        if files.exists(self.store.features_path(self.key)) and not there.imported_as:
            raise StaleCell(f"{self.key} was extracted into {self.store.path}: {_CALL}")
        if there.imported_as and bool(there.known_sets) != (self.prompts is not None):
            has = "no" if self.prompts else "a"
            raise StaleCell(
                f"{self.key} was imported into {self.store.path} under {has} prompt set: give what "
                "is imported another name with backbone=NAME"
            )

    def _n_classes(self, what: str) -> int:
        if not self.samples.class_names:
            raise DatasetError(
                f"{self.samples.name} has no class names, which {what} need: give them with its "
                "samples, or call the dataset something else"
            )
        return len(self.samples.class_names)

    def _check_count(self, what: str, there: int) -> None:
        if there != (count := self._n_classes(what)):
            raise DatasetError(
                f"{self.key}: {what} of {there} classes, where {self.samples.dataset} has {count}"
            )

    def _check_widths(self) -> None:
        """Refuse class embeddings of another width than image embeddings, once both are there."""
        if self._rows is None:
            return
        width = self._rows.width
        for prompts, classes in self._classes.items():
            own = classes.embeddings.shape[1]
            if width not in (None, own):
                raise InputError(
                    f"{self.key}: class embeddings of '{prompts}' have width {own}, and image "
                    f"embeddings {width}: both come from one backbone"
                )

    def _given(
        self, what: str, rows: ArrayLike, valid: ArrayLike | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """(row, width), and which of the rows have values."""
        values = matrix(str(self.key), what, rows)
        return values, known_rows(str(self.key), what, values, valid)

    def _append(
        self, kind: str, values: Mapping[str, NDArray[Any]], sizes: Mapping[str, int] | None = None
    ) -> None:
        sizes = {"sample": len(self.samples), **(sizes or {})}
        about = {"source": IMPORTED, "confidences": "confidence" in values}
        draft = self.store.draft(self._path(kind), kind, about, sizes)
        if self._rows is None:
            self._rows = Rows(draft)
            self._drafts.append(self._rows.draft)
        self._check_widths()
        self._rows.append(draft, values, str(self.key))


def _provenance(made_by: str) -> dict[str, str | None]:
    versions = {
        "clipsyn": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "command": running(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return {**versions, "made_by": made_by} if made_by else versions
