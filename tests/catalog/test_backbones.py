"""Reading what a command was given for --backbones, and the catalogue's facts."""

import json

import pytest

from clipsyn import catalog
from clipsyn.catalog.backbones import BackboneCost, cost, resolve_backbones
from clipsyn.errors import UnknownName, UsageError
from clipsyn.names import Backbone

OPENAI = [
    "RN50", "RN101", "RN50x4", "RN50x16", "RN50x64",
    "ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336",
]  # fmt: skip


@pytest.fixture(autouse=True)
def zoo(tmp_path, monkeypatch):
    """A zoo of two: one with its cost beside its configuration, one without."""
    folder = tmp_path / "data" / "zoo"
    facts = {"image_params_m": 1.33, "text_params_m": 6.5, "image_gflops": 0.2, "text_gflops": 0.1}
    for name, more in (("tiny-RN", {"cost": facts}), ("tiny-ViT-8", {})):
        (folder / name).mkdir(parents=True)
        config = {"embed_dim": 128, "vision_cfg": {"image_size": 64}, "text_cfg": {}}
        text = json.dumps({"model_cfg": config, **more})
        (folder / name / "open_clip_config.json").write_text(text)
    (folder / "not-a-model").mkdir()
    monkeypatch.setattr(catalog, "data_dir", lambda: tmp_path / "data")
    return folder


def names(*texts):
    return [backbone.name for backbone in resolve_backbones(texts)]


def test_the_nine_of_openai():
    found = resolve_backbones(["openai"])
    assert [backbone.name for backbone in found] == [f"{name}/openai" for name in OPENAI]
    assert all(backbone.source == backbone.name for backbone in found)


def test_the_zoo_is_what_ships(zoo):
    assert resolve_backbones(["zoo"]) == [
        Backbone("tiny-RN/zoo", f"local-dir:{zoo}/tiny-RN"),
        Backbone("tiny-ViT-8/zoo", f"local-dir:{zoo}/tiny-ViT-8"),
    ]
    assert resolve_backbones(["tiny-RN/zoo"]) == resolve_backbones(["zoo"])[:1]
    mine = resolve_backbones(["mine=tiny-RN/zoo"])
    assert mine == [Backbone("mine", f"local-dir:{zoo}/tiny-RN")]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("ViT-B-32/openai,RN50/openai", ["ViT-B-32/openai", "RN50/openai"]),
        ("tiny-ViT-8/zoo, RN50/openai ,", ["tiny-ViT-8/zoo", "RN50/openai"]),
        ("RN50-quickgelu/openai,RN50/openai", ["RN50/openai"]),
        ("mine=RN50/cc12m", ["mine"]),
        ("hf-hub:org/repo,local-dir:some/where,RN50@a.pt", ["hf-hub:org/repo", "where", "RN50@a"]),
        ("tiny-RN/zoo,zoo,tiny-RN/zoo", ["tiny-RN/zoo", "tiny-ViT-8/zoo"]),
    ],
)
def test_comma_lists(text, want):
    assert names(text) == want


def test_one_name_for_two_sources_is_refused():
    with pytest.raises(UsageError, match=r"two backbones are called 'model' \(local-dir:a/model"):
        resolve_backbones(["local-dir:a/model,local-dir:b/model"])


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("ViT-B-32", "ViT-B-32/openai"),
        ("opnai", "openai"),
        ("zooo", "zoo"),
        ("tiny-RM/zoo", "tiny-RN/zoo"),
        ("opnai,zoo", "ARCHITECTURE/TAG"),
    ],
)
def test_unknown_names_offer_near_matches(text, near):
    with pytest.raises(UnknownName, match=f"unknown backbone .*{near}"):
        resolve_backbones([text])


@pytest.mark.parametrize("text", ["", " , ", "=RN50/openai", "x=", "RN50/", "/openai", "x=openai"])
def test_texts_that_are_no_backbone(text):
    with pytest.raises(UsageError):
        resolve_backbones([text])


def test_costs_of_the_nine_are_the_papers():
    # cumulative image GFLOPs and concatenated width of the nine
    facts = [cost(f"{name}/openai") for name in OPENAI]
    assert sum(f.image_gflops or 0 for f in facts if f) == pytest.approx(1340.72)
    assert sum(f.embed_dim for f in facts if f) == 6528


@pytest.mark.parametrize(
    "name", ["RN50", "RN50/openai", "RN50,openai", "RN50-quickgelu/openai", "RN50/cc12m"]
)
def test_other_weights_of_an_architecture_cost_the_same(name):
    assert cost(name) == BackboneCost(224, 1024, 38.32, 63.69, 12.22, 5.96)


def test_costs_of_the_zoo_and_of_strangers():
    assert cost("tiny-RN/zoo") == BackboneCost(64, 128, 1.33, 6.5, 0.2, 0.1)
    assert cost("tiny-ViT-8/zoo") == BackboneCost(64, 128)
    assert cost("ViT-H-14/laion2b_s32b_b79k") is None
    assert cost("hf-hub:org/repo") is None
