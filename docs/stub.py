"""`clipsyn/__init__.pyi`: what type checkers and completion know of ``import clipsyn``.

Functions of settings are written out with each setting, its type and default, as
`inspect.signature` shows them. After a change of settings or public names: ``python docs/stub.py``.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import clipsyn

STUB = Path(clipsyn.__file__).with_suffix(".pyi")
TOLD = '"""What `clipsyn/__init__.py` imports on first use: made by `python docs/stub.py`."""'
NEEDED = """\
from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Literal

import polars as pl
from matplotlib.axes import Axes  # noqa: TID253
from polars import DataFrame

from clipsyn.report.evidence import Source
from clipsyn.show.progress import Progress"""


def stub() -> str:
    """The text of the stub, before it is formatted."""
    things = {name: getattr(clipsyn, name) for name in clipsyn._homes()}
    functions = {name for name, it in things.items() if hasattr(it, "__signature__")}
    homes = clipsyn._homes().items()
    names = [
        f"from {home} import {name} as {name}" for name, home in homes if name not in functions
    ]
    written = [_function(name, things[name]) for name in sorted(functions)]
    return "\n".join([TOLD, NEEDED, *sorted(names), "__version__: str", *written])


def _function(name: str, function: Any) -> str:
    told = signature(function)
    return f"def {name}({', '.join(_parameters(told))}) -> {told.return_annotation}: ..."


def _parameters(told: Any) -> Iterator[str]:
    by_name = False
    for it in told.parameters.values():
        if it.kind is it.KEYWORD_ONLY and not by_name:
            by_name = True
            yield "*"
        default = "" if it.default is it.empty else f" = {it.default!r}"
        yield f"{it.name}: {it.annotation}{default}"


if __name__ == "__main__":
    STUB.write_text(stub(), "utf-8")
    for command in (["check", "--fix", "--select=I"], ["format"]):
        subprocess.run(["ruff", *command, STUB], check=True)
