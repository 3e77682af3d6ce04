from __future__ import annotations

import polars as pl

from clipsyn.results.frame import RESULT
from clipsyn.results.view import WHERE, best_single, named_parts, numbers_by


def test_parts_by_name():
    rows = [("birds", "test", "clean", "own"), ("cars", "test", "jpeg-3", "own")]
    frame = pl.DataFrame(rows, schema=WHERE, orient="row")
    found = named_parts(pl.concat([frame, frame]))
    assert list(found) == ["birds/test, clean, own", "cars/test, jpeg-3, own"]
    assert [part["dataset"].to_list() for part in found.values()] == [["birds"] * 2, ["cars"] * 2]


def test_the_best_single_backbone_is_the_first_of_equals_and_never_nan():
    def best(*accuracies: float) -> list[str]:
        rows = [
            {"backbones": [name], "metric": "acc1", "value": value}
            for name, value in zip("abc", accuracies, strict=True)
        ]
        oracle = {"backbones": [*"abc"], "ensemble": "oracle", "metric": "acc1", "value": 1.0}
        return best_single(pl.DataFrame([oracle, *rows], schema=RESULT))["backbones"]

    nan = float("nan")
    assert best(0.1, 0.5, 0.5) == ["b"]
    assert best(nan, 0.0, nan) == ["b"]
    assert best(nan, nan, nan) == ["a"]


def test_numbers_by_columns():
    about = {"ensemble": [None, None, "nlc"], "backbones": [["RN"], ["RN"], ["RN", "ViT"]]}
    frame = pl.DataFrame(about | {"metric": ["acc1", "front", "acc1"], "value": [0.5, 1.0, 0.6]})
    found = numbers_by(frame, "backbones")
    assert [row["value"] for row in found["RN",].values()] == [0.5, 1.0]
    assert numbers_by(frame, "ensemble")["nlc"]["acc1"]["value"] == 0.6
    assert list(numbers_by(frame, "ensemble", "backbones")) == [
        (None, ("RN",)),
        ("nlc", ("RN", "ViT")),
    ]
