"""Push and pull as tests call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from clipsyn.remote.push import Push
from clipsyn.show.progress import progress
from clipsyn.store.features import FeatureStore
from clipsyn.store.merge import Plan, plan_merge

Names = Mapping[str, Sequence[str]]


def push(
    store: FeatureStore, url: str | Path, filters: Names | None = None, *, replace: bool = False
) -> Push:
    """What was pushed."""
    plan = Push.plan(store, str(url), filters or {}, replace=replace)
    with progress() as counters:
        plan.carry_out(counters)
    return plan


def pull(url: str | Path, path: Path, filters: Names | None = None) -> Plan:
    """What was pulled."""
    plan = plan_merge(path, [url], filters)
    with progress() as counters:
        plan.carry_out(counters)
    return plan
