from __future__ import annotations

from tests.forker import forker

__all__ = ["forker"]
