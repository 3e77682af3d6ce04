"""JSON and YAML from others."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipsyn.errors import DatasetError, UsageError
from clipsyn.text import foreign, parse_json, parse_yaml, read_text


@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
@pytest.mark.parametrize("text", ["[" * 99_000, '{"a":' * 50_000, "[" * 99_000 + "]" * 99_000])
def test_nesting_ends_in_a_sentence(parse: object, text: str) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse(text)  # type: ignore[operator]


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "{a: 1, 'a': 1}", "x: [{1: a, 1: b}]"])
def test_a_key_that_stands_twice_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"the key '.' stands twice.* line "):
        parse_yaml(text)


@pytest.mark.parametrize(
    "text",
    ["a: [", "!!python/object:os.system {}", "2024-13-45", "!!bool x", "!!int ''", "9" * 5000],
)
def test_what_is_no_yaml_is_a_value_error_on_one_line(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)


def test_a_device_that_never_ends_is_no_text() -> None:
    with pytest.raises(ValueError):
        read_text(Path("/dev/zero"))


def bomb(name: str, text: str) -> str:
    """Ten lists, each of nine aliases of the one before."""
    lists = [f"{name}{i}: &{name}{i} [{', '.join(9 * [f'*{name}{i - 1}'])}]" for i in range(1, 10)]
    return "\n".join([f"{name}0: &{name}0 [x]", *lists, text])


@pytest.mark.parametrize(
    "text",
    [
        bomb("a", "stages: *a9"),
        bomb("a", "? *a9\n: 1"),
        "a: &a [*a]",
        f"a: &a [{'x,' * 50_000}]\nb: [{'*a,' * 30_000}]",
        "a: &a {b: 1}\nc: {<<: *a}",
        "a" * 300_000,
        f"a: {10**310}",
        f"0x{'f' * 5000}: 1",
    ],
)
def test_a_short_text_cannot_mean_endlessly_much(text: str) -> None:
    with pytest.raises(ValueError):
        parse_yaml(text)


def test_what_a_foreign_parser_raises_is_one_error_on_one_line() -> None:
    with pytest.raises(DatasetError, match=r"^mine: it is\.$"), foreign(told):
        raise Unlisted("it is.\nand more")
    with pytest.raises(DatasetError, match="mine: EOFError"), foreign(told):
        raise EOFError
    with pytest.raises(UsageError, match="ours"), foreign(told):
        raise UsageError("ours")


class Unlisted(Exception):
    """Of no kind that anybody would list."""


def told(reason: str) -> DatasetError:
    return DatasetError(f"mine: {reason}")
