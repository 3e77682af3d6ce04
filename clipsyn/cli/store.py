"""`clipsyn ls`, `info`, `status`, `verify`, `rm`: what a store holds and whether it is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from clipsyn.errors import DamagedStore, MissingCell, UsageError

_STORE = click.argument("store", type=click.Path(path_type=Path), envvar="CLIPSYN_STORE")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@click.command(short_help="List what a store holds.")
@_STORE
@_JSON
def ls(store: Path, as_json: bool) -> None:
    """List the feature cells of STORE: a line for each dataset, split and perturbation."""
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import cell_rows

    rows = cell_rows(FeatureStore.open(store))
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        _print_grouped(rows)
    else:
        click.echo(f"{store} is empty: fill it with `clipsyn extract {store} …`")


def _print_grouped(rows: list[dict[str, Any]]) -> None:
    import polars as pl

    from clipsyn.report.tables import show

    grouped = (
        pl.DataFrame(rows)
        .group_by("dataset", "split", "perturbation", maintain_order=True)
        .agg(
            pl.col("images").first(),
            pl.col("bad").max(),
            pl.col("backbone").n_unique().alias("backbones"),
            pl.col("prompts").list.explode().unique().drop_nulls().str.join(", "),
            (pl.col("bytes").sum() / 1e6).alias("MB"),
        )
    )
    click.echo(show(grouped))
    names = sorted({row["backbone"] for row in rows})
    click.echo(f"{len(rows):,} cells of {len(names)} backbones: {', '.join(names)}")


@click.command(short_help="Say how a store, or one group of it, was made.")
@_STORE
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
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))


@click.command(short_help="Show unfinished work and leftovers.")
@_STORE
@_JSON
def status(store: Path, as_json: bool) -> None:
    """Show what of STORE is finished and what an interrupted run left to do."""
    from clipsyn.store.drafts import leftovers, unfinished
    from clipsyn.store.features import KINDS, FeatureStore

    opened = FeatureStore.open(store)
    finished = {kind: len(list(opened.groups(kind))) for kind in KINDS}
    drafts = [
        {"target": draft.target, "blocks": draft.total, "done": draft.done}
        for draft in unfinished(store)
    ]
    if as_json:
        click.echo(json.dumps({"finished": finished, "unfinished": drafts}, indent=2))
        return
    click.echo("finished: " + ", ".join(f"{count:,} {kind}" for kind, count in finished.items()))
    for draft in drafts:
        click.echo(
            f"unfinished: {draft['target']}, {draft['done']} of {draft['blocks']} blocks done"
        )
    if drafts:
        click.echo(
            "the command that started them finishes them; `clipsyn rm --unfinished` drops them"
        )
    if left := leftovers(store):
        click.echo(f"{len(left)} leftovers in .wip of commands that were killed; rm drops them too")


@click.command(short_help="Re-read everything and name what is damaged.")
@_STORE
def verify(store: Path) -> None:
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
    for problem in problems:
        click.echo(problem)
    if problems:
        raise DamagedStore(
            f"{len(problems)} problems in {store}: remove the damaged groups with "
            f"`clipsyn rm {store} --dataset … --backbones …` and extract them again"
        )
    click.echo(f"{len(groups):,} groups of {store} are as they were written")


@click.command(short_help="Remove cells from a store.")
@_STORE
@click.option("-d", "--dataset", multiple=True)
@click.option("-s", "--split", multiple=True)
@click.option("-p", "--perturb", multiple=True)
@click.option("-b", "--backbones", multiple=True)
@click.option("--prompts", multiple=True)
@click.option("--unfinished", is_flag=True, help="Remove what interrupted runs left, instead.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def rm(store: Path, unfinished: bool, yes: bool, **filters: tuple[str, ...]) -> None:
    """Remove from STORE what every given filter matches; each may be repeated.

    \b
    clipsyn rm store --backbones tiny-RN/zoo         its features, logits and class embeddings
    clipsyn rm store --dataset emoji-food            everything of that dataset
    """
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import Group, find_groups, remove, remove_unfinished

    opened = FeatureStore.open(store)
    if unfinished:
        click.echo(f"removed {remove_unfinished(opened)} unfinished groups and leftovers")
        return
    dimensions = {"perturb": "perturbation", "backbones": "backbone"}
    wanted = {dimensions.get(name, name): names for name, names in filters.items() if names}
    if not wanted:
        raise UsageError("rm needs a filter, for instance --dataset or --backbones; see --help")
    groups: list[Group] = find_groups(opened, wanted)
    if not groups:
        raise MissingCell(f"nothing in {store} matches; `clipsyn ls {store}` shows what is there")
    for group in groups:
        click.echo(f"  {group.path.relative_to(store)}")
    if not yes:
        click.confirm(f"Remove these {len(groups)} groups?", abort=True)
    remove(opened, groups)
    click.echo(f"removed {len(groups)} groups")
