"""The encoder against open_clip used the plain way, one image at a time."""

from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from clipsyn.errors import CheckpointError, UsageError
from clipsyn.extract.device import resolve_device
from clipsyn.extract.encoder import RowTexts
from clipsyn.images.source import UndecodableImage
from tests.extract.conftest import embed, load

SIZES = [(1, 1), (1, 90), (31, 33), (64, 64), (65, 63), (97, 200), (375, 500), (700, 9)]


def images(*sizes, seed=0):
    """Smooth and noisy colour images of the given (height, width)."""
    rng = np.random.default_rng(seed)
    made = []
    for height, width in sizes:
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        noise[height // 2 :] = rng.integers(0, 256, 3, dtype=np.uint8)
        made.append(Image.fromarray(noise))
    return made


def plain_open_clip(model, transform, pictures):
    """The usual loop: (n, embed) float32, unit norm."""
    with torch.no_grad():
        rows = [model.encode_image(transform(p)[None], normalize=True)[0] for p in pictures]
    return torch.stack(rows).numpy()


def assert_equal_to_float16(got, want):
    """Half a unit in the last place of float16, and what batching moves in float32."""
    assert got.dtype == np.float16
    np.testing.assert_allclose(got.astype(np.float32), want, rtol=2**-11, atol=2e-6)


@pytest.mark.parametrize("name", ["clipsyn-vit", "clipsyn-rn", "clipsyn-timm"])
@pytest.mark.parametrize("form", ["by_file", "by_folder"])
def test_image_embeddings_equal_open_clip(saved, name, form):
    checkpoint = saved(name)
    encoder = load(getattr(checkpoint, form))
    model, _, transform = open_clip.create_model_and_transforms(checkpoint.by_folder)
    pictures = images(*SIZES)
    got = embed(encoder, pictures)
    assert got.shape == (len(SIZES), encoder.embed_dim)
    assert_equal_to_float16(got, plain_open_clip(model.eval(), transform, pictures))


PREPROCESSING: list[dict[str, Any]] = [
    {},
    {"resize_mode": "squash", "interpolation": "bilinear"},
    {"resize_mode": "longest", "fill_color": 9},
    {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 0.1]},
    {"size": [32, 24]},
]


@pytest.mark.parametrize("preprocess", PREPROCESSING, ids=lambda p: "-".join(p) or "default")
def test_pixels_and_normalisation_are_bit_equal_to_open_clip(saved, write_folder, preprocess):
    checkpoint = saved("clipsyn-vit")
    config = checkpoint.config
    if "size" in preprocess:
        vision = {**config["vision_cfg"], "image_size": preprocess["size"]}
        model = open_clip.create_model("clipsyn-vit", force_image_size=tuple(preprocess["size"]))
        config, state = {**config, "vision_cfg": vision}, model.state_dict()
    else:
        state = checkpoint.model.state_dict()
    source = write_folder("model", config, state, **preprocess)
    encoder = load(source)
    *_, transform = open_clip.create_model_and_transforms(source)
    narrow = preprocess.get("resize_mode") == "longest"  # where PIL has no pixel left
    for picture in images(*(s for s in SIZES if not (narrow and max(s) > 32 * min(s)))):
        pixels = encoder.preprocess(picture)
        assert pixels.dtype == np.uint8
        assert torch.equal(encoder.normalised(pixels[None])[0], transform(picture))


def test_an_image_too_narrow_to_resize_is_a_bad_image(saved, write_folder):
    checkpoint = saved("clipsyn-vit")
    state = checkpoint.model.state_dict()
    source = write_folder("longest", checkpoint.config, state, resize_mode="longest")
    encoder = load(source)
    with pytest.raises(UndecodableImage, match="9 x 900 pixels cannot be resized"):
        encoder.preprocess(Image.new("RGB", (9, 900)))


def test_encoders_share_pixels_unless_the_geometry_differs(saved, write_folder):
    checkpoint = saved("clipsyn-vit")
    state = checkpoint.model.state_dict()

    def key(name, **preprocess):
        source = write_folder(name, checkpoint.config, state, **preprocess)
        return load(source).preprocess_key

    plain = load(checkpoint.by_file).preprocess_key
    assert key("other-mean", mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5]) == plain
    assert key("squashed", resize_mode="squash") != plain
    assert key("bilinear", interpolation="bilinear") != plain


def test_identity_names_what_differs(saved, write_folder):
    checkpoint = saved("clipsyn-vit")
    base = load(checkpoint.by_folder).identity
    state = {name: tensor.clone() for name, tensor in checkpoint.model.state_dict().items()}
    state["visual.proj"][0, 0] += 1e-3
    source = write_folder("changed", checkpoint.config, state)
    changed = load(source).identity
    assert [field for field in base if base[field] != changed[field]] == ["weights"]
    low = load(checkpoint.by_folder, precision="bf16")
    assert [field for field in base if base[field] != low.identity[field]] == ["precision"]


@pytest.mark.parametrize(
    ("precision", "given", "weights", "computed"),
    [
        ("fp32", torch.float32, torch.float32, torch.float32),
        ("bf16", torch.bfloat16, torch.bfloat16, torch.bfloat16),
        ("amp_bf16", torch.float32, torch.float32, torch.bfloat16),
        ("amp_fp16", torch.float32, torch.float32, torch.float16),
    ],
)
def test_a_precision_says_what_is_cast(saved, precision, given, weights, computed):
    """Autocast leaves pixels and weights as they are and computes layers in the type asked for."""
    encoder = load(saved("clipsyn-vit").by_file, precision=precision)
    tower = encoder._visual
    seen = {}
    first = next(module for module in tower.modules() if isinstance(module, torch.nn.Conv2d))
    tower.register_forward_pre_hook(lambda _, inputs: seen.update(given=inputs[0].dtype))
    first.register_forward_hook(lambda _, __, output: seen.update(computed=output.dtype))
    embed(encoder, images((64, 64)))
    assert seen == {"given": given, "computed": computed}
    assert {parameter.dtype for parameter in tower.parameters()} == {weights}


def test_embeddings_that_are_not_finite_name_the_backbone(saved):
    encoder = load(f"mine={saved('clipsyn-vit').by_file}")
    good = torch.zeros(3, 32, dtype=torch.float16)
    bad = good.clone()
    bad[1, 5] = float("inf")
    with pytest.raises(CheckpointError, match="'mine' gives NaN or Inf for 1 of 6 images"):
        encoder.to_host([good, bad])


@pytest.mark.parametrize(
    ("tensor", "value"),
    [
        ("text_projection", 0.0),
        ("visual.proj", 0.0),
        ("visual.ln_post.weight", float("nan")),
        ("ln_final.bias", float("inf")),
        ("logit_scale", 200.0),
        ("logit_scale", -100.0),
    ],
)
def test_weights_that_give_no_embedding_or_no_logits(saved, write_folder, tensor, value):
    checkpoint = saved("clipsyn-vit")
    state = {name: values.clone() for name, values in checkpoint.model.state_dict().items()}
    state[tensor].fill_(value)
    source = write_folder("spoilt", checkpoint.config, state)

    def encode():
        encoder = load(source)
        encoder.to_host([encoder.encode_images(np.zeros((2, 32, 32, 3), np.uint8))])
        RowTexts(encoder, [("a cat",), ("a dog",)]).embeddings(encoder.encode_text)

    with pytest.raises(CheckpointError):
        encode()


@pytest.mark.parametrize("name", ["tpu9000", "meta", "cuda:99", ""])
def test_devices_that_are_not_there(name):
    with pytest.raises(UsageError, match="device"):
        resolve_device(name)
