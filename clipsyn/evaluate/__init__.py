"""From a feature store to a tidy frame of results."""

from __future__ import annotations

from clipsyn.evaluate.backbones import zeroshot
from clipsyn.evaluate.loop import evaluate
from clipsyn.evaluate.results import RESULT

__all__ = ["RESULT", "evaluate", "zeroshot"]
