"""`clipsyn gc`: removes what dead jobs have left in a store."""

from __future__ import annotations

import re
from pathlib import Path

import click

from clipsyn.cli.options import dry_run_option, store_argument, yes_option
from clipsyn.cli.output import say
from clipsyn.printable import counted

_UNITS = {"m": 60, "h": 3_600, "d": 86_400}


def _seconds(context: click.Context, parameter: click.Parameter, age: str) -> int:
    """Of minutes, hours or days."""
    match = re.fullmatch(r"([0-9]{1,6})([mhd])", age)
    if match is None and age != "0":
        raise click.BadParameter(f"'{age}' is no age: write 30m, 12h, 7d or 0", context, parameter)
    return int(match[1]) * _UNITS[match[2]] if match else 0


@click.command(short_help="Remove what dead jobs have left.")
@store_argument
@click.option(
    "--age",
    callback=_seconds,
    default="1d",
    show_default=True,
    help="Only what nobody has written to for so long: 30m, 12h, 7d. 0 is whatever its age.",
)
@dry_run_option("removed")
@yes_option
def gc(store: Path, age: int, dry_run: bool, yes: bool) -> None:
    """Remove from STORE what jobs that were killed have left, having listed it and asked.

    A group that is not finished could be completed by the command that began it. A job that runs
    writes to its groups again and again, so it loses nothing as long as a block takes it less
    than --age.

    \b
    clipsyn gc store --dry-run
    clipsyn gc store --age 0         all that is unfinished, where no job is running
    """
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.garbage import collect, left_over

    opened = FeatureStore.open(store)
    opened.check_writable()
    found = left_over(opened.path)
    dead = [one for one in found if one.age >= age]
    for one in dead:
        say(f"{one.what}: {one.bytes / 1e6:,.1f} MB, last written to {_ago(one.age)}")
    if young := len(found) - len(dead):
        say(f"{young:,} more were last written to less than {_ago(age)}: they stay")
    if not dead:
        say(f"nothing to remove from {store}")
    elif not dry_run:
        what = counted(len(dead), "unfinished group or leftover", "unfinished groups and leftovers")
        if not yes:
            click.confirm(f"Remove {what} from {store}?", abort=True)
        say(f"removed {collect(opened.path, dead):,} of {what} from {store}")


def _ago(seconds: float) -> str:
    for unit, length in (("day", _UNITS["d"]), ("hour", _UNITS["h"]), ("minute", _UNITS["m"])):
        if (count := int(seconds // length)) > 0:
            return f"{counted(count, unit)} ago"
    return "moments ago"
