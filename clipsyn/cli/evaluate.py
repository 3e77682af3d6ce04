"""`clipsyn evaluate`."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

from clipsyn.cli.declared import settings_command
from clipsyn.cli.executor import evaluation, executor_options, taken_out
from clipsyn.cli.options import Report, report_options
from clipsyn.cli.output import say
from clipsyn.evaluation.settings import ProtocolSettings
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.heads import HEADS
from clipsyn.show.formats import BENCHMARK, FORMATS


def _evaluate(store: Path, *, report: Report, **values: Any) -> None:
    from clipsyn.evaluation.loop import gather, measure
    from clipsyn.evaluation.report import tables
    from clipsyn.show.progress import progress
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.overlap import apart, sample_tables, shared_notes

    executor = taken_out(values)
    settings = ProtocolSettings(**values)
    opened = FeatureStore.open(store)
    if executor.is_here:
        with progress("fits") as counters:
            frame = measure(opened, settings, counters)
    elif evaluation(opened, settings, executor).run():
        frame = gather(opened, settings)
    else:
        return
    if settings.shard:
        say(f"this worker's share, {len(frame):,} results, is in {settings.output}", err=True)
        return
    samples = sample_tables(opened, frame)
    report.show(frame, lambda shown: tables(shown, settings, apart(samples)))
    for note in shared_notes(samples):
        say(note, err=True)
    if settings.output:
        say(f"{len(frame):,} results, all of them in {settings.output}", err=True)
    if settings.predictions:
        say(
            f"predictions in {settings.predictions}: compare methods by `clipsyn compare`", err=True
        )


_METHODS = {"Heads": [*HEADS], **ENSEMBLES.groups}
_LINES: dict[str, Any] = {"width": 88, "break_on_hyphens": False}
_LISTED = "\n".join(
    fill(f"{group + ':':<12}{', '.join(names)}", subsequent_indent=" " * 12, **_LINES)
    for group, names in _METHODS.items()
)

evaluate = settings_command(
    "evaluate",
    ProtocolSettings,
    report_options(_evaluate, formats=(*FORMATS, BENCHMARK)),
    more=executor_options,
    short="Fit and measure every ensemble, by number of shots.",
    about=f"""\
Fit every ensemble, on every head, on a few labelled images a class of STORE, and measure it.

All methods get the same images. Accuracy, mean per class, NLL, ECE, Brier score and the gain over
the best single backbone, each with a 95 % interval, and seconds to fit and predict.

Heads turn embeddings into logits, ensembles the logits of several backbones into one.

\b
{_LISTED}

Both take parameters: nlc:weight_map=linear:hidden=64.""",
    examples=(
        "clipsyn evaluate store -o results.parquet",
        "clipsyn evaluate store -d 'emoji-*' --ensembles log-avg,super-learner,nlc --shots "
        "1,16,full",
        "clipsyn evaluate store -p 'clean,jpeg-*' --heads zero-shot,tip-adapter --seeds 5",
        "clipsyn evaluate store -o results.parquet --predictions predictions.parquet",
        "clipsyn evaluate store -o results.parquet --on slurm --jobs 21",
    ),
)
