"""Finding models by every form of source, and one clear sentence when it cannot be done."""

import json
import logging
import shutil
import socket
from pathlib import Path

import open_clip
import open_clip.pretrained
import pytest
from open_clip.factory import _find_checkpoint_in_dir

from clipsyn.errors import CheckpointError, UnknownName
from clipsyn.extract.weights import locate, quiet_open_clip
from clipsyn.names import Backbone
from tests.extract.conftest import load


@pytest.fixture
def tags(monkeypatch, saved):
    """open_clip's table of pretrained weights, with local files for a test architecture."""
    file = {"file": str(saved("clipsyn-vit").pt), "mean": (0.5, 0.5, 0.5)}
    plain = {
        "plain": file,
        "quick": {**file, "quick_gelu": True},
        "openai": {**file, "quick_gelu": True},
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "clipsyn-vit", plain)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "clipsyn-vit-quickgelu", plain)


@pytest.mark.usefixtures("tags")
def test_a_tag_is_named_in_the_identity_and_decides_the_preprocessing():
    identity = load("clipsyn-vit/plain").identity
    assert (identity["architecture"], identity["pretrained"]) == ("clipsyn-vit", "plain")
    assert identity["preprocess"]["mean"] == [0.5, 0.5, 0.5]
    assert identity["model"]["quick_gelu"] is False


@pytest.mark.usefixtures("tags")
def test_a_quickgelu_mismatch_is_an_error_both_ways():
    with pytest.raises(CheckpointError, match=r"with QuickGELU.*use clipsyn-vit-quickgelu/quick"):
        load("clipsyn-vit/quick")
    with pytest.raises(CheckpointError, match=r"without QuickGELU.*use clipsyn-vit/plain"):
        load("clipsyn-vit-quickgelu/plain")
    assert load("clipsyn-vit-quickgelu/quick").identity["model"]["quick_gelu"] is True


def test_every_mismatch_that_open_clip_would_warn_of_is_found():
    """Against open_clip's whole table, without loading anything."""
    refused = 0
    for architecture, tag in open_clip.list_pretrained():
        trained = open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu", False)
        built = open_clip.get_model_config(architecture).get("quick_gelu", False)
        if trained != built and tag != "openai":
            refused += 1
            with pytest.raises(CheckpointError, match="QuickGELU"):
                locate(Backbone.parse(f"{architecture}/{tag}"))
    assert refused > 10


@pytest.mark.usefixtures("tags")
def test_openai_weights_get_quickgelu_whatever_the_architecture_is_called(saved):
    encoder = load("clipsyn-vit/openai")
    assert encoder.identity["model"]["quick_gelu"] is True
    assert encoder.identity == load("clipsyn-vit-quickgelu/openai").identity
    texts = ["a photo of a cat."]
    quick = load(f"clipsyn-vit-quickgelu@{saved('clipsyn-vit').pt}").encode_text(texts)
    plain = load(saved("clipsyn-vit").by_file).encode_text(texts)
    assert (encoder.encode_text(texts) == quick).all()
    assert (encoder.encode_text(texts) != plain).any()


def test_unknown_architecture_and_tag_offer_near_matches():
    with pytest.raises(UnknownName, match=r"unknown architecture 'ViT-B-23'.*ViT-B-32"):
        load("ViT-B-23/openai")
    with pytest.raises(UnknownName, match=r"unknown architecture 'VitB32'"):
        load("VitB32@weights.pt")
    with pytest.raises(UnknownName, match=r"tag of ViT-B-32 'opena'.*did you mean openai"):
        load("ViT-B-32/opena")


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache, and no name that can be looked up: the names that were asked for.

    Two at most: the hub's client looks up something of its own, once a process.
    """
    asked: list[str] = []

    def getaddrinfo(host, *_, **__):
        asked.append(host)
        if len(asked) > 2:
            pytest.fail(f"asked again for {host}")
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return asked


@pytest.mark.parametrize(
    ("source", "repository"), [("RN50/openai", "timm/resnet50_clip.openai"), ("hf-hub:a/b", "a/b")]
)
def test_without_a_network_the_hub_is_asked_once(no_network, source, repository):
    with pytest.raises(CheckpointError, match=f"weights of {source} .*hf download {repository}`"):
        locate(Backbone.parse(source))
    assert no_network


def found(source):
    """The weights and the embedding width, as far as they are known without a download."""
    there = locate(Backbone.parse(source), download=False)
    return there.checkpoint, there.config.get("embed_dim")


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_weights_are_looked_for_without_a_network(monkeypatch, no_network, tmp_path, saved, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    url = {"url": "https://example.org/weights.pt"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED["ViT-B-32"], "elsewhere", url)
    assert found("ViT-B-32/elsewhere") == found("ViT-B-32/openai") == (None, 512)
    weights = tmp_path / ".cache" / "clip" / "weights.pt"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert found("ViT-B-32/elsewhere") == (weights, 512)
    assert found("hf-hub:a/b") == (None, None)
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0123")
    config = saved("clipsyn-vit").folder / "open_clip_config.json"
    shutil.copy(config, snapshot)
    width = json.loads(config.read_text())["model_cfg"]["embed_dim"]
    assert found("hf-hub:a/b") == (None, width)
    (snapshot / name).touch()
    assert found("hf-hub:a/b") == (snapshot / name, width)
    assert locate(Backbone.parse("hf-hub:a/b")).checkpoint == snapshot / name
    assert not no_network


def test_a_hub_repository_loads_like_the_folder_it_is(monkeypatch, saved):
    folder = saved("clipsyn-vit").folder

    def downloaded(repo_id, filename, **_):
        assert repo_id == "lab/tiny"
        names = {"open_clip_config.json": "open_clip_config.json"}
        return str(folder / names.get(filename, "open_clip_model.safetensors"))

    monkeypatch.setattr(open_clip.pretrained, "hf_hub_download", downloaded)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    encoder = load("hf-hub:lab/tiny")
    assert encoder.backbone.name == "hf-hub:lab/tiny"
    assert encoder.identity == load(saved("clipsyn-vit").by_folder).identity


def test_folders_that_are_no_checkpoint(saved, tmp_path):
    with pytest.raises(CheckpointError, match="there is no folder"):
        load(f"local-dir:{tmp_path / 'gone'}")
    folder = tmp_path / "model"
    shutil.copytree(saved("clipsyn-vit").folder, folder)
    config = folder / "open_clip_config.json"
    weights = folder / "open_clip_model.safetensors"
    content = config.read_text()

    weights.rename(folder / "weights.txt")
    with pytest.raises(CheckpointError, match="must hold one weights file and holds none"):
        load(f"local-dir:{folder}")
    for bad in ("", "[]", "{", '{"model_cfg": {"embed_dim": 3}}', content.replace("model", "x")):
        config.write_text(bad)
        with pytest.raises(CheckpointError, match=r"open_clip_config\.json"):
            load(f"local-dir:{folder}")
    config.unlink()
    with pytest.raises(CheckpointError, match=r"open_clip_config.json is missing"):
        load(f"local-dir:{folder}")


@pytest.mark.parametrize(
    "names",
    [["open_clip_pytorch_model.bin", "open_clip_model.safetensors", "a.pth"], ["epoch_7.pth"]],
)
def test_one_file_has_the_weights(saved, tmp_path, names):
    shutil.copy(saved("clipsyn-vit").folder / "open_clip_config.json", tmp_path)
    for name in names:
        (tmp_path / name).touch()
    assert locate(Backbone.parse(f"local-dir:{tmp_path}")).checkpoint == tmp_path
    with quiet_open_clip():
        taken = Path(_find_checkpoint_in_dir(tmp_path)).name
    assert taken in ("open_clip_model.safetensors", "epoch_7.pth")
    (tmp_path / taken).unlink()
    with pytest.raises(CheckpointError, match="must hold one weights file"):
        locate(Backbone.parse(f"local-dir:{tmp_path}"))


def test_open_clip_keeps_quiet_and_logging_is_left_as_it_was(capfd, monkeypatch, saved):
    checkpoint = saved("clipsyn-vit")
    monkeypatch.setattr(logging.root, "handlers", [])
    load(checkpoint.by_folder)
    assert logging.root.handlers == []
    assert logging.root.manager.disable == logging.NOTSET
    assert capfd.readouterr() == ("", "")
