"""`clipsyn push`, `pull`: cells of a store are published at a URL, and copied from one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.options import list_option, with_options
from clipsyn.cli.output import say
from clipsyn.errors import UsageError

if TYPE_CHECKING:
    from clipsyn.remote.choice import Filters

Command = Callable[..., Any]

_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be copied, and stop.")


class LocalStore(click.Path):
    """A store in a folder; a URL, most likely the other argument, is refused."""

    name = "store"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from clipsyn.urls import Address, is_url

        if is_url(value):
            shown = Address.parse(value).shown
            raise UsageError(
                f"{shown} stands where a folder is wanted: `clipsyn push STORE URL` publishes a "
                "store, `clipsyn pull URL STORE` brings one"
            )
        return Path(os.fsdecode(super().convert(value, param, ctx)))


def _filters(command: Command) -> Command:
    """Options that choose cells: the command gets each under the name of its dimension."""
    options = (
        list_option("-d", "--dataset", help="Names or patterns, repeated or with commas."),
        list_option("-s", "--split", help="For instance test."),
        list_option("-p", "--perturb", "perturbation", help="clean, or for instance 'jpeg-*'."),
        list_option("-b", "--backbones", "backbone", help="For instance ViT-B-32/openai."),
        list_option("--prompts", help="Class embeddings and logits of these prompt sets alone."),
    )
    return with_options(command, options)


@click.command(short_help="Publish cells of a store at a URL.")
@click.argument("store", type=LocalStore())
@click.argument("url")
@_filters
@_dry_run
@click.option("--replace", is_flag=True, help="Also where other content is published.")
def push(store: Path, url: str, dry_run: bool, replace: bool, **filters: Any) -> None:
    """Publish the cells of STORE at URL: s3://, gs://, az:// or a folder.

    Cells bring their samples and class embeddings along. What is published already stays, and what
    others publish at the same time stays, too. Readers see a cell when all of it is there. After an
    interruption the same command goes on.

    \b
    clipsyn push store s3://lab/clip
    clipsyn push store s3://lab/clip --dataset emoji-food --dry-run
    """
    from clipsyn.progress import progress
    from clipsyn.remote.push import Push
    from clipsyn.store.features import FeatureStore

    plan = Push.plan(FeatureStore.open(store), url, _given(filters), replace=replace)
    shown = plan.remote.shown
    _say_plan((group.path.relative_to(store) for group in plan.groups), dry_run)
    _say_size(len(plan.groups), plan.size, plan.there, f"to push to {shown}")
    if plan.replaced:
        say(f"{len(plan.replaced):,} of them replace what is published there")
    if plan.groups and not dry_run:
        with progress("MB") as counters:
            plan.carry_out(counters)
        say(f"pushed: `clipsyn ls {shown}` shows what is there")


@click.command(short_help="Copy published cells into a store.")
@click.argument("url")
@click.argument("store", type=LocalStore())
@_filters
@_dry_run
def pull(url: str, store: Path, dry_run: bool, **filters: Any) -> None:
    """Copy the cells that are published at URL into STORE, which is made if it is not there.

    Cells bring their samples and class embeddings along. Every file is compared with what was
    published. A cell is seen when all of it is there. After an interruption the same command goes
    on.

    \b
    clipsyn pull https://example.org/clip store
    clipsyn pull s3://lab/clip store --backbones 'tiny-*' --perturb clean
    """
    from clipsyn.progress import progress
    from clipsyn.remote.pull import Pull

    plan = Pull.plan(url, store, _given(filters))
    _say_plan((entry.name for entry in plan.new), dry_run)
    _say_size(len(plan.new), plan.size, plan.there, f"to pull from {plan.remote.shown}")
    if plan.new and not dry_run:
        with progress("MB") as counters:
            plan.carry_out(counters)
        say(f"pulled: `clipsyn ls {store}` shows what is there")


def _given(filters: dict[str, tuple[str, ...] | None]) -> Filters:
    return {dimension: names for dimension, names in filters.items() if names is not None}


def _say_plan(groups: Iterable[object], dry_run: bool) -> None:
    for group in groups if dry_run else ():
        say(str(group))


def _say_size(groups: int, size: int, there: int, what: str) -> None:
    already = f"{there:,} are there already" if there else "none is there yet"
    if groups:
        say(f"{groups:,} groups {what}, {size / 1e6:,.1f} MB; {already}")
    else:
        say(f"nothing {what}: {already}")
