"""What was run, and what weakens the numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest

from clipsyn.report.evidence import gather
from clipsyn.report.provenance import (
    backbone_table,
    caveats,
    dataset_table,
    places,
    prompts_of,
    summary,
    title,
)
from clipsyn.report.settings import ReportSettings

MANY = 120


def told(store, **settings) -> str:
    """All caveats, without markup."""
    evidence = gather(store, ReportSettings(output="x.html", **settings))
    return " ".join(re.sub("<[^>]*>", "", it) for it in caveats(evidence, places(evidence)))


class TestCaveats:
    def test_few_images(self, answered):
        assert "Few labelled images, so wide intervals: pets/test (3)" in told(
            answered({"a": [0, 1, 2], "b": [0, 0, 2]}, [0, 1, 1])
        )

    def test_many_are_no_caveat(self, answered):
        labels = np.arange(MANY) % 3
        assert "Few" not in told(answered({"a": labels, "b": labels}, labels))

    def test_masked_images(self, answered):
        known = np.array([True, False, True])
        store = answered({"a": [0, 1, 2], "b": [0, 0, 2]}, [0, 1, 1], valid={"b": known})
        assert "count for none of them: pets/test (1)" in told(store)

    def test_missing_cells_and_the_command_that_makes_the_first(self, answered):
        answered({"a": [0, 1], "b": [0, 1]}, [0, 1])
        store = answered({"a": [0, 1]}, [0, 1], perturbation="jpeg-3")
        said = told(store)
        assert "1 of 4 cells are not in the store" in said
        assert "--backbone b --dataset pets --split test --perturb jpeg-3" in said

    def test_imported_backbones(self, answered):
        assert "a and b were imported" in told(answered({"a": [0, 1], "b": [1, 0]}, [0, 1]))

    def test_nothing_is_imported_of_what_was_extracted(self, tiny_store):
        assert "imported" not in told(tiny_store)

    def test_images_without_labels(self, answered):
        answered({"a": [0, 1], "b": [1, 0]}, [0, 1])
        store = answered({"a": [0, 1]}, [-1, -1], dataset="new")
        assert "No image of new/test has a label" in told(store)

    def test_classes_that_look_alike(self, tmp_path, fakes):
        source = fakes.Source("toy", class_names=("owl", "owl", "cat"))
        encoders = [fakes.Encoder(), fakes.Encoder("fake/two")]
        store = fakes.fill(tmp_path / "alike", encoders, [source])
        assert "cannot be told apart by fake/one, fake/two" in told(store)

    def test_shared_images(self, answered):
        content = np.full((2, 32), 7, np.uint8)
        content[1] = 8
        answered({"a": [0, 1], "b": [0, 0]}, [0, 1], content=content)
        store = answered({"a": [0, 1], "b": [0, 0]}, [0, 1], dataset="others", content=content)
        assert "Images stand in several of these sets" in told(store)

    def test_what_could_not_be_measured(self, answered):
        said = told(answered({"a": [0, 1]}, [0, 1]))
        assert "clipsyn diversity is not on this page: pets/test has only one backbone" in said


class TestTables:
    def test_datasets(self, answered, lines):
        known = np.array([True, False, True])
        answered({"a": [0, 1, 2], "b": [0, 0, 2]}, [0, -1, 1], valid={"b": known})
        store = answered({"a": [0, 1, 2]}, [0, -1, 1], perturbation="fog-1")
        evidence = gather(store, ReportSettings(output="x.html"))
        (line,) = lines(dataset_table(places(evidence), prompts_of(evidence)))
        assert line == {
            "dataset": "pets/test",
            "images": "3",
            "labelled": "2",
            "classes": "3",
            "prompts": "imported",
            "conditions": "2",
            "backbones": "2",
            "masked": "1",
        }

    def test_weights_of_extracted_backbones(self, tiny_store, fakes, lines):
        evidence = gather(tiny_store, ReportSettings(output="x.html"))
        line = lines(backbone_table(evidence))[0]
        assert line["backbone"] == "fake/one"
        encoder = fakes.Encoder()
        assert encoder.backbone.source == "local-dir:checkpoints/fake/one"
        assert line["weights from"] == "local-dir:one"
        assert encoder.identity["weights"].startswith(line["SHA-256 of the weights"])
        assert len(line["SHA-256 of the weights"]) == 12
        assert (line["precision"], line["input"], line["GFLOPs"]) == ("fp32", "8", "0.50")

    def test_imported_backbones_have_none(self, answered, lines):
        evidence = gather(answered({"a": [0, 1]}, [0, 1]), ReportSettings(output="x.html"))
        assert lines(backbone_table(evidence))[0]["weights from"] == "imported predictions"


@pytest.mark.parametrize(
    ("sets", "perturbations", "above", "below"),
    [
        (["pets"], ["clean"], "2 backbones on pets/test", "2 images, clean"),
        (["pets", "food"], ["clean"], "2 backbones on 2 datasets", "4 images, clean"),
        (
            ["pets"],
            ["clean", "fog-1", "fog-2"],
            "2 backbones on pets/test",
            "2 images, clean and under 2 perturbations",
        ),
        (["pets"], ["fog-1"], "2 backbones on pets/test", "2 images, under 1 perturbation"),
    ],
)
def test_two_lines_say_what_was_run(answered, sets, perturbations, above, below):
    for dataset in sets:
        for label in perturbations:
            answers = {"a": [0, 1], "b": [0, 0]}
            store = answered(answers, [0, 1], dataset=dataset, perturbation=label)
    shown = places(gather(store, ReportSettings(output="x.html")))
    assert (title(shown), summary(shown)) == (above, below)


def test_one_backbone_is_named(answered):
    store = answered({"mine": [0, 1]}, [0, 1])
    assert title(places(gather(store, ReportSettings(output="x.html")))) == "mine on pets/test"
