"""`clipsyn merge`: several stores become one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.options import StorePath, cell_filters, dry_run_option
from clipsyn.cli.output import say
from clipsyn.cli.status import by_kind
from clipsyn.text import counted

if TYPE_CHECKING:
    from clipsyn.store.union import Offer


@click.command(short_help="Add the cells of other stores to one.")
@click.argument("into", type=StorePath())
@click.argument("stores", type=StorePath(), nargs=-1, required=True)
@click.option("--link", is_flag=True, help="Give files a second name instead of copying them.")
@cell_filters(prompts=True)
@dry_run_option("merged")
def merge(into: Path, stores: tuple[Path, ...], link: bool, dry_run: bool, **filters: Any) -> None:
    """Add the cells of STORES to the store INTO, which is made if it is not there.

    Cells bring their samples and class embeddings along. A cell that is in INTO already stays as it
    is. Where one name stands for two things, of other weights, images or settings, nothing is
    merged, and the fields that differ are named.

    \b
    clipsyn merge lab alice bob
    clipsyn merge lab /scratch/carol/store --backbones 'ViT-*' --dry-run
    """
    from clipsyn.show.progress import progress
    from clipsyn.store.merge import plan_merge

    plan = plan_merge(into, stores, filters)
    if len(plan.conflicts) > 1:
        for conflict in plan.conflicts:
            say(conflict.said)
    plan.check()
    for offer in plan.offers:
        _say_offer(offer)
    groups = sum(len(offer.take) for offer in plan.offers)
    if dry_run:
        for offer in plan.offers:
            for group in offer.take:
                say(group.name)
    elif groups:
        with progress("groups") as counters:
            plan.carry_out(counters, link=link)
        say(f"added {counted(groups, 'group')} to {into}")


def _say_offer(offer: Offer) -> None:
    if offer.take:
        kinds = by_kind(offer.counts())
        say(f"{offer.store}: {kinds} ({offer.size / 1e6:,.1f} MB); {_there(offer)}")
    else:
        say(f"{offer.store}: nothing new; {_there(offer)}")
    for note in offer.notes():
        say(note)


def _there(offer: Offer) -> str:
    return f"{counted(offer.there, 'group is', 'groups are')} there already"
