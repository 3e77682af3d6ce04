"""`clipsyn rm` and `gc`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipsyn.cli.options import (
    AGES,
    StorePath,
    cell_filters,
    dry_run_option,
    older_than_option,
    store_argument,
    yes_option,
)
from clipsyn.cli.output import say
from clipsyn.errors import UsageError
from clipsyn.names import Location
from clipsyn.text import counted

if TYPE_CHECKING:
    from clipsyn.store.unfinished import Leftover


@click.command()
@click.argument("store", type=StorePath(), envvar="CLIPSYN_STORE", required=False)
@click.option("--cache", is_flag=True, help="Copies here of what was read at URLs, not STORE.")
@older_than_option("Only what nobody has written to, or read, for so long", default="1d")
@dry_run_option("removed")
@yes_option
def gc(store: Path | None, cache: bool, older_than: int, dry_run: bool, yes: bool) -> None:
    """Remove from STORE what jobs that were killed have left, having listed it and asked.

    A group that is not finished could be completed by the command that began it. A job that runs
    writes to its groups again and again, so it loses nothing as long as a block takes it less
    than --older-than.

    At the URL of a bucket, or in a folder that was pushed to, these are groups that the index does
    not name: sent by a push that was killed, or replaced. A push that runs loses nothing as long as
    it takes less than --older-than; who still reads a group that was replaced is told so.

    With --cache: groups of arrays that were read at URLs, kept here so that they travel once, in
    the folder CLIPSYN_CACHE or ~/.cache/clipsyn. Nothing goes from there by itself.

    \b
    clipsyn gc store --dry-run
    clipsyn gc store --older-than 0  all that is unfinished, where no job is running
    clipsyn gc s3://lab/clip --dry-run
    clipsyn gc --cache --older-than 30d
    """
    if cache:
        _empty_cache(older_than, dry_run, yes)
        return
    if store is None:
        raise UsageError("name a STORE, or add --cache")
    found, collect = _left_over(store)
    dead = [one for one in found if one.age >= older_than]
    for one in dead:
        say(f"{one.what}: {one.bytes / 1e6:,.1f} MB, last written to {_ago(one.age)}")
    if young := len(found) - len(dead):
        say(f"{young:,} more were last written to less than {_ago(older_than)}: they stay")
    if not dead:
        say(f"nothing to remove from {store}")
    elif not dry_run:
        what = counted(len(dead), "unfinished group or leftover", "unfinished groups and leftovers")
        _confirm(what, store, yes)
        say(f"removed {collect(dead):,} of {what} from {store}")


def _confirm(what: str, place: Path, yes: bool) -> None:
    if not yes:
        click.confirm(f"Remove {what} from {place}?", abort=True)


def _empty_cache(older_than: int, dry_run: bool, yes: bool) -> None:
    from clipsyn.remote.cache import Cache

    cache = Cache.of_user()
    old = [group for group in cache.groups() if time.time() - group.used >= older_than]
    size, what = sum(group.bytes for group in old) / 1e6, counted(len(old), "group")
    if not old:
        say(f"nothing to remove from {cache.root}")
        return
    say(f"{what} in {cache.root}, {size:,.1f} MB, last read {_ago(time.time() - old[0].used)}")
    if not dry_run:
        _confirm(what, cache.root, yes)
        removed = cache.prune(older_than)
        size = sum(group.bytes for group in removed) / 1e6
        say(f"removed {counted(len(removed), 'group')}, {size:,.1f} MB, from {cache.root}")


def _left_over(store: Path) -> tuple[list[Leftover], Callable[[list[Leftover]], int]]:
    """What lies in a store that nobody needs, and what removes it."""
    from clipsyn.store import unfinished
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.marker import is_store, place_of

    place = place_of(store)
    if isinstance(store, Location) and not is_store(place):
        place = store  # a first push to it may have been killed
    if isinstance(place, Location):
        from clipsyn.remote import publishing

        return publishing.left_over(place), partial(publishing.collect, place)
    path = FeatureStore.open(place).path
    return unfinished.left_over(path), partial(unfinished.collect, path)


def _ago(seconds: float) -> str:
    for unit, length in (("day", AGES["d"]), ("hour", AGES["h"]), ("minute", AGES["m"])):
        if (count := int(seconds // length)) > 0:
            return f"{counted(count, unit)} ago"
    return "moments ago"


@click.command()
@store_argument
@cell_filters(prompts=True)
@yes_option
def rm(store: Path, yes: bool, **filters: tuple[str, ...] | None) -> None:
    """Remove from STORE what every given filter matches, having listed it and asked.

    \b
    clipsyn rm store --backbones tiny-RN/zoo         its features, logits and class embeddings
    clipsyn rm store --dataset emoji-food            everything of that dataset
    """
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.inventory import find_groups, remove
    from clipsyn.store.select import names_meant, nothing_matches

    opened = FeatureStore.open(store)
    opened.check_writable()
    if not any(filters.values()):
        raise UsageError("rm needs a filter, for instance --dataset or --backbones; see --help")
    places = [group.place for group in find_groups(opened, {})]
    groups = find_groups(opened, names_meant(places, filters, str(store)))
    if not groups:
        raise nothing_matches(str(store))
    for group in groups:
        say(str(group.path.relative_to(store)))
    what = counted(len(groups), "group")
    _confirm(what, store, yes)
    remove(opened, groups)
    say(f"removed {what} from {store}")
