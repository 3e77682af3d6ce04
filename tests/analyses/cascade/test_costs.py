"""What a backbone costs: what is given, recorded or published."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clipsyn.analyses.cascade.costs import Spent, read_costs, spent
from clipsyn.errors import UsageError


@pytest.fixture
def recorded(tiny_store, fakes):
    """Function (provenance) -> what the fake backbone of a cell with that provenance costs."""

    def cost(provenance: object, given: dict[str, float] | None = None) -> Spent:
        path = tiny_store.features_path(fakes.key)
        fakes.rewrite(path, provenance=provenance)
        return spent(tiny_store, fakes.key, given or {})

    return cost


def test_what_was_recorded(recorded):
    encoder = {"gflops": 3.5, "image_parameters": 2_500_000}
    found = recorded({"encoder": encoder, "encode_seconds": 0.5, "peak_memory_mb": 40.0})
    assert found == Spent(3.5, 2.5, 25.0, 40.0, None)  # 20 images
    assert recorded({"encoder": encoder, "process_memory_mb": 800.0}) == Spent(
        3.5, 2.5, None, None, 800.0
    )


def test_what_is_given_comes_first(recorded):
    assert recorded({"encoder": {"gflops": 3.5}}, {"fake/one": 0.0}).gflops == 0
    assert recorded({}, {"fake/one": 7.0, "other": 1.0}).gflops == 7


@pytest.mark.parametrize("provenance", [None, {}, {"encoder": {"gflops": None}}])
def test_an_unknown_cost_is_said_with_what_helps(recorded, provenance):
    with pytest.raises(UsageError, match=r"fake/one is not known.* costs=…, as fake/one=GFLOPS"):
        recorded(provenance)


def test_an_older_store_of_known_backbones_has_the_catalogues_costs(fakes, tmp_path):
    key = replace(fakes.key, backbone="ViT-B-32/openai")
    encoder = fakes.Encoder(key.backbone)
    encoder.provenance.pop("gflops")
    store = fakes.fill(tmp_path, [encoder])
    found = spent(store, key, {})
    assert (found.gflops, found.image_params_m) == (8.82, 87.85)
    assert found.encode_ms is not None


def test_a_store_made_now_has_all_of_it(tiny_store, fakes):
    found = spent(tiny_store, fakes.key, {})
    assert found.gflops == 0.5
    assert found.encode_ms is not None
    assert found.process_memory_mb is not None
    assert found.peak_memory_mb is None


def test_costs_are_read():
    assert read_costs(["a/b=1.5", "local=dir/x=0"]) == {"a/b": 1.5, "local=dir/x": 0.0}
    assert read_costs([]) == {}


@pytest.mark.parametrize("text", ["a", "a=", "=3", "a=x", "a=-1", "a=nan", "a=inf", ""])
def test_what_is_no_cost(text):
    with pytest.raises(UsageError, match=r"--cost .*: write NAME=GFLOPS, such as"):
        read_costs([text])
