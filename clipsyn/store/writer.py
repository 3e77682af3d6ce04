"""Cells made elsewhere, written from Python or by an import; see `FeatureStore.writer`.

Nothing is visible before the cell is published; samples and class embeddings, which it needs, go
first. Its identity has a digest of all rows.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn import __version__
from clipsyn.errors import DamagedStore, DatasetError, InputError, StaleCell, UsageError
from clipsyn.methods.numerics.logits import (
    LARGEST_LOGIT,
    NO_CLASS,
    NO_PREDICTION,
    finite_rows,
    is_scale,
    predictions,
)
from clipsyn.methods.pool import check_unit_norm
from clipsyn.names import FeatureKey, Identity, check_backbone_name
from clipsyn.store import files
from clipsyn.store.arrays import content_digest
from clipsyn.store.drafts import Draft, discard
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import ANSWERS, HELD, IDENTITY_VERSION, IMPORTED, PROMPTS
from clipsyn.store.samples import SampleTable, check_fits
from clipsyn.text import running

NO_VALUE = "no value"  # why a row is not valid, where nothing else is said


class CellWriter:
    """Writes one cell; made by `FeatureStore.writer`, which says how to use it.

    It holds embeddings, logits or predictions, a row a sample, in the order of these. `valid`,
    (row,) bool, is False where an image has no value; what the other arrays hold there is ignored.

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
        self._values: Mapping[str, NDArray[Any]] = {}  # the rows, by array
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
                    self._publish(self.finish())
        finally:
            for draft in self._drafts:
                draft.drop()

    # What is written

    def embeddings(self, rows: ArrayLike, valid: ArrayLike | None = None) -> None:
        """Image embeddings, (row, embed) of unit norm; they are stored in float16."""
        values, known = self._matrix("embeddings", rows, valid, np.float16)
        check_unit_norm(str(self.key), values)
        self._write("features", {"image_embedding": values, "valid": known})

    def logits(self, rows: ArrayLike, valid: ArrayLike | None = None) -> None:
        """Logits of any scale, (row, class), and the predictions that follow from them."""
        values, known = self._matrix("logits", rows, valid, np.float32)
        self._check_classes("logits", values.shape[1])
        answers = {"logit": values, "valid": known, "prediction": predictions(values)}
        self._write("logits", answers)

    def predictions(
        self,
        rows: ArrayLike,
        confidences: ArrayLike | None = None,
        valid: ArrayLike | None = None,
    ) -> None:
        """Predicted classes, (row,) indices, and the probability of each, (row,) 0 to 1.

        65534 is an answer that is none of the classes: it is wrong.
        """
        self._check_classes("predictions")
        values, count = class_indices(str(self.key), rows), len(self.samples.class_names)
        known = self._known("predictions", values, valid)
        outside = known & (values != NO_CLASS) & ((values < 0) | (values >= count))
        if outside.any():
            raise self._refused(
                f"class {values[outside][0]} is outside 0 to {count - 1}: valid=… says which "
                "images have no prediction"
            )
        predicted = np.where(known, values, NO_PREDICTION).astype(np.uint16)
        answers: dict[str, NDArray[Any]] = {"prediction": predicted, "valid": known}
        if confidences is not None:
            answers["confidence"] = self._confidences(confidences, known)
        self._write("predictions", answers)

    def classes(self, prompts: str, embeddings: ArrayLike, scale: float) -> None:
        """The class embeddings of a prompt set, (class, embed) of unit norm, and the logit scale.

        With them image embeddings have zero-shot logits, which are stored.
        """
        what = f"class embeddings '{prompts}'"
        values, _ = self._matrix(what, embeddings, None, np.float32)
        self._check_classes(what, len(values))
        check_unit_norm(f"classes by {self.key.backbone}", values)
        if not is_scale(scale):
            raise self._refused(f"the logit scale is from 1e-6 to 1e6, such as 100, not {scale}")
        self._classes[prompts] = values, float(scale)

    def record(self, **attributes: Any) -> None:
        """What the cell's attributes say beside its identity, such as `source`; docs/store.md."""
        self._recorded |= attributes

    def finish(self) -> str:
        """Whether the cell is new, there (the same content) or replaced, once nothing forbids it.

        Leaving the block does it. Raises StaleCell where other content has the name.
        """
        if (draft := self._draft) is None:
            raise UsageError(
                f"{self.key}: nothing was written: give embeddings, logits or predictions"
            )
        embedded = draft.kind == "features"
        if (self.prompts is not None) if embedded else self._classes:
            raise UsageError(
                f"{self.key}: class embeddings go with image embeddings alone, and prompts=… with "
                "logits or predictions"
            )
        self._check_name()
        changes = self._changes(draft)
        changes += ["kind" for path in self._others(draft) if self.store.is_imported(path)]
        for prompts, (embeddings, _) in self._classes.items():
            if (width := embeddings.shape[1]) != draft.sizes["embed"]:
                raise self._refused(
                    f"class embeddings of '{prompts}' have width {width}, and image embeddings "
                    f"{draft.sizes['embed']}: both come from one backbone"
                )
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

    def _publish(self, was: str) -> None:
        """Make everything ready before anything is visible; a cell comes after what it needs."""
        draft = self._draft
        assert draft
        texts = {prompts: self._classes_draft(prompts) for prompts in self._classes}
        self._drafts += texts.values()
        for prompts, text in texts.items():
            text.write_all({"class_embedding": self._classes[prompts][0]})
        logits = [self._written_logits(prompts, text) for prompts, text in texts.items()]
        table = self.store.samples_draft(self.samples)
        table.write_all(self.samples.arrays())
        table.publish(lambda _: self.samples.attributes() | {"imported": True})
        for prompts, text in texts.items():
            about = {"logit_scale": self._classes[prompts][1], "provenance": self._provenance}
            self._release(text, about)
        if was == "replaced":
            kept = [derived.target for derived in logits if derived.is_published()]
            for path in self._others(draft):
                if path not in kept:
                    discard(self.store.path, path)
        invalid = int(np.count_nonzero(~self._values["valid"]))
        made = {
            "invalid": {NO_VALUE: invalid} if invalid else {},
            "source": [],
            "provenance": self._provenance,
        }
        self._release(draft, {**made, **self._recorded})
        for derived in logits:
            self._release(derived, {})

    def _release(self, draft: Draft, about: Mapping[str, Any]) -> None:
        draft.publish(lambda _: about, replace=self.replace)

    def _written_logits(self, prompts: str, classes: Draft) -> Draft:
        """Logits from the embeddings that were written."""
        assert self._draft
        draft = self.store.answers_draft("logits", self.key, prompts, self._draft, classes)
        self._drafts.append(draft)
        rows = self._values["image_embedding"]
        draft.write_answers(lambda part: rows[part.start : part.stop], *self._classes[prompts])
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

    def _identity(self, kind: str, values: Mapping[str, NDArray[Any]]) -> Identity:
        identity: Identity = {
            "format": IDENTITY_VERSION,
            "source": IMPORTED,
            "content": content_digest(values),
            **vars(self.key),
            "samples": self.samples.digest,
            "class_names": None if kind == "features" else list(self.samples.class_names),
        }
        if kind == "predictions":
            identity["confidences"] = "confidence" in values
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

    def _write(self, kind: str, values: Mapping[str, NDArray[Any]]) -> None:
        if self._draft:
            raise UsageError(
                f"{self.key}: {', '.join(values)} after {HELD[self._draft.kind]}: a cell is "
                "written once, and holds one kind of rows"
            )
        if (count := len(values["valid"])) != len(self.samples):
            raise self._refused(
                f"{count:,} rows, where {self.samples.name} has {len(self.samples):,} samples"
            )
        own = (self.prompts or PROMPTS,) if kind in ANSWERS else ()
        sizes, path = {"sample": count}, self.store.at(kind, *self.key.names, *own)
        for array, dim in (("image_embedding", "embed"), ("logit", "class")):
            if array in values:
                sizes[dim] = values[array].shape[1]
        self._values = values
        self._draft = self.store.draft(path, kind, self._identity(kind, values), sizes)
        self._drafts.append(self._draft)
        self._draft.write_all(values)

    def _matrix(
        self, what: str, rows: ArrayLike, valid: ArrayLike | None, dtype: type[np.floating[Any]]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """(row, width) with NaN in rows that have no value, and (row,) which have one."""
        given = np.asarray(rows)
        if given.ndim != 2 or given.dtype.kind not in "fiu" or not given.shape[1]:
            raise self._refused(f"{what} are numbers (row, width), not {_described(given)}")
        with np.errstate(over="ignore"):  # what is too large is not finite, or far off unit norm
            values = given if given.dtype == np.float16 else given.astype(np.float32)
            known = self._known(what, values, valid)
            stored = values.astype(dtype)
        stored[~known] = np.nan
        return stored, known

    def _known(self, what: str, values: NDArray[Any], valid: ArrayLike | None) -> NDArray[np.bool_]:
        """(row,) which rows have a value: all, or those of `valid`; they are finite."""
        known = np.ones(len(values), np.bool_) if valid is None else np.array(valid)
        if known.shape != (len(values),) or known.dtype != np.bool_:
            raise self._refused(f"valid is bool ({len(values)},), not {_described(known)}")
        if len(wrong := np.flatnonzero(known & ~finite_rows(values))):
            raise self._refused(
                f"{what} of {len(wrong):,} rows are not finite, or beyond {LARGEST_LOGIT:g} "
                f"(row {wrong[0]} of {len(values):,}): valid=… says which images have none"
            )
        return known

    def _confidences(self, confidences: ArrayLike, known: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(row,) probabilities; NaN where there is no prediction."""
        values = np.asarray(confidences)
        if values.shape != known.shape or values.dtype.kind not in "fiu":
            raise self._refused(
                f"confidences are numbers ({len(known)},), not {_described(values)}"
            )
        if len(wrong := np.flatnonzero(known & ~((values >= 0) & (values <= 1)))):
            raise self._refused(
                f"confidences are 0 to 1, one for each prediction, not {values[wrong[0]]:g} "
                f"(row {wrong[0]})"
            )
        return np.where(known, values, np.nan).astype(np.float32)

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

    def _check_classes(self, what: str, there: int | None = None) -> None:
        if not (names := self.samples.class_names):
            raise DatasetError(
                f"{self.samples.name} has no class names, which {what} need: give them with its "
                "samples, or call the dataset something else"
            )
        if there not in (None, len(names)):
            raise DatasetError(f"{self.key}: {what} of {there} classes, where {len(names)} are")


def class_indices(where: str, rows: ArrayLike) -> NDArray[np.integer[Any]]:
    """(row,) of any type of whole numbers; raises InputError."""
    values = np.asarray(rows)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise InputError(f"{where}: predictions are class indices (row,), not {_described(values)}")
    return values


def _described(values: NDArray[Any]) -> str:
    return f"{values.dtype} {values.shape}"


def _provenance(made_by: str) -> dict[str, str | None]:
    versions = {
        "clipsyn": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "command": running(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return {**versions, "made_by": made_by} if made_by else versions
