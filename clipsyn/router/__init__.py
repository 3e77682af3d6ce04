"""Fitted routers: what was learned and from what, kept in a folder, applied to other images.

fit_router          store, method and shots in, `FittedRouter` out
save_router         a head and an ensemble that were fitted by hand, into a folder
load_router         such a folder as a `FittedRouter`
predict_store       class, probability and weights for every image of a store's split
"""

from __future__ import annotations

from clipsyn.router.artefact import load_router, save_router
from clipsyn.router.fit import fit_router
from clipsyn.router.fitted import FittedRouter

__all__ = ["FittedRouter", "fit_router", "load_router", "save_router"]
