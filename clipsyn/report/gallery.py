"""Images to look at: some of those that a backbone gets wrong, with what each says of them.

An image is shown only if it is the one that the store knows: its bytes are those that were
encoded. Pictures are made anew as WebP, so that nothing of the file but its pixels gets into the
page.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipsyn.analyses.predicted import Predicted, predicted
from clipsyn.catalog.datasets import look_up
from clipsyn.errors import ClipsynError, UsageError
from clipsyn.evaluation import predictions_of
from clipsyn.evaluation.results.files import collect, scan
from clipsyn.evaluation.results.frame import SHOTS_IN_ORDER, WHERE, singles
from clipsyn.methods.ensembles import CHOSEN
from clipsyn.methods.numerics.logits import NO_CLASS, NONE_OF_THEM
from clipsyn.methods.numerics.metrics import judge, scored
from clipsyn.names import FeatureKey
from clipsyn.report.evidence import Evidence
from clipsyn.report.standings import main_part
from clipsyn.show.table import Table, percent
from clipsyn.show.tables import interval_of, table_of
from clipsyn.show.titles import common, shortened, title, where
from clipsyn.store.pools import PoolReader

if TYPE_CHECKING:
    from clipsyn.images.sources import ImageSource

_EXAMPLES = 160  # pictures
_SIDE = 112  # pixels of a thumbnail
_QUALITY = 75  # of its WebP, which takes 40 % of a JPEG's bytes at this size
Answers = Mapping[str, tuple[int, float | None]]  # by id of an image: a class, and a confidence


class Said(NamedTuple):
    """What a backbone, or the chosen method, says of an image."""

    who: str
    answer: str
    is_right: bool
    confidence: float | None


class Example(NamedTuple):
    """An image that some backbone or the chosen method gets wrong."""

    dataset: str
    split: str
    id: str
    content: bytes  # SHA-256; zeros where nobody has read it
    truth: str
    said: tuple[Said, ...]


def unique_table(oracle: pl.DataFrame) -> Table | None:
    """How many images only one backbone gets right: a line a dataset, a column a backbone."""
    part = singles(main_part(oracle)).filter(pl.col("value").is_not_nan())
    images = part.filter(metric="unique_correct")
    if images["backbone"].n_unique() < 2:
        return None
    names = shortened(images["backbone"].unique(maintain_order=True).to_list())
    keys = [name for name in WHERE if name not in common(images, WHERE)] or ["dataset"]
    lines = []
    best: dict[tuple[int, str], tuple[()]] = {}
    for at, (_, group) in enumerate(images.group_by(WHERE, maintain_order=True)):
        row = group.row(0, named=True)
        found = dict(group.select("backbone", "value").iter_rows())
        line: dict[str, Any] = {"dataset": title(*where(row, keys)), "images": row["n"]}
        for name, text in names.short.items():
            share = found.get(name)
            line[text] = None if share is None else round(share * row["n"])
            line[interval_of(text)] = None if share is None else f"{percent(share)} %"
            if share and share == max(found.values()):
                best[at, text] = ()
        lines.append(line)
    guess = max(part.filter(metric="unique_correct_floor")["value"], default=None)
    note = f"A backbone that guesses would have at most {percent(guess)} % of a dataset's images."
    caption = title("Images that only this backbone gets right", names.phrase)
    return table_of(lines, title=caption, best=best, notes=note)


def examples(group: Predicted, most: int, chosen: Answers) -> list[Example]:
    """Up to `most` images of a group, drawn with a fixed seed; none where all are right.

    As many as there are of each kind: what one backbone alone gets right, what none, two or more
    do, and what the chosen method gets wrong. chosen: its answers; empty where nobody knows them.
    """
    labels, predictions = group.labels, group.predictions
    right = predictions == labels
    hits = right.sum(axis=0)
    answers = [chosen.get(id, (NO_CLASS, None)) for id in group.samples.ids]
    missed = bool(chosen) & (np.array([answer for answer, _ in answers]) != labels)
    kinds = 2 * np.where(hits == 1, right.argmax(axis=0), -hits - 1) + missed
    shown = scored(predictions, labels) & ((hits < len(right)) | missed)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(shown))
    before: Counter[int] = Counter()
    turns = []
    for kind in kinds[rows].tolist():
        turns.append(before[kind])
        before[kind] += 1
    kept = np.sort(rows[np.argsort(turns, kind="stable")[:most]])
    sure = [_confidences(group, key, kept) for key in group.keys]
    return [
        _example(group, int(row), [given[at] for given in sure], answers[row] if chosen else None)
        for at, row in enumerate(kept)
    ]


def _example(
    group: Predicted,
    row: int,
    sure: list[float | None],
    chosen: tuple[int, float | None] | None,
) -> Example:
    samples, label = group.samples, int(group.labels[row])
    said = list(zip(group.backbones, group.predictions[:, row].tolist(), sure, strict=True))
    said += [(CHOSEN, *chosen)] if chosen else []
    names = samples.class_names
    return Example(
        samples.dataset,
        samples.split,
        samples.ids[row],
        samples.content[row].tobytes(),
        names[label],
        tuple(
            Said(who, NONE_OF_THEM if it == NO_CLASS else names[it], it == label, confidence)
            for who, it, confidence in said
        ),
    )


def _confidences(
    group: Predicted, key: FeatureKey, rows: NDArray[np.intp]
) -> Sequence[float | None]:
    """Of one backbone; None where it has answers alone, or answers of several conditions."""
    if group.has_logits(key):
        reader = PoolReader(
            group.store,
            key.dataset,
            key.split,
            perturbation=key.perturbation,
            backbones=key.backbone,
            prompts=group.prompts,
        )
        pool = reader.read(rows, embeddings=False)
        return [*map(float, judge(pool.logits[:, 0], pool.labels).confidence)]
    if key.perturbation == group.perturbation and group.store.cell(key).has_confidences:
        return [*map(float, group.store.confidences(key, group.prompts)[rows])]
    return [None] * len(rows)


def chosen_answers(path: Path | None, group: Predicted) -> Answers:
    """Of the method that the support chooses, at the most shots and the first draw.

    path: of results, beside which predictions are kept.
    """
    if path is None or not (predictions := predictions_of(path)).exists():
        return {}
    about = {
        "dataset": group.samples.dataset,
        "split": group.samples.split,
        "perturbation": group.perturbation,
        "prompts": group.prompts,
        "ensemble": CHOSEN,
        "metric": "acc1",
    }
    draws = collect(path).filter(**about).sort(SHOTS_IN_ORDER, -pl.col("seed"))
    if draws.is_empty():
        return {}
    rows = (
        scan(predictions)
        .filter(fingerprint=draws["fingerprint"][-1])
        .select("sample_id", "prediction", "confidence")
        .collect()
    )
    return {id: (answer, confidence) for id, answer, confidence in rows.iter_rows()}


def gallery(evidence: Evidence) -> dict[str, Any]:
    """What the template shows: images with marks, a letter for each of the names.

    Names are the backbones, and behind them the chosen method, where its answers are known. There
    are as many images of each dataset; those whose files are not there are left out.
    """
    assert evidence.settings.images
    places = dict.fromkeys((key.dataset, key.split) for key in evidence.keys)
    there = Thumbnails(evidence.settings.images, places)
    found = [(it, data) for it in _examples(evidence) if (data := there.of(it))]
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


def _examples(evidence: Evidence) -> list[Example]:
    settings = evidence.main_settings
    groups: dict[tuple[str, str], Predicted] = {}  # of the first prompt set
    for group in predicted(evidence.store, settings, pooled=settings.pooled):
        groups.setdefault((group.samples.name, group.perturbation), group)
    most = max(1, _EXAMPLES // max(1, len(groups)))
    return [
        example
        for group in groups.values()
        for example in examples(group, most, chosen_answers(settings.results, group))
    ]


class Thumbnails:
    """Pictures of images in a folder, a tar, a manifest, or the folder of several datasets."""

    def __init__(self, path: Path, places: Iterable[tuple[str, str]]) -> None:
        """places: dataset and split of the images that are looked for.

        Raises UsageError where none of them is there.
        """
        if not path.exists():
            raise UsageError(f"there is no {path}: images=… is a folder, a tar or a manifest")
        self._sources = {place: [*_sources(path, *place)] for place in places}
        self._by_name: dict[tuple[str, str], dict[str, list[tuple[ImageSource, int]]]] = {}
        if not any(self._sources.values()):
            names = ", ".join("/".join(place) for place in self._sources)
            raise UsageError(
                f"{path} has no images of {names}: images=… is the folder, tar or manifest that "
                "they were extracted from, or the folder that has one of these for each dataset"
            )

    def of(self, example: Example) -> str | None:
        """A WebP in base64; None where the image is not there, or is another one."""
        for source, row in self._found(example):
            if not any(example.content) or source.digest(row) == example.content:
                return _webp(source, row)
        return None

    def _found(self, example: Example) -> list[tuple[ImageSource, int]]:
        """Images of that id, with or without an ending; those in a folder of their own come last.

        A tar of a folder has the folder's name before each id.
        """
        place = example.dataset, example.split
        if place not in self._by_name:
            self._by_name[place] = _by_name(self._sources.get(place, []))
        wanted = _bare(example.id)
        there = self._by_name[place].get(wanted.rpartition("/")[2], [])
        same = [it for it in there if _bare(it[0].ids[it[1]]) == wanted]
        return same + [it for it in there if _bare(it[0].ids[it[1]]).endswith(f"/{wanted}")]


def _by_name(sources: Iterable[ImageSource]) -> dict[str, list[tuple[ImageSource, int]]]:
    """Where each image is, by the last part of its id."""
    found: dict[str, list[tuple[ImageSource, int]]] = {}
    for source in sources:
        for row, name in enumerate(source.ids):
            found.setdefault(_bare(name).rpartition("/")[2], []).append((source, row))
    return found


def _bare(name: str) -> str:
    """An id without the ending of an image file."""
    from clipsyn.images.sources.files import SUFFIXES

    stem, _, ending = name.rpartition(".")
    return stem if stem and f".{ending.lower()}" in SUFFIXES else name


def _webp(source: ImageSource, row: int) -> str | None:
    from clipsyn.images.decode import UndecodableImage

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
    from clipsyn.images.sources import inside
    from clipsyn.images.sources.files import open_path
    from clipsyn.images.sources.webdataset import open_tar

    if path.suffix == ".tar":
        yield open_tar(path, dataset, split)
        return
    if look_up(dataset):
        with suppress(ClipsynError, OSError):
            yield open_source(dataset, split, root=path)
    for name in (dataset, ""):
        with suppress(ClipsynError, OSError):
            (place,) = inside("images", [name], [path])
            inside("images", [split], [place])
            yield open_path(place, dataset, split, path)
