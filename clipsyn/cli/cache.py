"""`clipsyn cache`: what is kept on this machine of stores at URLs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.output import json_option, say, say_json, say_rows
from clipsyn.errors import UsageError
from clipsyn.printable import counted

if TYPE_CHECKING:
    from clipsyn.remote.cache import Cache, Kept


def _bytes(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    from clipsyn.remote.cache import parse_size

    return None if text is None else parse_size(text)


@click.command(short_help="List or clear what is kept here of stores at URLs.")
@click.argument("action", type=click.Choice(["ls", "prune"]), default="ls", metavar="[ls|prune]")
@click.option(
    "--to",
    callback=_bytes,
    metavar="SIZE",
    help="How much prune leaves, such as '5 GB'.  [default: nothing]",
)
@json_option
def cache(action: str, to: int | None, as_json: bool) -> None:
    """List what is kept on this machine of stores at URLs, or remove it.

    Kept are groups of arrays that were read, so that they travel once. Above 20 GB, or what
    CLIPSYN_CACHE_SIZE says, those that were not used for longest go by themselves. They lie in the
    folder CLIPSYN_CACHE, or in ~/.cache/clipsyn.

    \b
    clipsyn cache ls
    clipsyn cache prune --to '5 GB'
    """
    from clipsyn.remote.cache import Cache

    kept = Cache.of_user()
    if action == "ls":
        if to is not None:
            raise UsageError("--to is for `clipsyn cache prune`")
        _list(kept, as_json)
        return
    removed = kept.prune(to or 0)
    megabytes = sum(one.bytes for one in removed) / 1e6
    if as_json:
        say_json({"removed": len(removed), "bytes": sum(one.bytes for one in removed)})
    else:
        say(f"removed {counted(len(removed), 'group')}, {megabytes:,.1f} MB, from {kept.root}")


def _list(cache: Cache, as_json: bool) -> None:
    kept = cache.kept()
    if as_json:
        say_json([_described(one) for one in kept])
        return
    if kept:
        say_rows(_by_store(kept))
    total = sum(one.bytes for one in kept)
    say(f"{total / 1e6:,.1f} MB, of {cache.most / 1e6:,.0f} at most, in {cache.root}")


def _by_store(kept: Sequence[Kept]) -> list[dict[str, Any]]:
    """A line for each store, the one that was read last first."""
    stores: dict[str, list[Kept]] = {}
    for one in kept:
        stores.setdefault(one.source, []).append(one)
    return [
        {
            "store": store or "unfinished",
            "groups": len(groups),
            "MB": round(sum(one.bytes for one in groups) / 1e6, 1),
            "last read": _time(groups[0].used).replace("T", " ")[:16],
        }
        for store, groups in stores.items()
    ]


def _described(kept: Kept) -> dict[str, Any]:
    return {
        "store": kept.source,
        "group": kept.name,
        "bytes": kept.bytes,
        "used": _time(kept.used),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
