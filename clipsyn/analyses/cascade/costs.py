"""What each backbone of a store costs for one image: its image tower, texts encoded beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from clipsyn.catalog.backbones import cost
from clipsyn.errors import UsageError
from clipsyn.specs import FeatureKey
from clipsyn.store.features import FeatureStore


class Spent(NamedTuple):
    """Of one backbone; None where it was neither published nor recorded."""

    gflops: float  # an image, 2 per multiply-add
    image_params_m: float | None  # millions
    encode_ms: float | None  # an image, as recorded when this cell was extracted
    peak_memory_mb: float | None  # on a GPU: weights of the image tower, and one batch
    process_memory_mb: float | None  # elsewhere: of the process, with all that it held


def spent(store: FeatureStore, key: FeatureKey, given: Mapping[str, float]) -> Spent:
    """What the backbone of a cell costs.

    GFLOPs are those of `given` (by name), else those recorded when the cell was extracted, else
    the catalogue's. Raises UsageError where none of them knows.
    """
    recorded = _recorded(store, key)
    encoder = recorded.get("encoder") or {}
    known = cost(key.backbone)
    gflops = given.get(key.backbone, encoder.get("gflops"))
    if gflops is None and known:
        gflops = known.image_gflops
    if gflops is None:
        raise UsageError(
            f"what an image costs {key.backbone} is not known: give the GFLOPs of its image tower "
            f"with costs=…, as {key.backbone}=GFLOPS"
        )
    parameters = encoder.get("image_parameters")
    params_m = known.image_params_m if known else None
    return Spent(
        gflops,
        parameters / 1e6 if parameters else params_m,
        _milliseconds(store, key, recorded),
        recorded.get("peak_memory_mb"),
        recorded.get("process_memory_mb"),
    )


def read_costs(texts: Iterable[str]) -> dict[str, float]:
    """``NAME=GFLOPS`` each, by name; raises UsageError for what is not."""
    found = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not name or not (math.isfinite(value) and value >= 0):
            raise UsageError(f"--cost {text}: write NAME=GFLOPS, such as ViT-B-32/openai=8.82")
        found[name] = value
    return found


def _recorded(store: FeatureStore, key: FeatureKey) -> Mapping[str, Any]:
    """The provenance of a cell; nothing of one that was imported."""
    if store.imported(key):
        return {}
    return store.found(key).attributes.get("provenance") or {}


def _milliseconds(
    store: FeatureStore, key: FeatureKey, recorded: Mapping[str, Any]
) -> float | None:
    seconds = recorded.get("encode_seconds")
    if not seconds:
        return None
    return 1000 * float(seconds) / store.found(key).layout("valid").shape[0]
