"""Arithmetic on arrays that knows no store and no frame; and short names of their types."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Labels = NDArray[np.int32]  # class indices
Rows = NDArray[np.intp]  # indices of rows, or counts
Mask = NDArray[np.bool_]
