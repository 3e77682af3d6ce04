"""The stage that writes a page: when it is skipped, and when it is made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clipsyn.errors import UsageError
from clipsyn.run.recipe import Recipe, run_recipe
from clipsyn.run.stages import Outcome


@pytest.fixture
def run(tiny_store, tmp_path):
    """Function (stages) -> their outcomes; the page goes to a folder that is not there yet."""

    def make(*stages: dict[str, Any]) -> list[Outcome]:
        recipe = Recipe.of({"store": tiny_store.path, "stages": list(stages)})
        return run_recipe(recipe, lambda _number, _name: None)

    return make


@pytest.fixture
def page(tmp_path) -> Path:
    return tmp_path / "new" / "report.html"


def stage(page: Path, **fields: Any) -> dict[str, Any]:
    return {"stage": "report", "output": page, **fields}


def test_it_says_where_the_page_is(run, page):
    (outcome,) = run(stage(page))
    assert not outcome.skipped
    assert str(page) in outcome.did
    assert page.read_text("utf-8").startswith("<!doctype html>")


def test_the_same_again_is_skipped(run, page):
    run(stage(page))
    before = page.stat().st_mtime_ns
    (outcome,) = run(stage(page))
    assert outcome.skipped
    assert page.stat().st_mtime_ns == before


def test_nor_is_a_corrected_label(run, page, tiny_store):
    run(stage(page))
    samples = tiny_store.samples("toy", "test")
    labels = samples.labels.copy()
    labels[0] = (labels[0] + 1) % 3
    vars(samples)["labels"] = labels
    tiny_store.annotate(samples)
    assert not run(stage(page))[0].skipped


def test_nor_are_other_results(run, page, tmp_path):
    few = {"stage": "evaluate", "output": tmp_path / "results", "ensembles": ["super-learner"]}
    shown = stage(page, results=tmp_path / "results.parquet")
    run(few | {"shots": [1], "seeds": 1}, shown)
    *_, again = run(few | {"shots": [1], "seeds": 1}, shown)
    assert again.skipped
    *_, outcome = run(few | {"shots": [2], "seeds": 1}, shown)
    assert not outcome.skipped


def test_results_that_are_not_there_are_asked_of_the_stage_before(run, page, tmp_path):
    with pytest.raises(UsageError, match="an evaluate stage before this one makes it"):
        run(stage(page, results=tmp_path / "none.parquet"))
