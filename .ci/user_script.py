"""A user's script for `mypy --strict`: public names have types, though they are loaded late."""

from typing import assert_type

import clipsyn
from clipsyn.methods.ensembles.nlc import NLC
from clipsyn.router.fit import FittedRouter

pool = clipsyn.FeatureStore.open("store").pool("emoji-food", "train")
assert_type(clipsyn.NLC(steps=5).fit(pool), NLC)
assert_type(clipsyn.load_router("router"), FittedRouter)
_ = clipsyn.Nothing  # type: ignore[attr-defined]  # an error, or mypy finds the comment unused
