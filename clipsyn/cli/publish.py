"""`clipsyn push`, `pull`: cells of a store are published at a URL, and copied from one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.options import cell_filters, dry_run_option
from clipsyn.cli.output import say, say_rows
from clipsyn.errors import UsageError
from clipsyn.text import advised, counted

if TYPE_CHECKING:
    from clipsyn.remote.push import Push
    from clipsyn.store.folders import Place


class LocalStore(click.Path):
    """A store in a folder; a URL, most likely the other argument, is refused."""

    name = "store"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from clipsyn.names import Address, is_url

        if is_url(value):
            shown = Address.parse(value).shown
            raise UsageError(
                f"{shown} stands where a folder is wanted: `clipsyn push STORE URL` publishes a "
                "store, `clipsyn pull URL STORE` brings one"
            )
        return Path(os.fsdecode(super().convert(value, param, ctx)))


@click.command(short_help="Publish cells of a store at a URL.")
@click.argument("store", type=LocalStore())
@click.argument("url")
@cell_filters(prompts=True)
@dry_run_option("copied")
@click.option("--replace", is_flag=True, help="Also where other content is published.")
@click.option(
    "--single-writer", is_flag=True, help="At a place that heeds no conditions: nobody else pushes."
)
def push(
    store: Path, url: str, dry_run: bool, replace: bool, single_writer: bool, **filters: Any
) -> None:
    """Publish the cells of STORE at URL: s3://, gs://, az:// or a folder.

    Cells bring their samples and class embeddings along. What is published already stays, and what
    others publish at the same time stays, too; of a published cell that is damaged the files that
    are missing, of another size, or written after the others are sent again. Readers see a cell
    when all of it is there. After an interruption the same command goes on.

    \b
    clipsyn push store s3://lab/clip
    clipsyn push store s3://lab/clip --dataset emoji-food --dry-run
    """
    from clipsyn.remote.push import Push
    from clipsyn.show.progress import progress
    from clipsyn.store.features import FeatureStore

    plan = Push.plan(FeatureStore.open(store), url, filters, replace=replace)
    shown = plan.remote.shown
    if dry_run:
        sizes = {group.place: group.bytes for group in plan.groups}
        _say_table(sizes, [group.place for group in plan.there])
    _say_size(len(plan.groups), plan.size, len(plan.there), f"to push to {shown}")
    if plan.replaced:
        say(f"other content of {len(plan.replaced):,} of them is replaced")
    if plan.damaged:
        say(f"{len(plan.damaged):,} of them are published damaged, and are mended")
    if plan.groups and not dry_run:
        with progress("MB") as counters:
            plan.carry_out(counters, single_writer=single_writer)
        _write_card(plan, url)
        say(f"pushed: `{advised('ls', shown)}` shows what is there")


def _write_card(plan: Push, url: str) -> None:
    from clipsyn.exchange.origins.card import card
    from clipsyn.remote.publishing import address_of
    from clipsyn.store.features import FeatureStore

    published = plan.store if plan.is_all() else FeatureStore.open(address_of(url))
    plan.describe(card(published, where=plan.remote.shown))


@click.command(short_help="Copy published cells into a store.")
@click.argument("url")
@click.argument("store", type=LocalStore())
@cell_filters(prompts=True)
@dry_run_option("copied")
def pull(url: str, store: Path, dry_run: bool, **filters: Any) -> None:
    """Copy the cells that are published at URL into STORE, which is made if it is not there.

    Cells bring their samples and class embeddings along. Every file is compared with what was
    published. A cell is seen when all of it is there. After an interruption the same command goes
    on.

    \b
    clipsyn pull https://example.org/clip store
    clipsyn pull s3://lab/clip store --backbones 'tiny-*' --perturb clean
    """
    from clipsyn.remote.pull import Pull
    from clipsyn.show.progress import progress

    plan = Pull.plan(url, store, filters)
    if dry_run:
        sizes = {entry.place: entry.bytes for entry in plan.new}
        _say_table(sizes, [entry.place for entry in plan.there])
    _say_size(len(plan.new), plan.size, len(plan.there), f"to pull from {plan.remote.shown}")
    if plan.new and not dry_run:
        with progress("MB") as counters:
            plan.carry_out(counters)
        say(f"pulled: `{advised('ls', store)}` shows what is there")


def _say_table(sizes: Mapping[Place, int], there: Sequence[Place]) -> None:
    """A line for each dataset, split and perturbation; classes have no split."""
    from clipsyn.store.folders import KINDS

    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for place in sorted({*sizes, *there}):
        names = dict(zip(KINDS[place[0]], place[1:], strict=True))
        where = {name: names.get(name) or "" for name in ("dataset", "split", "perturbation")}
        counts = {"backbones": set(), "groups": 0, "MB": 0.0, "there": 0}
        row = rows.setdefault(tuple(where.values()), {**where, **counts})  # type: ignore[arg-type]
        row["backbones"] |= {names[name] for name in ("backbone",) if name in names}
        row["groups"] += place in sizes
        row["MB"] += sizes.get(place, 0) / 1e6
        row["there"] += place not in sizes
    shown = [{**row, "backbones": len(row["backbones"])} for _, row in sorted(rows.items())]
    say_rows(
        shown, notes="Without a perturbation: sample tables, and class embeddings of a dataset."
    )


def _say_size(groups: int, size: int, there: int, what: str) -> None:
    already = f"{counted(there, 'is', 'are')} there already" if there else "none is there yet"
    if groups:
        say(f"{counted(groups, 'group')} {what}, {size / 1e6:,.1f} MB; {already}")
    else:
        say(f"nothing {what}: {already}")
