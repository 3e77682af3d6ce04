"""`import clipsyn`: instant, and every public name leads somewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import clipsyn
from clipsyn.analyses import ANALYSES
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.heads import HEADS
from clipsyn.store.features import FeatureStore

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


LOG_AVG: dict[str, Any] = {"ensembles": ["log-avg"], "shots": [1], "seeds": 1}
OF_A_STORE: dict[str, Callable[[Any], object]] = {
    **{name: ANALYSES.load(name) for name in ANALYSES if name not in ("cascade", "selective")},
    "evaluate": lambda store: clipsyn.evaluate(store, **LOG_AVG),
    "fit_router": lambda store: clipsyn.fit_router(store, "toy", "log-avg"),
    "predict_store": lambda store: (
        clipsyn.predict_store(clipsyn.fit_router(store, "toy", "log-avg"), store, "toy").frame
    ),
    "plot": lambda store: clipsyn.plot("accuracy-matrix", store).get_title(),
    "write_report": lambda store: clipsyn.write_report(store, output="page.html").read_bytes(),
}


@pytest.mark.parametrize("name", OF_A_STORE)
def test_functions_of_a_store_take_its_path_too(
    name: str, tiny_store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    of_open, of_path = (OF_A_STORE[name](store) for store in (tiny_store, str(tiny_store.path)))
    if isinstance(of_open, pl.DataFrame) and isinstance(of_path, pl.DataFrame):
        columns = [column for column in ("dataset", "metric", "id") if column in of_open.columns]
        assert of_open.select(columns).equals(of_path.select(columns))
    else:
        assert repr(of_open) == repr(of_path)


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
