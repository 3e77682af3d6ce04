"""Encoders that are not open_clip's: timm's networks and programs of the user, beside a CLIP."""

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config

from clipsyn.errors import CheckpointError, UnknownName, UsageError
from clipsyn.extract.encoder import RowTexts, source_of
from clipsyn.methods.numerics.logits import zero_shot_logits
from clipsyn.names import fingerprint
from clipsyn.store.features import FeatureStore
from tests.extract.conftest import embed, load, pictures

OWN = """
import numpy as np
import torch


class Net(torch.nn.Module):
    logit_scale = 50.0

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed({seed})
        self.weight = torch.nn.Parameter(torch.randn(768, 24, generator=generator))

    def preprocess(self, image):
        return np.asarray(image.resize((16, 16)), np.float32) / 255

    def encode_images(self, batch):
        return batch.flatten(1) @ self.weight


class Towers(Net):
    def encode_texts(self, texts):
        letters = "abcdefghijklmnopqrstuvwx"
        return torch.tensor([[text.count(c) + 1.0 for c in letters] for text in texts])


def make(device):
    return Net().to(device)


def towers(device):
    return Towers().to(device)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Function (program, **words) -> the module `mine` in the working folder, from now on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(program=OWN, **words):
        sys.modules.pop("mine", None)
        Path("mine.py").write_text(program.replace("{seed}", str(words.get("seed", 0))))

    write()
    yield write
    sys.modules.pop("mine", None)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Function (name, classes, suffix) -> a network of random weights, and the file with them."""
    folder = tmp_path_factory.mktemp("networks")

    def make(name, classes=7, suffix=".safetensors"):
        torch.manual_seed(len(name) + classes)
        model = timm.create_model(name, num_classes=classes).eval()
        path = folder / f"{name}{suffix}"
        if suffix == ".safetensors":
            save_file(model.state_dict(), path)
        else:
            torch.save({"epoch": 3, "state_dict": model.state_dict()}, path)
        return model, path

    return make


def plain(model, call, shown=None):
    """timm's usual loop, an image at a time."""
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    with torch.no_grad():
        return torch.cat([call(transform(it)[None]) for it in shown or pictures()]).numpy()


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("test_vit", ".safetensors"), ("test_resnet", ".pt"), ("test_convnext", ".pt")],
)
def test_features_of_timm_are_those_before_the_head(network, name, suffix):
    model, path = network(name, suffix=suffix)
    want = plain(model, lambda x: model.forward_head(model.forward_features(x), pre_logits=True))
    encoder = load(f"timm:{name}@{path}")
    assert (encoder.backbone.name, encoder.tells_classes) == (f"timm:{name}@{name}", False)
    assert encoder.embed_dim == want.shape[1]
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(embed(encoder), want, rtol=2**-10, atol=1e-5)
    found = source_of(encoder.backbone).find(encoder.backbone)
    assert (found.width, found.is_here) == (encoder.embed_dim, True)
    assert found.gflops == encoder.gflops > 0
    with pytest.raises(UsageError):
        encoder.encode_text(["a"])


def test_logits_of_timm_come_back_from_the_store(network):
    model, path = network("test_vit", 3)
    encoder = load(f"sup=timm:test_vit:logits@{path}")
    images = embed(encoder).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-3)
    got = zero_shot_logits(images, encoder.classes, encoder.logit_scale)
    np.testing.assert_allclose(got, plain(model, model), rtol=1e-3, atol=1e-4)


def test_a_classifier_answers_for_its_own_classes(own, network, write_images, clipsyn):
    photos = write_images()  # of two classes
    model, path = network("test_vit", 2)
    run(clipsyn, "extract", "store", "-b", f"sup=timm:test_vit:logits@{path}", "-d", photos)
    store = FeatureStore.open("store")
    (key,) = store.keys()
    shown = [Image.open(photos / name) for name in store.samples(key.dataset, key.split).ids]
    want = plain(model, model, shown).argmax(axis=1)
    np.testing.assert_array_equal(store.cell(key).predictions("simple"), want)
    more = f"sup=timm:test_vit:logits@{network('test_vit', 3)[1]}"
    assert clipsyn("extract", "other", "-b", more, "-d", photos).exit_code == 2


def test_identity_of_timm_is_of_what_decides_a_feature(network, tmp_path):
    model, path = network("test_vit")
    base = load(f"timm:test_vit@{path}")
    with torch.no_grad():
        model.head.weight += 1  # which features never see
    torch.save(model.state_dict(), tmp_path / "head.pt")
    assert load(f"timm:test_vit@{tmp_path / 'head.pt'}").identity == base.identity
    with torch.no_grad():
        model.cls_token += 1
    torch.save(model.state_dict(), tmp_path / "other.pt")
    other = load(f"timm:test_vit@{tmp_path / 'other.pt'}")
    changed = [name for name in base.identity if base.identity[name] != other.identity[name]]
    assert changed == ["weights"]
    assert other.preprocess_key == base.preprocess_key
    low = load(f"timm:test_vit@{path}", precision="bf16")
    assert low.identity == {**base.identity, "precision": "bf16"}


def test_own_model_is_called_as_it_says(own, monkeypatch):
    encoder = load("py:mine:make")
    assert (encoder.embed_dim, encoder.tells_classes, encoder.logit_scale) == (24, False, 50)
    made = sys.modules["mine"].make("cpu")
    with torch.no_grad():
        want = made.encode_images(
            torch.tensor(np.stack([*map(made.preprocess, pictures())]))
        ).numpy()
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(embed(encoder), want, atol=2**-11)
    towers = load("py:mine:towers")
    got = RowTexts(towers, [["aab"], ["x"]]).embeddings(towers.encode_text)
    row = np.ones(24)
    row[:2] = 3, 2
    np.testing.assert_allclose(got[0], row / np.linalg.norm(row), rtol=1e-6)
    low = load("py:mine:make", precision="bf16")
    np.testing.assert_allclose(embed(low), embed(encoder), atol=0.02)
    assert low.identity == {**encoder.identity, "precision": "bf16"}


def test_identity_of_an_own_model_is_of_its_weights_and_its_file(own):
    base = load("py:mine:make").identity
    own(seed=1)
    other = load("py:mine:make").identity
    assert {name for name in base if base[name] != other[name]} == {
        "model",
        "preprocess",
        "weights",
    }
    own(OWN + "# a remark\n")
    changed = load("py:mine:make").identity
    assert changed["weights"] == base["weights"]
    assert changed["model"] != base["model"]
    own()
    assert load("py:mine:make").identity == base


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("timm:test_vitt", UnknownName),
        ("timm:test_vit.nope", UnknownName),
        ("timm:hf-hub:lab/net", UnknownName),
        ("timm:test_vit@gone.safetensors", CheckpointError),
        ("timm:test_resnet@vit", CheckpointError),  # of another network
        ("timm:test_vit@noise", CheckpointError),
        ("timm:test_vit:logits@headless", CheckpointError),
        ("py:gone:make", CheckpointError),
        ("py:mine:gone", CheckpointError),
        ("py:mine", CheckpointError),
        ("py:mine:towers@x", CheckpointError),
    ],
)
def test_sources_that_cannot_be(own, network, source, error):
    files = {"vit": network("test_vit")[1], "headless": network("test_vit2", 0)[1]}
    files["noise"] = Path("noise.pt")
    files["noise"].write_bytes(bytes(range(256)))
    if "headless" in source:
        source = source.replace("test_vit:", "test_vit2:")
    for name, path in files.items():
        source = source.replace(f"@{name}", f"@{path}")
    with pytest.raises(error):
        load(source)


@pytest.mark.parametrize(
    "change",
    [
        ("def encode_images", "def encode"),
        ("def preprocess", "def prepare"),
        ("batch.flatten(1) @ self.weight", "batch"),
        ("batch.flatten(1) @ self.weight", "(batch.flatten(1) @ self.weight)[:0]"),
        ("batch.flatten(1) @ self.weight", "self.gone"),
        ("batch.flatten(1) @ self.weight", "batch.flatten(1) @ self.weight * float('nan')"),
        ("image.resize((16, 16))", "image.resize((16, image.height))"),
        ("logit_scale = 50.0", "logit_scale = 'high'"),
        ("logit_scale = 50.0", "logit_scale = -1"),
        ("return torch.tensor([[", "return torch.zeros(2) + len([["),
        ("for text in texts]", "for text in texts[1:]]"),
    ],
)
def test_own_models_that_do_not_keep_to_the_protocol(own, change):
    assert change[0] in OWN
    own(OWN.replace(*change))

    def use():
        encoder = load("py:mine:towers")
        embed(encoder)
        encoder.encode_text(["a", "b"])

    with pytest.raises(CheckpointError):
        use()


def test_three_kinds_in_one_pool(own, network, clipsyn, write_images):
    """A timm network, a program and a CLIP: one recipe, then routers on new images."""
    dino = f"dino=timm:test_vit@{network('test_vit')[1]}"
    backbones, names = [dino, "mine=py:mine:make", "tiny-RN/zoo"], ["dino", "mine", "tiny-RN/zoo"]
    few = {"heads": ["lda"], "ensembles": ["log-avg"], "support": "train", "shots": [1]}
    extract = {"datasets": ["emoji-food"], "splits": ["train", "test"], "backbones": backbones}
    stages = [
        {"stage": "extract", **extract},
        {"stage": "evaluate", **few, "seeds": 1, "output": "few"},
        {"stage": "report", "output": "page.html"},
    ]
    Path("all.yaml").write_text(yaml.safe_dump({"store": "store", "stages": stages}))
    run(clipsyn, "run", "all.yaml")
    pool = FeatureStore.open("store").pool("emoji-food", "test")
    assert ([*pool.backbones], pool.without_text) == (names, {"dino", "mine"})
    of_lda = pl.read_parquet("few.parquet").filter(pl.col("ensemble") == "single")
    assert {name for held in of_lda["backbones"] for name in held} == {*names}
    assert all(name in Path("page.html").read_text() for name in names)
    assert "all 6 cells are there" in run(clipsyn, "run", "all.yaml").stdout
    run(clipsyn, "verify", "store", "--deep")

    photos, fit = write_images(), ("fit", "store", "--head", "lda", "--ensemble", "nlc")
    run(clipsyn, *fit, "--shots", 1, "-o", "all")
    run(clipsyn, *fit, "--shots", 1, "-o", "two", "-b", "dino,tiny-RN/zoo")
    run(clipsyn, "predict", "two", photos, "-o", "two.csv")
    run(clipsyn, "extract", "new", "-b", ",".join(backbones), "-d", photos)
    for router, source in (("two", "new"), ("all", "new")):
        run(clipsyn, "predict", router, source, "-o", f"{router}-new.csv")
    alone, stored = map(pl.read_csv, ("two.csv", "two-new.csv"))
    assert alone["class"].equals(stored["class"])
    np.testing.assert_allclose(alone["probability"], stored["probability"], rtol=0.02)
    assert len(pl.read_csv("all-new.csv")) == 8
    sys.modules.pop("mine")
    write_source("two", "tiny-RN/zoo,tiny-RN/zoo,x=py:mine:make")  # as a stranger may
    for router in ("all", "two"):
        assert clipsyn("predict", router, photos).exit_code == 2
    assert "mine" not in sys.modules


def run(clipsyn, *words):
    result = clipsyn(*map(str, words))
    assert result.exit_code == 0, result.output
    return result


def write_source(router, source):
    """Give the last backbone of a router another source."""
    content = json.loads(Path(router, "router.json").read_text())
    content.pop("fingerprint")
    content["backbones"][-1]["source"] = source
    content["fingerprint"] = fingerprint(content)
    Path(router, "router.json").write_text(json.dumps(content))
