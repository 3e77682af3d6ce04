"""`clipsyn evaluate` and `compare`."""

from __future__ import annotations

from inspect import cleandoc
from pathlib import Path
from textwrap import fill
from typing import Any

import click

from clipsyn.cli.options import STORE, Source, command, option, options_of, output_option
from clipsyn.cli.output import Output, say, say_notes
from clipsyn.cli.run import EXECUTOR, evaluation_by_jobs, pop_executor_settings
from clipsyn.errors import UsageError
from clipsyn.evaluation import CompareSettings, PairedSettings, ProtocolSettings
from clipsyn.methods.ensembles import CHOSEN, ENSEMBLES
from clipsyn.methods.heads import HEADS
from clipsyn.settings import declared, defaults
from clipsyn.text import advised


def _results_of(output: Output) -> tuple[Path | None, Output]:
    """The Parquet file, to which results are added, and the other files."""
    results = [file for file in output.files if file.suffix.lower() == ".parquet"]
    if len(results) > 1:
        raise UsageError("results are added to one file: give --output one name in .parquet")
    others = tuple(file for file in output.files if file not in results)
    return next(iter(results), None), Output(others)


_METHODS = {"Heads": [*HEADS], **ENSEMBLES.groups, "One of all": [CHOSEN]}
_LINES: dict[str, Any] = {"width": 88, "break_on_hyphens": False}
_LISTED = "\n".join(
    fill(f"{group + ':':<12}{', '.join(names)}", subsequent_indent=" " * 12, **_LINES)
    for group, names in _METHODS.items()
)


@command(
    "evaluate",
    [
        STORE,
        *options_of(ProtocolSettings, without=("output",)),
        output_option(
            grows=".parquet",
            about=". Results are added to a .parquet, which is not computed again",
        ),
        *EXECUTOR,
    ],
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
    from clipsyn.evaluation.loop import gather, measure
    from clipsyn.evaluation.results.frame import interval_note
    from clipsyn.evaluation.tables import tables
    from clipsyn.show.progress import progress
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.overlap import image_notes, sample_tables

    executor = pop_executor_settings(values)
    results, output = _results_of(output)
    settings = ProtocolSettings(output=results, **values)
    opened = FeatureStore.open(store)
    if executor.jobs:
        evaluation_by_jobs(opened, settings, executor)
        frame = gather(opened, settings)
    else:
        with progress("fits") as counters:
            frame = measure(opened, settings, counters)
    if settings.shard:
        say(f"this worker's share, {len(frame):,} results, is in {settings.output}", err=True)
        return
    samples = sample_tables(opened, frame)
    output.show(frame, tables)
    for note in filter(None, [*image_notes(samples), interval_note(frame)]):
        say(note, err=True)
    if settings.output:
        say(f"{len(frame):,} results, all of them in {settings.output}", err=True)
    if settings.predictions_file:
        say(f"compare methods by `{advised('compare', settings.output)}`", err=True)


evaluate.help = cleandoc(evaluate.help or "").replace("METHODS", _LISTED)


@command(
    "compare",
    [
        click.Argument(["results"], type=click.Path(path_type=Path)),
        click.Argument(["first"], required=False),
        click.Argument(["second"], required=False),
        *options_of(PairedSettings),
        option(
            ["--reference"],
            type=Source(),
            metavar="NAME|FILE",
            help=declared(CompareSettings)["reference"].help,
        ),
        *options_of(CompareSettings, without=("reference",)),
        output_option(),
    ],
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
    zero-shot accuracies are compared with published ones: difference, interval, and a mark where
    the difference is beyond the tolerance. A number is compared where one is published for the same
    backbone, dataset and metric, and under the same prompts if the reference names them.

    \b
    clipsyn compare results.parquet
    clipsyn compare results.parquet nlc super-learner
    clipsyn compare results.parquet best-single log-avg -p 'jpeg-*'
    clipsyn compare results.parquet nlc --shots 16 -o pairs.csv
    clipsyn compare zeroshot.parquet --reference openai-zeroshot
    clipsyn compare zeroshot.parquet --reference theirs.csv --tolerance 0.2
    """
    if reference is None:
        from clipsyn.evaluation.paired import measure as compared
        from clipsyn.evaluation.paired_tables import tables

        output.show(compared(results, PairedSettings(**values), first, second), tables)
        return
    usual = defaults(PairedSettings)
    others = [name for name, value in values.items() if value != usual[name]]
    if first or others:
        what = f"{others[0]}=…" if others else "FIRST and SECOND"
        raise UsageError(f"{what} is about methods, not about published numbers: leave it out")
    _compare_with_published(
        results, CompareSettings(reference=reference, tolerance=tolerance), output
    )


def _compare_with_published(results: Path, settings: CompareSettings, output: Output) -> None:
    from clipsyn.evaluation.published import measure, tables, unpublished
    from clipsyn.evaluation.results.files import read_results

    ours = read_results(results)
    frame = measure(ours, settings)
    output.show(frame, lambda shown: tables(shown, settings))
    say_notes(unpublished(ours, frame))
