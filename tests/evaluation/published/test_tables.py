"""Tables of differences: signs, marks, and what stands below them."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from clipsyn.evaluation.published import CompareSettings
from clipsyn.evaluation.published.measure import COMPARED
from clipsyn.evaluation.published.tables import tables
from clipsyn.show.text import text_of


def compared(backbone: str, difference: float, **changes: Any) -> dict[str, Any]:
    about = {
        "dataset": "food101",
        "split": "test",
        "prompts": "own",
        "backbone": backbone,
        "metric": "acc1",
        "value": 0.6 + difference,
        "ci_low": 0.59 + difference,
        "ci_high": 0.61 + difference,
        "n": 25_250,
        "usual_n": 25_250,
        "published": 0.6,
        "difference": difference,
        "difference_low": difference - 0.01,
        "difference_high": difference + 0.01,
        "beyond": abs(difference) > 0.005,
        "source": "A table",
    }
    return about | changes


def shown(*rows: dict[str, Any], **settings: Any) -> dict[str, str]:
    frame = pl.DataFrame(list(rows), schema=COMPARED)
    found = tables(frame, CompareSettings(**settings))
    return {name: text_of(those, terminal=False) for name, those in found.items()}


def line_of(text: str, start: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(start))
    return line.split()


def test_a_line_for_each_dataset_with_a_mark_beyond_the_tolerance() -> None:
    rows = [
        compared("RN50/openai", 0.0004),
        compared("ViT-B-32/openai", -0.0123),
        compared("RN50/openai", -0.0001, dataset="cars"),
    ]
    text = shown(*rows)["differences"]
    assert line_of(text, "food101") == ["food101", "test", "own", "top-1", "+0.0", "*-1.2"]
    assert line_of(text, "cars")[-2:] == ["+0.0", "\N{EN DASH}"]  # no -0.0, and nothing made up
    assert "2 of 3 numbers are within 0.5 points of the published ones; * marks the 1 beyond." in (
        text
    )
    assert "published: A table; backbones */openai." in text


def test_those_beyond_are_listed_with_both_numbers_and_intervals() -> None:
    rows = [compared("RN50", 0.001), compared("ViT", 0.02, metric="mean_per_class_recall")]
    text = shown(*rows)["numbers"]
    assert "RN50" not in text
    found = " ".join(line_of(text, "food101"))
    assert found.startswith("food101 own ViT mean per class 62.0 61.0")
    assert found.endswith("63.0 60.0 2.0 1.0\N{EN DASH}3.0 25,250 25,250")
    everything = shown(*rows, details=True)["numbers"]
    assert "RN50" in everything


def test_nothing_beyond_is_one_table() -> None:
    found = shown(compared("RN50", 0.001))
    assert list(found) == ["differences"]
    assert "1 of 1 numbers are within 0.5 points of the published ones." in found["differences"]
    assert "*" not in found["differences"]


def test_another_number_of_images_than_usual_is_told() -> None:
    rows = [compared("RN50", 0.02, dataset="vtab/eurosat", n=27_000, usual_n=5_400)]
    assert "Not as many images as usual: vtab/eurosat." in shown(*rows)["numbers"]
    assert "Not as many" not in shown(compared("RN50", 0.02, usual_n=None))["numbers"]


def test_cells_have_the_numbers_behind_their_texts() -> None:
    frame = pl.DataFrame([compared("RN50", 0.0123, ci_low=None)], schema=COMPARED)
    (table,) = tables(frame, CompareSettings())["differences"]
    (cell,) = table.columns[-1].cells
    assert cell.text == "*+1.2"
    assert [cell.value, cell.low, cell.high] == pytest.approx([1.23, 0.23, 2.23])
