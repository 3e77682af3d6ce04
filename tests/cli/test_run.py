"""`clipsyn run`: stages announced, one summary at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clipsyn.store.features import FeatureStore


@pytest.fixture
def recipe(tmp_path: Path, checkpoint: Path, write_images: Any) -> Path:
    """Relative paths in it, which start at the folder where the command is run."""
    write_images()
    path = tmp_path / "recipes" / "photos.yaml"
    path.parent.mkdir()
    path.write_text(
        "store: runs/store\n"
        "stages:\n"
        f"  - {{stage: extract, datasets: [photos], backbones: ['local-dir:{checkpoint}']}}\n"
        "  - {stage: zeroshot, summary: true, output: runs/zeroshot}\n"
    )
    return path


def test_from_recipe_to_table_and_again(clipsyn, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = clipsyn("run", recipe)
    assert first.exit_code == 0, first.stderr
    assert first.stderr.startswith("[1/2] extract\n")
    assert "[2/2] zeroshot\n" in first.stderr
    assert "zero-shot top-1 accuracy" in first.stdout
    assert first.stdout.splitlines()[-1] == "store: runs/store"
    assert (tmp_path / "runs" / "zeroshot.csv").is_file()
    assert (tmp_path / "runs" / "zeroshot.parquet").is_file()
    assert len(FeatureStore.open(tmp_path / "runs" / "store").keys()) == 1
    second = clipsyn("run", recipe)
    extract, zeroshot = second.stdout.splitlines()[-3:-1]
    assert extract.startswith("extract   already there")
    assert zeroshot.startswith("zeroshot  already there")
    assert second.stdout.split("stage  ")[0] == first.stdout.split("stage  ")[0]  # same table


def test_a_recipe_that_ships_is_run_by_its_name_in_any_folder(
    clipsyn: Any, fails: Any, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("clipsyn.run.recipe.recipes_dir", lambda: recipe.parent)
    recipe.with_name("broken.yaml").write_text("store: s\n")
    result = clipsyn("run", "photos")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "runs" / "zeroshot.csv").is_file()
    assert "broken.yaml: stages is missing" in fails(2, "run", "broken")


def test_a_name_is_no_file(fails, clipsyn, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe.rename(tmp_path / "quikstart")
    said = fails(2, "run", "quikstart")
    assert said == (
        "unknown recipe 'quikstart': did you mean quickstart? Or give a file, such as "
        "./recipe.yaml."
    )
    assert clipsyn("run", "./quikstart").exit_code == 0
    assert fails(2, "run", "x" * 300)


def test_without_a_recipe_those_that_ship_are_listed(clipsyn: Any) -> None:
    result = clipsyn("run")
    assert result.exit_code == 0
    for name in ("analysis", "fewshot", "quickstart", "router-study"):
        assert f"\n{name} " in result.stdout


def test_a_dry_run_shows_every_stage_and_writes_nothing(clipsyn, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    first = clipsyn("run", recipe, "--dry-run")
    assert first.exit_code == 0, first.output
    assert "[1/2] extract\n" in first.stdout
    assert "1 of 1 cells to make: 8 images through a backbone" in first.stdout
    assert "[2/2] zeroshot\nwrites runs/zeroshot.csv, writes runs/zeroshot.parquet" in first.stdout
    assert "No weights were loaded and no images compared" in first.stdout
    assert first.stdout.splitlines()[-1] == "store: runs/store"
    assert sorted(tmp_path.iterdir()) == before
    assert clipsyn("run", recipe).exit_code == 0
    again = clipsyn("run", recipe, "--dry-run").stdout
    assert "already there: 0 of 1 cells to make: 0 images" in again
    assert "renews runs/zeroshot.csv" in again
