"""Pages are wrapped, their links work, and what they name exists.

Prose wraps at 120 characters. Links and anchors lead somewhere. Every file of the repository and
every ``clipsyn.module.name`` in backquotes is there.
"""

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WIDTH = 120
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")),
    *(ROOT / name for name in ("benchmarks/README.md", "pipelines/zoo/README.md")),
    ROOT / "pipelines" / "paper" / "README.md",
    *(it for it in sorted(ROOT.glob("docs/**/*.md")) if it.name not in ("cli.md", "settings.md")),
]
_BLOCK = re.compile(r"^ *```.*?^ *```$", re.M | re.S)
_FORMULA = re.compile(r"^\$\$.*?\$\$$", re.M | re.S)
_FOLDERS = "clipsyn|tests|docs|pipelines|benchmarks|data"
_PATH = re.compile(rf"(?<![\w./-])(?:(?:{_FOLDERS})/[\w.*/-]*[\w*/]|[\w-]+(?:/[\w-]+)*/\w+\.py)")
_NAME = re.compile(r"\bclipsyn(?:\.[A-Za-z_]\w*)+")


def each(pages):
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


each_page = each(PAGES)
# decisions.md tells of what was, files that are gone among it
each_page_of_today = each([page for page in PAGES if page.name != "decisions.md"])


def prose(text):
    """A page without code, formulas that stand alone, tables, comments, headings and pictures."""
    lines = _FORMULA.sub("", _BLOCK.sub("", text)).splitlines()
    return "\n".join(x for x in lines if not x.lstrip().startswith(("|", "<!--", "#", "![")))


def spans(text):
    """What stands between backquotes in the lines of a page."""
    return re.findall(r"`([^`\n]+)`", _BLOCK.sub("", text))


def paths(text):
    """Files and folders of the repository that a page names in backquotes."""
    for span in spans(text):
        yield from (match[0] for match in _PATH.finditer(span))


def is_there(path):
    return any(ROOT.glob(path.rstrip("/")))


def anchors(page):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def resolve(name):
    """The module, class or function of a dotted name; raises ImportError or AttributeError."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value: object = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            value = getattr(value, part)
        return value
    raise ModuleNotFoundError(name)


@each_page_of_today
def test_prose_is_wrapped(page):
    lines = prose(page.read_text("utf-8")).splitlines()
    assert [line for line in lines if len(line) > WIDTH] == []


@each_page
def test_links_lead_somewhere(page):
    text = _BLOCK.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


@each_page_of_today
def test_files_that_a_page_names_exist(page):
    assert [path for path in paths(page.read_text("utf-8")) if not is_there(path)] == []


def test_the_walks_through_the_code_name_files_that_exist():
    blocks = _BLOCK.findall((ROOT / "docs/dev/overview.md").read_text("utf-8"))
    named = [path for block in blocks for path in re.findall(r"[\w/]+/(?:\w+\.py)?", block)]
    assert len(named) > 30
    assert [path for path in named if not is_there(f"clipsyn/{path}")] == []


@each_page_of_today
def test_names_that_a_page_names_can_be_imported(page):
    ours = [name for span in spans(page.read_text("utf-8")) for name in _NAME.findall(span)]
    endings = ("json", "heads", "ensembles", "perturbations", "datasets")  # files, entry points
    for name in ours:
        if name not in {f"clipsyn.{ending}" for ending in endings}:
            resolve(name)


def test_what_is_wrong_is_noticed():
    page = "`clipsyn/nowhere.py`, `heads/gone.py`, `a/b`\n\n```\n`docs/x.md`\n```\n"
    assert [*paths(page)] == ["clipsyn/nowhere.py", "heads/gone.py"]
    assert is_there("tests/test_prose.py")
    assert is_there("pipelines/*.yaml")
    assert not is_there("clipsyn/nowhere.py")
    with pytest.raises(AttributeError):
        resolve("clipsyn.errors.Nothing")
