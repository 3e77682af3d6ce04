"""Predict a split of a store with a router: a row for each image.

The store's own logits are read where its class embeddings are those that the router brings.
Elsewhere logits are made from the stored image embeddings and the router's class embeddings, by the
same function: the store needs no class embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars import selectors

from clipsyn.catalog.backbones import resolve_backbones
from clipsyn.errors import MissingCell, RouterMismatch, UsageError
from clipsyn.methods.numerics import Array, Floats, Labels
from clipsyn.methods.numerics.logits import NO_PREDICTION, predictions, softmax
from clipsyn.methods.numerics.metrics import Score, accuracy, scored
from clipsyn.methods.pool import NO_LABEL, Pool
from clipsyn.names import CLEAN, FeatureKey
from clipsyn.router.fit import FittedBackbone, FittedRouter
from clipsyn.show.figure import COLUMN, INK, Figure, label
from clipsyn.show.titles import shortened
from clipsyn.stats.intervals import Interval, share_interval
from clipsyn.store.arrays import spans
from clipsyn.store.features import FeatureStore, opened
from clipsyn.store.files import PROMPTS as UNKNOWN
from clipsyn.store.overlap import held
from clipsyn.store.pools import PoolReader
from clipsyn.store.samples import SampleTable
from clipsyn.text import LOG, advised

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WEIGHT = "weight "  # begins the name of a column, before a backbone
_LINE, _BELOW = 0.19, 0.45  # inches
_BOX = "#9fc5e0"
_LEVELS = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a router predicts for a split.

    frame: a row for each image with id, class, class_index, probability and, if the ensemble weighs
    backbones, ``weight BACKBONE`` for each; all but the id are null where an image could not be
    read. seen: whether the router was fitted on it, null where that is not known. accuracy: None
    without labels, or with `other_classes`. other_classes: some labels are of classes that the
    router does not know.
    """

    frame: pl.DataFrame
    accuracy: Score | None
    interval: Interval | None  # of the accuracy, in which copies of an image count once
    other_classes: bool


def predict_store(
    router: FittedRouter,
    store: FeatureStore | Path | str,
    dataset: str,
    split: str = "test",
    *,
    perturbation: str = CLEAN.label,
) -> Predictions:
    """Predict every image of a split, a bounded number at a time.

    The images may come with other classes and prompts than the router's, which predicts with its
    own; there is an accuracy if it has a class of the same name for each of theirs. Raises
    RouterMismatch that names what differs of a backbone, and MissingCell with the
    `clipsyn extract` line that makes the cell.

    >>> from clipsyn import FeatureStore, fit_router, predict_store
    >>> store = FeatureStore.open("store")
    >>> predicted = predict_store(fit_router(store, "toy", "log-avg"), store, "toy")
    >>> predicted.frame.columns[:4], len(predicted.frame)
    (['id', 'class', 'class_index', 'probability'], 20)
    """
    store = opened(store)
    images = _Images(router, store, store.samples(dataset, split), perturbation)
    images.check_cells()
    frames, predicted = zip(*(_predict(router, pool) for pool in images.blocks()), strict=True)
    frame = pl.concat(frames).with_columns(images.seen())
    labels = images.labels()
    if labels is None or not (labels >= 0).any():
        return Predictions(frame, None, None, other_classes=labels is None)
    answers = np.concatenate(predicted)
    found = accuracy(answers, labels)
    shown = images.samples.images.take(scored(answers, labels))
    interval = share_interval(round(found.value * found.n) if found.n else 0, shown)
    return Predictions(frame, found, interval, other_classes=False)


def predict_images(
    router: FittedRouter, images: str, split: str, *, perturbation: str, device: str
) -> Predictions:
    """Extract what `clipsyn extract` takes for a dataset into a store that is dropped, and predict.

    There is a job for each precision, since a backbone runs in the precision it was fitted in.
    Raises RouterMismatch for a backbone that is not the router's, UsageError for one that is a
    program: a router is a file, perhaps of others, and starts none.
    """
    from clipsyn.extract import ExtractSettings
    from clipsyn.extract.work import load_job, run_job
    from clipsyn.show.progress import progress

    place = str(Path(images).resolve()) if Path(images).exists() else images
    ordered = sorted(router.backbones, key=lambda backbone: backbone.precision)
    texts = [backbone.text for backbone in router.backbones]
    if programs := [it.source for it in resolve_backbones(texts) if it.kind == "py"]:
        line = advised("extract", "STORE", "-b", ",".join(texts), "-d", images, "-s", split)
        raise UsageError(
            f"the router was fitted with {', '.join(programs)}, a program that runs only where "
            f"you name it: run `{line}`, if you trust it, and then `clipsyn predict ROUTER STORE`"
        )
    with TemporaryDirectory(prefix="clipsyn-") as folder:
        path = Path(folder) / "store"
        for precision, group in groupby(ordered, key=lambda backbone: backbone.precision):
            backbones = {backbone.name: backbone for backbone in group}
            job = ExtractSettings(
                backbones=tuple(backbone.text for backbone in backbones.values()),
                datasets=(place,),
                splits=(split,),
                perturbations=(perturbation,),
                precision=precision,
                device=device,
                logits="none",
                max_bad=1.0,
            )
            with progress() as counters:
                work = load_job(path, job, counters)
            for cell in work.cells:
                identity = cell.draft.identity
                loaded = {**identity["backbone"], "pixels": identity["pixels"]}
                if cell.key.backbone not in backbones:  # its name means others: a collection
                    raise RouterMismatch("backbones", tuple(backbones), cell.key.backbone)
                backbones[cell.key.backbone].check(loaded)
            with progress() as counters:
                run_job(work, counters)
        for note in work.splits[0].source.notes:
            LOG.warning("note: %s", note)
        key = next(work.cells).key
        return predict_store(router, path, key.dataset, split, perturbation=perturbation)


@dataclass(frozen=True, eq=False)
class _Images:
    """The images that a router is applied to."""

    router: FittedRouter
    store: FeatureStore
    samples: SampleTable
    perturbation: str

    def check_cells(self) -> None:
        """Every backbone must have been run, with the weights that the router was fitted on."""
        for backbone in self.router.backbones:
            key = self._key(backbone.name)
            cell = self.store.cell(key)
            if cell.imported_as and not cell.has_embeddings:  # of logits nothing else is known
                continue
            if not cell.imported_as and not self.store.tree.exists(cell.path):
                line = self.store.extract_line(replace(key, backbone=backbone.text))
                raise MissingCell(f"{self.store.path} has no {key}: run `{line}`")
            backbone.check(cell.encoder()[0])

    def labels(self) -> Labels | None:
        """(sample,) as indices of the router's classes; None where they have others."""
        ours, theirs = self.router.class_names, self.samples.class_names
        labels = self.samples.labels
        if theirs == ours or not (labels >= 0).any():
            return labels
        position = {name: index for index, name in enumerate(ours)}
        if len(position) < len(ours) or len(set(theirs)) < len(theirs) or set(theirs) - set(ours):
            return None
        indices = [*(position[name] for name in theirs), NO_LABEL]  # the last where there is none
        return np.array(indices, np.int32)[labels]

    def seen(self) -> pl.Series:
        """(sample,) whether the router was fitted on the image; null where that is not known."""
        marks, fitted_on = self.samples.marks, self.router.seen
        found = held(marks, fitted_on)
        unknown = (marks == 0) | (~found & (fitted_on == 0).any())
        return pl.Series("seen", found).set(pl.Series(unknown), None)

    def blocks(self) -> Iterator[Pool]:
        """All images, in order, a bounded number at a time."""
        reader = self._reader()
        if reader and self._has_our_classes(reader):
            yield from reader.blocks(embeddings=self.router.needs_embeddings)
            return
        router, samples = self.router, self.samples
        unit = self.store.product_rows(len(samples))
        for rows in spans(len(samples), unit, 4 * len(router.backbones) * router.n_classes):
            images = {
                name: self.store.cell(self._key(name)).embeddings(rows) for name in router.names
            }
            yield Pool(
                np.stack([self._logits(it, images[it.name], unit) for it in router.backbones], 1),
                np.full(len(rows), NO_LABEL, np.int32),
                router.names,
                images,
                class_names=router.class_names,
                ids=tuple(samples.ids[rows.start : rows.stop]),
                without_text=frozenset(it.name for it in router.backbones if self._is_bare(it)),
            )

    def _is_bare(self, backbone: FittedBackbone) -> bool:
        """Whether it has no text, which nothing in the router asks for."""
        return backbone.class_embedding is None and not self.router.head.needs_text

    def _logits(self, backbone: FittedBackbone, images: Array, unit: int) -> Floats:
        """(sample, class); without text 0, as `PoolReader` has them."""
        if not self._is_bare(backbone):
            return backbone.logits(images, unit)
        valid = np.isfinite(images[:, :1])
        return np.where(valid, np.zeros(self.router.n_classes, np.float32), np.float32(np.nan))

    def _reader(self) -> PoolReader | None:
        """Reads the store's own logits, where it has any of the router's prompts."""
        cells = [self.store.cell(self._key(name)) for name in self.router.names]
        sets = [cell.prompt_sets() for cell in cells if cell.has_predictions]
        prompts = UNKNOWN if all(names == [UNKNOWN] for names in sets) else None
        prompts = prompts or self.router.prompts.get("name")
        if prompts is not None and not all(prompts in names for names in sets):
            return None
        return PoolReader(
            self.store,
            self.samples.dataset,
            self.samples.split,
            perturbation=self.perturbation,
            backbones=self.router.names,
            prompts=prompts,
        )

    def _has_our_classes(self, reader: PoolReader) -> bool:
        """Whether class embeddings and scales are the router's, where both are known."""
        for backbone in self.router.backbones:
            theirs, scale = reader.classes.get(backbone.name, (None, None))
            ours = backbone.class_embedding
            if theirs is None or ours is None:
                continue
            if scale != backbone.logit_scale or not np.array_equal(theirs, ours):
                return False
        return True

    def _key(self, backbone: str) -> FeatureKey:
        return FeatureKey(self.samples.dataset, self.samples.split, self.perturbation, backbone)


def _predict(router: FittedRouter, pool: Pool) -> tuple[pl.DataFrame, NDArray[np.uint16]]:
    """A row for each image of the pool, and its class index or NO_PREDICTION."""
    scores, weights = router.combine_and_weigh(pool)
    index = predictions(scores)
    known = index != NO_PREDICTION
    # a router of plain arrays knows no names; the last name stands where there is no prediction
    names = pl.Series([*(router.class_names or [None] * router.n_classes), None], dtype=pl.String)
    columns: dict[str, Any] = {
        "id": pl.Series(pool.ids, dtype=pl.String),
        "class": names.gather(np.where(known, index, len(names) - 1)),
        "class_index": index.astype(np.int32),
        "probability": softmax(scores).max(axis=1),
    }
    if weights is not None:
        of_backbones = zip(pool.backbones, np.ascontiguousarray(weights.T), strict=True)
        columns |= {f"{WEIGHT}{name}": column for name, column in of_backbones}
    frame = pl.DataFrame(columns)
    numbers = pl.all().exclude("id", "class")
    return frame.with_columns(pl.when(pl.Series(known)).then(numbers)), index


def _weights_over_images(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each backbone, the heaviest first: its weight over images."""
    weights = frame.select(selectors.starts_with(WEIGHT)).drop_nulls()
    if weights.is_empty():
        raise UsageError(
            "there is no weight of any backbone to draw: give what `clipsyn predict ROUTER STORE "
            "-o FILE.parquet` wrote, with a router that weighs backbones, such as nlc or moe"
        )
    value = pl.col("value")
    levels = [value.quantile(share, "linear").alias(name) for name, share in _LEVELS.items()]
    return (
        weights.unpivot(variable_name="backbone")
        .group_by("backbone", maintain_order=True)
        .agg(value.mean().alias("mean"), *levels, pl.len().alias("n"))
        .with_columns(pl.col("backbone").str.strip_prefix(WEIGHT))
        .sort("mean", descending=True, maintain_order=True)
    )


def _draw(data: pl.DataFrame, ax: Axes) -> None:
    at = range(len(data))
    ax.hlines(at, data["p5"], data["p95"], color=INK, lw=0.8)
    ax.barh(at, data["p75"] - data["p25"], 0.6, data["p25"], color=_BOX, ec=INK, lw=0.6)
    ax.plot(data["median"], at, "|", color=INK, ms=8, mew=1.2)
    ax.plot(data["mean"], at, "o", color=INK, ms=3.5, mfc="white", mew=0.8)
    names = shortened(data["backbone"].to_list()).short.values()
    ax.set_yticks(at, [label(name) for name in names])
    ax.set_ylim(len(data) - 0.4, -0.6)
    ax.use_sticky_edges = False  # of boxes that have no width
    ax.margins(x=0.05)
    ax.set_xlim(left=min(0, ax.get_xlim()[0]))
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(f"weight, over {data['n'][0]:,} images")


router_weights = Figure(
    name="router-weights",
    short="How much a router counts each backbone, over images.",
    caption=(
        "Weight of each backbone over the images that a router predicted: boxes hold the middle "
        "half of the images, lines the middle 90 %; a bar is the median, a circle the mean."
    ),
    source="predict",
    data=_weights_over_images,
    draw=_draw,
    size=lambda data: (COLUMN, _BELOW + _LINE * max(3, len(data))),
    tidy=False,
)
