"""`clipsyn status --watch`."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from clipsyn.cli.output import say, say_document, say_over
from clipsyn.errors import StoreError
from clipsyn.text import counted

if TYPE_CHECKING:
    from clipsyn.store.watch import Seen

_EVERY = 2.0  # seconds


def watch(store: Path, as_json: bool) -> None:
    """Say what there is whenever it has changed, until Ctrl-C; on a terminal, in one line."""
    from clipsyn.store.features import FeatureStore
    from clipsyn.store.marker import is_vacant
    from clipsyn.store.watch import Watch

    if not is_vacant(store):
        FeatureStore.open(store)  # raises where it is something else
    elif not store.absolute().parent.is_dir():
        raise StoreError(f"{store} cannot be made by any job: there is no folder {store.parent}")
    watched, before = Watch(store), None
    with suppress(KeyboardInterrupt):
        while True:
            seen = watched.look(time.monotonic())
            if as_json:
                say_document(json.dumps(asdict(seen)))
            elif (line := describe(seen)) != before:
                (say_over if sys.stdout.isatty() else say)(line)
                before = line
            time.sleep(_EVERY)
    if sys.stdout.isatty():
        say("")


def describe(seen: Seen) -> str:
    """One line."""
    cells = f"{counted(seen.cells, 'cell')} finished"
    if not seen.groups:
        return f"{cells}; nothing is being written"
    groups = f"{counted(seen.groups, 'group')} unfinished"
    line = f"{cells}; {groups}, {seen.done:,} of {seen.blocks:,} blocks done"
    if seen.left is None:
        return line
    left = timedelta(seconds=round(seen.left))
    return f"{line}, {60 * seen.rate:,.0f} a minute, {left} left for these"
