"""The weights and the images of cells as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clipsyn.catalog.citations import Work
from clipsyn.exchange.origins.made import Made
from clipsyn.show.table import Table
from clipsyn.show.tables import table_of
from clipsyn.text import printable

DIGITS = 12  # of a digest, enough to tell two apart


def weights_table(cells: Sequence[Made]) -> Table:
    """A line a backbone: where its weights come from, their digest, licence and works to cite."""
    rows = [
        {
            "backbone": weights.backbone,
            "weights from": weights.shown or _elsewhere(weights.files),
            "SHA-256": weights.digest and weights.digest[:DIGITS],
            "precision": weights.precision,
            "licence": weights.licence,
            "cite": _keys(weights.cited),
        }
        for weights in dict.fromkeys(cell.weights for cell in cells)
    ]
    return table_of(_printable(rows))


def images_table(cells: Sequence[Made]) -> Table:
    """A line a split: its images, their digest, licence and works to cite."""
    rows = [
        {
            "images": images.name,
            "n": images.count,
            "SHA-256": images.digest[:DIGITS],
            "licence": images.licence or None,
            "cite": _keys(images.cited),
        }
        for images in dict.fromkeys(cell.images for cell in cells)
    ]
    return table_of(_printable(rows))


def _elsewhere(files: Sequence[str]) -> str:
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return f"imported: {', '.join(files[:3])}{more}" if files else "imported"


def _keys(works: Sequence[Work]) -> str | None:
    return ", ".join(work.key for work in works) or None


def _printable(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: printable(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in rows
    ]
