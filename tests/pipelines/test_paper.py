"""pipelines/paper: its plans, its README, and its recipes on the zoo by two other lines.

``python tests/pipelines/test_paper.py`` writes the cost table of the README anew.
"""

import re
import shlex
from itertools import product
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from clipsyn.catalog.backbones import cost, known_backbones
from clipsyn.catalog.datasets import collections, find_dataset
from clipsyn.cli import main
from clipsyn.extract import Cost
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.heads import HEADS
from clipsyn.run.recipe import find_recipe, read_recipe
from clipsyn.run.stages import Made, plan_recipe, run_recipe
from tests.shipped import save_few

pytestmark = pytest.mark.usefixtures("few_steps")
ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "pipelines" / "paper"
README = FOLDER / "README.md"
ORDER = (
    "zero-shot", "linear-probe", "few-shot", "robustness", "diversity", "cascade", "rivals",
    "prompts"
)  # fmt: skip
CLASSES, EACH = 4, 6  # of each dataset on the zoo, and images of each class of a split
FEWER = [
    ("seeds: 3", "seeds: 1"),
    ("shots: [1, 2, 4, 8, 16]", "shots: [2]"),
    ("imagenet-c,", '"imagenet-c:3",'),
]
RATE = 100e3  # GFLOPs a second that a GPU sustains, as the README assumes
_TABLE = re.compile("(<!-- cost -->\n\n).*?(\n\n<!-- cost end -->)", re.S)
NINE = [backbone.name for backbone in known_backbones()["openai"]]


def costs():
    """Recipe, images through a backbone, GFLOPs and megabytes, beyond what those before it make."""
    made: Made = {}
    for name in ORDER:
        stages = plan_recipe(find_recipe(f"paper/{name}"), made)
        cost = Cost.sum(stage.cost for stage in stages if stage.cost)
        yield name, cost.passes, cost.gflops, cost.megabytes


def cost_table():
    lines = [
        "| recipe | images through a backbone, millions | EFLOPs | GPU-hours | disk, GB |",
        "| --- | --- | --- | --- | --- |",
    ]
    sums = [0.0, 0.0, 0.0]
    for name, *numbers in costs():
        sums = [a + b for a, b in zip(sums, numbers, strict=True)]
        lines.append(_line(f"`{name}.yaml`", *numbers))
    return "\n".join([*lines, _line("all", *sums)])


def _line(name, passes, gflops, size):
    hours = gflops / RATE / 3600
    return f"| {name} | {passes / 1e6:.1f} | {gflops / 1e9:.2f} | {hours:.1f} | {size / 1e3:.1f} |"


def readme():
    text, times = _TABLE.subn(
        lambda found: f"{found[1]}{cost_table()}{found[2]}", README.read_text("utf-8")
    )
    assert times == 1
    return text


def on_the_zoo(name):
    """A recipe with the two other lines of the README's sed command, and these lines."""
    (command,) = re.findall(
        r"^sed (.*) pipelines/paper/NAME\.yaml", README.read_text("utf-8"), re.M
    )
    text = (FOLDER / f"{name}.yaml").read_text("utf-8")
    for script in shlex.split(command):
        if script != "-e":
            old, new = re.fullmatch(r"s\|(.*)\|(.*)\|", script).groups()
            text = re.sub(old, new, text)
    before = (FOLDER / f"{name}.yaml").read_text("utf-8").splitlines()
    pairs = zip(before, text.splitlines(), strict=True)
    return text, [new for old, new in pairs if old != new]


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A machine without network, weights or images, in a folder of its own."""

    def refused(host, *_, **__):
        pytest.fail(f"the network was asked for {host}")

    monkeypatch.setattr("socket.getaddrinfo", refused)
    monkeypatch.delenv("CLIPSYN_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("offline")
class TestPlans:
    @pytest.mark.parametrize("name", ORDER)
    def test_a_dry_run_needs_nothing_and_writes_nothing(self, name, tmp_path):
        done = CliRunner().invoke(main, ["run", f"paper/{name}", "--dry-run"])
        assert done.exit_code == 0, done.output
        for backbone in NINE:
            assert f"\n{backbone} " in f"\n{done.stdout}"
        assert done.stdout.count("not here") >= 9
        assert "an unknown number" not in done.stdout
        assert list(tmp_path.iterdir()) == []

    def test_what_the_zero_shot_recipe_costs_by_hand(self):
        """Images of the catalogue times costs of the catalogue, without a plan."""
        _, passes, gflops, size = next(iter(costs()))
        expected = [0.0, 0.0, 0.0]
        for name, split in product(collections()["paper"], ("train", "test")):
            info = find_dataset(name)
            n = info.splits[split].n
            for backbone in NINE:
                facts = cost(backbone)
                logits = 4 * info.classes * (split == "test")
                expected[0] += n
                expected[1] += n * facts.image_gflops
                expected[2] += n * (2 * facts.embed_dim + 1 + logits + 2) / 1e6
        assert [passes, gflops, size] == pytest.approx(expected)

    def test_other_prompts_cost_no_pass_over_the_images(self):
        by_name = {name: numbers for name, *numbers in costs()}
        passes, gflops, size = by_name["prompts"]
        assert (passes, gflops) == (0, 0)
        answers = 0
        for name, split in product(collections()["paper"], ("train", "test")):
            info = find_dataset(name)
            answers += info.splits[split].n * 9 * (2 + 4 * info.classes * (split == "test"))
        assert size == pytest.approx(answers / 1e6)
        assert by_name["robustness"][0] == 88 * 50_000 * 9
        assert [by_name[name][0] for name in ("few-shot", "cascade", "rivals")] == [0, 0, 0]


def test_the_folder_has_the_recipes_that_its_readme_lists():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(ORDER)
    listed = re.findall(r"^\d+\. `([\w-]+)\.yaml`", README.read_text("utf-8"), re.M)
    assert listed == [*ORDER]


@pytest.mark.parametrize("name", ORDER)
def test_recipes_share_a_store_and_extract_what_they_read(name):
    recipe = read_recipe(FOLDER / f"{name}.yaml")
    assert recipe.store == Path("runs/paper/store")
    extractions = [stage for stage in recipe.stages if stage.stage == "extract"]
    assert {stage.backbones for stage in extractions} == {("openai",)}
    assert {split for stage in extractions for split in stage.splits} == {"train", "test"}


@pytest.mark.parametrize("name", ORDER)
def test_two_changed_lines_run_a_recipe_on_the_zoo(name):
    _, changed = on_the_zoo(name)
    assert len(changed) == 2
    assert "    backbones: &backbones [tiny-RN/zoo, tiny-ViT-16/zoo]" in changed


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A folder in which every recipe ran, one after the other, with two other lines.

    Its datasets have few classes, and their images fewer draws and perturbations than the recipes.
    """
    folder = tmp_path_factory.mktemp("zoo")
    for name in ("emoji-faces", "emoji-food", "emoji-animals"):
        data = folder / "runs" / "paper" / "data" / f"wds_{name}"
        save_few(find_dataset(name).shipped_path, data, CLASSES, EACH)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ORDER:
            path = folder / f"{name}.yaml"
            text = on_the_zoo(name)[0]
            for old, new in FEWER:
                text = text.replace(old, new)
            path.write_text(text, "utf-8")
            outcomes = run_recipe(read_recipe(path), lambda *_: None)
            assert not outcomes[-1].skipped
    return folder / "runs" / "paper"


@pytest.mark.parametrize(
    "output",
    [
        "zeroshot", "oracle", "diversity", "representation", "robustness", "cascade",
        "zeroshot-simple",
    ],
)  # fmt: skip
def test_on_the_zoo_each_analysis_has_numbers(zoo, output):
    frame = pl.read_parquet(zoo / f"{output}.parquet")
    assert frame["value"].drop_nans().len() > 0
    assert (zoo / f"{output}.csv").is_file()


def test_on_the_zoo_ensembles_have_an_accuracy_on_every_head_and_prompt_set(zoo):
    def measured(output, column):
        frame = pl.read_parquet(zoo / f"{output}.parquet")
        return {*frame.filter(metric="acc1", ensemble="nlc")[column]}

    assert measured("zero-shot", "prompts") == {"own"}
    assert measured("zero-shot-simple", "prompts") == {"simple"}
    assert measured("linear-probe", "head") == {"linear-probe"}
    assert measured("few-shot", "head") == {"zero-shot", "tip-adapter", "tip-adapter-f"}
    assert len(measured("perturbed", "perturbation")) == 1 + 15 + 13
    rivals = pl.read_parquet(zoo / "rivals.parquet").filter(metric="acc1")
    assert {*HEADS, "chosen"} == {*rivals["head"]}
    assert {*ENSEMBLES, "chosen", "single", "oracle"} == {*rivals["ensemble"]}


def test_on_the_zoo_a_second_run_computes_nothing(zoo, monkeypatch):
    monkeypatch.chdir(zoo.parents[1])
    recipe = read_recipe(Path(f"{ORDER[-1]}.yaml"))  # after which nothing changed the store
    assert all(s.skipped for s in plan_recipe(recipe) if s.stage == "extract")
    assert all(outcome.skipped for outcome in run_recipe(recipe, lambda *_: None))


def test_costs_in_the_readme_are_those_of_the_plans():
    assert README.read_text("utf-8") == readme(), "run: python tests/pipelines/test_paper.py"


def test_the_table_of_the_readme_has_every_dataset_with_its_sizes():
    text = README.read_text("utf-8")
    for name in collections()["paper"]:
        info = find_dataset(name)
        (row,) = (line for line in text.splitlines() if line.startswith(f"| `{info.name}` |"))
        assert f"| {info.splits['train'].n:,} / {info.splits['test'].n:,} |" in row, name


def test_commands_of_the_readme_exist(tmp_path, monkeypatch):
    (tmp_path / "runs" / "paper").mkdir(parents=True)  # as the recipe leaves it
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```sh\n(.*?)^```", README.read_text("utf-8"), re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    commands = [
        shlex.split(line, comments=True)[1:] for line in lines if line.startswith("clipsyn ")
    ]
    assert commands
    for name, *words in commands:
        main.commands[name].make_context(name, words)


if __name__ == "__main__":
    README.write_text(readme(), "utf-8")
