"""`clipsyn ls`, `info`, `status`, `verify`, `rm`: what a store holds and whether it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.options import list_option, store_argument
from clipsyn.cli.output import say, say_json, say_lines
from clipsyn.errors import DamagedStore, MissingCell, UsageError
from clipsyn.printable import printable
from clipsyn.specs import parse_perturbation

if TYPE_CHECKING:
    from clipsyn.store.features import FeatureStore

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@click.command(short_help="List what a store holds.")
@store_argument
@_JSON
def ls(store: Path, as_json: bool) -> None:
    """List the cells of STORE: a line for each dataset, split and perturbation."""
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import cell_rows

    rows = cell_rows(FeatureStore.open(store))
    if as_json:
        say_json(rows)
    elif rows:
        _print_grouped(rows)
    else:
        say(f"{store} is empty: fill it with `clipsyn extract {store} …`")


def _print_grouped(rows: list[dict[str, Any]]) -> None:
    import polars as pl

    from clipsyn.report.tables import show

    grouped = (
        pl.DataFrame(rows)
        .group_by("dataset", "split", "perturbation", maintain_order=True)
        .agg(
            pl.col("images").max(),
            pl.col("bad").max(),
            pl.col("backbone").n_unique().alias("backbones"),
            pl.col("prompts").list.explode().unique().drop_nulls().str.join(", "),
            (pl.col("bytes").sum() / 1e6).alias("MB"),
        )
    )
    say_lines(show(grouped))
    names = sorted({row["backbone"] for row in rows})
    say_lines(f"cells: {len(rows):,}; backbones: {', '.join(map(printable, names))}")
    for kind in sorted({row["imported"] for row in rows if row["imported"]}):
        imported = sorted({row["backbone"] for row in rows if row["imported"] == kind})
        say_lines(f"imported {kind}: {', '.join(map(printable, imported))}")


@click.command(short_help="Say how a store, or one group of it, was made.")
@store_argument
@click.argument("group", required=False)
def info(store: Path, group: str | None) -> None:
    """Say as JSON how STORE was made: format, backbones, datasets; or all about one GROUP.

    \b
    clipsyn info store
    clipsyn info store features/emoji-food/test/clean/tiny-RN--zoo
    """
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import describe, describe_group

    opened = FeatureStore.open(store)
    found = describe_group(opened, group) if group else describe(opened)
    say_json(found)


@click.command(short_help="Show unfinished work and leftovers.")
@store_argument
@_JSON
def status(store: Path, as_json: bool) -> None:
    """Show what of STORE is finished and what an interrupted run left to do."""
    from clipsyn.store.drafts import leftovers, unfinished
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.folders import KINDS

    opened = FeatureStore.open(store)
    finished = {kind: sum(1 for _ in opened.groups(kind)) for kind in KINDS}
    drafts, left = unfinished(store), len(leftovers(store))
    if as_json:
        shown = [{"target": d.target, "done": d.done, "blocks": d.total} for d in drafts]
        found = {"finished": finished, "unfinished": shown, "leftovers": left}
        say_json(found)
        return
    counts = (f"{_COUNTED[kind]} {count:,}" for kind, count in finished.items())
    say_lines(f"finished: {', '.join(counts)}")
    for draft in drafts:
        say(f"unfinished: {draft.target}, {draft.done} of {draft.total} blocks done")
    if drafts:
        say("the command that started them goes on with them if it is run again;")
        say(f"`clipsyn rm {store} --unfinished` drops them")
    if left:
        say(
            f"leftovers in .wip of commands that were killed, or are running: {left}; rm drops "
            "them too"
        )


_COUNTED = {
    "samples": "sample tables",
    "classes": "class embeddings",
    "features": "image embeddings",
    "logits": "logits",
    "imports": "imported cells",
    "prompted": "imported cells of a prompt set",
}


@click.command(short_help="Re-read everything and name what is damaged.")
@store_argument
@_JSON
def verify(store: Path, as_json: bool) -> None:
    """Re-read every chunk of STORE against its checksum, every group against its fingerprint.

    Exit status 4 if anything is not as it was written.
    """
    from clipsyn.progress import progress
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import damage, find_groups

    opened = FeatureStore.open(store)
    groups = find_groups(opened, {})
    problems: list[str] = []
    with progress("groups") as counters:
        counter = counters.add("verifying", len(groups))
        for group in groups:
            problems += damage(opened, group)
            counters.advance(counter, 1)
    if as_json:
        found = {"groups": len(groups), "problems": problems}
        say_json(found)
    elif problems:
        for problem in problems:
            say(problem)
    else:
        say(f"{len(groups):,} groups of {store} are as they were written")
    if problems:
        raise DamagedStore(
            f"damage found in {store} (see above, {len(problems)} in all): remove the damaged "
            f"groups with `clipsyn rm {store} --dataset … --backbones …` and make them again"
        )


@click.command(short_help="Remove cells from a store.")
@store_argument
@list_option("-d", "--dataset", help="Repeated or with commas, as all filters.")
@list_option("-s", "--split", help="For instance train.")
@list_option("-p", "--perturb", "perturbation", help="clean, or for instance jpeg-3.")
@list_option("-b", "--backbones", "backbone", help="For instance ViT-B-32/openai.")
@list_option("--prompts", help="Class embeddings and logits of a prompt set.")
@click.option("--unfinished", is_flag=True, help="Remove what interrupted runs left, instead.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def rm(store: Path, unfinished: bool, yes: bool, **filters: tuple[str, ...] | None) -> None:
    """Remove from STORE what every given filter matches, having listed it and asked.

    \b
    clipsyn rm store --backbones tiny-RN/zoo         its features, logits and class embeddings
    clipsyn rm store --dataset emoji-food            everything of that dataset
    clipsyn rm store --unfinished                    what interrupted runs left to do
    """
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import find_groups, remove

    opened = FeatureStore.open(store)
    wanted = {name: _as_stored(name, names) for name, names in filters.items() if names}
    if unfinished:
        if wanted:
            raise UsageError("rm --unfinished removes all that is unfinished: give it no filter")
        _remove_unfinished(opened, yes)
        return
    if not wanted:
        raise UsageError("rm needs a filter, for instance --dataset or --backbones; see --help")
    _refuse_unknown(opened, wanted)
    groups = find_groups(opened, wanted)
    if not groups:
        raise MissingCell(f"nothing in {store} matches; `clipsyn ls {store}` shows what is there")
    for group in groups:
        say(str(group.path.relative_to(store)))
    if not yes:
        click.confirm(f"Remove {len(groups)} groups from {store}?", abort=True)
    remove(opened, groups)
    say(f"removed {len(groups)} groups from {store}")


def _as_stored(dimension: str, names: tuple[str, ...]) -> list[str]:
    """As the store calls them: ``jpeg:3`` is ``jpeg-3``."""
    if dimension != "perturbation":
        return [*names]
    return [parse_perturbation(name).label if ":" in name else name for name in names]


def _refuse_unknown(store: FeatureStore, wanted: dict[str, list[str]]) -> None:
    """Raise UnknownName, with near matches, for a name that stands nowhere in the store."""
    from clipsyn.registry import unknown_name
    from clipsyn.store.inventory import find_groups

    groups = find_groups(store, {})
    for dimension, names in wanted.items():
        known = {group.names[dimension] for group in groups if dimension in group.names}
        for name in names:
            if name not in known:
                raise unknown_name(dimension, name, known, f"`clipsyn ls {store.path}` lists all.")


def _remove_unfinished(store: FeatureStore, yes: bool) -> None:
    from clipsyn.store.drafts import leftovers, unfinished
    from clipsyn.store.inventory import remove_unfinished

    drafts, left = unfinished(store.path), leftovers(store.path)
    if not (drafts or left):
        say(f"nothing in {store.path} is unfinished")
        return
    for draft in drafts:
        say(f"{draft.target}, {draft.done} of {draft.total} blocks done")
    if not yes:
        what = f"Remove {len(drafts)} unfinished groups and {len(left)} leftovers"
        click.confirm(f"{what}? (Commands that are running still need theirs.)", abort=True)
    say(f"removed {remove_unfinished(store)} unfinished groups and leftovers")
