"""`clipsyn.errors`: the tree at the top of the file is the tree of classes."""

from __future__ import annotations

import re

import pytest

from clipsyn import errors
from clipsyn.errors import ClipsynError, StaleCell


def drawn() -> dict[str, tuple[int, int]]:
    """Name -> (depth, exit code), as drawn in the module's docstring."""
    pattern = re.compile(
        r"^(?P<lines>[│├└─ ]*)(?P<name>[A-Z]\w+) +(exit code )?(?P<code>\d+)", re.M
    )
    found = pattern.finditer(errors.__doc__ or "")
    return {m["name"]: (len(m["lines"]) // 4, int(m["code"])) for m in found}


def classes() -> list[type[ClipsynError]]:
    found = [item for item in vars(errors).values() if isinstance(item, type)]
    return [item for item in found if issubclass(item, ClipsynError)]


def test_the_drawn_tree_is_complete() -> None:
    assert set(drawn()) == {error.__name__ for error in classes()}


@pytest.mark.parametrize("error", classes())
def test_depth_and_exit_code_are_as_drawn(error: type[ClipsynError]) -> None:
    depth, code = drawn()[error.__name__]
    assert error.exit_code == code
    assert len(error.__mro__) - len(ClipsynError.__mro__) == depth


def test_exit_codes_are_those_of_failure() -> None:
    assert all(0 < error.exit_code < 256 for error in classes())


def test_a_stale_cell_carries_the_fields() -> None:
    error = StaleCell("made from other weights", ("backbone.weights",))
    assert (str(error), error.fields) == ("made from other weights", ("backbone.weights",))
    assert StaleCell("x").fields == ()
