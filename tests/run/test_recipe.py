"""Recipes: what is refused, what is planned, what is skipped, what is done again."""

from pathlib import Path

import pytest
import yaml

from clipsyn.errors import UsageError
from clipsyn.run.recipe import Recipe, find_recipe, read_recipe, shipped_recipes
from clipsyn.run.stages import Made, plan_recipe, run_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted([*ROOT.glob("pipelines/*.yaml"), *ROOT.glob("pipelines/*/*.yaml")])
EXTRACT = {"stage": "extract", "datasets": ["emoji-food"]}
ZEROSHOT = {"stage": "zeroshot", "output": "table"}


@pytest.fixture
def write(tmp_path):
    """Function from a recipe's content, or its text, to the file."""

    def write_recipe(content):
        path = tmp_path / "recipe.yaml"
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        path.write_text(text, encoding="utf-8")
        return path

    return write_recipe


def complaint(path):
    with pytest.raises(UsageError) as caught:
        read_recipe(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message.partition(str(path))[2].removeprefix(": ")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_of_this_repository_can_be_read(path):
    recipe = read_recipe(path)
    assert recipe.description
    assert not recipe.store.is_absolute()


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_recipe_found_by_name_writes_below_runs_alone(name):
    """Whoever installed a wheel has no docs/ whose tables could be renewed."""
    recipe, of_file = find_recipe(name), read_recipe(ROOT / "pipelines" / f"{name}.yaml")
    written = [recipe.store, *(s.output for s in recipe.stages if hasattr(s, "output"))]
    assert {path.parts[:2] for path in written} == {("runs", name.partition("/")[0])}
    assert {getattr(stage, "document", None) for stage in recipe.stages} == {None}
    fields = [vars(stage) | {"document": None} for stage in recipe.stages]
    assert fields == [vars(stage) | {"document": None} for stage in of_file.stages]


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([{"stage": "extrakt"}], "stage 1: unknown stage 'extrakt', write stage: extract or"),
        ([EXTRACT, {"datasets": ["x"]}], "stage 2: write stage: extract or"),
        (["extract"], "stage 1: write stage: extract or"),
        ([{"stage": "extract"}], "stage 1 (extract): datasets is missing"),
        ([ZEROSHOT | {"stage": "representation", "seed": -1}], "stage 1 (representation): seed is"),
        ([EXTRACT | {"split": ["train"]}], "stage 1 (extract): unknown setting 'split': did you"),
        ([EXTRACT | {"datasets": [["x"]]}], "stage 1 (extract): datasets is texts, not"),
        *((wrong, "stages is a list of at least one stage") for wrong in ([], "extract", None)),
    ],
)
def test_an_error_names_the_stage_that_is_wrong(write, stages, said):
    assert complaint(write({"store": "s", "stages": stages})).startswith(said)


def test_an_error_names_the_field_of_the_recipe_that_is_wrong(write):
    assert complaint(write({"store": "s"})) == "stages is missing"
    assert complaint(write({"stages": [ZEROSHOT]})) == "store is missing"
    said = complaint(write({"store": "s", "stages": [ZEROSHOT], "descripton": "x"}))
    assert said == "unknown setting 'descripton': did you mean description?"


def test_a_recipe_that_is_not_yaml_is_refused(write):
    said = complaint(write("store: s\nstages: [\n"))
    assert "is not YAML" in said
    assert "line 3" in said


@pytest.fixture
def recipe(tmp_path, write_images, fakes, monkeypatch):
    """Two backbones over two classes of photos; the backbones are fakes, all else is not."""

    def load(backbone, **_):
        return fakes.Encoder(backbone.name)

    monkeypatch.setattr("clipsyn.extract.encoder.load_encoder", load)
    extract = {
        "stage": "extract",
        "datasets": [str(write_images())],
        "backbones": ["fake/one,fake/two"],
    }
    zeroshot = {"stage": "zeroshot", "output": str(tmp_path / "tables" / "zero.shot")}
    return Recipe(store=tmp_path / "store", stages=[extract, zeroshot])


def changed(recipe, number, **fields):
    stages = [*recipe.stages]
    stages[number] = stages[number].replaced(**fields)
    return Recipe(recipe.store, stages)


def run(recipe):
    return run_recipe(recipe, lambda _number, _name: None)


def test_a_second_run_skips_every_stage(recipe, tmp_path):
    announced: list[tuple[int, str]] = []
    first = run_recipe(recipe, lambda number, name: announced.append((number, name)))
    assert announced == [(1, "extract"), (2, "zeroshot")]
    assert [outcome.skipped for outcome in first] == [False, False]
    assert first[0].did == "2 of 2 cells made"
    files = {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*") if f.is_file()}
    second = run(recipe)
    assert [outcome.skipped for outcome in second] == [True, True]
    assert second[1].report == first[1].report
    assert {f: f.stat().st_mtime_ns for f in tmp_path.rglob("*") if f.is_file()} == files


def test_outputs_that_were_removed_or_changed_are_made_again(recipe, tmp_path):
    run(recipe)
    for suffix in (".csv", ".parquet", ".made-from"):
        (tmp_path / "tables" / f"zero.shot{suffix}").unlink()
        assert [outcome.skipped for outcome in run(recipe)] == [True, False]
    (tmp_path / "tables" / "zero.shot.made-from").write_text("other")
    assert [outcome.skipped for outcome in run(recipe)] == [True, False]
    assert [outcome.skipped for outcome in run(recipe)] == [True, True]


# A miniature of what pipelines/real.yaml imports.


# What a recipe would do: later stages know what earlier ones make


TWO = {"stage": "extract", "backbones": ["RN50/openai", "ViT-B-32/openai"], "datasets": ["food101"]}
N, CLASSES = 25_250, 101  # test images of Food-101


@pytest.fixture(autouse=True)
def _bare(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def plan(*stages, made=None):
    recipe = Recipe(store="store", stages=list(stages))
    return list(plan_recipe(recipe, made))


def test_a_plan_counts_a_cell_of_two_stages_once():
    first, second = plan(TWO, {**TWO, "perturbations": ["clean", "jpeg:3"]})
    assert first.cost.passes == second.cost.passes == 2 * N
    assert not second.skipped
    made: Made = {}
    plan(TWO, made=made)
    (again,) = plan(TWO, made=made)
    assert again.skipped
    assert again.cost.passes == 0
    assert sum(again.cost) == 0


def test_other_prompts_cost_logits_and_no_images():
    _, second, third = plan(TWO, {**TWO, "prompts": "simple"}, {**TWO, "prompts": "simple"})
    assert (second.cost.passes, second.cost.gflops) == (0, 0)
    assert second.cost.embeddings == 0
    assert second.cost.answers == 2 * N * (CLASSES * 4 + 2) / 1e6
    assert "2 get answers of these prompts" in second.did
    assert (second.skipped, third.skipped) == (False, True)
    assert sum(third.cost) == 0


def test_a_plan_names_the_files_that_are_read_and_written():
    stage = {"stage": "diversity", "output": "runs/d", "results": "runs/r.parquet"}
    (one,) = plan(stage)
    assert one.did == ("reads runs/r.parquet, writes runs/d.csv, writes runs/d.parquet")
    (one,) = plan({"stage": "oracle", "output": "o", "samples": "s.csv"})
    assert one.did == "writes o.csv, writes o.parquet, writes s.csv"
    Path("r.parquet").touch()
    first, second = plan(
        {"stage": "import", "files": ["here.csv"]}, {"stage": "evaluate", "output": "r"}
    )
    assert (first.did, second.did) == ("reads here.csv", "renews r.parquet")
    assert first.cost is None
