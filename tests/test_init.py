"""`import clipsyn`: instant, every public name leads somewhere, and shows itself."""

import ast
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import polars as pl
import pytest

import clipsyn
from clipsyn import Pool
from clipsyn.analyses import ANALYSES
from clipsyn.images import SplitSettings
from clipsyn.methods.ensembles import ENSEMBLES
from clipsyn.methods.heads import HEADS
from clipsyn.router.fit import fit_router
from clipsyn.settings import signature_of

# `import clipsyn`: instant, and every public name leads somewhere


STUB = Path(clipsyn.__file__).with_suffix(".pyi")
HEAVY = {"numpy", "zarr", "polars", "scipy", "sklearn", "torch", "safetensors", "pydantic", "click"}


def imported(code):
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


def test_importing_clipsyn_imports_nothing():
    assert imported("import clipsyn; clipsyn.__version__; dir(clipsyn)") & HEAVY == set()


def test_a_name_imports_what_it_needs():
    found = imported("import clipsyn; clipsyn.NLC; clipsyn.load_router; clipsyn.FeatureStore")
    assert "numpy" in found
    assert found & {"zarr", "polars", "sklearn", "torch"} == set()


@pytest.mark.parametrize("name", clipsyn.__all__)
def test_every_public_name_leads_somewhere(name):
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
    "search": lambda store: clipsyn.search(store, like="im003.png", split="test"),
    "write_report": lambda store: clipsyn.write_report(store, output="page.html").read_bytes(),
}


@pytest.mark.parametrize("name", OF_A_STORE)
def test_functions_of_a_store_take_its_path_too(name, captioned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of_open, of_path = (OF_A_STORE[name](store) for store in (captioned, str(captioned.path)))
    if isinstance(of_open, pl.DataFrame) and isinstance(of_path, pl.DataFrame):
        columns = [column for column in ("dataset", "metric", "id") if column in of_open.columns]
        assert of_open.select(columns).equals(of_path.select(columns))
    else:
        assert repr(of_open) == repr(of_path)


def statements(text):
    body = ast.parse(text).body
    imports = [it for it in body if isinstance(it, ast.ImportFrom)]
    names = {(it.module or "", name.name, name.asname or "") for it in imports for name in it.names}
    return {ast.unparse(it) for it in body if it not in imports} | {*map(str, names)}


def test_type_checkers_know_the_same_names_and_settings():
    """They read the stub, which `python docs/stub.py` makes; what it lacks is unknown."""
    made = run_path(str(Path(__file__).parents[1] / "docs" / "stub.py"))["stub"]()
    assert statements(STUB.read_text("utf-8")) == statements(made)
    assert STUB.with_name("py.typed").is_file()


def test_functions_tell_of_their_settings():
    told = inspect.signature(clipsyn.cascade).parameters
    assert told["tier"].default == 3
    assert told["tier"].annotation == "int"
    of_split = signature_of(lambda **_: None, SplitSettings).parameters
    assert of_split["copies"].annotation == "Literal['drop', 'keep']"
    assert (
        inspect.signature(clipsyn.write_report).parameters["output"].default
        is inspect.Parameter.empty
    )
    functions = [getattr(clipsyn, name) for name in clipsyn.__all__ if name != "__version__"]
    taking = [it for it in functions if hasattr(it, "__signature__")]
    assert len(taking) == len(ANALYSES) + 7
    for it in taking:
        keywords = inspect.signature(it).parameters.values()
        settings = [one.name for one in keywords if one.kind is one.KEYWORD_ONLY]
        assert all(f"`{one}`" in it.__doc__ for one in {*settings} - {"progress"})


@pytest.mark.parametrize("registry", [ENSEMBLES, HEADS], ids=lambda registry: registry.kind)
def test_every_ensemble_and_head_is_public(registry):
    for name in registry:
        thing = registry.load(name)
        assert getattr(clipsyn, thing.__name__) is thing


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'clipsyn' has no attribute 'nlc'"):
        _ = clipsyn.nlc
    assert imported("from clipsyn import *") >= {"numpy"}


# What an interpreter and a notebook show of a store, a pool, a router, tables and figures


def test_the_repr_of_a_store_is_its_path(tiny_store):
    assert repr(tiny_store) == f"FeatureStore('{tiny_store.path}')"


def test_a_pool_is_shown_by_its_shape_and_not_its_numbers():
    logits = np.array([[[1, 0], [0, 1]], [[1, 0], [1, 0]]], np.float32)
    pool = Pool.of(logits, [0, 1], backbones=["one", "two"], split="test")
    assert repr(pool) == "<Pool test · clean: 2 samples, 2 backbones, 2 classes>"


def test_the_repr_of_a_router_says_what_it_was_fitted_on(tiny_store):
    router = fit_router(tiny_store, "toy", "log-avg")
    assert repr(router) == (
        "<FittedRouter log-avg: 2 backbones, 3 classes, fitted on 11 images of toy/train>"
    )


def test_tables_and_figures_show_themselves_in_notebooks(tiny_store):
    settings = clipsyn.zeroshot.settings()
    tables = clipsyn.zeroshot.tables(clipsyn.zeroshot(tiny_store), settings)
    assert "| fake/one |" in tables._repr_markdown_()
    picture = clipsyn.plot("accuracy-matrix", tiny_store)._repr_png_()
    assert picture.startswith(b"\x89PNG")
