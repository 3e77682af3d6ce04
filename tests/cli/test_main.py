"""The command `clipsyn`: help, version, how errors look."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from typing import Any

import click
import pytest
from click.testing import CliRunner

from clipsyn import __version__
from clipsyn.cli import main
from clipsyn.errors import ClipsynError
from clipsyn.store.features import FeatureStore


def test_help_names_every_command(clipsyn: Any) -> None:
    result = clipsyn("--help")
    assert result.exit_code == 0
    assert all(result.stdout.count(f"\n  {name} ") == 1 for name in main.commands)
    assert clipsyn("-h").stdout == clipsyn().stdout == result.stdout
    assert clipsyn().exit_code == 0


def test_the_help_has_five_sections_with_the_main_commands_in_their_order(clipsyn: Any) -> None:
    said = clipsyn("--help").stdout
    order = ["Make a store:", "extract", "Look:", "ls", "Measure:", "zeroshot", "oracle"]
    order += ["evaluate", "Combine:", "fit", "predict", "Show and share:", "report"]
    lines = [line.split("  ")[0] or line.split()[0] for line in said.splitlines() if line]
    places = [lines.index(name) for name in order]
    assert places == sorted(places)
    assert all(last - first == 1 for first, last in pairwise(places) if lines[first][-1] == ":")


def test_version(terminal: Any) -> None:
    assert terminal("--version").stdout == f"clipsyn, version {__version__}\n"


def test_an_unknown_command_has_near_matches(fails: Any) -> None:
    assert "Did you mean 'extract'?" in fails(2, "extractt")


def test_notes_on_an_error_are_part_of_its_line(fails, tiny_store, monkeypatch):
    def refuse(*_: object) -> None:
        error = ClipsynError("this is wrong:")
        error.add_note("do that instead")
        raise error

    monkeypatch.setattr("clipsyn.store.inventory.cell_rows", refuse)
    assert fails(1, "ls", tiny_store.path) == "this is wrong: do that instead"


@pytest.mark.parametrize(("value", "colour"), [("", True), ("1", False)])
def test_no_colour_where_none_is_wanted(monkeypatch, tiny_store, value, colour):
    """https://no-color.org: if it is set, and not empty."""
    monkeypatch.setenv("NO_COLOR", value)
    result = CliRunner().invoke(main, ["ls", f"{tiny_store.path}-absent"], color=True)
    assert result.exit_code == 4
    assert ("\x1b[" in result.stderr) == colour


def test_our_own_mistakes_keep_their_traceback(clipsyn, tiny_store, monkeypatch):
    def err(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'polar'", name="polar")

    monkeypatch.setattr("clipsyn.store.inventory.cell_rows", err)
    with pytest.raises(ModuleNotFoundError, match="polar"):
        clipsyn("ls", tiny_store.path)


def test_log_lines_come_once_and_only_while_a_command_runs(clipsyn, capsys, monkeypatch):
    import logging

    logger = logging.getLogger("clipsyn")

    @click.command()
    def speak() -> None:
        logging.getLogger().addHandler(shouting)
        logger.info("once")

    shouting = logging.StreamHandler()
    monkeypatch.setitem(main.commands, "speak", speak)
    try:
        for _ in range(2):  # the second time must not find the first one's stream
            assert clipsyn("speak").stderr == "once\n"
        assert clipsyn("-q", "speak").stderr == ""
    finally:
        logging.getLogger().removeHandler(shouting)
    assert logger.handlers == []
    assert logger.propagate


def test_a_reader_that_stops_reading_is_no_error(tiny_store: FeatureStore) -> None:
    command = f"{sys.executable} -m clipsyn ls {tiny_store.path} -o - | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[\n", "")


@pytest.mark.parametrize(
    ("options", "shown", "hidden"),
    [
        (["-v"], ["read 11 samples of toy/train", "note: "], []),
        ([], ["note: "], ["read 11"]),
        (["-q"], [], ["note: ", "read 11"]),
    ],
)
def test_how_much_is_said(clipsyn, tiny_store, options, shown, hidden):
    command = ["evaluate", tiny_store.path, "--ensembles", "c-log-avg", "--shots", "9,full"]
    said = clipsyn(*options, *command, "--seeds", 1).stderr
    assert all(text in said for text in shown), said
    assert not any(text in said for text in hidden), said


def test_one_level_at_a_time(clipsyn):
    assert "one of -q and -v" in clipsyn("-q", "-v", "catalog", "datasets").stderr
