"""The documentation as a site: ``sphinx-build -W -b html -c docs . runs/site`` in the repository.

The pages are the files that GitHub shows, in their folders, so links between them work in both
places. Three are for the site alone: `api.rst`, and `cli.md` and `settings.md`, which
`reference.py` makes.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import clipsyn

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

CONTENTS = {  # parts of the menu; every page is in one of them
    "Start": ["docs/getting-started", "docs/faq", "docs/README"],
    "Tutorials": [
        "docs/tutorial-photos",
        "docs/tutorial-tables",
        "docs/tutorial-paper",
        "docs/lab",
    ],
    "Make a store": [
        "docs/extracting",
        "docs/cluster",
        "docs/datasets",
        "docs/importing",
        "docs/exporting",
        "docs/store",
        "docs/provenance",
    ],
    "Analyse": [
        "docs/analysis",
        "docs/tables",
        "docs/report",
        "docs/retrieval",
        "docs/evaluating",
        "docs/methods",
        "docs/router",
    ],
    "Use": ["docs/fitting", "docs/recipes"],
    "Reproduce the paper": ["docs/reproducing", "pipelines/paper/README"],
    "Results": [
        "docs/results",
        "docs/rivals",
        "docs/real",
        "docs/notebooks/zoo",
        "docs/notebooks/real",
        "data/README",
        "benchmarks/README",
    ],
    "Reference": ["docs/cli", "docs/settings", "docs/python", "docs/api"],
    "Develop": [
        "docs/dev/overview",
        "docs/dev/extending",
        "CONTRIBUTING",
        "SECURITY",
        "docs/dev/decisions",
        "pipelines/zoo/README",
        "CHANGELOG",
    ],
}

_MATHML = {  # what latex2mathml writes, and what browsers draw as it is meant
    '<mn mathvariant="double-struck">1</mn>': "<mn>\U0001d7d9</mn>",
    "<mo>&#x02016;</mo>": '<mo stretchy="false">&#x02016;</mo>',
    "<mo>&#x0007C;</mo>": '<mo stretchy="false">&#x0007C;</mo>',
}

project = "clipsyn"
version = release = clipsyn.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc"]
root_doc = "README"
include_patterns = [
    *(f"{page}.*" for pages in CONTENTS.values() for page in pages),
    f"{root_doc}.md",
]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # notebooks are executed when they are written: tests/test_notebooks.py

default_role = "code"  # `names` in docstrings
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"clipsyn {release}"
html_static_path = ["site/static"]
html_css_files = ["clipsyn.css"]
html_extra_path = ["site/index.html"]
html_copy_source = False
html_show_copyright = html_show_sphinx = False
html_math_renderer = "mathml"


SETTINGS = "Settings, with their defaults:"  # of `clipsyn.settings.help_of`


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", _write_reference)
    app.connect("source-read", _add_contents)
    app.connect("autodoc-process-docstring", _keep_formulas)
    app.connect("autodoc-process-docstring", _keep_stars)
    app.add_html_math_renderer("mathml", (_inline, None), (_alone, None))


def _keep_stars(*about: Any) -> None:
    """Patterns of names in the settings of a function, such as 'emoji-*', are no emphasis."""
    lines = about[-1]
    if SETTINGS in lines:
        first = lines.index(SETTINGS)
        lines[first:] = [line.replace("*", r"\*") for line in lines[first:]]


def _write_reference(_app: Sphinx) -> None:
    """The pages that are made from the code: `docs/cli.md` and `docs/settings.md`."""
    folder = Path(__file__).parent
    runpy.run_path(str(folder / "reference.py"))["write"](folder)


def _add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """The first page gets the menu, which GitHub does not need."""
    if page == app.config.root_doc:
        for caption, pages in CONTENTS.items():
            names = "\n".join(f"/{name}" for name in pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{names}\n```\n"


def _keep_formulas(_app: Sphinx, *where: object) -> None:
    """What is indented in a docstring is shown as it stands."""
    lines = where[-1]
    assert isinstance(lines, list)
    for at in range(len(lines) - 1, 0, -1):
        above = next((line for line in reversed(lines[:at]) if line), "")
        starts = lines[at].startswith("    ") and not lines[at - 1] and not above.startswith(" ")
        if starts and not above.startswith(("- ", "..", ":")):
            lines[at:at] = ["::", ""]


def _inline(translator: HTML5Translator, node: nodes.math) -> None:
    _append(translator, node, "inline")


def _alone(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append('<div class="formula">')
    _append(translator, node, "block")
    translator.body.append("</div>\n")


def _append(translator: HTML5Translator, node: nodes.math | nodes.math_block, display: str) -> None:
    """A formula as MathML, which browsers draw without a script or a network."""
    from docutils.nodes import SkipNode
    from latex2mathml.converter import convert

    text = re.sub(r"\\log(?![a-z])", r"\\log\\,", node.astext())
    if display == "block":
        text = re.sub(r"(\\arg)?\\(max|min)_(\w|{[^{}]*})", _limited, text)
    drawn = convert(text.replace(r"\arg\max", r"\mathrm{arg\,max}\,"), display=display)
    for written, known in _MATHML.items():
        drawn = drawn.replace(written, known)
    translator.body.append(drawn)
    raise SkipNode


def _limited(found: re.Match[str]) -> str:
    """An operator with its limits below it, as formulas that stand alone have it."""
    name = found[2] if found[1] is None else rf"arg\,{found[2]}"
    return rf"\underset{{{found[3].strip('{}')}}}{{\mathrm{{{name}}}}}\,"
