"""Messages of the library name its arguments; only the command line shows flags."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import clipsyn

ROOT = Path(clipsyn.__file__).parent
CALLED = (
    *("store", "analyses", "evaluation", "router", "methods", "images"),
    *("stats", "extract", "exchange", "catalog"),
)
HELP = {  # what commands say
    *(ROOT / "analyses").glob("*/__init__.py"),
    *(ROOT / "analyses").glob("*/tables.py"),
    ROOT / "analyses/__init__.py",
    ROOT / "evaluation/settings.py",
    ROOT / "evaluation/selection.py",
    ROOT / "extract/settings.py",
    ROOT / "images/settings.py",
    ROOT / "exchange/importing/settings.py",
    ROOT / "router/settings.py",
}
FILES = sorted({file for name in CALLED for file in (ROOT / name).rglob("*.py")} - HELP)


def texts(tree: ast.AST) -> list[str]:
    """Every text of a file, f-strings whole, with … for what is put into them."""
    inside = {
        id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
        for part in node.values
    }  # fmt: skip
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (it.value if isinstance(it, ast.Constant) else "…" for it in node.values)
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += [] if id(node) in inside else [node.value]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_flag_stands_in_a_command_line_alone(file: Path) -> None:
    for text in texts(ast.parse(file.read_text("utf-8"))):
        if text.startswith(("clipsyn ", " --")) or " " not in text:  # parts of a command line
            continue
        flags = set(
            re.findall(r"--[a-z][a-z-]*", re.sub(r"`[^`]*`|pip install --upgrade", "", text))
        )
        assert not flags, text


def test_what_is_read_has_flags() -> None:
    """Or the test above would look in the wrong place."""
    lines = texts(ast.parse((ROOT / "store/features.py").read_text("utf-8")))
    assert any("--dataset" in line for line in lines)
