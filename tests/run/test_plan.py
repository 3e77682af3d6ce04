"""What a recipe would do: later stages know what earlier ones make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clipsyn.extract import Cost
from clipsyn.run.recipe import Recipe, joined, plan_recipe, total
from clipsyn.run.stages import Made

EXTRACT = {
    "stage": "extract",
    "backbones": ["RN50/openai", "ViT-B-32/openai"],
    "datasets": ["food101"],
}
N, CLASSES = 25_250, 101  # test images of Food-101


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def plan(*stages: dict[str, Any], made: Made | None = None) -> list[Any]:
    recipe = Recipe.of({"store": "store", "stages": list(stages)})
    return list(plan_recipe(recipe, made))


def test_a_cell_is_made_once() -> None:
    first, second = plan(EXTRACT, {**EXTRACT, "perturbations": ["clean", "jpeg:3"]})
    assert first.cost.passes == second.cost.passes == 2 * N
    assert not second.is_there
    (again,) = plan(EXTRACT, made=(made := Made())) and plan(EXTRACT, made=made)
    assert again.is_there
    assert again.cost.passes == 0
    assert sum(again.cost) == 0


def test_other_prompts_add_answers_and_no_pass() -> None:
    stages = plan(EXTRACT, {**EXTRACT, "prompts": "simple"}, {**EXTRACT, "prompts": "simple"})
    first, second, third = stages
    assert (second.cost.passes, second.cost.gflops) == (0, 0)
    assert second.cost.embeddings == 0
    assert second.cost.logits == 2 * N * CLASSES * 4
    assert second.cost.predictions == 2 * N * 2
    assert "2 get answers of these prompts" in second.what
    assert (second.is_there, third.is_there) == (False, True)
    assert sum(third.cost) == 0
    assert total(stages) == Cost.sum([first.cost, second.cost])


def test_what_several_extractions_lack_is_told_once() -> None:
    stages = plan(EXTRACT, {**EXTRACT, "splits": ["train", "test"]})
    said = joined([stage.plan for stage in stages]).unchecked()
    assert said.startswith(
        "not here: the weights of 2 of 2 backbones and the images of food101/test, food101/train"
    )
    assert said.count("food101/test") == 1


def test_fits_are_counted_by_draw() -> None:
    stage = {"stage": "evaluate", "output": "r", "heads": ["zero-shot", "linear-probe"]}
    (one,) = plan({**stage, "ensembles": ["log-avg", "nlc"], "shots": [1, "full"], "seeds": 3})
    assert "up to 16 fits" in one.what  # 2 heads x 2 ensembles x (3 draws + the whole)
    assert "writes r.parquet" in one.what
    assert one.cost is None
    Path("r.parquet").touch()
    (one,) = plan({**stage, "ensembles": ["log-avg"], "shots": [1], "seeds": 1})
    assert "1 ensemble; shots 1; 1 seed: up to 2 fits" in one.what
    assert "renews r.parquet" in one.what


def test_files_that_are_read_and_written() -> None:
    stage = {"stage": "diversity", "output": "runs/d", "results": "runs/r.parquet"}
    (one,) = plan(stage)
    assert one.what == ("reads runs/r.parquet, writes runs/d.csv, writes runs/d.parquet")
    (one,) = plan({"stage": "oracle", "output": "o", "samples": "s.csv"})
    assert one.what == "writes o.csv, writes o.parquet, writes s.csv"
    Path("here.csv").touch()
    (one,) = plan({"stage": "import", "files": ["here.csv", "gone.csv"]})
    assert one.what == "import here.csv, gone.csv; not here: gone.csv"
    assert total([one]).passes == 0
