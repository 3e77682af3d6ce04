"""The documentation is true: generated where it can be, checked where it cannot.

docs/cli.md is what the commands' ``--help`` says; to write it anew: ``python tests/test_docs.py``.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import yaml

from clipsyn.cli import main

ROOT = Path(__file__).parents[1]
CLI = ROOT / "docs" / "cli.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WIDTH = 100

INTRODUCTION = """\
# Commands

What `clipsyn COMMAND --help` says, written by `python tests/test_docs.py`.

- Results go to standard output, all else to standard error; `clipsyn -q` drops progress and plans.
- Progress is a bar for each cell on a terminal, and a line every ten seconds elsewhere.
- Names come from whoever made a store. On a terminal and in JSON, control characters, line breaks
  and overrides of the direction of writing in them are written out (`\\u001b`). CSV and Parquet
  hold names as they are, with one exception: in CSV a text that a spreadsheet would run (it begins
  with `=`, `+`, `-` or `@` and is no number) stands after a `'`, which `clipsyn import` takes off.
- Files that a command is to write are looked at before it starts to work.
- `CLIPSYN_STORE` is the store where a command names none, `CLIPSYN_DATA` the `--data-root`.

| exit status | |
| --- | --- |
| 0 | done, or there was nothing to do |
| 1 | you said no; no `extract` extra, disk space, memory or permission; another package fails |
| 2 | an option, name or recipe that cannot work |
| 3 | images, labels, class names or a checkpoint that are not what they should be |
| 4 | the store: nothing there yet, made from something else, damaged, of a newer format |
| 130 | stopped by Ctrl-C (`extract`, `run`: or SIGTERM); the same command goes on from there |
"""


def reference() -> str:
    """The content of docs/cli.md."""
    settings: dict[str, Any] = {**main.context_settings, "terminal_width": WIDTH}
    group = click.Context(main, info_name="clipsyn", **settings)
    contexts = [group] + [
        click.Context(command, group, info_name=name)
        for name, command in sorted(main.commands.items())
    ]
    return "\n".join([INTRODUCTION, *map(_section, contexts)])


def _section(context: click.Context) -> str:
    lines = context.get_help().splitlines()
    text = "\n".join(line.rstrip() for line in lines)
    return f"## {context.command_path}\n\n```text\n{text}\n```\n"


def blocks(page: Path, language: str) -> Iterator[str]:
    for found in re.finditer(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
        yield found[1]


def commands(text: str) -> Iterator[list[str]]:
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


def test_the_reference_is_up_to_date() -> None:
    """In a process of its own: click keeps for ever how a command was asked for its help first."""
    written = subprocess.run(
        [sys.executable, __file__, "-"],
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
    )
    assert CLI.read_bytes() == written.stdout, "run: python tests/test_docs.py"


@pytest.mark.parametrize("name", main.commands)
def test_every_command_explains_itself(name: str) -> None:
    command = main.commands[name]
    assert command.help
    assert not command.get_short_help_str(limit=60).endswith("...")
    assert f"## clipsyn {name}\n" in CLI.read_text("utf-8")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"


@pytest.mark.parametrize("name", main.commands)
def test_examples_in_help_can_be_run(name: str) -> None:
    help_text = main.commands[name].help or ""
    examples = [line for line in help_text.splitlines() if line.startswith("clipsyn ")]
    for example in examples:
        check(re.split(r"   +", example)[0].split()[1:])


def test_the_help_names_every_group_of_perturbations_and_the_list_of_names() -> None:
    from clipsyn.perturb import groups

    (option,) = (p for p in main.commands["extract"].params if p.name == "perturbations")
    text = getattr(option, "help", "") or ""
    assert all(group in text for group in groups())
    assert "`clipsyn perturbations`" in text


def test_every_perturbation_is_in_the_documentation() -> None:
    from clipsyn.perturb import REGISTRY, groups

    text = (ROOT / "docs" / "extracting.md").read_text("utf-8")
    missing = [name for name in [*REGISTRY, *groups()] if f"`{name}`" not in text]
    assert missing == []


def test_there_are_commands_to_check() -> None:
    assert {page.name for page, _ in SHELL} >= {"README.md", "extracting.md", "recipes.md"}


@pytest.mark.parametrize(
    ("page", "words"), SHELL, ids=[f"{page.name}-{' '.join(words)}" for page, words in SHELL]
)
def test_commands_in_the_documentation_exist(page: Path, words: list[str]) -> None:
    check(words)


def check(words: list[str]) -> None:
    """Parse a command without running it; click raises for what is not there."""
    words = [word for word in words if word not in ("-q", "…")]
    if words[0].startswith("-"):
        return
    command = main.commands[words[0]]
    command.make_context(words[0], words[1:])
    if words[0] == "run" and words[1].startswith("pipelines/"):
        assert (ROOT / words[1]).is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipes_in_the_documentation_are_recipes(page: Path) -> None:
    from clipsyn.pipeline import Recipe

    for block in blocks(page, "yaml"):
        Recipe.model_validate(yaml.safe_load(block))


def test_every_field_of_a_recipe_is_documented() -> None:
    from clipsyn.pipeline import STAGES, Recipe

    text = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    for model in (Recipe, *STAGES.values()):
        missing = [name for name in model.model_fields if f"`{name}`" not in text]
        assert not missing, model.__name__


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory, fakes: SimpleNamespace) -> Path:
    """A store with the names that the documentation uses, but for the backbones'."""
    path = tmp_path_factory.mktemp("documented") / "store"
    encoders = [fakes.Encoder(), fakes.Encoder("fake/two", size=12, embed_dim=16)]
    sources = [
        fakes.Source("emoji-food", split, templates=("a drawing of a {c}.",))
        for split in ("train", "test")
    ]
    fakes.fill(path, encoders, sources, ("clean", "jpeg:3"))
    return path


@pytest.mark.parametrize(
    "name",
    ["README.md", "docs/analysis.md", "docs/python.md", "docs/fitting.md", "docs/extending.md"],
)
def test_python_in_the_documentation_runs(
    name: str, documented: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("store", "runs/quickstart/store"):
        shutil.copytree(documented, tmp_path / place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.print", lambda *_: None)
    namespace: dict[str, Any] = {}
    found = list(blocks(ROOT / name, "python"))
    assert found
    for block in found:
        exec(compile(block, name, "exec"), namespace)


if __name__ == "__main__":
    if sys.argv[1:] == ["-"]:
        sys.stdout.write(reference())
    else:
        CLI.write_text(reference(), encoding="utf-8")
