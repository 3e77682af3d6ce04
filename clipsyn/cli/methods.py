"""Commands that measure and fit methods: evaluate, compare, fit and predict."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from inspect import cleandoc
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.make import pop_jobs
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
from clipsyn.cli.output import Output, say, say_lines
from clipsyn.errors import UsageError
from clipsyn.evaluation import CompareSettings, PairedSettings, ProtocolSettings
from clipsyn.methods.ensembles import CHOSEN, ENSEMBLES
from clipsyn.methods.heads import HEADS
from clipsyn.router import FitSettings
from clipsyn.run.jobs import ExecutorSettings
from clipsyn.settings import declared, defaults
from clipsyn.text import advised, counted

if TYPE_CHECKING:
    from clipsyn.router.fit import FittedRouter
    from clipsyn.router.predict import Predictions
    from clipsyn.show.table import Tables


_METHODS = {"Heads": [*HEADS], **ENSEMBLES.groups, "One of all": [CHOSEN]}
_LINES: dict[str, Any] = {"width": 88, "break_on_hyphens": False}
_LISTED = "\n".join(
    fill(f"{group + ':':<14}{', '.join(names)}", subsequent_indent=" " * 14, **_LINES)
    for group, names in _METHODS.items()
)


@command(
    "evaluate",
    STORE,
    *options_of(ProtocolSettings, without=("output",)),
    output_option(
        grows=".parquet", about=". Results are added to a .parquet, which is not computed again"
    ),
    ExecutorSettings,
)
def evaluate(store: Path, output: Output, **values: Any) -> None:
    """Fit ensembles, on several heads, on a few labelled images a class of STORE, and measure them.

    All methods get the same images. Accuracy, mean per class, NLL, ECE, Brier score and the gain
    over the best single backbone, each with a 95 % interval, and seconds to fit and predict.

    Heads turn embeddings into logits, ensembles the logits of several backbones into one.

    \b
    METHODS

    Both take parameters: nlc:weight_map=linear:hidden=64.

    \b
    clipsyn evaluate store -o results.parquet
    clipsyn evaluate store -d 'emoji-*' --ensembles log-avg,super-learner,nlc --shots 1,16,full
    clipsyn evaluate store -p 'clean,jpeg-*' --heads zero-shot,tip-adapter --seeds 5
    clipsyn evaluate store -o results.parquet --jobs 21 --slurm cpus=8
    """
    from clipsyn.evaluation.tables import tables
    from clipsyn.run.jobs import evaluated
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.overlap import image_notes, sample_tables

    jobs = pop_jobs(values)
    results, output = output.without(".parquet")  # to which results are added
    settings = ProtocolSettings(output=results, **values)
    opened = FeatureStore.open(store)
    if jobs and not results:
        raise UsageError("jobs add to one file of results: name it by output=…")
    frame = evaluated(opened, settings, jobs)
    if settings.shard:
        say(f"this worker's share, {len(frame):,} results, is in {settings.output}", err=True)
        return
    samples = sample_tables(opened, frame)
    output.show(frame, tables)
    for note in image_notes(samples):
        say(note, err=True)
    if settings.output:
        say(f"{len(frame):,} results, all of them in {settings.output}", err=True)
    if settings.predictions_file:
        say(f"compare methods by `{advised('compare', settings.output)}`", err=True)


evaluate.help = cleandoc(evaluate.help or "").replace("METHODS", _LISTED)


@command(
    "compare",
    click.Argument(["results"], type=click.Path(path_type=Path)),
    click.Argument(["first"], required=False),
    click.Argument(["second"], required=False),
    PairedSettings,
    option(
        ["--reference"],
        type=Source(),
        metavar="NAME|FILE",
        help=declared(CompareSettings)["reference"].help,
    ),
    *options_of(CompareSettings, without=("reference",)),
    output_option(),
)
def compare(
    results: Path,
    first: str | None,
    second: str | None,
    *,
    output: Output,
    reference: str | None,
    tolerance: float,
    **values: Any,
) -> None:
    """Compare methods on the images of RESULTS, the file of `clipsyn evaluate -o`.

    Each difference in accuracy is over the same images and the same draws of the shots. It has a 95
    % interval over images, one over draws and images together, the p-value of McNemar's test, and
    one that is corrected for all pairs of methods (Holm), whichever are shown. What is then no
    difference is marked as a tie. Means over datasets draw an image that stands in several in all
    of them together.

    FIRST and SECOND are ensembles, backbones, or "best on test", the backbone that is best on these
    very images; HEAD+NAME is one of another head. With FIRST alone it is compared with every
    ensemble. With neither that is done with "chosen", which the support chose, or, where that is
    not there, with all of them.

    With --reference, RESULTS may be the Parquet file of `clipsyn zeroshot -o`, too, and its
    accuracies of single backbones are compared with published ones: difference, interval, and a
    mark where the difference is beyond the tolerance. A number is compared where one is published
    for the same backbone, dataset, metric, head and shots, and under the same prompts if the
    reference names them.

    \b
    clipsyn compare results.parquet
    clipsyn compare results.parquet nlc super-learner
    clipsyn compare results.parquet best-single log-avg -p 'jpeg-*'
    clipsyn compare results.parquet nlc --shots 16 -o pairs.csv
    clipsyn compare zeroshot.parquet --reference openai-zeroshot
    clipsyn compare zeroshot.parquet --reference theirs.csv --tolerance 0.2
    """
    if reference is None:
        from clipsyn.evaluation.paired import compare_methods
        from clipsyn.evaluation.tables import pair_tables

        output.show(compare_methods(results, first, second, **values), pair_tables)
        return
    usual = defaults(PairedSettings)
    others = [name for name, value in values.items() if value != usual[name]]
    if first or others:
        what = f"{others[0]}=…" if others else "FIRST and SECOND"
        raise UsageError(f"{what} is about methods, not about published numbers: leave it out")
    from clipsyn.evaluation import published

    frame = published.compare(results, reference=reference, tolerance=tolerance)
    output.show(frame, lambda shown: published.tables(shown, tolerance))


_RUNNERS_UP = 5
_SHOWN = 10  # rows, and classes
_ROUTER = option(["-o", "--output"], type=Destination(), required=True, help="The folder to write.")
_REPLACE = flag(["--replace"], help="Replace a router that is there.")


@command("fit", STORE, FitSettings, _ROUTER, _REPLACE)
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
    rows.append({"method": "chance", "top-1": 1 / router.n_classes})
    notes = (
        "Accuracy in % on labelled images left out of the fit. lead: over the chosen method on\n"
        "the same images, in points, with its standard error."
        if chosen.n
        else "Most classes have one image, so that none can be left out: the order decided."
    )
    return show(rows, percent=("top-1", "lead", "error"), notes=notes)


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
    click.Argument(["router"], type=click.Path(path_type=Path)),
    click.Argument(["images"], type=Source()),
    option(
        ["-d", "--dataset"],
        help="Of a store.  [default: what the router was fitted on, or the only one]",
    ),
    option(
        ["-s", "--split"], default="test", show_default=True, help="Of a store, or of the images."
    ),
    option(
        ["-p", "--perturb"],
        default="clean",
        show_default=True,
        help="Of a store, or what is done to the images first.",
    ),
    option(["--device"], help="Of images: auto, cpu, cuda, cuda:N or mps.  [default: auto]"),
    output_option(),
)
def predict(
    router: Path,
    images: str,
    *,
    dataset: str | None,
    split: str,
    perturb: str,
    device: str | None,
    output: Output,
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
    from clipsyn.router.predict import predict_images, predict_store
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.files import is_published, is_store
    from clipsyn.store.select import only

    fitted = load_router(router)
    label = parse_perturbation(perturb).label
    if is_published(images) or is_store(Path(images)):
        if device:
            raise UsageError(f"--device is for images, and {images} is a store: leave it out")
        store = FeatureStore.open(images)
        fitted_on = fitted.support.dataset
        is_there = bool(store.keys(dataset=[fitted_on]))
        predictions = predict_store(
            fitted,
            store,
            dataset or (fitted_on if is_there else only(store, "dataset")),
            split,
            perturbation=label,
        )
    elif dataset:
        raise UsageError(f"--dataset is for stores, and {images} is none")
    else:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the store is dropped
        predictions = predict_images(
            fitted, images, split, perturbation=label, device=device or "auto"
        )
    output.show(predictions.frame, lambda shown: _tables(fitted, replace(predictions, frame=shown)))


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
    about = counted(len(frame), "image"), counted(len(counts), "class", "classes")
    lines = [f"{', '.join(about)}; {router.method}"]
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
