from __future__ import annotations

from tests.forker import forker
from tests.slurm import slurm

__all__ = ["forker", "slurm"]
