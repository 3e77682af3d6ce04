"""Settings that are names: each of them is checked."""

from __future__ import annotations

import pytest

from clipsyn.errors import UsageError
from clipsyn.settings import NAMES, Settings, setting


class Dish(Settings):
    fruits: tuple[str, ...] = setting(("apple",), NAMES, "Which.", choices=("apple", "pear"))


def test_names_are_chosen_from_a_list():
    assert Dish(["pear", "apple"]).fruits == ("pear", "apple")
    assert Dish("pear").fruits == ("pear",)
    with pytest.raises(UsageError, match=r"'paer'.*did you mean pear"):
        Dish(("apple", "paer"))
