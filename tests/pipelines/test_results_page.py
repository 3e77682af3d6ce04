"""docs/results.md says no number that its tables do not have."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text("utf-8")
_BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])\d[\d,]*\.\d+(?![\w.]*\d)")
DIFFERENCES = {"4.6"}  # of two numbers of a table


def prose(page):
    return re.sub(r"<!--.*?-->", "", _BLOCK.sub("", page))


def known(page):
    return {number for block in _BLOCK.findall(page) for number in _NUMBER.findall(block)}


def unfounded(page):
    there = known(page) | DIFFERENCES
    return [number for number in _NUMBER.findall(prose(page)) if number not in there]


def test_every_decimal_of_a_sentence_stands_in_a_table():
    assert unfounded(PAGE) == []


def test_a_number_that_no_table_has_is_found():
    page = "```text\nlog-avg  30.1  28.5\n```\n\nIt has 30.2 against 28.5 (paper, section 4.2)."
    assert unfounded(page) == ["30.2", "4.2"]
