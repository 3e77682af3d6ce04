from __future__ import annotations

import json
import re

import pytest

from clipsyn.analyses.representation import representation
from clipsyn.evaluation.results.frame import RESULT


@pytest.fixture
def run(tiny_store, clipsyn):
    """Run `clipsyn representation` on the tiny store; returns click's result."""

    def call(*arguments: object, store: object = tiny_store.path):
        return clipsyn("representation", store, *arguments)

    return call


def heads(text: str) -> list[str]:
    """The first word above every rule of a table."""
    lines = text.split("\n")
    return [lines[n - 1].split()[0] for n, line in enumerate(lines) if re.fullmatch("─+", line)]


def test_one_dataset_has_a_matrix_pairs_and_logits(run):
    result = run()
    assert result.exit_code == 0
    assert heads(result.stdout) == ["backbone"] * 3
    assert "toy/test · clean · n 20" in result.stdout
    assert result.stderr == ""


def test_several_groups_have_an_overview(run):
    result = run("-p", "clean,jpeg-3")
    assert heads(result.stdout) == ["dataset", *["backbone"] * 4]


def test_the_numbers_are_those_of_python(run, tiny_store):
    options = ["--samples", 12, "--neighbours", 3, "--seed", 1, "--support", "train"]
    found = json.loads(run("-o", "-", *options).stdout)
    expected = representation(tiny_store, samples=12, neighbours=3, seed=1)
    assert [row["value"] for row in found] == expected["value"].to_list()
    assert set(found[0]) == {*RESULT, "bin"}
    assert {row["n"] for row in found if row["metric"] == "cka"} == {12}


def test_an_unlabelled_dataset_is_compared_and_mentioned(fakes, tiny_store, run):
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two", size=12, embed_dim=16)]
    photos = fakes.Source("photos", class_names=(), changed=set(range(20)))
    fakes.fill(tiny_store.path, encoders, [photos])
    result = run()
    assert result.exit_code == 0
    assert "photos" in result.stdout
    assert result.stderr == "no logit statistics, for want of labels: photos\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--support", "test"], "nothing is measured on: give --support another split than test"),
        (["--support", "trian"], "unknown split 'trian': did you mean train"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(fails, tiny_store, arguments, message):
    assert message in fails(2, "representation", tiny_store.path, *arguments)


def test_one_backbone_without_labels(fails, fakes, tmp_path):
    store = fakes.fill(tmp_path / "s", sources=[fakes.Source("photos", class_names=())])
    assert "only one backbone there and no labels" in fails(2, "representation", store.path)
