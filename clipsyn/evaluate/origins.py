"""What results are made from: the content of their fingerprints."""

from __future__ import annotations

from typing import Any

import numpy as np

from clipsyn.store.pools import PoolReader

Origin = dict[str, Any]


class Origins:
    """Fingerprints of everything that decides what is read, each looked up once."""

    def __init__(self) -> None:
        self._alone: dict[tuple[PoolReader, str], Origin] = {}

    def of(self, reader: PoolReader, backbone: str | None) -> Origin:
        """Of all backbones, or of one: what its own numbers depend on, whatever the others are."""
        if backbone is None:
            return reader.origin
        if (reader, backbone) not in self._alone:
            self._alone[reader, backbone] = _alone(reader, backbone)
        return self._alone[reader, backbone]


def _alone(reader: PoolReader, backbone: str) -> Origin:
    views = [key for view in reader.views for key in view if key.backbone == backbone]
    readable = np.logical_and.reduce([reader.store.valid(key) for key in reader.keys])
    return {
        "features": reader.origin["features"][backbone],
        "views": [reader.store.fingerprint(key) for key in views],
        "classes": reader.origin["classes"].get(backbone),
        "labels": reader.origin["labels"],
        "unreadable": np.flatnonzero(~readable).tolist(),  # by any: they count for none
    }
