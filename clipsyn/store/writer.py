"""Cells made elsewhere, written from Python or by an import; see `FeatureStore.writer`.

Nothing is visible before the cell is published; samples and class embeddings, which it needs, go
first. Its identity has a digest of all rows.
"""

from __future__ import annotations

import platform
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipsyn import __version__
from clipsyn.errors import DamagedStore, DatasetError, InputError, StaleCell, UsageError
from clipsyn.methods.numerics.logits import NO_CLASS, NO_PREDICTION, predictions
from clipsyn.names import FeatureKey, Identity, check_backbone_name
from clipsyn.store import files, given
from clipsyn.store.drafts import Draft, discard
from clipsyn.store.features import FeatureStore
from clipsyn.store.files import ANSWERS, GROUPS, HELD, IDENTITY_VERSION, IMPORTED, PROMPTS
from clipsyn.store.given import Made, Rows
from clipsyn.store.samples import CaptionTable, SampleTable, check_fits
from clipsyn.text import now, running

NO_VALUE = "no value"  # why a row is not valid, where nothing else is said


@dataclass(frozen=True, eq=False)
class _Beside:
    """A group that goes with image embeddings, and is published before them."""

    draft: Draft
    arrays: Mapping[str, NDArray[Any]]
    about: Mapping[str, Any]  # its attributes


class CellWriter:
    """Writes one cell; made by `FeatureStore.writer`, which says how to use it.

    It holds embeddings, logits or predictions, a row a sample, in the order of these. `valid`,
    (row,) bool, is False where an image has no value; what the other arrays hold there is ignored.
    With `mended` rows that are not finite have none, either, and embeddings may be of any norm.

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
        self.replace, self.mended = replace, False
        self._provenance, self._recorded = _provenance(made_by), dict[str, Any]()
        self._beside: dict[Path, _Beside] = {}
        self._draft: Draft | None = None  # of the rows
        self.valid: NDArray[np.bool_] = np.zeros(0, np.bool_)  # of the rows, once they are written
        self._drafts: list[Draft] = []  # of all that is written: an interrupted one is of no use,
        # for what it is of is known when all of it was looked at
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

    def embeddings(self, rows: ArrayLike | Made, valid: ArrayLike | None = None) -> None:
        """Image embeddings, (row, embed) of unit norm; they are stored in float16.

        An array that `np.load(…, mmap_mode="r")` has mapped may be larger than memory.
        """
        what, mended = f"{self.key}: embeddings", self.mended
        values, known = given.matrix(what, rows, valid, np.float16, unit=True, mended=mended)
        self._write("features", {"image_embedding": values, "valid": known})

    def logits(self, rows: ArrayLike | Made, valid: ArrayLike | None = None) -> None:
        """Logits of any scale, (row, class), and the predictions that follow from them."""
        what, mended = f"{self.key}: logits", self.mended
        values, known = given.matrix(what, rows, valid, np.float32, unit=False, mended=mended)
        self._check_classes("logits", values.shape[1])
        predicted = np.empty(len(values), np.uint16)

        def made(some: slice) -> NDArray[Any]:
            part = values[some]
            predicted[some] = predictions(part)
            return part

        logits = replace(values, make=made)
        self._write("logits", {"logit": logits, "valid": known, "prediction": predicted})

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
        values, count = given.class_indices(str(self.key), rows), len(self.samples.class_names)
        known = given.known_rows(f"{self.key}: predictions", len(values), valid)
        outside = known & (values != NO_CLASS) & ((values < 0) | (values >= count))
        if outside.any():
            raise self._refused(
                f"class {values[outside][0]} is outside 0 to {count - 1}: valid=… says which "
                "images have no prediction"
            )
        predicted = np.where(known, values, NO_PREDICTION).astype(np.uint16)
        answers: dict[str, NDArray[Any]] = {"prediction": predicted, "valid": known}
        if confidences is not None:
            answers["confidence"] = given.probabilities(
                f"{self.key}: confidences", confidences, known
            )
        self._write("predictions", answers)

    def classes(self, prompts: str, embeddings: ArrayLike, scale: float) -> None:
        """The class embeddings of a prompt set, (class, embed) of unit norm, and the logit scale.

        With them image embeddings have zero-shot logits, which are stored.
        """
        what = f"class embeddings '{prompts}'"
        values = given.texts(f"{self.key}: {what}", embeddings, scale, np.float32)
        self._check_classes(what, len(values))
        of = {"class_names": list(self.samples.class_names), "prompts": {"name": prompts}}
        self._add_texts("classes", (self.key.dataset, prompts), of, values, float(scale))

    def captions(
        self,
        captions: CaptionTable | Sequence[str | Sequence[str]],
        embeddings: ArrayLike,
        scale: float,
    ) -> None:
        """The captions of the samples, and what they are to the backbone.

        captions: a table, or of each sample its texts, as `CaptionTable.of` takes them. embeddings:
        (caption, embed) of unit norm, stored in float16. scale: the logit scale.
        """
        table = captions
        if not isinstance(table, CaptionTable):
            table = CaptionTable.of(self.samples, table)
        values = given.texts(f"{self.key}: text embeddings", embeddings, scale, np.float16)
        if len(values) != len(table):
            raise self._refused(f"{len(values):,} embeddings of {len(table):,} captions")
        draft = self._own(self.store.captions_draft(table, self.samples))
        self._beside[draft.target] = _Beside(draft, table.arrays(), {})
        of = {"split": table.split, "captions": table.digest}
        self._add_texts("texts", (table.dataset, table.split), of, values, float(scale))

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
        if (self.prompts is not None) if embedded else self._beside:
            raise UsageError(
                f"{self.key}: class embeddings and captions go with image embeddings alone, and "
                "prompts=… with logits or predictions"
            )
        self._check_name()
        changes = self._changes(draft)
        changes += ["kind" for path in self._others(draft) if self.store.is_imported(path)]
        for text in (it.draft for it in self._beside.values()):
            changes += self._changes(text)
            if text.kind == "captions":
                continue
            if (width := text.sizes["embed"]) != draft.sizes["embed"]:
                raise self._refused(
                    f"{text.target.relative_to(self.store.path)} has width {width}, and image "
                    f"embeddings {draft.sizes['embed']}: both come from one backbone"
                )
            if files.exists(text.target) and not self.store.is_imported(text.target):
                raise self._taken("has embeddings of texts that were extracted", changes)
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
        beside = self._beside.values()
        for it in beside:
            it.draft.write_all(it.arrays)
        logits = [self._written_logits(it) for it in beside if it.draft.kind == "classes"]
        table = self._own(self.store.samples_draft(self.samples))
        table.write_all(self.samples.arrays())
        files.sync_all(self.store.path)
        table.publish(lambda _: self.samples.attributes() | {"imported": True})
        for it in beside:
            self._release(it.draft, it.about)
        if was == "replaced":
            kept = [derived.target for derived in logits if derived.is_published()]
            for path in self._others(draft):
                if path not in kept:
                    discard(self.store.path, path)
        invalid = int(np.count_nonzero(~self.valid))
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

    def _written_logits(self, classes: _Beside) -> Draft:
        """Logits from the embeddings that were written."""
        assert self._draft
        prompts = classes.draft.identity["prompts"]["name"]
        texts = classes.arrays["class_embedding"]
        draft = self._own(
            self.store.answers_draft("logits", self.key, prompts, self._draft, classes.draft)
        )
        images = partial(self._draft.read, "image_embedding")
        draft.write_answers(images, texts, classes.about["logit_scale"])
        return draft

    def _others(self, draft: Draft) -> list[Path]:
        """Groups of that name that cannot stand beside what is written, imported or derived.

        Of other prompt sets, imported answers can, and derived ones stand beside embeddings alone.
        """
        embedded, own = draft.kind == "features", self.prompts or PROMPTS
        paths = [self.store.at("features", *self.key.names)]
        for kind in ANSWERS:
            for name in self.store.names_in(self.store.at(kind, *self.key.names)):
                path = self.store.at(kind, *self.key.names, name)
                if embedded or name == own or not self.store.is_imported(path):
                    paths.append(path)
        return [path for path in paths if path != draft.target and files.exists(path)]

    # Identities

    def _own(self, draft: Draft) -> Draft:
        self._drafts.append(replace(draft, own=secrets.token_hex(8)))
        return self._drafts[-1]

    def _identity(self, kind: str, values: Mapping[str, Rows]) -> Identity:
        """All of it but the digest of the content."""
        identity: Identity = {
            "format": IDENTITY_VERSION,
            "source": IMPORTED,
            **vars(self.key),
            "samples": self.samples.digest,
            "class_names": None if kind == "features" else list(self.samples.class_names),
        }
        if kind == "predictions":
            identity["confidences"] = "confidence" in values
        return identity | ({} if self.prompts is None else {"prompts": self.prompts})

    def _add_texts(
        self, kind: str, names: Sequence[str], of: Identity, values: NDArray[Any], scale: float
    ) -> None:
        """Embeddings of texts, which are published before the cell."""
        spec, *_ = GROUPS[kind]
        identity: Identity = {
            "format": IDENTITY_VERSION,
            "source": IMPORTED,
            "backbone": self.key.backbone,
            "dataset": self.key.dataset,
            **of,
            "content": given.content_digest({spec.name: values, "logit_scale": np.array([scale])}),
        }
        sizes = dict(zip(spec.dims, values.shape, strict=True))
        path = self.store.at(kind, *names, self.key.backbone)
        draft = self._own(self.store.draft(path, kind, identity, sizes, files.MOST_CHUNK_ROWS))
        about = {"logit_scale": scale, "provenance": self._provenance}
        self._beside[draft.target] = _Beside(draft, {spec.name: values}, about)

    # Rows

    def _write(self, kind: str, values: Mapping[str, Rows]) -> None:
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
        identity = self._identity(kind, values)
        draft = self._own(self.store.draft(path, kind, identity, sizes, files.MOST_CHUNK_ROWS))
        content = given.content_digest(values, draft.writing(values))
        self._draft = replace(draft, identity={**identity, "content": content})
        self.valid = np.asarray(values["valid"])

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
        if files.exists(self.store.at("features", *self.key.names)) and not there.imported_as:
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


def _provenance(made_by: str) -> dict[str, str | None]:
    versions = {
        "clipsyn": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "command": running(),
        "written": now(),
    }
    return {**versions, "made_by": made_by} if made_by else versions
