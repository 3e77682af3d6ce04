"""What an interpreter and a notebook show of a store, a pool, a router, tables and figures."""

from __future__ import annotations

import numpy as np

import clipsyn
from clipsyn import Pool
from clipsyn.router.fit import fit_router
from clipsyn.store.features import FeatureStore

EVIL = "<script>alert(1)</script>"


def test_a_store(tiny_store: FeatureStore):
    assert repr(tiny_store) == f"FeatureStore('{tiny_store.path}')"
    shown = tiny_store._repr_html_()
    assert "<td>toy</td><td>test</td><td>jpeg-3</td><td>2</td>" in shown
    assert shown.count("<tr>") == 5  # the head, two splits, two perturbations


def test_a_pool_is_shown_by_its_shape_and_not_its_numbers():
    logits = np.array([[[1, 0], [0, 1]], [[1, 0], [1, 0]]], np.float32)
    pool = Pool.of(logits, [0, 1], backbones=["one", EVIL], split="test")
    assert repr(pool) == "<Pool test · clean: 2 samples, 2 backbones, 2 classes>"
    shown = pool._repr_html_()
    assert "<td>one</td><td>50.0</td>" in shown
    assert "<td>&lt;script&gt;alert(1)&lt;/script&gt;</td><td>0.0</td>" in shown
    assert EVIL not in shown


def test_a_pool_without_labels_has_no_accuracy():
    pool = Pool.of(np.zeros((2, 1, 2)), backbones=["one"])
    assert "<td>one</td><td></td>" in pool._repr_html_()


def test_a_router(tiny_store: FeatureStore):
    router = fit_router(tiny_store, "toy", "log-avg")
    assert repr(router) == (
        "<FittedRouter log-avg: 2 backbones, 3 classes, fitted on 11 images of toy/train>"
    )
    assert "<td>fake/one</td>" in router._repr_html_()


def test_tables_and_figures(tiny_store: FeatureStore):
    settings = clipsyn.zeroshot.settings()
    tables = clipsyn.zeroshot.tables(clipsyn.zeroshot(tiny_store), settings)
    assert "| fake/one |" in tables._repr_markdown_()
    picture = clipsyn.plot("accuracy-matrix", tiny_store)._repr_png_()
    assert picture.startswith(b"\x89PNG")
