"""JSON and YAML from others."""

from __future__ import annotations

import pytest

from clipsyn.documents import foreign, parse_json, parse_yaml
from clipsyn.errors import DatasetError, UsageError


def test_documents_are_read() -> None:
    assert parse_json(b'{"a": [1, "b", null]}') == {"a": [1, "b", None]}
    text = "a: [1, b, null]\nb: &x {c: 1}\nd: {<<: *x, e: 2}\n1: {a: 1}"
    assert parse_yaml(text) == {
        "a": [1, "b", None],
        "b": {"c": 1},
        "d": {"c": 1, "e": 2},
        1: {"a": 1},
    }


@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
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
