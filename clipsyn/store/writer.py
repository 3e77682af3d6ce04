"""Cells made elsewhere, written from Python or by an import; see `FeatureStore.writer`.

The rows of a cell go into a draft block by block, so that memory holds one block. The draft gets
its identity, which has a digest of all rows, when the last one is there. Nothing is visible before
the cell is published; samples and class embeddings, which it needs, go first.
"""

from __future__ import annotations

import platform
import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn import __version__
from clipsyn.errors import DamagedStore, DatasetError, InputError, StaleCell, UsageError
from clipsyn.methods.numerics.logits import is_scale, predictions, zero_shot_logits
from clipsyn.methods.pool import check_unit_norm
from clipsyn.names import FeatureKey, Identity, check_backbone_name
from clipsyn.store import files
from clipsyn.store.drafts import Draft, discard
from clipsyn.store.features import FeatureStore
from clipsyn.store.rows import (
    ContentDigest,
    blanked,
    class_indices,
    content_digest,
    known_rows,
    matrix,
    stored_confidences,
    stored_predictions,
)
from clipsyn.store.samples import SampleTable, check_fits
from clipsyn.store.schema import ANSWERS, HELD, IDENTITY_VERSION, IMPORTED, PROMPTS
from clipsyn.text import running

NO_VALUE = "no value"  # why a row is not valid, where nothing else is said


class CellWriter:
    """Writes one cell; made by `FeatureStore.writer`, which says how to use it.

    It holds embeddings, logits or predictions. Each of these methods takes the next rows, in
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
        self._classes: dict[str, tuple[NDArray[np.float32], float]] = {}  # and scale, by prompts
        self._draft: Draft | None = None  # of the rows
        self._count = self._invalid = 0  # rows so far
        self._waiting: list[Mapping[str, NDArray[Any]]] = []  # what the next block begins with
        self._content = ContentDigest()
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
                    self._was = self._checked()
                    self._publish()
        finally:
            for draft in self._drafts:
                draft.drop()

    # What is written

    def embeddings(self, rows: ArrayLike, valid: ArrayLike | None = None) -> None:
        """Append image embeddings, (row, embed) of unit norm; they are stored in float16."""
        values = matrix(str(self.key), "embeddings", rows)
        known = known_rows(str(self.key), "embeddings", values, valid)
        stored = blanked(values, known, np.float16)
        check_unit_norm(str(self.key), stored)
        sizes = {"embed": values.shape[1]}
        self._append("features", {"image_embedding": stored, "valid": known}, sizes)

    def logits(self, rows: ArrayLike, valid: ArrayLike | None = None) -> None:
        """Append logits of any scale, (row, class), and the predictions that follow from them."""
        values = matrix(str(self.key), "logits", rows)
        known = known_rows(str(self.key), "logits", values, valid)
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

        65534 is an answer that is none of the classes: it is wrong.
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

        With them image embeddings have zero-shot logits, which are stored.
        """
        what = f"class embeddings '{prompts}'"
        values = matrix(str(self.key), what, embeddings)
        known_rows(str(self.key), what, values, None)
        self._check_count(what, len(values))
        check_unit_norm(f"classes by {self.key.backbone}", values)
        if not is_scale(scale):
            raise self._refused(f"the logit scale is from 1e-6 to 1e6, such as 100, not {scale}")
        self._classes[prompts] = values.astype(np.float32), float(scale)
        self._check_widths()

    def record(self, **attributes: Any) -> None:
        """What the cell's attributes say beside its identity, such as `source`; docs/store.md."""
        self._recorded |= attributes

    def finish(self) -> str:
        """Whether the cell is new, there (the same content) or replaced, once nothing forbids it.

        Leaving the block does it. Raises InputError where rows are missing, and StaleCell where
        other content has the name.
        """
        if self._was is None:
            self._was = self._checked()
        return self._was

    # When all is written

    def _checked(self) -> str:
        if (draft := self._draft) is None:
            raise UsageError(
                f"{self.key}: nothing was written: give embeddings, logits or predictions"
            )
        embedded = draft.kind == "features"
        if self._classes and not embedded:
            raise UsageError(f"{self.key}: class embeddings go with image embeddings alone")
        if self.prompts is not None and embedded:
            raise UsageError(
                f"{self.key}: image embeddings depend on no prompts: leave prompts=… away"
            )
        if self._count < len(self.samples):
            raise self._refused(
                f"{self._count:,} rows, where {self.samples.name} has {len(self.samples):,} samples"
            )
        self._check_name()
        self._draft = draft = replace(draft, identity=self._identity(draft))
        changes = self._changes(draft)
        changes += ["kind" for path in self._others(draft) if self.store.is_imported(path)]
        for prompts in self._classes:
            changes += self._changes(text := self._classes_draft(prompts))
            if files.exists(text.target) and not self.store.is_imported(text.target):
                raise self._taken("has class embeddings that were extracted", changes)
        if changes and not self.replace:
            raise self._taken("is there with other content", changes, " add replace=True, or")
        return "replaced" if changes else "there" if draft.is_published() else "new"

    def _changes(self, draft: Draft) -> list[str]:
        """Fields in which what is at its place differs."""
        try:
            return [name for name, _, _ in draft.changes()]
        except DamagedStore:
            if not self.replace:
                raise
            return ["damaged"]

    def _publish(self) -> None:
        """Make everything ready before anything is visible; a cell comes after what it needs."""
        draft = self._draft
        assert draft
        texts = {prompts: self._classes_draft(prompts) for prompts in self._classes}
        self._drafts += texts.values()
        for prompts, text in texts.items():
            if text.pending():
                text.write(0, {"class_embedding": self._classes[prompts][0]}, {})
        logits = [self._written_logits(prompts, text, draft) for prompts, text in texts.items()]
        facts = self.samples.attributes() | {"imported": True}
        self.store.samples_draft(self.samples).fill(self.samples.arrays(), facts)
        for prompts, text in texts.items():
            about = {"logit_scale": self._classes[prompts][1], "provenance": self._provenance}
            self._release(text, about)
        if self._was == "replaced":
            kept = [derived.target for derived in logits if derived.is_published()]
            for path in self._others(draft):
                if path not in kept:
                    discard(self.store.path, path)
        invalid = {NO_VALUE: self._invalid} if self._invalid else {}
        made = {"invalid": invalid, "source": [], "provenance": self._provenance}
        self._release(draft, {**made, **self._recorded})
        for derived in logits:
            self._release(derived, {})

    def _release(self, draft: Draft, about: Mapping[str, Any]) -> None:
        draft.publish(lambda _: about, replace=self.replace)

    def _written_logits(self, prompts: str, classes: Draft, features: Draft) -> Draft:
        """Logits block by block, from the embeddings that were written."""
        identity: Identity = {
            "format": IDENTITY_VERSION,
            "features": features.fingerprint,
            "classes": classes.fingerprint,
            "prompts": prompts,
        }
        sizes = {"sample": len(self.samples), "class": classes.sizes["class"]}
        path = self.store.at("logits", *self.key.names, prompts)
        draft = self.store.draft(path, "logits", identity, sizes)
        self._drafts.append(draft)
        embeddings, scale = self._classes[prompts]
        for block in draft.pending():
            images = features.read("image_embedding", block)
            logits = zero_shot_logits(images, embeddings, scale, rows=len(images))
            draft.write(block, {"logit": logits, "prediction": predictions(logits)}, {})
        return draft

    def _others(self, draft: Draft) -> list[Path]:
        """Groups of that name that cannot stand beside what is written, imported or derived.

        Of other prompt sets, imported answers can, and derived ones stand beside embeddings alone.
        """
        embedded, own = draft.kind == "features", self.prompts or PROMPTS
        paths = [self.store.features_path(self.key)]
        for kind in ANSWERS:
            for name in self.store.names_in(self.store.at(kind, *self.key.names)):
                path = self.store.at(kind, *self.key.names, name)
                if embedded or name == own or not self.store.is_imported(path):
                    paths.append(path)
        return [path for path in paths if path != draft.target and files.exists(path)]

    # Identities

    def _identity(self, draft: Draft) -> Identity:
        """With which the rows are published, once all are there."""
        identity: Identity = {
            "format": IDENTITY_VERSION,
            "source": IMPORTED,
            "content": self._content.hexdigest(),
            **vars(self.key),
            "samples": self.samples.digest,
            "class_names": None if draft.kind == "features" else list(self.samples.class_names),
        }
        if draft.kind == "predictions":
            identity["confidences"] = draft.identity["confidences"]
        return identity | ({} if self.prompts is None else {"prompts": self.prompts})

    def _classes_draft(self, prompts: str) -> Draft:
        embeddings, scale = self._classes[prompts]
        values = {"class_embedding": embeddings, "logit_scale": np.array([scale])}
        identity: Identity = {
            "format": IDENTITY_VERSION,
            "source": IMPORTED,
            "backbone": self.key.backbone,
            "dataset": self.key.dataset,
            "class_names": list(self.samples.class_names),
            "prompts": {"name": prompts},
            "content": content_digest(values),
        }
        count, width = embeddings.shape
        path = self.store.classes_path(self.key.dataset, prompts, self.key.backbone)
        return self.store.draft(path, "classes", identity, {"class": count, "embed": width})

    # Rows

    def _append(
        self, kind: str, values: Mapping[str, NDArray[Any]], widths: Mapping[str, int] | None = None
    ) -> None:
        """Take the next rows of every array; whole blocks go into the draft."""
        sizes = {"sample": len(self.samples), **(widths or {})}
        if self._draft is None:
            token = secrets.token_hex(10)  # the identity follows from the rows
            own = (self.prompts or PROMPTS,) if kind in ANSWERS else ()
            identity = {"source": IMPORTED, "confidences": "confidence" in values, "writing": token}
            path = self.store.at(kind, *self.key.names, *own)
            self._draft = replace(self.store.draft(path, kind, identity, sizes), id=token)
            self._drafts.append(self._draft)
        draft = self._draft
        if kind != draft.kind or {spec.name for spec in draft.specs} != values.keys():
            raise UsageError(
                f"{self.key}: {', '.join(values)} after {HELD[draft.kind]}: a cell holds one kind "
                "of rows, all predictions with confidences or none"
            )
        if sizes != draft.sizes:
            raise self._refused(
                f"embeddings of width {sizes['embed']} after those of width "
                f"{draft.sizes['embed']}: one backbone has one width"
            )
        self._check_widths()
        count = len(values["valid"])
        if self._count + count > len(self.samples):
            raise self._refused(
                f"{self._count + count:,} rows, where there are {len(self.samples):,} samples"
            )
        self._invalid += count - int(np.count_nonzero(values["valid"]))
        for array, rows in values.items():
            self._content.add(array, rows)
        start, blocks = 0, draft.blocks
        while start < count:
            block = self._count // blocks.rows
            end = blocks.range(block).stop
            part = slice(start, min(count, start + end - self._count))
            self._waiting.append({array: rows[part] for array, rows in values.items()})
            start, self._count = part.stop, self._count + part.stop - start
            if self._count == end:
                parts, self._waiting = self._waiting, []
                whole = {array: np.concatenate([it[array] for it in parts]) for array in values}
                draft.write(block, whole, {})

    # What cannot be

    def _refused(self, why: str) -> InputError:
        return InputError(f"{self.key}: {why}")

    def _taken(self, what: str, fields: list[str], advice: str = "") -> StaleCell:
        said = f" ({', '.join(fields)})" if fields else ""
        return StaleCell(
            f"{self.key} in {self.store.path} {what}{said}:{advice} give it another name with "
            "backbone=NAME",
            tuple(fields),
        )

    def _check_samples(self) -> None:
        dataset, split = self.samples.dataset, self.samples.split
        there = [names[1] for names, _ in self.store.groups("samples") if names[0] == dataset]
        splits = [split] if split in there else there
        tables = [self.store.samples(dataset, name) for name in splits]
        check_fits(tables, self.samples, self.store.path)

    def _check_name(self) -> None:
        there = self.store.cell(self.key)
        if files.exists(self.store.features_path(self.key)) and not there.imported_as:
            raise self._taken("was extracted", [])
        if there.imported_as and bool(there.known_sets) != (self.prompts is not None):
            raise self._taken(f"was imported under {'no' if self.prompts else 'a'} prompt set", [])

    def _n_classes(self, what: str) -> int:
        if not self.samples.class_names:
            raise DatasetError(
                f"{self.samples.name} has no class names, which {what} need: give them with its "
                "samples, or call the dataset something else"
            )
        return len(self.samples.class_names)

    def _check_count(self, what: str, there: int) -> None:
        if there != (count := self._n_classes(what)):
            raise DatasetError(f"{self.key}: {what} of {there} classes, where there are {count}")

    def _check_widths(self) -> None:
        """Refuse class embeddings of another width than image embeddings, once both are there."""
        width = self._draft.sizes.get("embed") if self._draft else None
        for prompts, (embeddings, _) in self._classes.items():
            if width not in (None, own := embeddings.shape[1]):
                raise self._refused(
                    f"class embeddings of '{prompts}' have width {own}, and image embeddings "
                    f"{width}: both come from one backbone"
                )


def _provenance(made_by: str) -> dict[str, str | None]:
    versions = {
        "clipsyn": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "command": running(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return {**versions, "made_by": made_by} if made_by else versions
