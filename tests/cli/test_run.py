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


def test_from_recipe_to_table_and_again(terminal: Any, recipe: Path, tmp_path: Path) -> None:
    first = terminal("run", recipe)
    assert first.returncode == 0, first.stderr
    assert first.stderr.startswith("[1/2] extract\n")
    assert "[2/2] zeroshot\n" in first.stderr
    assert "zero-shot top-1 accuracy" in first.stdout
    assert first.stdout.splitlines()[-1] == "store: runs/store"
    assert (tmp_path / "runs" / "zeroshot.csv").is_file()
    assert (tmp_path / "runs" / "zeroshot.parquet").is_file()
    assert len(FeatureStore.open(tmp_path / "runs" / "store").keys()) == 1
    second = terminal("run", recipe)
    extract, zeroshot = second.stdout.splitlines()[-3:-1]
    assert extract.startswith("extract   already there")
    assert zeroshot.startswith("zeroshot  already there")
    assert second.stdout.split("stage  ")[0] == first.stdout.split("stage  ")[0]  # same table


def test_quiet_gives_the_tables_alone(
    clipsyn: Any, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = clipsyn("-q", "run", recipe)
    assert result.exit_code == 0
    assert "zero-shot top-1 accuracy" in result.stdout
    assert all(line.startswith("note: ") for line in result.stderr.splitlines())


def test_a_wrong_recipe_is_one_sentence(fails: Any, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("store: s\nstages: [{stage: zeroshot, output: t, dataset: x}]\n")
    said = fails(2, "run", path)
    assert said.startswith(f"{path}: stage 1 (zeroshot): unknown field 'dataset': did you mean")
    assert "cannot be read: No such file" in fails(2, "run", tmp_path / "none.yaml")


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


def test_a_name_is_no_file(
    fails: Any, clipsyn: Any, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_dry_run_shows_every_stage_and_writes_nothing(
    clipsyn: Any, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_dry_run_finds_names_that_are_wrong(fails: Any, recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("[photos]", "[emoji-fod]"))
    assert "did you mean" in fails(2, "run", recipe, "--dry-run")
    recipe.write_text("store: s\nstages: [{stage: evaluate, ensembles: [ncl], output: r}]\n")
    assert "did you mean nlc" in fails(2, "run", recipe, "--dry-run")


def test_a_name_in_a_folder_of_ours_is_answered_with_near_matches(fails: Any) -> None:
    assert "did you mean paper/cascade" in fails(2, "run", "paper/casade")
    assert "cannot be read: No such file" in fails(2, "run", "paper/casade.yaml")


def test_what_a_stage_cannot_do_stops_the_recipe(fails: Any, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"store: {tmp_path / 's'}\nstages: [{{stage: zeroshot, output: t}}]\n")
    assert "is no feature store" in fails(4, "run", path)
