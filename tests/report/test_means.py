"""Means over datasets, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from clipsyn.report.standings import main_part
from clipsyn.show.means import mean_over


def test_the_mean_of_one_dataset_is_its_number():
    assert mean_over([(0.5, 0.4, 0.7)]) == (0.5, 0.4, pytest.approx(0.7), 1)


def test_distances_to_the_bounds_add_up_as_squares():
    mean = mean_over([(0.5, 0.2, 0.9), (0.7, 0.3, 1.0)])
    # (0.5 + 0.7) / 2; below sqrt(0.3^2 + 0.4^2) / 2 = 0.25, above sqrt(0.4^2 + 0.3^2) / 2
    assert mean == (pytest.approx(0.6), pytest.approx(0.35), pytest.approx(0.85), 2)


def test_an_interval_is_not_known_where_that_of_a_dataset_is_not():
    assert mean_over([(0.5, 0.4, 0.6), (0.7, None, None)]) == (pytest.approx(0.6), None, None, 2)
    assert mean_over([(0.5, math.nan, math.nan)]) == (0.5, None, None, 1)


def test_datasets_without_a_number_are_left_out():
    assert mean_over([(math.nan, None, None), (0.4, 0.3, 0.5)]) == (0.4, 0.3, 0.5, 1)
    assert mean_over([(math.nan, None, None)]) is None
    assert mean_over([]) is None


class TestMainPart:
    def test_clean_images_are_the_main_ones(self, rows):
        frame = rows({"value": 1}, {"value": 2, "perturbation": "jpeg-3"})
        assert main_part(frame)["value"].to_list() == [1]

    def test_without_them_all_perturbations_together(self, rows):
        frame = rows({"value": 1, "perturbation": "fog-1"}, {"value": 2, "perturbation": "all"})
        assert main_part(frame)["value"].to_list() == [2]

    def test_and_else_each(self, rows):
        labels = "fog-1", "fog-2"
        frame = rows(*({"value": 1, "perturbation": label} for label in labels))
        assert main_part(frame)["perturbation"].to_list() == [*labels]

    def test_the_prompt_set_that_most_datasets_have(self, rows):
        sets = {"one": "az", "two": "z", "three": "b"}
        frame = rows(
            *(
                {"value": 1, "dataset": dataset, "prompts": prompts}
                for dataset, names in sets.items()
                for prompts in names
            )
        )
        chosen = dict(main_part(frame).select("dataset", "prompts").rows())
        assert chosen == {"one": "z", "two": "z", "three": "b"}

    def test_of_equals_the_first_by_name(self, rows):
        frame = rows({"value": 1, "prompts": "z"}, {"value": 2, "prompts": "a"})
        assert main_part(frame)["value"].to_list() == [2]

    def test_means_of_datasets_and_halves_of_classes_are_no_part(self, rows):
        frame = rows({"value": 1}, {"value": 2, "dataset": None}, {"value": 3, "classes": "new"})
        assert main_part(frame)["value"].to_list() == [1]
