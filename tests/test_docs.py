"""The documentation is true: generated where it can be, checked where it cannot."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import polars as pl
import pytest
import yaml
from click.testing import CliRunner

from clipsyn.cli import main
from tests.shipped import members, save_few

pytestmark = pytest.mark.usefixtures("few_steps")
ROOT = Path(__file__).parents[1]
MADE = ("cli.md", "settings.md")  # by docs/reference.py, when the site is built
FILES = sorted(ROOT.glob("docs/**/*.md"))
PAGES = [ROOT / "README.md", *(file for file in FILES if file.name not in MADE)]


def blocks(page, language):
    for found in re.finditer(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
        yield found[1]


def commands(text):
    """Words after ``clipsyn`` of every command in a shell block."""
    joined = text.replace("\\\n", " ")
    for line in joined.splitlines():
        for part in re.split(r"&&|\|", line):
            words = shlex.split(part, comments=True)
            if "clipsyn" in words[:2]:  # the first, or after srun and the like
                yield words[words.index("clipsyn") + 1 :]


SHELL = [
    (page, words) for page in PAGES for block in blocks(page, "sh") for words in commands(block)
]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The folder of the pages that are made from the code.

    Made in a process of its own: click keeps for ever how a command was asked for its help first.
    """
    folder = tmp_path_factory.mktemp("reference")
    made = [sys.executable, ROOT / "docs" / "reference.py", folder]
    subprocess.run(made, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    return folder


@pytest.mark.parametrize("name", main.commands)
def test_every_command_explains_itself(name, reference):
    command = main.commands[name]
    assert command.help
    assert not command.get_short_help_str(limit=60).endswith("...")
    _, _, section = (reference / "cli.md").read_text("utf-8").partition(f"## clipsyn {name}\n")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"
            assert parameter.opts[0] in section.partition("\n## ")[0]


@pytest.mark.parametrize("name", main.commands)
def test_examples_in_help_can_be_run(name):
    help_text = main.commands[name].help or ""
    examples = [line for line in help_text.splitlines() if line.startswith("clipsyn ")]
    for example in examples:
        check(re.split(r"   +", example)[0].split()[1:])


def test_the_help_names_every_group_of_perturbations_and_the_list_of_names():
    from clipsyn.images.perturb import GROUPS

    (option,) = (p for p in main.commands["extract"].params if p.name == "perturbations")
    text = getattr(option, "help", "") or ""
    assert all(group in text for group in GROUPS)
    assert "`clipsyn catalog perturbations`" in text


def test_every_perturbation_is_in_the_documentation():
    from clipsyn.images.perturb import GROUPS, INFO

    text = (ROOT / "docs" / "extracting.md").read_text("utf-8")
    missing = [name for name in [*INFO, *GROUPS] if f"`{name}`" not in text]
    assert missing == []


def test_there_are_commands_to_check():
    assert {page.name for page, _ in SHELL} >= {"README.md", "extracting.md", "recipes.md"}


@pytest.mark.parametrize(
    ("page", "words"), SHELL, ids=[f"{page.name}-{' '.join(words)}" for page, words in SHELL]
)
def test_commands_in_the_documentation_exist(page, words):
    check(words)


def check(words):
    """Parse a command without running it; click raises for what is not there."""
    words = [word for word in words if word not in ("-q", "…")]
    if words[0].startswith("-"):
        return
    command = main.commands[words[0]]
    command.make_context(words[0], words[1:])
    if words[0] == "run" and words[1].startswith("pipelines/"):
        assert (ROOT / words[1]).is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipes_in_the_documentation_are_recipes(page):
    from clipsyn.run.recipe import Recipe

    for block in blocks(page, "yaml"):
        Recipe(**yaml.safe_load(block))


def test_every_field_of_a_recipe_is_documented(reference):
    from clipsyn.run.recipe import STAGES, Recipe
    from clipsyn.settings import declared

    pages = (ROOT / "docs" / "recipes.md", reference / "settings.md")
    text = "".join(page.read_text("utf-8") for page in pages)
    for fields in map(declared, (Recipe, *STAGES.values())):
        missing = [name for name in fields if f"`{name}`" not in text]
        assert not missing


class Block(NamedTuple):
    """A fenced block of a page, and the HTML comment before it, which says what to do with it.

    ``<!-- not run: REASON -->`` leaves it out; ``<!-- file: NAME -->`` makes a file of it.
    """

    page: Path
    line: int
    language: str
    text: str
    comment: str

    def __str__(self):
        return f"{self.page.name}:{self.line}"


_BLOCK = re.compile(r"^(?:<!-- (.*?) -->\n+)?```(\w+)\n(.*?)^```", re.M | re.S)
BLOCKS = [
    Block(page, text.count("\n", 0, found.start(2)) + 1, found[2], found[3], found[1] or "")
    for page in PAGES
    for text in [page.read_text("utf-8")]
    for found in _BLOCK.finditer(text)
]
TO_RUN = [block for block in BLOCKS if block.language in ("sh", "python")]
ZOO = ("tiny-ConvNeXt", "tiny-RN", "tiny-ViT-16")
EACH = 24  # images of a class that are taken; a page has 20 sorted ones of each
SERVED = ("lab.md",)  # pages whose blocks run in tests/remote/test_lab.py: they need servers
NOT_RUN = {  # blocks of each page that need what a test cannot have; each says what
    "README.md": 4,
    "analysis.md": 1,
    "cluster.md": 4,
    "datasets.md": 2,
    "extracting.md": 1,
    "getting-started.md": 2,
    "recipes.md": 1,
    "reproducing.md": 1,
    "results.md": 1,
    "retrieval.md": 1,
    "rivals.md": 1,
    "router.md": 2,
    "tutorial-paper.md": 1,
}


def test_blocks_that_are_not_run_are_few_and_say_why():
    commented = (block for block in TO_RUN if block.comment)
    left_out = [block for block in commented if not block.comment.startswith("file: ")]
    for block in left_out:
        assert re.fullmatch(r"not run: \w.*", block.comment), block
    assert Counter(block.page.name for block in left_out) == NOT_RUN


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder with what the documentation is about: a store, images, and what others predicted.

    The store is one that the quickstart makes, of five classes.
    """
    folder = tmp_path_factory.mktemp("given")
    shipped = ROOT / "data" / "eval"
    for name in ("emoji-food", "emoji-animals"):
        save_few(shipped / name, folder / name, 5, EACH)
    shutil.copytree(folder / "emoji-food", folder / "wds_pets")
    _shipped(folder / "shipped")
    _photos(shipped / "emoji-food", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        backbones = ",".join(f"{name}/zoo" for name in ZOO)
        datasets = "emoji-food=emoji-food,emoji-animals=emoji-animals"
        cells = ["-d", datasets, "-s", "train,test", "-p", "clean,jpeg:3,fog:3"]
        run_command(["extract", "store", "-b", backbones, *cells])
    (folder / "runs" / "quickstart").mkdir(parents=True)
    (folder / "runs" / "quickstart" / "store").symlink_to("../../store")
    _predictions(folder)
    return folder


def _shipped(folder):
    """The data that ships: fewer backbones, and fewer clothes, which pages take for photographs."""
    clothes = Path("eval", "fashion-mnist")
    save_few(ROOT / "data" / clothes, folder / clothes, 6, EACH)
    (folder / "zoo").mkdir()
    for path in (*map((ROOT / "data" / "zoo").joinpath, ZOO), *(ROOT / "data" / "eval").iterdir()):
        link = folder / path.relative_to(ROOT / "data")
        if not link.exists():
            link.symlink_to(path)


def _photos(source, folder):
    """Images as a folder for each split and class, and as a manifest."""
    lines = ["path,label,split"]
    for split in ("train", "test"):
        for name, data, label in members(source, split, 5, EACH):
            if name.endswith(".webp"):
                path = folder / "photos" / split / f"class {label}" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                lines.append(f"{path.relative_to(folder).as_posix()},class {label},{split}")
    (folder / "photos.csv").write_text("\n".join(lines), "utf-8")
    shutil.copytree(folder / "photos" / "train", folder / "products")
    shutil.copy(next((folder / "photos" / "test").rglob("*.webp")), folder / "products")


def _predictions(folder):
    """What the pages import: tables, arrays, and a cache of others'."""
    import torch

    from clipsyn.store.features import FeatureStore

    table = FeatureStore.open(folder / "store").samples("emoji-food", "test")
    said = [
        (name, table.class_names[0], table.class_names[y])
        for name, y in zip(table.ids, table.labels, strict=True)
    ]
    pl.DataFrame(said, schema=["id", "prediction", "label"], orient="row").write_csv(
        folder / "answers.csv"
    )
    shutil.copy(folder / "answers.csv", folder / "mine.csv")
    logits = np.eye(len(table), 5, dtype=np.float32)
    np.savez(folder / "logits.npz", logits=logits, ids=np.array(table.ids))
    shown = [
        f"{row},{model},{severity},cat,{label}"
        for model in ("subject-01", "vit")
        for row, (label, severity) in enumerate(product(("cat", "dog"), (0, 2)))
    ]
    (folder / "contrast.csv").write_text("\n".join(["id,model,severity,prediction,label", *shown]))
    zlap, tip, benchmark = (
        "zlap/features/dtd",
        "Tip-Adapter/caches/dtd",
        "features/Food101-ViT-B-32",
    )
    for place in (zlap, tip, benchmark):
        (folder / place).mkdir(parents=True)
    for split in ("train", "test"):
        torch.save(torch.randn(4, 3), folder / benchmark / f"features_{split}.pt")
        torch.save(torch.arange(4), folder / benchmark / f"targets_{split}.pt")
    torch.save(torch.randn(4, 3), folder / tip / "test_f.pt")
    torch.save(torch.arange(4), folder / tip / "test_l.pt")
    np.save(folder / zlap / "ViT-B-32_test_feats.npy", np.eye(4, dtype=np.float32))
    np.save(folder / zlap / "ViT-B-32_test_targets.npy", np.arange(4))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in SERVED], ids=lambda page: page.name
)
def test_the_blocks_of_a_page_run_in_their_order(page, given, tmp_path, monkeypatch):
    shutil.copytree(given, tmp_path, symlinks=True, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # a page may write modules, too
    monkeypatch.delenv("CLIPSYN_STORE", raising=False)
    monkeypatch.setattr("builtins.print", lambda *_: None)
    for module in ("clipsyn.catalog", "clipsyn.catalog.datasets"):
        monkeypatch.setattr(f"{module}.data_dir", lambda: tmp_path / "shipped")
    namespace: dict[str, Any] = {}
    for block in BLOCKS:
        if block.page != page:
            continue
        if block.comment.startswith("file: "):
            file = Path(block.comment.removeprefix("file: "))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, "utf-8")
        elif block.language == "python" and not block.comment:
            exec(compile(block.text, str(block), "exec"), namespace)
        elif block.language == "sh" and not block.comment:
            for line in block.text.replace("\\\n", " ").splitlines():
                program, *words = shlex.split(line, comments=True)
                assert program == "clipsyn", f"{block}: {line}"
                run_command(words, f"{block}: {line}")


def run_command(words, what=""):
    """Run a command in this process; what it asks is answered with yes.

    An evaluation draws the labelled images once, where the page does not say how often.
    """
    if words[0] == "evaluate" and "--seeds" not in words:
        words = [*words, "--seeds", "1"]
    handler = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(main, words, input="y\n")
    signal.signal(signal.SIGTERM, handler)
    assert result.exit_code == 0, f"{what}\n{result.output}\n{result.exception!r}"
