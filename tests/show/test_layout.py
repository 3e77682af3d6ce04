from __future__ import annotations

import re

import polars as pl
import pytest

from clipsyn.show.tables import show
from clipsyn.show.text import NOTE, paragraphs
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
    text = "\n".join(found).replace(NOTE, "").rstrip()
    parts = [part.split("\n") for part in text.split("\n\n")]
    rule = [next(n for n, line in enumerate(part) if line.startswith("─")) for part in parts]
    return [part[after + 1 :] for part, after in zip(parts, rule, strict=True)]


def test_what_fits_is_left_as_it_is():
    frame = pl.DataFrame({"backbone": NAMES[:2], "top-1": [61.0, 62.5]})
    assert show(frame, terminal=True) == show(frame, terminal=False)


def test_a_file_has_no_width():
    frame = pl.DataFrame({LONG: [LONG], "other " * 20: [LONG], "more": [LONG]})
    text = show(frame, terminal=False)
    assert text.split("\n")[2].split() == [LONG] * 3
    assert NOTE not in text


def test_heads_take_several_lines_before_anything_else_changes():
    frame = pl.DataFrame(
        {"method": ["nlc"]} | {f"of-the-same-textures {n}": [0.5] for n in range(6)}
    )
    found = lines(frame)
    assert [line.split()[0] for line in found[-1:]] == ["nlc"]
    assert found[-1].split() == ["nlc", *["0.5"] * 6]
    assert NOTE not in found


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
    assert found[-1] == NOTE


def test_a_table_that_begins_with_a_number_repeats_it():
    frame = pl.DataFrame({"size": [1, 2]} | {f"oracle-of-column-{n}": [0.5] * 2 for n in range(12)})
    assert [[row.split()[0] for row in part] for part in tables(lines(frame))] == [["1", "2"]] * 2


def test_long_names_lose_their_middle_and_stay_apart():
    where = {"dataset": [LONG] * 5, "backbone": NAMES, "perturbation": ["gaussian_noise-5"] * 5}
    frame = pl.DataFrame(where | {f"value {n}": [0.25] * 5 for n in range(4)})
    parts = tables(lines(frame))
    for part in parts:
        assert all(row.startswith("descr") and "…" in row for row in part)
        assert len(part) == len(set(part)) == 5
    assert [re.split("  +", row)[1] for row in parts[0]] == [
        "EVA02-…_b144k",
        "coca_V…b_b90k",
        "coca_…_b90k#2",  # differs in the middle alone
        "xlm-ro…b_b90k",
        "RN50/openai",
    ]


def test_a_wide_character_takes_two_columns():
    frame = pl.DataFrame({"class": ["日本語の長い名前のクラス" * 5], "images": [3]})
    text = show(frame, terminal=True).split("\n")
    assert cells("\n".join(text)) == 80
    assert text[2].endswith(" 3")


def test_a_long_text_breaks_between_words_alone():
    texts = ["an image is made darker and then lighter again, " * 3, "short"]
    frame = pl.DataFrame({"perturbation": ["a", "b"], "version": [1, 2], "what it does": texts})
    found = lines(frame)
    assert NOTE not in found
    assert " ".join(" ".join(found[2:-1]).split()) == f"a 1 {texts[0].strip()}"


def test_titles_break_between_words():
    frame = pl.DataFrame({"a": [1]})
    found = lines(frame, title=f"{LONG}/test · gaussian_noise-5 · prompts simple · chance 2 %")
    assert found[:2] == [f"{LONG}/test ·", "gaussian_noise-5 · prompts simple · chance 2 %"]


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


def test_the_note_stands_once_below_several_tables():
    assert paragraphs(f"one\n{NOTE}\n\ntwo\n{NOTE}\n\nend", 80) == f"one\n\ntwo\n{NOTE}\n\nend"
