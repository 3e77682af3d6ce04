"""The miniature zoo: what is shipped, and the recipe that makes it."""

import io
import json
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP
from PIL import Image
from safetensors import safe_open

from clipsyn.catalog.backbones import cost, known_backbones

ROOT = Path(__file__).parents[2]
DATA = ROOT / "data"
SETS = sorted((DATA / "eval").iterdir())
MODELS = sorted(path for path in (DATA / "zoo").iterdir() if path.is_dir())

# The recipe is a folder of scripts, not a package.
sys.path.insert(0, str(ROOT / "pipelines" / "zoo"))
import augment  # noqa: E402
import checkpoint  # noqa: E402
import evaluate  # noqa: E402
import icons  # noqa: E402
import images  # noqa: E402
import train  # noqa: E402

sys.path.pop(0)


def members(folder, split):
    """{name: bytes} of a split's only tar."""
    with tarfile.open(folder / split / "0.tar") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


# What is shipped


@pytest.mark.parametrize("folder", SETS, ids=lambda path: path.name)
def test_every_set_is_whole(folder):
    classes = (folder / "classnames.txt").read_text("utf-8").splitlines()
    templates = (folder / "zeroshot_classification_templates.txt").read_text("utf-8").splitlines()
    assert len(set(classes)) == len(classes)
    assert all("{c}" in template for template in templates)
    for split in ("train", "test"):
        stored = members(folder, split)
        keys = {Path(name).stem for name in stored}
        kinds = ("webp", "cls") if folder.name == "fashion-mnist" else ("webp", "cls", "txt")
        assert set(stored) == {f"{key}.{kind}" for key in keys for kind in kinds}
        labels = {int(stored[f"{key}.cls"]) for key in keys}
        assert labels == set(range(len(classes)))
        assert (folder / split / "nshards.txt").read_text("utf-8").strip() == "1"
        picture = Image.open(io.BytesIO(stored[f"{min(keys)}.webp"]))
        assert picture.size == ((28, 28) if folder.name == "fashion-mnist" else (64, 64))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("folder", SETS[:-1], ids=lambda path: path.name)
def test_captions_tell_images_of_one_concept_from_all_others(folder, split):
    said = {}
    for name, content in members(folder, split).items():
        if name.endswith(".txt"):
            concept = Path(name).stem.split("_")[1]
            texts = content.decode().splitlines()
            assert len(texts) == len(set(texts)) == 4
            assert all(concept.replace("-", " ") in text for text in texts)
            for text in texts:
                assert said.setdefault(text, concept) == concept


@pytest.mark.parametrize("folder", SETS, ids=lambda path: path.name)
def test_no_style_stands_on_both_sides(folder):
    styles = [
        {name.split("_")[0] for name in members(folder, split)} for split in ("train", "test")
    ]
    if folder.name == "fashion-mnist":
        styles = [set(members(folder, split)) for split in ("train", "test")]
    else:
        assert not (styles[0] | styles[1]) & set(icons.TRAINING_STYLES)
    assert not styles[0] & styles[1]


def test_shipped_weights_keep_to_their_limit():
    assert len(MODELS) >= 5
    size = sum(path.stat().st_size for path in (DATA / "zoo").rglob("*") if path.is_file())
    assert size <= 60_000_000


@pytest.mark.parametrize("folder", MODELS, ids=lambda path: path.name)
def test_shipped_weights_are_finite_halves_with_a_sparse_token_table(folder):
    with safe_open(folder / "open_clip_model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a dict
            value = file.get_tensor(name)
            assert not value.is_floating_point() or value.dtype is torch.float16
            assert torch.isfinite(value.float()).all(), name
        used = file.get_tensor(checkpoint.TOKENS).any(1).sum()
    assert 1_000 < used < 3_000


@pytest.mark.parametrize("folder", MODELS, ids=lambda path: path.name)
def test_a_model_reaches_the_accuracy_its_file_states(folder):
    stated = json.loads((folder / "training.json").read_text("utf-8"))["zero_shot_top1"]["test"]
    name = "emoji-food"
    data = evaluate.read_set(DATA / "eval" / name, "test")
    reached = (evaluate.zero_shot_logits(folder, data).argmax(1) == data.labels).float().mean()
    # Another processor may tip an image or two.
    assert reached.item() == pytest.approx(stated[name], abs=0.02)
    assert reached.item() > 5 / len(data.classes)


# Names and styles


# Building sets


def test_premultiplied_icons_stand_on_white():
    pixels = np.array([[[[0, 0, 0, 0], [100, 0, 50, 100], [9, 8, 7, 255]]]], np.uint8)
    table = images.IconTable(["s"], ["n"], ["c"], ["g"], pixels)
    assert table.on_white(0).tolist() == [[[255, 255, 255], [255, 155, 205], [9, 8, 7]]]


# Training


def test_multi_positive_loss_is_the_mean_over_positives_both_ways():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator)
    positive = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)

    def one_way(scores, hits):
        rows = [
            -np.mean([row[j] - np.logaddexp.reduce(row) for j in np.flatnonzero(hit)])
            for row, hit in zip(scores, hits, strict=True)
            if hit.any()
        ]
        return np.mean(rows)

    scores, hits = logits.double().numpy(), positive.numpy()
    expected = (one_way(scores, hits) + one_way(scores.T, hits.T)) / 2
    assert train.multi_positive_loss(logits, positive).item() == pytest.approx(expected, rel=1e-5)


def test_learning_rate_rises_then_falls_to_zero():
    plan = checkpoint.Plan(seed=0, steps=100, learning_rate=1.0, weight_decay=0, autocast=False)
    rates = list(train.learning_rates(plan))
    assert len(rates) == 100
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] < 0.001


@pytest.fixture(scope="module")
def small_model():
    config, _ = checkpoint.read_config("tiny-ViT-16")
    torch.manual_seed(0)
    return CLIP(**config).eval(), config


def test_a_compact_vocabulary_says_the_same_after_expansion(small_model, tmp_path):
    model, config = small_model
    tokens = checkpoint.tokenizer(config)(["an emoji of red apple", "a bag"])
    vocabulary = checkpoint.Vocabulary(tokens)
    vocabulary.shrink(model)
    with torch.inference_mode():
        expected = model.encode_text(vocabulary.compact(tokens), normalize=True)
    checkpoint.save(tmp_path, model, vocabulary, config, ([0.5] * 3, [0.25] * 3))
    loaded, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    with torch.inference_mode():
        texts = loaded.eval().encode_text(tokens, normalize=True)
    assert torch.allclose(texts, expected, atol=5e-3)  # saved as float16
    assert open_clip.get_model_preprocess_cfg(loaded)["mean"] == [0.5] * 3


def test_augmentation_is_seeded_and_stays_in_range():
    pixels = torch.randint(0, 256, (6, 16, 16, 4), dtype=torch.uint8)
    pixels[..., :3] = torch.minimum(pixels[..., :3], pixels[..., 3:])

    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        return augment.augment(pixels, 1.0, augment.Strength(), generator)

    first = run(1)
    assert first.shape == (6, 3, 16, 16)
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, run(1))
    assert not torch.equal(first, run(2))


def test_all_configs_share_one_shape_of_text_tower():
    towers = Counter(
        json.dumps(checkpoint.read_config(name)[0]["text_cfg"]) for name in checkpoint.names()
    )
    assert len(towers) == 1


@pytest.mark.parametrize("name", ["RN50/openai", "ViT-B-32/openai", "ViT-L-14-336/openai"])
def test_the_catalogue_agrees_with_open_clips_models(name):
    architecture = name.partition("/")[0]
    with torch.device("meta"):
        model = open_clip.create_model(architecture, device="meta", load_weights=False)
    facts = cost(name)
    assert facts is not None
    config = open_clip.get_model_config(architecture)
    assert facts.image_size == config["vision_cfg"]["image_size"]
    assert facts.embed_dim == config["embed_dim"]
    measured = checkpoint.measure_cost(model, facts.image_size)
    for field in ("image_params_m", "text_params_m"):
        assert measured[field] == pytest.approx(getattr(facts, field), abs=0.006)
    for field in ("image_gflops", "text_gflops"):
        assert measured[field] == pytest.approx(getattr(facts, field), rel=5e-3)


@pytest.mark.parametrize("backbone", known_backbones()["zoo"], ids=lambda backbone: backbone.name)
def test_the_shipped_zoo_says_what_it_costs(backbone):
    model, _, _ = open_clip.create_model_and_transforms(backbone.source)
    facts = cost(backbone.name)
    assert facts is not None
    assert model.visual.image_size in {facts.image_size, (facts.image_size,) * 2}
    for field, value in checkpoint.measure_cost(model, facts.image_size).items():
        assert value == pytest.approx(getattr(facts, field), rel=1e-3), field
