"""`clipsyn extract`."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from clipsyn.cli.complete import complete
from clipsyn.cli.options import store_argument
from clipsyn.cli.output import say, say_lines
from clipsyn.cli.sentences import flags_of, with_flags
from clipsyn.errors import Interrupted

if TYPE_CHECKING:
    from clipsyn.extract.outline import Outline
    from clipsyn.extract.plan import Plan

_LOG = logging.getLogger("clipsyn")


@click.command(short_help="Run backbones over images into a store.")
@store_argument
@click.option(
    "-b",
    "--backbones",
    shell_complete=complete,
    multiple=True,
    default=["zoo"],
    show_default=True,
    help="ARCH/TAG, hf-hub:ORG/REPO, local-dir:PATH or ARCH@CHECKPOINT, each with an optional "
    "NAME=; a collection (openai, zoo); a .txt file with one a line. Repeated or with commas.",
)
@click.option(
    "-d",
    "--dataset",
    "datasets",
    shell_complete=complete,
    multiple=True,
    required=True,
    help="A folder, a .csv or .parquet manifest or a webdataset folder, with an optional NAME=; "
    "or a name that `clipsyn datasets` lists. Repeated or with commas.",
)
@click.option(
    "-s",
    "--split",
    "splits",
    multiple=True,
    default=["test"],
    show_default=True,
    help="Which part of each dataset. Repeated or with commas.",
)
@click.option(
    "-p",
    "--perturb",
    "perturbations",
    shell_complete=complete,
    multiple=True,
    default=["clean"],
    show_default=True,
    help="clean; NAME:SEVERITY (1 to 5), for instance jpeg:3; or GROUP:SEVERITY, GROUP (all five) "
    "of imagenet-c, imagenet-c-extra, geometric, photometric, occlusion. `clipsyn perturbations` "
    "lists the names. Options follow: :seed=N, :canvas=PIXELS. Repeated or with commas.",
)
@click.option(
    "--prompts",
    shell_complete=complete,
    default="auto",
    show_default=True,
    help="auto (the dataset's own, else known ones), own, clip-benchmark, openai (80 for "
    "ImageNet), simple ('a photo of a {c}.'), or a JSON file.",
)
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    envvar="CLIPSYN_DATA",
    help="Where datasets that are given by name lie.",
)
@click.option("--download", is_flag=True, help="Let torchvision fetch a dataset that is missing.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    help="auto (fp32 on a CPU, autocast on a GPU), fp32, bf16, amp_bf16 or amp_fp16.",
)
@click.option("--batch-size", type=int, help="Images at a time.  [default: 64; on a GPU 256]")
@click.option("--workers", type=int, help="Decoding threads.  [default: one a core]")
@click.option(
    "--shard",
    help="I/N: be the I-th (from 1) of N workers on one store; auto: read I and N from SLURM's "
    "or torchrun's variables.",
)
@click.option(
    "--max-bad",
    type=float,
    default=0.001,
    show_default=True,
    help="Share of a split's images that may be impossible to decode.",
)
@click.option(
    "--logits/--no-logits",
    default=True,
    show_default=True,
    help="Store logits, or derive them when they are read.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Make again, instead of refusing, what other weights, images or prompts made.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show the plan and stop; without weights or images, from the catalogue.",
)
def extract(store: Path, dry_run: bool, **options: Any) -> None:
    """Run backbones over images into STORE: image embeddings, class embeddings and logits.

    What is there is skipped; what was interrupted goes on where it stopped.

    \b
    clipsyn extract store -b zoo -d emoji-animals,emoji-food -s train,test
    clipsyn extract store -b openai -d imagenet1k -s val -p clean,imagenet-c:3 --data-root /data
    clipsyn extract store -b ViT-B-32/openai,mine=local-dir:run7/ -d photos/ --dry-run
    """
    from clipsyn.extract.job import outline_job, plan_job, read_job, run_job
    from clipsyn.progress import progress

    job = read_job(options)
    if dry_run and (outline := outline_job(store, job)):
        _show_outline(outline)
        return
    signal.signal(signal.SIGTERM, terminate)
    with progress() as counters:
        plan, settings = plan_job(store, job, counters)
    _show(plan, as_result=dry_run)
    if dry_run or not plan.is_needed:
        return
    with progress() as counters:
        run_job(plan, settings, counters)
    _say_alike(plan)
    _LOG.info(_outcome(plan))


def _show(plan: Plan, *, as_result: bool) -> None:
    """What is there and what will be made: on standard output if that is all the command does."""
    from clipsyn.show.tables import show

    _say_notes(plan.notes)
    text = f"{show(plan.table())}\n{plan.summary()}"
    if as_result or _LOG.isEnabledFor(logging.INFO):
        say_lines(text, err=not as_result)


def _show_outline(outline: Outline) -> None:
    from clipsyn.show.tables import show

    _say_notes(dict.fromkeys(split.missing for split in outline.splits if split.missing))
    for table in (outline.backbone_table(), outline.table()):
        say_lines(f"{show(table)}\n")
    for paragraph in (outline.summary(), outline.unchecked()):
        say_lines(paragraph)


def _say_notes(notes: Iterable[str]) -> None:
    flags = flags_of(click.get_current_context().find_root())
    for note in notes:
        say(f"note: {with_flags(note, flags)}", fg="yellow", err=True)


def _say_alike(plan: Plan) -> None:
    """Which classes the backbones cannot tell apart, by the class embeddings that are there."""
    from clipsyn.store.alike import alike_notes

    backbones: dict[tuple[str, str], list[str]] = {}
    for classes in plan.classes:
        group = classes.draft.identity["dataset"], classes.prompts.name
        backbones.setdefault(group, []).append(classes.encoder.backbone.name)
    for (dataset, prompts), names in backbones.items():
        for note in alike_notes(plan.store, dataset, prompts, names):
            say(f"note: {note}", fg="yellow", err=True)


def _outcome(plan: Plan) -> str:
    store = plan.store.path
    if plan.is_needed:  # looked up anew: other workers have the rest
        return f"this worker's share of {store} is done; `clipsyn status {store}` shows the rest"
    labelled = any((split.table.labels >= 0).any() for split in plan.splits)
    return f"{store} is up to date: next, `clipsyn {'zeroshot' if labelled else 'ls'} {store}`"


def terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Handler of SIGTERM: stop as for Ctrl-C, between two steps."""
    raise Interrupted("stopped by SIGTERM; finished blocks are kept, run the same command again")
