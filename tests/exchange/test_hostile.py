"""What others wrote or made up: each import works, or ends in one of clipsyn's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from clipsyn.errors import ClipsynError
from clipsyn.exchange import ImportSettings
from clipsyn.exchange.importing import import_files

IDS = ["a", "b", "c", "d"]
NUMBERS = [
    *(2**32 + 1, -(2**32), 2**63, 2**70, 2_000_000_000, 1_732_800_000, 65_534, 65_535, -2),
    *(1e300, -1e300, 3.4e38, -3.4e38, float("inf"), float("nan"), 0.5, 1e-320),
]
TEXTS = [
    *("9" * 400, "9" * 5000, "-" + "9" * 5000, "1e9", "0x10", "٣", "1_0", "NaN", "null", " "),
    *("=1+1", "a\x00b", "\x1b[31m", "a/../b", "../x", "x" * 100_000, "jpeg:9", "jpeg:-1", "\ud7ff"),
]
COLUMNS: dict[str, pl.Series] = {  # of types that a table of numbers and texts does not have
    "list": pl.Series([[1], [2], [3], []]),
    "list of lists": pl.Series([[[1.0]], [[2.0]], [], [[3.0], [4.0]]]),
    "list of texts": pl.Series([["a"], ["b"], ["c"], ["d"]]),
    "list of null": pl.Series([[], [], [], []]),
    "array": pl.Series([[1.0, 2.0]] * 4, dtype=pl.Array(pl.Float32, 2)),
    "empty array": pl.Series([[]] * 4, dtype=pl.Array(pl.Float32, 0)),
    "matrix": pl.Series([[[1.0, 2.0]]] * 4, dtype=pl.Array(pl.Array(pl.Float32, 2), 1)),
    "struct": pl.Series([{"a": 1, "b": "x"}] * 4),
    "categorical": pl.Series(IDS, dtype=pl.Categorical),
    "enum": pl.Series(IDS, dtype=pl.Enum(IDS)),
    "null": pl.Series([None] * 4),
    "decimal": pl.Series([Decimal("0.25")] * 4),
    "date": pl.Series([date(2020, 1, day) for day in (1, 2, 3, 4)]),
    "datetime": pl.Series([datetime(2020, 1, day, tzinfo=UTC) for day in (1, 2, 3, 4)]),
    "time": pl.Series([time(hour) for hour in (1, 2, 3, 4)]),
    "duration": pl.Series([timedelta(days=day) for day in (1, 2, 3, 4)]),
    "binary": pl.Series([b"\xff\xfe", b"b", b"c", b"d"]),
    "boolean": pl.Series([True, False, None, True]),
    "int128": pl.Series([1, 2, 3, 2**100], dtype=pl.Int128),
    "uint64": pl.Series([0, 1, 2, 2**64 - 1], dtype=pl.UInt64),
    "float": pl.Series([0.25, float("nan"), float("inf"), None]),
}
GOOD: dict[str, pl.Series] = {
    "id": pl.Series(IDS),
    "prediction": pl.Series([0, 1, 1, 0]),
    "label": pl.Series([0, 1, 0, 1]),
    "confidence": pl.Series([0.5, 0.6, 0.7, 0.8]),
}
ROLES = [*GOOD, "backbone", "perturbation", "severity", "p0", "embedding"]


@pytest.fixture
def attempt(tmp_path):
    """Function (file, options) -> whether the import worked; any other error than ours passes."""
    places: Iterator[Path] = (tmp_path / f"store-{at}" for at in iter(int, 1))

    def call(*files, **options):
        with suppress(ClipsynError):
            wanted = ImportSettings(**{"dataset": "toy", **options})
            import_files(next(places), files, wanted)
            return True
        return False

    return call


def table(role, column):
    columns = {name: values for name, values in GOOD.items() if role not in ("p0", "embedding")}
    return pl.DataFrame({"id": GOOD["id"], "label": GOOD["label"], **columns, role: column})


@pytest.mark.parametrize("role", ROLES)
def test_columns_of_any_type(role, attempt, tmp_path):
    for column in COLUMNS.values():
        table(role, column).write_parquet(tmp_path / "mine.parquet")
        attempt(tmp_path / "mine.parquet")


@pytest.mark.parametrize("role", ROLES[:-1])
def test_cells_of_any_text(role, attempt, tmp_path):
    for text in map(str, (*NUMBERS, *TEXTS)):
        table(role, pl.Series([text, "0", "1", ""])).write_csv(tmp_path / "mine.csv")
        attempt(tmp_path / "mine.csv", perturbation="contrast" if role == "severity" else "clean")


ARRAYS = [
    *(np.zeros(4, kind) for kind in ("u8", "f2", "c8", "?", "S5", "U5", "M8[s]", "V8", "i4,f4")),
    *(np.zeros(shape) for shape in ((), (0,), (4, 0), (0, 2), (4, 2), (4, 2, 1))),
    *(np.array([value] * 4) for value in (2**32 + 1, -(2**32), 2_000_000_000, 65_534, 1e300)),
    *(np.array([[value] * 2] * 4) for value in (3e38, 1e39, np.nan, np.inf)),
    *(np.array(value) for value in (1e300, -1.0, np.nan, 1e39, 2**40)),
    *(np.array([b"\xff"] * 4), np.array([[3e38, -3e38]] * 4, np.float32)),
]


PLAIN: dict[str, NDArray[Any]] = {"ids": np.array(IDS), "labels": np.array([0, 1, 0, 1])}
EMBEDDED = {
    "embeddings": np.eye(4)[:, :2] + 0.5,
    "class_embeddings": np.eye(2),
    "logit_scale": np.array(100.0),
}


@pytest.mark.parametrize("name", [*PLAIN, *EMBEDDED, "logits", "probabilities", "predictions"])
def test_arrays_of_any_type(name, attempt, tmp_path):
    others = PLAIN | (EMBEDDED if name in EMBEDDED else {"predictions": np.array([0, 1, 1, 0])})
    if name in ("logits", "probabilities"):
        others = PLAIN
    for values in ARRAYS:
        np.savez(tmp_path / "mine.npz", **others | {name: values})
        attempt(tmp_path / "mine.npz")
