"""The command `clipsyn`: help, version, how errors look, and which names they have for things."""

import errno
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from clipsyn.analyses.cascade import cascade
from clipsyn.cli import main
from clipsyn.cli.output import with_flags
from clipsyn.errors import UsageError

# The command `clipsyn`: help, version, how errors look


def test_help_names_every_command(clipsyn):
    result = clipsyn("--help")
    assert result.exit_code == 0
    assert all(result.stdout.count(f"\n  {name} ") == 1 for name in main.commands)
    assert clipsyn("-h").stdout == clipsyn().stdout == result.stdout
    assert clipsyn().exit_code == 0


@pytest.mark.parametrize(("value", "colour"), [("", True), ("1", False)])
def test_no_colour_where_none_is_wanted(monkeypatch, tiny_store, value, colour):
    """https://no-color.org: if it is set, and not empty."""
    monkeypatch.setenv("NO_COLOR", value)
    result = CliRunner().invoke(main, ["ls", f"{tiny_store.path}-absent"], color=True)
    assert result.exit_code == 4
    assert ("\x1b[" in result.stderr) == colour


def test_log_lines_come_once_and_only_while_a_command_runs(clipsyn, capsys, monkeypatch):
    import logging

    logger = logging.getLogger("clipsyn")

    @click.command()
    def speak():
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


def test_a_reader_that_stops_reading_is_no_error(tiny_store):
    command = f"{sys.executable} -m clipsyn ls {tiny_store.path} -o - | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[\n", "")


@pytest.mark.parametrize(("options", "is_shown"), [(["-v"], True), ([], False), (["-q"], False)])
def test_only_verbose_says_what_is_read(clipsyn, tiny_store, options, is_shown):
    command = ["evaluate", tiny_store.path, "--ensembles", "c-log-avg", "--shots", "9,full"]
    said = clipsyn(*options, *command, "--seeds", 1).stderr
    assert ("read 11 samples of toy/train" in said) == is_shown


# The library names its arguments; the command line, its own flags


FLAGS = {"perturbations": "--perturb", "shots": "--shots", "replace": "--replace", "seed": "--seed"}


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("choose with perturbations=….", "choose with --perturb."),
        ("give other=…, backbones=…", "give other=…, backbones=…"),
        ("run `clipsyn x shots=3`, or shots=…", "run `clipsyn x shots=3`, or --shots"),
        ("unknown dataset 'seed=3'", "unknown dataset 'seed=3'"),
        ("jpeg:3:seed=1 and nlc:seed=2", "jpeg:3:seed=1 and nlc:seed=2"),
    ],
)
def test_arguments_become_flags(message, shown):
    assert with_flags(message, FLAGS) == shown


def test_each_caller_reads_the_name_that_it_used(fails, tiny_store):
    path = tiny_store.path
    with pytest.raises(UsageError, match=r"choose another support=…, or"):
        cascade(tiny_store, splits=["train"])
    error = fails(2, "cascade", path, "--split", "train")
    assert "choose another --support, or" in error


# An error of the operating system is shown as one sentence


EVIL = "evil\x1b[2J\nname\u202e"
SHOWN = "evil\\u001b[2J\\u000aname\\u202e"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' /dev/full")
@pytest.mark.parametrize("command", ["ls {} -o -", "--help"])
def test_a_full_disk(tiny_store, command):
    line = f"{sys.executable} -m clipsyn {command.format(tiny_store.path)} > /dev/full"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("Error: ") == len(done.stderr.splitlines()) == 1
    assert "No space left on device; make room" in done.stderr


REFUSED: list[tuple[BaseException, str]] = [
    (MemoryError(), "not enough memory"),
    (ImportError("x.so: failed to map segment from shared object"), "not enough memory"),
    (RuntimeError("can't start new thread"), "not enough memory"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory"),
    (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: Permission denied; give"),
    (OSError(errno.ENOSPC, "No space left", "a", None, "b"), "a and b: No space left; make room"),
    (UnicodeEncodeError("ascii", "aé", 1, 2, "ordinal"), "'é' cannot be written as ascii: take"),
    (ValueError("embedded null byte"), "no path can have"),
    (OSError(errno.EMFILE, "Too many open files"), "refused: Too many open files; allow more"),
]


@pytest.mark.parametrize(("error", "words"), REFUSED, ids=repr)
def test_what_the_machine_refuses(fails, tiny_store, monkeypatch, error, words):
    def refuse(*_):
        raise error

    monkeypatch.setattr("clipsyn.store.inventory.cell_rows", refuse)
    assert words in fails(1, "ls", tiny_store.path)


def test_log_lines_and_errors_are_printable(clipsyn, fails, tiny_store):
    assert SHOWN in fails(2, "zeroshot", tiny_store.path, "-d", EVIL)
    for mistake in (fails(2, "ls", f"--{EVIL}"), fails(2, f"--{EVIL}"), fails(2, EVIL)):
        assert "evil" in mistake
        assert mistake.isprintable()
    assert SHOWN in fails(4, "ls", EVIL)
