"""What each backbone of a store costs for one image: its image tower, texts encoded beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from clipsyn.catalog.backbones import cost
from clipsyn.errors import UsageError
from clipsyn.names import FeatureKey
from clipsyn.store.cell import Cell
from clipsyn.store.features import FeatureStore


class CellCost(NamedTuple):
    """What the backbone of one cell costs; None where it was neither published nor recorded."""

    gflops: float  # an image, 2 per multiply-add
    image_params_m: float | None  # millions
    encode_ms: float | None  # an image, as recorded when this cell was extracted
    peak_memory_mb: float | None  # on a GPU: weights of the image tower, and one batch
    process_memory_mb: float | None  # elsewhere: of the process, with all that it held


def cell_cost(store: FeatureStore, key: FeatureKey, given: Mapping[str, float]) -> CellCost:
    """What the backbone of a cell costs.

    GFLOPs are those of `given` (by name), else those recorded when the cell was extracted, else
    the catalogue's. Raises UsageError where none of them knows.
    """
    cell = store.cell(key)
    recorded = cell.provenance
    encoder = recorded.get("encoder") or {}
    published = cost(key.backbone)
    gflops = given.get(key.backbone, encoder.get("gflops"))
    if gflops is None and published:
        gflops = published.image_gflops
    if gflops is None:
        raise UsageError(
            f"what an image costs {key.backbone} is not known: give the GFLOPs of its image tower "
            f"with costs=…, as {key.backbone}=GFLOPS"
        )
    parameters = encoder.get("image_parameters")
    params_m = published.image_params_m if published else None
    return CellCost(
        gflops,
        parameters / 1e6 if parameters else params_m,
        _milliseconds(cell),
        recorded.get("peak_memory_mb"),
        recorded.get("process_memory_mb"),
    )


def _milliseconds(cell: Cell) -> float | None:
    seconds = cell.provenance.get("encode_seconds")
    if not seconds:
        return None
    return 1000 * float(seconds) / cell.group().sizes["sample"]
