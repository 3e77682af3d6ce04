"""Settings: declared once, checked when they are made."""

import pickle
from dataclasses import dataclass

import pytest

from clipsyn.errors import UsageError
from clipsyn.settings import NAMES, REQUIRED, WHOLE, Settings, declared, defaults, setting


class Dish(Settings):
    fruits: tuple[str, ...] = setting(("apple",), NAMES, "Which.", choices=("apple", "pear"))


def test_names_are_chosen_from_a_list():
    assert Dish(["pear", "apple"]).fruits == ("pear", "apple")
    assert Dish("pear").fruits == ("pear",)
    with pytest.raises(UsageError, match=r"'paer'.*did you mean pear"):
        Dish(("apple", "paer"))


@dataclass
class Owner:
    """Something that holds settings, as a task for another process does."""

    settings: Settings


class Meal(Dish):
    fruits: tuple[str, ...] = setting(("pear",), NAMES, "Which.", choices=("apple", "pear"))
    energy: int = setting(REQUIRED, WHOLE, "Of all.", least=1)


def test_a_setting_that_is_declared_anew_keeps_its_place():
    assert list(declared(Meal)) == ["fruits", "energy"]
    assert defaults(Meal)["fruits"] == ("pear",)
    assert defaults(Dish)["fruits"] == ("apple",)
    assert Meal("apple", 3) == Meal(fruits=["apple"], energy=3)


def test_values_cannot_be_changed_but_replaced():
    meal = Meal(energy=3)
    with pytest.raises(AttributeError, match="Meal cannot be changed"):
        meal.energy = 4
    other = meal.replaced(energy=4)
    assert (meal.energy, other.energy, other.fruits) == (3, 4, meal.fruits)
    assert meal != other
    assert hash(meal.replaced()) == hash(meal)
    assert repr(other) == "Meal(energy=4)"
    with pytest.raises(UsageError, match="energy=… is a whole number of at least 1, not 0"):
        meal.replaced(energy=0)


def test_settings_go_to_other_processes():
    owner = pickle.loads(pickle.dumps(Owner(Meal(energy=3))))
    assert owner.settings == Meal(energy=3)


@pytest.mark.parametrize(
    ("values", "said"),
    [({}, "energy=… is missing"), ({"energi": 3}, "unknown setting 'energi': did you mean energy")],
)
def test_a_name_that_is_missing_or_unknown(values, said):
    with pytest.raises(UsageError, match=said):
        Meal(**values)
