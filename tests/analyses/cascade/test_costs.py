"""What a backbone costs: what is given, recorded or published."""

from dataclasses import replace

import pytest

from clipsyn.analyses.cascade.measure import CellCost, cell_cost
from clipsyn.errors import UsageError


@pytest.fixture
def recorded(tiny_store, fakes):
    """Function (provenance) -> what the fake backbone of a cell with that provenance costs."""

    def cost(provenance, given=None):
        path = tiny_store.at("features", *fakes.key.names)
        fakes.rewrite(path, provenance=provenance)
        return cell_cost(tiny_store, fakes.key, given or {})

    return cost


def test_what_was_recorded(recorded):
    encoder = {"gflops": 3.5, "image_parameters": 2_500_000}
    cost = recorded({"encoder": encoder, "encode_seconds": 0.5})
    assert cost == CellCost(3.5, 2.5, 25.0)  # 20 images
    assert recorded({"encoder": encoder}) == CellCost(3.5, 2.5, None)


@pytest.mark.parametrize("provenance", [None, {}, {"encoder": {"gflops": None}}])
def test_an_unknown_cost_is_said_with_what_helps(recorded, provenance):
    with pytest.raises(UsageError, match=r"fake/one is not known.* costs=…, NAME=GFLOPS"):
        recorded(provenance)


def test_an_older_store_of_known_backbones_has_the_catalogues_costs(fakes, tmp_path):
    key = replace(fakes.key, backbone="ViT-B-32/openai")
    encoder = fakes.Encoder(key.backbone)
    encoder.provenance.pop("gflops")
    store = fakes.fill(tmp_path, [encoder])
    cost = cell_cost(store, key, {})
    assert (cost.gflops, cost.image_params_m) == (8.82, 87.85)
    assert cost.encode_ms is not None
