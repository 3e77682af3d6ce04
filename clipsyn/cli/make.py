"""Commands that make cells: extract, split and import."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.options import STORE, Destination, command, flag, option, options_of, output_option
from clipsyn.cli.output import Output, say, say_lines, say_notes, say_rows
from clipsyn.cli.run import EXECUTOR, by_jobs, pop_executor_settings, say_plan, stop_on_sigterm
from clipsyn.exchange.settings import ImportSettings
from clipsyn.extract import ExtractSettings
from clipsyn.images import SplitSettings
from clipsyn.text import advised

if TYPE_CHECKING:
    from clipsyn.extract.work import Work

_LOG = logging.getLogger("clipsyn")


_DRY_RUN = flag(
    ["--dry-run"], help="Show the plan and stop, by names alone: no weights and images are read."
)


@command("extract", [STORE, *options_of(ExtractSettings), *EXECUTOR, _DRY_RUN])
def extract(store: Path, dry_run: bool, **values: Any) -> None:
    """Run backbones over images into STORE: image embeddings, class embeddings and logits.

    What is there is skipped; what was interrupted goes on where it stopped.

    \b
    clipsyn extract store -b zoo -d emoji-animals,emoji-food -s train,test
    clipsyn extract store -b openai -d imagenet1k -s val -p clean,imagenet-c:3 --data-root /data
    clipsyn extract store -b ViT-B-32/openai,mine=local-dir:run7/ -d photos/ --dry-run
    clipsyn extract store -b openai -d paper -s test --jobs 16 --slurm gpus=1
    """
    from clipsyn.extract.work import load_job, plan_job, run_job
    from clipsyn.show.progress import progress

    executor, job = pop_executor_settings(values), ExtractSettings(**values)
    if dry_run or executor.jobs:  # which load the weights themselves
        plan = plan_job(store, job.of_any_device() if executor.jobs else job)
        if dry_run:
            say_plan(plan)
            say_lines(plan.summary())
            return
    if executor.jobs:
        by_jobs("extract", store, job, executor)
        _LOG.info(f"{store} is up to date: next, `{advised('ls', store)}`")
        return
    stop_on_sigterm()
    with progress() as counters:
        work = load_job(store, job, counters)
    say_notes(work.notes)
    _LOG.info(work.summary())
    if not work.is_needed:
        return
    with progress() as counters:
        run_job(work, counters)
    _say_alike(work)
    _LOG.info(_outcome(work))


def _say_alike(work: Work) -> None:
    """Which classes the backbones cannot tell apart, by the class embeddings that are there."""
    from clipsyn.store.overlap import alike_notes

    backbones: dict[tuple[str, str], list[str]] = {}
    for classes in work.classes:
        group = classes.draft.identity["dataset"], classes.prompts.name
        backbones.setdefault(group, []).append(classes.encoder.backbone.name)
    for (dataset, prompts), names in backbones.items():
        say_notes(alike_notes(work.store, dataset, prompts, names))


def _outcome(work: Work) -> str:
    store = work.store.path
    if work.is_needed:  # looked up anew: other workers have the rest
        rest = advised("ls", store, "--status")
        return f"this worker's share of {store} is done; `{rest}` shows the rest"
    labelled = any((split.table.labels >= 0).any() for split in work.splits)
    return f"{store} is up to date: next, `{advised('zeroshot' if labelled else 'ls', store)}`"


@command(
    "split",
    [
        click.Argument(["images"], type=click.Path(path_type=Path)),
        option(
            ["-o", "--output"],
            type=Destination(".csv", ".parquet"),
            required=True,
            help="The manifest to write, .csv or .parquet.",
        ),
        *options_of(SplitSettings),
        flag(["--replace"], help="Replace a manifest that is there."),
    ],
)
def split(images: Path, output: Path, replace: bool, **values: Any) -> None:
    """Divide the labelled images of IMAGES, a folder or a manifest, into train and test.

    Writes a manifest for `clipsyn extract`, with the column split, and its class names beside it.
    Each class has the same share in test. Of images of the same content the first is taken; kept,
    they are on the same side. Unlabelled images (no label in a manifest, beside the class folders
    in a folder) are kept apart as the split unlabelled; images with several labels as conflicting.
    See docs/datasets.md.

    \b
    clipsyn split photos -o photos.csv
    clipsyn split labels.csv -o split.csv --test 0.3 --seed 1 --unlabelled unsorted
    """
    from clipsyn.images.split import SPLITS
    from clipsyn.images.split import split as divided

    division = divided(images, output, replace=replace, **values)
    say_notes(division.notes())
    sides = {name: division.labels[division.side == side] for side, name in SPLITS.items()}
    say_rows(
        [
            {
                "split": name,
                "images": len(labels),
                "classes": len({*labels[labels >= 0].tolist()}) or None,
            }
            for name, labels in sides.items()
            if len(labels)
        ]
    )
    names = ",".join(name for name in sides if len(sides[name]) and name != "conflicting")
    root = division.root_beyond(output.parent)
    line = ["extract", "STORE", "-d", str(output), "-s", names]
    line += ["--data-root", str(root)] if root else []
    say(f"written to {output}: next, `{advised(*line)}`")


_FILES = click.Argument(["files"], type=click.Path(path_type=Path), nargs=-1, required=True)


@command("import", [STORE, _FILES, *options_of(ImportSettings), output_option()])
def import_(store: Path, files: tuple[Path, ...], output: Output, **values: Any) -> None:
    """Bring predictions, logits or embeddings that were made elsewhere into STORE as cells.

    FILES are CSV, Parquet, npy, npz or pt, folders of them, folders of clip-retrieval, or what
    `clipsyn export` has written. Rows are found by id, never by place (but for --row-order), among
    the samples of the dataset; a new dataset gets its samples from the file. All commands that need
    only predictions then show them beside extracted backbones.

    \b
    clipsyn import store mine.csv -d emoji-food -b mine
    clipsyn import store logits.npy -d emoji-food --kind logits --ids ids.txt
    clipsyn import store features/Food101-ViT-B-32 -d food101 --row-order
    clipsyn import store contrast.csv -d contrast -p contrast
    """
    from clipsyn.exchange.importing import import_files, imported_table

    imported = import_files(store, files, ImportSettings(**values))
    output.show(imported, lambda shown: {"": (imported_table(shown),)})
