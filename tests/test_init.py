"""`import clipsyn`: instant, and every public name leads somewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import clipsyn
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.heads import HEADS

STUB = Path(clipsyn.__file__).with_suffix(".pyi")
HEAVY = {"numpy", "zarr", "polars", "scipy", "sklearn", "torch", "safetensors", "pydantic", "click"}


def imported(code: str) -> set[str]:
    """Top-level modules there are after `code`, in an interpreter of its own."""
    script = f"import sys; {code}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(clipsyn.__file__).parents[1],
    )
    return set(done.stdout.split())


def test_importing_clipsyn_imports_nothing() -> None:
    assert imported("import clipsyn; clipsyn.__version__; dir(clipsyn)") & HEAVY == set()


def test_a_name_imports_what_it_needs() -> None:
    found = imported("import clipsyn; clipsyn.NLC; clipsyn.load_router; clipsyn.FeatureStore")
    assert "numpy" in found
    assert found & {"zarr", "polars", "sklearn", "torch"} == set()


@pytest.mark.parametrize("name", clipsyn.__all__)
def test_every_public_name_leads_somewhere(name: str) -> None:
    thing = getattr(clipsyn, name)
    if name != "__version__":
        assert thing.__name__ == name
        assert thing.__doc__
    assert name in dir(clipsyn)


def stub() -> str:
    lines = [f"from {module} import {name} as {name}" for name, module in clipsyn._homes().items()]
    told = '"""What `clipsyn/__init__.py` imports on first use, for type checkers."""'
    return "\n".join([told, "", *sorted(lines), "", "__version__: str", ""])


def test_type_checkers_are_told_of_the_same_names_in_the_same_modules() -> None:
    """They read the stub, which `python tests/test_init.py` makes; what it lacks is unknown."""
    assert STUB.read_text("utf-8") == stub()
    assert STUB.with_name("py.typed").is_file()


def test_dir_lists_the_api_alone() -> None:
    assert dir(clipsyn) == sorted(clipsyn.__all__)


@pytest.mark.parametrize("registry", [ENSEMBLES, HEADS], ids=lambda registry: registry.kind)
def test_every_ensemble_and_head_is_public(registry) -> None:
    for name in registry:
        thing = registry.load(name)
        assert getattr(clipsyn, thing.__name__) is thing


def test_there_is_nothing_else() -> None:
    with pytest.raises(AttributeError, match="module 'clipsyn' has no attribute 'nlc'"):
        _ = clipsyn.nlc
    assert imported("from clipsyn import *") >= {"numpy"}


if __name__ == "__main__":
    STUB.write_text(stub(), "utf-8")
