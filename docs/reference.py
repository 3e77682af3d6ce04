"""The pages of the site that are made from the code: every command, and the settings of stages.

``conf.py`` writes them when the site is built; git ignores them. Without the site:
``python docs/reference.py FOLDER``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from clipsyn.analyses import ANALYSES
from clipsyn.cli import main
from clipsyn.evaluation import ProtocolSettings, Selection
from clipsyn.exchange import ImportSettings
from clipsyn.extract import ExtractSettings
from clipsyn.report import ReportSettings
from clipsyn.settings import Settings, declared, defaults, explained

WIDTH = 100
OTHER_STAGES: dict[str, type[Settings]] = {
    "extract": ExtractSettings,
    "import": ImportSettings,
    "evaluate": ProtocolSettings,
    "report": ReportSettings,
}

INTRODUCTION = """\
# Commands

The output of `clipsyn COMMAND --help` for every command.

- Results go to standard output, everything else to standard error. `clipsyn -q` drops progress and
  plans.
- Progress is a bar for each cell on a terminal, and a line every ten seconds elsewhere.
- Names come from whoever made a store. On a terminal and in JSON, control characters, line breaks
  and overrides of the direction of writing in them are written out (`\\u001b`). CSV and Parquet
  hold names as they are, with one exception: in CSV a text that a spreadsheet would run (it begins
  with `=`, `+`, `-` or `@` and is no number) gets a `'` in front, which `clipsyn import` takes off,
  and `clipsyn extract` in manifests.
- A command checks the files that it is to write before it starts to work.
- `CLIPSYN_STORE` is the store if a command names none, `CLIPSYN_DATA` the `--data-root`.

| exit status | |
| --- | --- |
| 0 | done, or there was nothing to do |
| 1 | you answered no; no `extract` extra, disk space, memory or permission; another package fails |
| 2 | an option, name or recipe that cannot work |
| 3 | images, labels, class names or a checkpoint that are not what they should be |
| 4 | no store or cell there, or one made from something else, damaged, or of a newer format |
| 130 | stopped by Ctrl-C (`extract`, `run`: or SIGTERM); the same command goes on from there |
"""

SETTINGS = """\
# Settings of stages

The fields of the stages of a recipe ([recipes.md](recipes.md)). Each is an option of the command
of the same name, and an argument of the Python function.\
"""


def commands() -> str:
    """The page of all commands."""
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


def settings() -> str:
    """The page of the settings of a recipe's stages, as they are declared."""
    parts = [SETTINGS]
    for stage, model in OTHER_STAGES.items():
        rows = _rows(model, {*declared(model)} - {"output"})
        parts += [f"## {stage}", _table(["field", "default", ""], rows)]
    own = [row for name in ANALYSES for row in _stage_rows(name)]
    parts += [
        "## What all stages that measure share",
        _table(["field", "default", ""], _rows(Selection, {*declared(Selection)})),
        "## What each of them has of its own, or with another default",
        _table(["stage", "field", "default", ""], own),
    ]
    return "\n\n".join(parts) + "\n"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]
    return "\n".join(lines).replace("|  |", "| |")


def _stage_rows(name: str) -> list[list[str]]:
    """The settings that not all stages have, or that have another default than for most."""
    settings, usual = ANALYSES.load(name).settings, defaults(Selection)
    own = {it for it, default in defaults(settings).items() if usual.get(it, ...) != default}
    return [
        [f"`{name}`", *row] if n == 0 else ["", *row] for n, row in enumerate(_rows(settings, own))
    ]


def _rows(settings: type[Settings], names: set[str]) -> list[list[str]]:
    """Name, default, and what help says."""
    every, told = declared(settings), explained(settings)
    return [[f"`{it}`", every[it].shown_default, told[it]] for it in every if it in names]


def write(folder: Path) -> None:
    (folder / "cli.md").write_text(commands(), encoding="utf-8")
    (folder / "settings.md").write_text(settings(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
