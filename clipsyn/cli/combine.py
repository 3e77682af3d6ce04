"""`clipsyn fit` and `predict`: routers."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.options import (
    STORE,
    Destination,
    Source,
    command,
    flag,
    option,
    options_of,
    output_option,
)
from clipsyn.cli.output import Output, say, say_lines, say_notes
from clipsyn.errors import RouterMismatch, UsageError
from clipsyn.router import FitSettings
from clipsyn.text import advised, counted

if TYPE_CHECKING:
    from clipsyn.names import FeatureKey
    from clipsyn.router.fit import FittedRouter
    from clipsyn.router.predict import Predictions
    from clipsyn.show.table import Tables


_RUNNERS_UP = 5
_SHOWN = 10  # rows, and classes
_ROUTER = option(
    ["-o", "--output"],
    type=Destination(makes_folder=""),
    required=True,
    help="The folder to write.",
)
_REPLACE = flag(["--replace"], help="Replace a router that is there.")


@command("fit", [STORE, *options_of(FitSettings), _ROUTER, _REPLACE])
def fit(store: Path, output: Path, replace: bool, **values: Any) -> None:
    """Fit an ensemble on labelled images of STORE and write it, with all it needs, to a folder.

    The labelled images choose the head and the ensemble, unless they are named.

    What is written predicts without STORE, and refuses what it was not fitted on. See
    docs/fitting.md for the names of ensembles and heads.

    \b
    clipsyn fit store -d emoji-food --shots 16 -o router
    clipsyn fit store -d emoji-food --ensemble nlc:weight_map=linear -b 'tiny-*' -o router
    clipsyn fit store -d photos --ensemble super-learner --head tip-adapter --shots 4 -o router
    """
    from clipsyn.router.artefact import check_vacant, write
    from clipsyn.router.fit import fit_router
    from clipsyn.store.features import FeatureStore

    check_vacant(output, replace=replace)
    router = fit_router(FeatureStore.open(store), **values)
    write(output, router, replace=replace)
    if router.candidates:
        say_lines(f"{_candidates(router)}\n")
    say(_outcome(router))
    say(f"written to {output}: next, `{advised('predict', output, 'IMAGES')}`")


def _candidates(router: FittedRouter) -> str:
    """The methods that it was chosen from, with the best single backbone and chance."""
    from clipsyn.methods.ensembles import BEST_SINGLE
    from clipsyn.show.tables import show

    chosen, *_ = candidates = router.candidates
    singles = [candidate for candidate in candidates if candidate.ensemble == BEST_SINGLE]
    rows: list[dict[str, Any]] = [
        {"method": of.name, "top-1": of.accuracy, "lead": of.lead, "error": of.error, "n": of.n}
        for of in dict.fromkeys([*candidates[:_RUNNERS_UP], *singles[:1]])
    ]
    chance = 1 / router.n_classes
    rows.append({"method": "chance", "top-1": chance})
    notes = (
        "Accuracy in % on labelled images left out of the fit. lead: over the chosen method on the "
        "same images, in points, with its standard error."
    )
    if not chosen.n:
        notes = "Most classes have one image, so that none can be left out: the order decided."
    elif chosen.accuracy - 2 * math.sqrt(chance * (1 - chance) / chosen.n) < chance:
        notes += " No method is clearly better than chance."
    return show(rows, percent=("top-1", "lead", "error"), notes=fill(notes, 100))


def _outcome(router: FittedRouter) -> str:
    """What it was fitted on, and what the support lacks."""
    support = router.support
    shots = f"{support.shots} shots, seed {support.seed}" if support.shots else "all there are"
    lines = [
        f"{router.method}, {len(router.backbones)} backbones, fitted on {support.samples:,} images "
        f"of {router.n_classes:,} classes of {support.dataset}/{support.split} ({shots})"
    ]
    if router.sampled:
        lines.append(f"of these a sample of {router.sampled:,}, which is what memory holds")
    if support.classes_short:
        lines.append(f"classes with fewer images than that: {support.classes_short:,}")
    if support.classes_empty:
        lines.append(f"classes with none: {support.classes_empty:,}")
    if support.accuracy is not None:
        lines.append(
            f"it gets {100 * support.accuracy:.1f} % of these very images right, which says little "
            "about others"
        )
    return "; ".join(lines)


@command(
    "predict",
    [
        click.Argument(["router"], type=click.Path(path_type=Path)),
        click.Argument(["images"], type=Source()),
        option(
            ["-d", "--dataset"],
            help="Of a store.  [default: what the router was fitted on, or the only one]",
        ),
        option(
            ["-s", "--split"],
            default="test",
            show_default=True,
            help="Of a store, or of the images.",
        ),
        option(
            ["-p", "--perturb"],
            default="clean",
            show_default=True,
            help="Of a store, or what is done to the images first.",
        ),
        option(
            ["--keep"],
            type=Destination(makes_folder=""),
            help="A store for the embeddings of the images; without it they are dropped.",
        ),
        option(
            ["--device"], default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."
        ),
        option(
            ["--max-bad"],
            type=float,
            default=1.0,
            show_default=True,
            help="Share of the images that may be impossible to decode; they get no prediction.",
        ),
        output_option(),
    ],
)
def predict(
    router: Path,
    images: str,
    *,
    dataset: str | None,
    split: str,
    perturb: str,
    keep: Path | None,
    output: Output,
    **settings: Any,
) -> None:
    """Predict IMAGES with ROUTER, a folder that `clipsyn fit` made.

    IMAGES is a store, or what `clipsyn extract` takes for a dataset: then the router's backbones
    are run over it first. For each image: its id, class, index of the class, probability, and what
    weight each backbone has. Accuracy too, if there are labels of the same classes.

    \b
    clipsyn predict router photos/ -o predictions.csv
    clipsyn predict router store -d emoji-food -s test -p jpeg-3
    """
    from clipsyn.names import parse_perturbation
    from clipsyn.router.artefact import load_router
    from clipsyn.router.predict import predict_store
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.files import is_published, is_store
    from clipsyn.store.select import only_dataset

    fitted = load_router(router)
    label = parse_perturbation(perturb).label
    if is_published(images) or is_store(Path(images)):
        if keep:
            raise UsageError(f"--keep is for images, and {images} is a store already")
        store = FeatureStore.open(images)
        fitted_on = fitted.support.dataset
        is_there = bool(store.keys(dataset=[fitted_on]))
        predictions = predict_store(
            fitted,
            store,
            dataset or (fitted_on if is_there else only_dataset(store)),
            split,
            perturbation=label,
        )
    elif dataset:
        raise UsageError(f"--dataset is for stores, and {images} is none")
    else:
        settings = {"splits": [split], "perturbations": [label], **settings}
        predictions = _of_images(fitted, images, keep, settings)
    output.show(predictions.frame, lambda shown: _tables(fitted, replace(predictions, frame=shown)))


def _of_images(
    router: FittedRouter, images: str, keep: Path | None, settings: Mapping[str, Any]
) -> Predictions:
    """Extract the images into a store, which is dropped unless it is to be kept, and predict."""
    from clipsyn.router.predict import predict_store
    from clipsyn.store.features import FeatureStore

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the store is dropped
    with TemporaryDirectory(prefix="clipsyn-") as folder:
        path = keep or Path(folder) / "store"
        key = _extract(router, images, path, settings)
        return predict_store(
            router,
            FeatureStore.open(path),
            key.dataset,
            key.split,
            perturbation=key.perturbation,
        )


def _extract(
    router: FittedRouter, images: str, path: Path, settings: Mapping[str, Any]
) -> FeatureKey:
    """Run the router's backbones over the images; returns the key of a cell that this made.

    There is a job for each precision, since a backbone runs in the precision it was fitted in.
    """
    from clipsyn.extract import ExtractSettings
    from clipsyn.extract.work import load_job, run_job
    from clipsyn.show.progress import progress

    place = str(Path(images).resolve()) if Path(images).exists() else images
    ordered = sorted(router.backbones, key=lambda backbone: backbone.precision)
    for precision, group in groupby(ordered, key=lambda backbone: backbone.precision):
        backbones = {backbone.name: backbone for backbone in group}
        texts = [backbone.text for backbone in backbones.values()]
        job = ExtractSettings(
            backbones=tuple(texts),
            datasets=(place,),
            precision=precision,
            logits="none",
            **settings,
        )
        with progress() as counters:
            work = load_job(path, job, counters)
        for cell in work.cells:
            identity = cell.draft.identity
            loaded = {**identity["backbone"], "pixels": identity["pixels"]}
            if cell.key.backbone not in backbones:  # its name means others: a collection, a list
                raise RouterMismatch("backbones", tuple(backbones), cell.key.backbone)
            backbones[cell.key.backbone].check(loaded)
        with progress() as counters:
            run_job(work, counters)
    say_notes(work.splits[0].source.notes)
    return next(work.cells).key


def _tables(router: FittedRouter, predictions: Predictions) -> dict[str, Tables]:
    """The first rows, how many images each class got, and how many of them are right."""
    import polars as pl

    from clipsyn.show.tables import table_of

    frame = predictions.frame
    names = router.class_names
    if len(set(names)) == len(names):
        frame = frame.drop("class_index")
    heads = {name: name.replace(" ", "\n", 1) for name in frame.columns}
    classes = [name for name in frame.columns if name.startswith("class")]
    counts = (
        frame.drop_nulls("class")
        .group_by(classes, maintain_order=True)
        .agg(pl.len().alias("images"))
        .sort("images", descending=True, maintain_order=True)
    )
    lines = [f"{len(frame):,} images, {len(counts):,} classes; {router.method}"]
    if unread := frame["class"].null_count():
        lines.append(f"{counted(unread, 'image')} could not be read, without a prediction")
    lines += _accuracy(predictions)
    return {
        "images": (table_of(frame.drop("seen").head(_SHOWN), headers=heads),),
        "classes": (table_of(counts.head(_SHOWN), notes="\n".join(lines)),),
    }


def _accuracy(predictions: Predictions) -> Iterator[str]:
    from clipsyn.show.table import interval_text

    if seen := predictions.frame["seen"].sum():
        yield (
            f"{seen:,} of these images the router was fitted on (column seen): what it gets right "
            "there says little about others"
        )
    if predictions.accuracy is not None and predictions.interval is not None:
        value, n = predictions.accuracy
        interval = interval_text(*predictions.interval) if n else "no interval"
        yield f"accuracy {100 * value:.1f} % (95 % interval {interval}) over {n:,} labelled images"
    if predictions.other_classes:
        yield "no accuracy: the images have classes that the router has not"
