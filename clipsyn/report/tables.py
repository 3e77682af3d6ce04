"""Tables of the page, of backbones, datasets, methods and weights; and images to look at.

An image is shown only if it is the one that the store knows: its bytes are those that were
encoded. Pictures are made anew as WebP, so that nothing of the file but its pixels gets into the
page.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from clipsyn.analyses.predicted import Predicted, predicted
from clipsyn.catalog.datasets import look_up
from clipsyn.errors import ClipsynError, UsageError
from clipsyn.evaluation.results.frame import WHERE, Row, best_single, singles
from clipsyn.evaluation.tables import BEST, INDEPENDENT, flagged
from clipsyn.methods.ensembles import BEST_SINGLE, CHOSEN, ORACLE, is_transductive
from clipsyn.methods.numerics.logits import NO_CLASS, NONE_OF_THEM
from clipsyn.methods.numerics.metrics import scored
from clipsyn.report.evidence import Answers, Evidence
from clipsyn.report.standings import HINDSIGHT, Place, Standing, backbones, main_part
from clipsyn.show.table import (
    NOTHING,
    UNKNOWN,
    Cell,
    Ends,
    Table,
    interval_text,
    percent_cell,
    points_cell,
)
from clipsyn.show.tables import interval_of, table_of
from clipsyn.show.titles import common, title, where

if TYPE_CHECKING:
    from clipsyn.images.source import ImageSource

_MOST_ROWS = 150  # of the numbers below a figure
_EXAMPLES = 160  # pictures
_SIDE, _QUALITY = 112, 75  # pixels of a thumbnail; of its WebP, 40 % of a JPEG's bytes


def share_of(head: str, ends: Sequence[Any] | None, *, signed: bool = False) -> dict[str, Cell]:
    """A share in percent, of a value and its interval, or a gain in points."""
    if ends is None:
        return {head: UNKNOWN, interval_of(head): UNKNOWN}
    value, low, high = ends[:3]
    cell = points_cell(value) if signed else percent_cell(value)
    return {head: cell, interval_of(head): Cell(interval_text(low, high))}


def numbers_of(frame: pl.DataFrame, caption: str, rest: str) -> Table:
    """The rows of a frame as they are; `rest` says where those are that are too many for a page."""
    left = len(frame) - _MOST_ROWS
    floats = [name for name, kind in frame.schema.items() if kind.is_float()]
    notes = f"{left:,} more rows: {rest}" if left > 0 else ""
    digits = dict.fromkeys(floats, 4)
    return table_of(frame.head(_MOST_ROWS), title=caption, digits=digits, notes=notes)


_KNOWS = {
    CHOSEN: "by cross-validation on the support",
    BEST: "the backbone that is best on these very images",
    ORACLE: "right where at least one backbone is",
    INDEPENDENT: "the oracle, if errors were independent within each class",
    BEST_SINGLE: "the backbone that is best on the support",
}
_TOGETHER = "sees all test images together, so it is compared with no other"


def backbone_table(evidence: Evidence) -> Table:
    """A line for each backbone: how good it is alone, and what it brings to the others."""
    alone = backbones(evidence.frames["zeroshot"])
    sets = max(it.accuracy.datasets for it in alone)
    brings = _of_oracle(evidence.frames.get("oracle"))
    lines = []
    for it in alone:
        line: dict[str, Any] = {"backbone": it.name, **share_of("top-1, %", it.accuracy)}
        line["only it right, %"] = brings.get((it.name, "unique_correct"))
        line["Shapley, points"] = brings.get((it.name, "shapley"))
        line["GFLOPs"] = evidence.gflops.get(it.name)
        lines.append(line)
    over = f", means over {sets} datasets" if sets > 1 else ""
    note = (
        "Shapley: what the backbone adds to the oracle, on average over all orders in which "
        "backbones may join. Intervals are of 95 %."
    )
    return table_of(
        lines,
        title=f"Backbones alone, zero-shot{over}",
        percent=("only it right, %", "Shapley, points"),
        digits={"GFLOPs": 2},
        right=["top-1, %"],
        best={(0, "top-1, %"): ()},
        notes=note,
    )


def _of_oracle(frame: pl.DataFrame | None) -> dict[tuple[str, str], float]:
    """Means over datasets of what the oracle says of each backbone, by its name and the metric."""
    if frame is None:
        return {}
    rows = singles(main_part(frame)).filter(pl.col("value").is_not_nan())
    means = rows.group_by("backbone", "metric").agg(pl.col("value").mean())
    return {(name, metric): value for name, metric, value in means.iter_rows()}


def dataset_table(evidence: Evidence, lead: Standing | None) -> Table:
    """A line for each dataset: its best backbone, the oracle, and the method of the answer."""
    part = main_part(evidence.frames["zeroshot"])
    same = common(part, WHERE)
    keys = [name for name in WHERE if name not in same] or ["dataset"]
    lines = []
    for place, group in part.group_by(WHERE, maintain_order=True):
        oracles = group.filter(ensemble=ORACLE, metric="acc1").rows(named=True)
        row = best_single(group)
        dataset, split, perturbation = map(str, place[:3])
        lines.append(
            {
                "dataset": title(*where(row, keys)),
                "images": row["n"],
                "best backbone": row["backbone"],
                **share_of("top-1, %", _ends(row)),
                **share_of("oracle, %", next(map(_ends, oracles), None)),
                **(_of_lead(lead, (dataset, split, perturbation)) if lead else {}),
            }
        )
    about = title(*where(part.row(0, named=True), [name for name in same if name != "dataset"]))
    note = "Backbones and oracle are zero-shot; the best backbone is chosen on these very images."
    right = ["top-1, %", "oracle, %", *([lead.name, "its gain"] if lead else [])]
    return table_of(lines, title=f"Datasets, {about}", right=right, notes=note)


def _of_lead(lead: Standing, place: Place) -> dict[str, Any]:
    """What the answer is made of at one place."""
    accuracy = share_of(lead.name, lead.accuracies.get(place))
    gain = share_of("its gain", lead.gains.get(place), signed=True)
    chosen = lead.choices.get(place[0])
    return accuracy | gain | ({"chose": chosen.most_common(1)[0][0]} if chosen else {})


def _ends(row: Row) -> Ends:
    return row["value"], row["ci_low"], row["ci_high"]


def method_table(shown: Sequence[Standing], opponent: str) -> Table:
    """A line for each method, with what it gains over an opponent."""
    several = len({it.head for it in shown}) > 1
    sets = max(it.accuracy.datasets for it in shown)
    ranked = {at: it for at, it in enumerate(shown) if it.is_ranked}
    best = max((it.accuracy.value for it in ranked.values()), default=0)
    lines = []
    for it in shown:
        fair = it.name not in HINDSIGHT
        knows = _TOGETHER if is_transductive(it.name) else _KNOWS.get(it.name, NOTHING)
        about = {"method": flagged(it.name), interval_of("method"): knows}
        line: dict[str, Any] = about | ({"head": it.head} if several else {})
        line["fitted on"] = (it.shots or "nothing") if fair else "test labels"
        line |= share_of("top-1, %", it.accuracy)
        line |= share_of("gain, points", it.gain, signed=True)
        lines.append(line)
    note = f"gain: over {opponent}, on the same head. Methods fitted on test labels are bounds."
    over = f", means over {sets} datasets" if sets > 1 else ""
    first = [at for at, it in ranked.items() if it.accuracy.value == best]
    return table_of(
        lines,
        title=f"Methods{over}",
        right=["top-1, %", "gain, points"],
        best={(at, "top-1, %"): () for at in first},
        notes=note,
    )


def image_table(evidence: Evidence) -> Table:
    """A line for each dataset and split: its images, and what is shown of them."""
    lines = [
        {
            "dataset": place.samples.name,
            "images": len(place.samples),
            "labelled": place.labelled,
            "classes": len(place.samples.class_names),
            "conditions": len(place.perturbations),
            "backbones": len(place.backbones),
            "masked": place.masked,
            "licence of the images": place.samples.licence or None,
        }
        for place in evidence.splits
    ]
    note = (
        "masked: images that some backbone could not read, or has no answer for. They keep their "
        "row and do not count."
    )
    return table_of(lines, title="Datasets", notes=note)


# images that a backbone gets wrong


class Said(NamedTuple):
    """What a backbone, or the chosen method, says of an image."""

    who: str
    answer: str
    is_right: bool
    confidence: float | None


class Example(NamedTuple):
    """An image that some backbone, or the chosen method, gets wrong."""

    dataset: str
    split: str
    id: str
    content: bytes  # SHA-256; zeros where nobody has read it
    truth: str
    said: tuple[Said, ...]


def examples(group: Predicted, most: int, chosen: Answers) -> list[Example]:
    """Up to `most` images of a group, drawn with a fixed seed; none where all are right.

    As many as there are of each kind: what one backbone alone gets right, and what none, two or
    more do, each with what the chosen method gets wrong apart. chosen: its answers, if any.
    """
    samples, labels, predictions = group.samples, group.labels, group.predictions
    right = predictions == labels
    hits = right.sum(axis=0)
    answers = zip(samples.ids, labels.tolist(), strict=True)
    missed = np.array([id in chosen and chosen[id][0] != label for id, label in answers], bool)
    kinds = 2 * np.where(hits == 1, right.argmax(axis=0), -hits - 1) + missed
    shown = scored(predictions, labels) & ((hits < len(right)) | missed)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(shown))
    before: Counter[int] = Counter()
    turns = []
    for kind in kinds[rows].tolist():
        turns.append(before[kind])
        before[kind] += 1
    kept = np.sort(rows[np.argsort(turns, kind="stable")[:most]])
    said = [
        [*zip(predictions[row, kept].tolist(), group.confidences(key, kept), strict=True)]
        for row, key in enumerate(group.keys)
    ]
    names = {**dict(enumerate(samples.class_names)), NO_CLASS: NONE_OF_THEM}
    found = []
    for at, row in enumerate(kept.tolist()):
        id, label = samples.ids[row], labels[row]
        every = dict(zip(group.backbones, (one[at] for one in said), strict=True))
        every |= {CHOSEN: chosen[id]} if id in chosen else {}
        texts = [Said(who, names[it], it == label, sure) for who, (it, sure) in every.items()]
        content = samples.content[row].tobytes()
        found.append(
            Example(samples.dataset, samples.split, id, content, names[label], tuple(texts))
        )
    return found


def gallery(evidence: Evidence) -> dict[str, Any]:
    """What the template shows: images with marks, a letter for each of the names.

    Names are the backbones, and behind them the chosen method where its answers are kept. There
    are as many images of each dataset; those whose files are not there are left out.
    """
    settings = evidence.main_settings
    assert settings.images
    there = Thumbnails(
        settings.images, dict.fromkeys((it.dataset, it.split) for it in evidence.keys)
    )
    groups: dict[tuple[str, str], Predicted] = {}  # of the first prompt set
    for group in predicted(evidence.store, settings, pooled=settings.pooled):
        groups.setdefault((group.samples.name, group.perturbation), group)
    most = max(1, _EXAMPLES // max(1, len(groups)))
    every = [examples(group, most, evidence.chosen(group)) for group in groups.values()]
    found = [(it, data) for some in every for it in some if (data := there.of(it))]
    who = dict.fromkeys(said.who for it, _ in found for said in it.said)
    names = sorted(who, key=lambda name: name == CHOSEN)
    return {
        "images": [(it, data, _marks(it, names)) for it, data in found],
        "names": names,
        "backbones": len(names) - (CHOSEN in names),
        "datasets": sorted({it.dataset for it, _ in found}),
        "classes": sorted({it.truth for it, _ in found}),
    }


def _marks(example: Example, names: Sequence[str]) -> str:
    right = {said.who: said.is_right for said in example.said}
    return "".join({True: "1", False: "0", None: "-"}[right.get(name)] for name in names)


class Thumbnails:
    """Pictures of images in a folder, a tar, a manifest, or the folder of several datasets."""

    def __init__(self, path: Path, places: Iterable[tuple[str, str]]) -> None:
        """places: dataset and split of the images that are looked for.

        Raises UsageError where none of them is there.
        """
        if not path.exists():
            raise UsageError(f"there is no {path}: images=… is a folder, a tar or a manifest")
        self._images = {place: _by_id(_sources(path, *place)) for place in places}
        if not any(self._images.values()):
            names = ", ".join("/".join(place) for place in self._images)
            raise UsageError(
                f"{path} has no images of {names}: images=… is the folder, tar or manifest that "
                "they were extracted from, or the folder that has one of these for each dataset"
            )

    def of(self, example: Example) -> str | None:
        """A WebP in base64; None where the image is not there, or is another one."""
        found = self._images.get((example.dataset, example.split), {})
        for _, source, row in sorted(found.get(_bare(example.id), []), key=lambda it: it[0]):
            if not any(example.content) or source.digest(row) == example.content:
                return _webp(source, row)
        return None


def _by_id(sources: Iterable[ImageSource]) -> dict[str, list[tuple[int, ImageSource, int]]]:
    """Images by their ids without an ending, and without folders before them, and how many.

    A tar of a folder has the folder's name before each id.
    """
    found: dict[str, list[tuple[int, ImageSource, int]]] = {}
    for source in sources:
        for row, name in enumerate(source.ids):
            parts = _bare(name).split("/")
            for before in range(len(parts)):
                found.setdefault("/".join(parts[before:]), []).append((before, source, row))
    return found


def _bare(name: str) -> str:
    """An id without the ending of an image file."""
    from clipsyn.images.files import SUFFIXES

    stem, _, ending = name.rpartition(".")
    return stem if stem and f".{ending.lower()}" in SUFFIXES else name


def _webp(source: ImageSource, row: int) -> str | None:
    from clipsyn.images.source import UndecodableImage

    try:
        image = source.image(row)
    except UndecodableImage:
        return None
    image.info.clear()  # profiles and comments
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "WEBP", quality=_QUALITY)
    return b64encode(file.getvalue()).decode()


def _sources(path: Path, dataset: str, split: str) -> Iterator[ImageSource]:
    """Every reading of a path that has images for a dataset and split, whose names may be any."""
    from clipsyn.extract.images import open_source
    from clipsyn.images.files import open_path
    from clipsyn.images.source import inside

    if look_up(dataset):
        with suppress(ClipsynError, OSError):
            yield open_source(dataset, split, root=path)
    for name in (dataset, ""):
        with suppress(ClipsynError, OSError):
            (place,) = inside("images", [name], [path])
            inside("images", [split], [place])
            yield open_path(place, dataset, split, path)
