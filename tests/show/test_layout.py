from __future__ import annotations

import re

import polars as pl
import pytest

from clipsyn.show.tables import show
from clipsyn.show.text import paragraphs
from clipsyn.text import cells

LONG = "describable-textures-dataset-of-the-visual-geometry-group"
NAMES = [
    "EVA02-E-14-plus/laion2b_s9b_b144k",
    "coca_ViT-L-14/mscoco_finetuned_laion2b_s13b_b90k",
    "coca_ViT-L-14/mscoco_unrefined_laion2b_s13b_b90k",
    "xlm-roberta-large-ViT-H-14/frozen_laion5b_s13b_b90k",
    "RN50/openai",
]


@pytest.fixture(autouse=True)
def _eighty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def lines(frame: pl.DataFrame, **options) -> list[str]:
    text = re.sub(r"\x1b\[[0-9;]*m", "", show(frame, terminal=True, **options))
    found = text.split("\n")
    assert max(map(len, found)) <= 80, text
    return found


def tables(found: list[str]) -> list[list[str]]:
    """The rows of each table, without their heads."""
    text = "\n".join(found).rstrip()
    parts = [part.split("\n") for part in text.split("\n\n")]
    rule = [next(n for n, line in enumerate(part) if line.startswith("─")) for part in parts]
    return [part[after + 1 :] for part, after in zip(parts, rule, strict=True)]


def test_heads_take_several_lines_before_anything_else_changes():
    frame = pl.DataFrame(
        {"method": ["nlc"]} | {f"of-the-same-textures {n}": [0.5] for n in range(6)}
    )
    found = lines(frame)
    assert [line.split()[0] for line in found[-1:]] == ["nlc"]
    assert found[-1].split() == ["nlc", *["0.5"] * 6]


def test_too_many_columns_become_several_tables_that_name_their_rows():
    values = {
        name: [float(row + 10 * place) for row in range(3)]
        for place, name in enumerate([f"column-{n}-of-many" for n in range(24)])
    }
    frame = pl.DataFrame({"dataset": ["a", "b", "c"], "kind": ["x", "y", "x"]} | values)
    found = lines(frame)
    parts = tables(found)
    assert len(parts) > 1
    assert [[row.split()[:2] for row in part] for part in parts] == [
        [["a", "x"], ["b", "y"], ["c", "x"]]
    ] * len(parts)
    # nothing is lost, and the order stays
    whole = [[x for part in parts for x in part[row].split()[2:]] for row in range(3)]
    assert whole == [[f"{value:.0f}" for value in row[2:]] for row in frame.iter_rows()]


def test_long_names_take_several_lines_and_lose_nothing():
    where = {"dataset": [LONG] * 5, "backbone": NAMES, "perturbation": ["gaussian_noise-5"] * 5}
    frame = pl.DataFrame(where | {f"value {n}": [0.25] * 5 for n in range(4)})
    for part in tables(lines(frame)):
        columns = [[row[at : at + 14].strip() for row in part] for at in (0, 14)]
        assert "".join(columns[0]).replace("-", "") == (LONG * 5).replace("-", "")


def test_a_wide_character_takes_two_columns():
    frame = pl.DataFrame({"class": ["日本語の長い名前のクラス" * 5], "images": [3]})
    text = show(frame, terminal=True).split("\n")
    assert cells("\n".join(text)) == 80
    assert text[2].endswith(" 3")


def test_a_long_text_breaks_between_words_alone():
    texts = ["an image is made darker and then lighter again, " * 3, "short"]
    frame = pl.DataFrame({"perturbation": ["a", "b"], "version": [1, 2], "what it does": texts})
    found = lines(frame)
    assert " ".join(" ".join(found[2:-1]).split()) == f"a 1 {texts[0].strip()}"


def test_paragraphs_are_broken_anew_and_short_lines_stay():
    text = f"{'word ' * 18}and\nthe rest.\n\ncells: 3\n  a  b\n\n{'end ' * 30}"
    assert paragraphs(text, None) == text
    found = paragraphs(text, 80).split("\n")
    assert max(map(len, found)) <= 80
    assert found[:2] == [("word " * 16).strip(), "word word and the rest."]
    assert found[2:6] == ["", "cells: 3", "  a  b", ""]
    assert " ".join(found[6:]).split() == ["end"] * 30


def test_a_number_keeps_its_per_cent_sign():
    assert paragraphs("it would be 64.3 % of them", 40) == "it would be 64.3 % of them"
    assert paragraphs("it would be, as far as we can tell, 64.3 % of them", 40).split("\n") == [
        "it would be, as far as we can tell,",
        "64.3 % of them",
    ]
