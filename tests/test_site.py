"""The site of the documentation holds every page and every public name; `.ci/run` builds it."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

import clipsyn
from clipsyn import errors

ROOT = Path(__file__).parents[1]
CONF = runpy.run_path(str(ROOT / "docs" / "conf.py"))
PAGES = [page for pages in CONF["CONTENTS"].values() for page in pages]
API = (ROOT / "docs" / "api.rst").read_text("utf-8")


def documented(kind):
    return re.findall(rf"^\.\. auto{kind}:: clipsyn\.([\w.]+)$", API, re.M)


def test_every_page_is_in_the_menu_once():
    files = {
        str(path.relative_to(ROOT).with_suffix(""))
        for pattern in ("docs/**/*.md", "docs/**/*.rst", "docs/**/*.ipynb", "*/README.md", "*.md")
        for path in ROOT.glob(pattern)
        if not path.relative_to(ROOT).parts[0].startswith((".", "runs"))
    }
    assert len(PAGES) == len(set(PAGES))
    made = {"docs/cli", "docs/settings"}  # when the site is built
    assert files - {*PAGES} == {CONF["root_doc"]}
    assert {page for page in PAGES if not any(ROOT.glob(f"{page}.*"))} <= made <= {*PAGES}


def test_every_public_name_is_documented_once():
    names = [name for name in documented("(?:class|function)") if "." not in name]
    assert sorted(names) == sorted({*clipsyn.__all__} - {"__version__"})


def test_every_error_is_documented_once():
    ours = [name for name, it in vars(errors).items() if isinstance(it, type)]
    assert sorted(documented("exception")) == sorted(f"errors.{name}" for name in ours)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            ["Text.", "", "    x = 1", "", "More."],
            ["Text.", "", "::", "", "    x = 1", "", "More."],
        ),
        (["- item", "", "    its text"], ["- item", "", "    its text"]),
        (
            ["A", "", "    one", "", "    two", "", "B", "", "    three"],
            ["A", "", "::", "", "    one", "", "    two", "", "B", "", "::", "", "    three"],
        ),
    ],
)
def test_formulas_in_docstrings_are_shown_as_they_stand(before, after):
    lines: list[Any] = [*before]
    CONF["_keep_formulas"](None, "class", "clipsyn.NLC", None, None, lines)
    assert lines == after
