"""`clipsyn extract`."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from clipsyn.cli.declared import settings_command
from clipsyn.cli.output import say, say_lines
from clipsyn.cli.sentences import flags_of, with_flags
from clipsyn.errors import Interrupted
from clipsyn.extract.settings import ExtractSettings

if TYPE_CHECKING:
    from clipsyn.extract.outline import Outline
    from clipsyn.extract.plan import Plan

_LOG = logging.getLogger("clipsyn")


def _extract(store: Path, *, dry_run: bool, **values: Any) -> None:
    from clipsyn.extract.job import outline_job, plan_job, run_job
    from clipsyn.progress import progress

    job = ExtractSettings(**values)
    if dry_run and not (outline := outline_job(store, job)).is_complete:
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

    say_outlined(outline)
    say_lines(f"{show(outline.table())}\n")
    for paragraph in (outline.summary(), outline.unchecked()):
        say_lines(paragraph)


def say_outlined(outline: Outline) -> None:
    """What is missing, and the backbones."""
    from clipsyn.show.tables import show

    _say_notes(dict.fromkeys(split.missing for split in outline.splits if split.missing))
    say_lines(f"{show(outline.backbone_table())}\n")


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
        _say_notes(alike_notes(plan.store, dataset, prompts, names))


def _outcome(plan: Plan) -> str:
    store = plan.store.path
    if plan.is_needed:  # looked up anew: other workers have the rest
        return f"this worker's share of {store} is done; `clipsyn status {store}` shows the rest"
    labelled = any((split.table.labels >= 0).any() for split in plan.splits)
    return f"{store} is up to date: next, `clipsyn {'zeroshot' if labelled else 'ls'} {store}`"


def terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Handler of SIGTERM: stop as for Ctrl-C, between two steps."""
    raise Interrupted("stopped by SIGTERM; finished blocks are kept, run the same command again")


extract = settings_command(
    "extract",
    ExtractSettings,
    _extract,
    short="Run backbones over images into a store.",
    about="""\
Run backbones over images into STORE: image embeddings, class embeddings and logits.

What is there is skipped; what was interrupted goes on where it stopped.""",
    examples=(
        "clipsyn extract store -b zoo -d emoji-animals,emoji-food -s train,test",
        "clipsyn extract store -b openai -d imagenet1k -s val -p clean,imagenet-c:3 --data-root "
        "/data",
        "clipsyn extract store -b ViT-B-32/openai,mine=local-dir:run7/ -d photos/ --dry-run",
    ),
    more=[
        click.option(
            "--dry-run",
            is_flag=True,
            help="Show the plan and stop; without weights or images, from the catalogue.",
        )
    ],
)
