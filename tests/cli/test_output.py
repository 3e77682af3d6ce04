"""Every command speaks through `clipsyn.cli.output`, which lets no name steer the terminal."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clipsyn import cli
from clipsyn.cli.output import say, say_json, say_lines


def test_nobody_speaks_past_it() -> None:
    speaking = re.compile(r"click\.s?echo|click\.secho|sys\.std(out|err)\.write")
    files = Path(str(cli.__file__)).parent.glob("*.py")
    past = {file.name for file in files if speaking.search(file.read_text())}
    assert past == {"output.py", "sentences.py"}  # the latter colours its own "Error: "


def test_a_line_stays_one(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\nb\x1b[2J", bold=True)
    say_lines("a\nb\x1b[2J")
    say_json({"a": "\x9b\n"})
    lines = ["a\\u000ab\\u001b[2J", "a", "b\\u001b[2J", "{", '  "a": "\\u009b\\n"', "}"]
    assert capsys.readouterr().out.splitlines() == lines
