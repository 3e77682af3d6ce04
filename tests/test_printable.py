"""What reaches a terminal from names that others chose."""

from __future__ import annotations

import json

import pytest

from clipsyn.text import counted, printable, printable_lines

UNSAFE = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\udcff",
]


@pytest.mark.parametrize("character", UNSAFE, ids=ascii)
def test_an_unsafe_character_is_written_out(character: str) -> None:
    assert printable(f"a{character}b") == f"a\\u{ord(character):04x}b"


@pytest.mark.parametrize("text", ["", "crème brûlée", "犬", "👩\u200d🚀", "[red]", "a\\nb", "كلب"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == printable_lines(text) == text


def test_lines_keep_breaks_tabs_and_colours_and_nothing_else() -> None:
    ours = "\x1b[1mbest\x1b[0m\n\tn"
    assert printable_lines(ours) == ours
    assert printable_lines("\x1b]0;title\x07\r\x1b[2J") == (
        "\\u001b]0;title\\u0007\\u000d\\u001b[2J"
    )


def test_a_number_with_what_it_is_of() -> None:
    said = [counted(count, "group") for count in (0, 1, 2, 1200)]
    assert said == ["0 groups", "1 group", "2 groups", "1,200 groups"]
    assert [counted(count, "is", "are") for count in (1, 3)] == ["1 is", "3 are"]


def test_json_stays_json_of_the_same() -> None:
    value = {"name": "".join(UNSAFE)}
    shown = printable_lines(json.dumps(value, ensure_ascii=False))
    assert json.loads(shown) == value
    assert printable(shown) == shown
