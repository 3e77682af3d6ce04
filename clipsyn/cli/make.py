"""Commands that make cells: extract, split and import."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.declared import settings_command, settings_options
from clipsyn.cli.jobs import executor_options, extraction, pop_executor_settings, stop_on_sigterm
from clipsyn.cli.options import Destination, output_option, with_options
from clipsyn.cli.output import Output, say, say_lines, say_rows
from clipsyn.cli.sentences import flags_of, with_flags
from clipsyn.exchange.importing.settings import ImportSettings
from clipsyn.extract import ExtractSettings
from clipsyn.images import SplitSettings
from clipsyn.text import advised, line_of

if TYPE_CHECKING:
    from clipsyn.extract import Plan
    from clipsyn.extract.work import Work
    from clipsyn.images.split import Division
    from clipsyn.run.jobs import ExecutorSettings

_LOG = logging.getLogger("clipsyn")


def _extract(store: Path, *, dry_run: bool, **values: Any) -> None:
    from clipsyn.extract.job import load_job, plan_job, run_job
    from clipsyn.show.progress import progress

    executor = pop_executor_settings(values)
    job = ExtractSettings(**values)
    if not executor.is_here:
        _extract_by_jobs(store, job, executor, dry_run)
        return
    if dry_run and not (plan := plan_job(store, job)).is_complete:
        _show_plan(plan)
        return
    stop_on_sigterm()
    with progress() as counters:
        work, settings = load_job(store, job, counters)
    _show(work, as_result=dry_run)
    if dry_run or not work.is_needed:
        return
    with progress() as counters:
        run_job(work, settings, counters)
    _say_alike(work)
    _LOG.info(_outcome(work))


def _extract_by_jobs(
    store: Path, job: ExtractSettings, executor: ExecutorSettings, dry_run: bool
) -> None:
    """Load no weights: that is what the jobs do."""
    from clipsyn.extract.job import plan_job

    plan = plan_job(store, job.of_any_device())
    work = extraction(store, job, executor, plan)
    if dry_run:
        _show_plan(plan)
        for task in work.tasks():
            say(f"{task}: {line_of(task.words)}")
    elif work.run():
        _LOG.info(f"{store} is up to date: next, `{advised('ls', store)}`")


def _show(work: Work, *, as_result: bool) -> None:
    """What is there and what will be made: on standard output if that is all the command does."""
    from clipsyn.show.tables import show

    _say_notes(work.notes)
    text = f"{show(work.plan().table().drop('classes', 'found'))}\n{work.summary()}"
    if as_result or _LOG.isEnabledFor(logging.INFO):
        say_lines(text, err=not as_result)


def _show_plan(plan: Plan) -> None:
    from clipsyn.show.tables import show

    say_sizes(plan)
    say_lines(f"{show(plan.table().drop('passes left'))}\n")
    for paragraph in (plan.summary(), plan.unchecked()):
        say_lines(paragraph)


def say_sizes(plan: Plan) -> None:
    """What is missing, and the backbones."""
    from clipsyn.show.tables import show

    _say_notes(dict.fromkeys(split.missing for split in plan.splits if split.missing))
    say_lines(f"{show(plan.backbone_table())}\n")


def _say_notes(notes: Iterable[str]) -> None:
    flags = flags_of(click.get_current_context().find_root())
    for note in notes:
        say(f"note: {with_flags(note, flags)}", fg="yellow", err=True)


def _say_alike(work: Work) -> None:
    """Which classes the backbones cannot tell apart, by the class embeddings that are there."""
    from clipsyn.store.alike import alike_notes

    backbones: dict[tuple[str, str], list[str]] = {}
    for classes in work.classes:
        group = classes.draft.identity["dataset"], classes.prompts.name
        backbones.setdefault(group, []).append(classes.encoder.backbone.name)
    for (dataset, prompts), names in backbones.items():
        _say_notes(alike_notes(work.store, dataset, prompts, names))


def _outcome(work: Work) -> str:
    store = work.store.path
    if work.is_needed:  # looked up anew: other workers have the rest
        rest = advised("ls", store, "--status")
        return f"this worker's share of {store} is done; `{rest}` shows the rest"
    labelled = any((split.table.labels >= 0).any() for split in work.splits)
    return f"{store} is up to date: next, `{advised('zeroshot' if labelled else 'ls', store)}`"


extract = settings_command(
    "extract",
    ExtractSettings,
    _extract,
    about="""\
Run backbones over images into STORE: image embeddings, class embeddings and logits.

What is there is skipped; what was interrupted goes on where it stopped.""",
    examples=(
        "clipsyn extract store -b zoo -d emoji-animals,emoji-food -s train,test",
        "clipsyn extract store -b openai -d imagenet1k -s val -p clean,imagenet-c:3 --data-root "
        "/data",
        "clipsyn extract store -b ViT-B-32/openai,mine=local-dir:run7/ -d photos/ --dry-run",
        "clipsyn extract store -b openai -d paper -s test --on slurm --jobs 16 --slurm gpus=1",
    ),
    more=[
        *executor_options,
        click.option(
            "--dry-run",
            is_flag=True,
            help="Show the plan and stop; without weights or images, from the catalogue.",
        ),
    ],
)


def _split(images: Path, *, output: Path, replace: bool, **values: Any) -> None:
    from clipsyn.images.split import split as divided

    division = divided(images, output, replace=replace, **values)
    for note in division.notes():
        say(f"note: {note}", fg="yellow", err=True)
    rows = _rows(division)
    say_rows(rows)
    names = ",".join(row["split"] for row in rows if row["split"] != "conflicting")
    root = division.root_beyond(output.parent)
    line = ["extract", "STORE", "-d", str(output), "-s", names]
    line += ["--data-root", str(root)] if root else []
    say(f"written to {output}: next, `{advised(*line)}`")


def _rows(division: Division) -> list[dict[str, Any]]:
    """Images and classes of each split that has any."""
    from clipsyn.images.split import SPLITS

    rows = []
    for side, name in SPLITS.items():
        labels = division.labels[division.side == side]
        classes = len({*labels[labels >= 0].tolist()})
        if len(labels):
            rows.append({"split": name, "images": len(labels), "classes": classes or None})
    return rows


split = click.command(
    "split",
    help="""\
Divide the labelled images of IMAGES, a folder or a manifest, into train and test.

Writes a manifest for `clipsyn extract`, with the column split, and its class names beside it. Each
class has the same share in test. Of images of the same content the first is taken; kept, they are
on the same side. Unlabelled images (no label in a manifest, beside the class folders in a folder)
are kept apart as the split unlabelled; images with several labels as conflicting. See
docs/datasets.md.

\b
clipsyn split photos -o photos.csv
clipsyn split labels.csv -o split.csv --test 0.3 --seed 1 --unlabelled unsorted""",
)(
    with_options(
        _split,
        [
            click.argument("images", type=click.Path(path_type=Path)),
            click.option(
                "-o",
                "--output",
                type=Destination(".csv", ".parquet"),
                required=True,
                help="The manifest to write, .csv or .parquet.",
            ),
            *settings_options(SplitSettings),
            click.option("--replace", is_flag=True, help="Replace a manifest that is there."),
        ],
    )
)

_FILES = click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)


def _import(store: Path, files: tuple[Path, ...], *, output: Output, **values: Any) -> None:
    from clipsyn.exchange.importing.write import import_files, imported_table

    imported = import_files(store, files, ImportSettings(**values))
    output.show(imported, lambda shown: {"": (imported_table(shown),)})


import_ = settings_command(
    "import",
    ImportSettings,
    _import,
    about="""\
Bring predictions, logits or embeddings that were made elsewhere into STORE as cells.

FILES are CSV, Parquet, npy, npz or pt, folders of them, folders of clip-retrieval, or what
`clipsyn export` has written. Rows are found by id, never by place (but for --row-order), among the
samples of the dataset; a new dataset gets its samples from the file. All commands that need only
predictions then show them beside extracted backbones.""",
    examples=(
        "clipsyn import store mine.csv -d emoji-food -b mine",
        "clipsyn import store logits.npy -d emoji-food --kind logits --ids ids.txt",
        "clipsyn import store features/Food101-ViT-B-32 -d food101 --row-order",
        "clipsyn import store contrast.csv -d contrast -p contrast",
    ),
    arguments=[_FILES],
    more=[output_option()],
)
