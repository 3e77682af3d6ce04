"""`clipsyn cache`: what is kept on this machine of stores at URLs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from clipsyn.cli.options import older_than_option
from clipsyn.cli.output import json_option, say, say_json, say_rows
from clipsyn.errors import UsageError
from clipsyn.text import counted

if TYPE_CHECKING:
    from clipsyn.remote.cache import Cache, Kept


@click.command(short_help="List or clear what is kept here of stores at URLs.")
@click.argument("action", type=click.Choice(["ls", "prune"]), default="ls", metavar="[ls|prune]")
@older_than_option("Prune only what nobody has read for so long", default="0")
@json_option
def cache(action: str, older_than: int, as_json: bool) -> None:
    """List what is kept on this machine of stores at URLs, or remove it.

    Kept are groups of arrays that were read, so that they travel once. Nothing goes by itself. They
    lie in the folder CLIPSYN_CACHE, or in ~/.cache/clipsyn.

    \b
    clipsyn cache ls
    clipsyn cache prune --older-than 30d
    """
    from clipsyn.remote.cache import Cache

    kept = Cache.of_user()
    if action == "ls":
        if older_than:
            raise UsageError("--older-than is for `clipsyn cache prune`")
        _list(kept, as_json)
        return
    removed = kept.prune(older_than)
    size = sum(group.bytes for group in removed)
    if as_json:
        say_json({"removed": len(removed), "bytes": size})
    else:
        say(f"removed {counted(len(removed), 'group')}, {size / 1e6:,.1f} MB, from {kept.root}")


def _list(cache: Cache, as_json: bool) -> None:
    kept = cache.kept()
    if as_json:
        say_json([_described(one) for one in kept])
        return
    if kept:
        say_rows(_by_store(kept))
    say(f"{sum(one.bytes for one in kept) / 1e6:,.1f} MB in {cache.root}")


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
