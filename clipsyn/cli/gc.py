"""`clipsyn gc`: removes what dead jobs have left in a store."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clipsyn.cli.options import AGES, dry_run_option, older_than_option, store_argument, yes_option
from clipsyn.cli.output import say
from clipsyn.names import Location
from clipsyn.text import counted

if TYPE_CHECKING:
    from clipsyn.store.garbage import Leftover


@click.command(short_help="Remove what dead jobs have left.")
@store_argument
@older_than_option("Only what nobody has written to for so long", default="1d")
@dry_run_option("removed")
@yes_option
def gc(store: Path, older_than: int, dry_run: bool, yes: bool) -> None:
    """Remove from STORE what jobs that were killed have left, having listed it and asked.

    A group that is not finished could be completed by the command that began it. A job that runs
    writes to its groups again and again, so it loses nothing as long as a block takes it less
    than --older-than.

    At the URL of a bucket, or in a folder that was pushed to, these are groups that the index does
    not name: sent by a push that was killed, or replaced. Who reads a group that was replaced, and
    a push that runs, lose nothing as long as they take less than --older-than.

    \b
    clipsyn gc store --dry-run
    clipsyn gc store --older-than 0  all that is unfinished, where no job is running
    clipsyn gc s3://lab/clip --dry-run
    """
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
        if not yes:
            click.confirm(f"Remove {what} from {store}?", abort=True)
        say(f"removed {collect(dead):,} of {what} from {store}")


def _left_over(store: Path) -> tuple[list[Leftover], Callable[[list[Leftover]], int]]:
    """What lies in a store that nobody needs, and what removes it."""
    from clipsyn.store import garbage
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.marker import is_store, place_of

    place = place_of(store)
    if isinstance(store, Location) and not is_store(place):
        place = store  # a first push to it may have been killed
    if isinstance(place, Location):
        from clipsyn.remote import publishing

        return publishing.left_over(place), partial(publishing.collect, place)
    path = FeatureStore.open(place).path
    return garbage.left_over(path), partial(garbage.collect, path)


def _ago(seconds: float) -> str:
    for unit, length in (("day", AGES["d"]), ("hour", AGES["h"]), ("minute", AGES["m"])):
        if (count := int(seconds // length)) > 0:
            return f"{counted(count, unit)} ago"
    return "moments ago"
