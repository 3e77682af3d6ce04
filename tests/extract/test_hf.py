"""Models of transformers against open_clip with the same weights, and against themselves."""

import json

import numpy as np
import pytest
import torch
import transformers
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from tokenizers import Tokenizer, models, pre_tokenizers

from clipsyn.errors import CheckpointError
from clipsyn.extract.encoder import load_encoder, source_of
from clipsyn.names import Backbone
from tests.extract.conftest import embed as embed_pictures
from tests.extract.conftest import load as load_source
from tests.extract.conftest import pictures

TEXTS = ["a photo of a cat.", "émigrés !!!", "", "A Photo of\nit's", "long " * 50, "two words"]
TOWER = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "hidden_act": "gelu"}
IMAGES = {**TOWER, "num_attention_heads": 1, "image_size": 32, "patch_size": 8}
WORDS = ("</s>", "<unk>", "a", "photo", "of", "cat", "cat.", "it", "s", "its", "it's", "A", "two")


def load(place):
    return load_source(f"hf:{place}")


def pixels(encoder):
    return np.stack([encoder.preprocess(picture) for picture in pictures()])


def embed(encoder):
    return embed_pictures(encoder).astype(np.float32)


def unit(rows):
    return torch.nn.functional.normalize(rows.detach(), dim=-1).numpy()


def save_processor(folder, size=32):
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )
    processor.save_pretrained(folder)


def save_bpe(folder):
    """open_clip's own vocabulary, under the names that transformers gives its ends."""
    ours = SimpleTokenizer()
    ends = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {ends.get(name, name): number for name, number in ours.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [" ".join(pair) for pair in ours.bpe_ranks]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))


NAMES = {
    "visual.conv1.": "vision_model.embeddings.patch_embedding.",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.": "vision_model.pre_layrnorm.",
    "visual.ln_post.": "vision_model.post_layernorm.",
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "transformer.resblocks.": "text_model.encoder.layers.",
    "token_embedding.": "text_model.embeddings.token_embedding.",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.": "text_model.final_layer_norm.",
    "logit_scale": "logit_scale",
}
PARTS = {
    ".ln_1.": ".layer_norm1.",
    ".ln_2.": ".layer_norm2.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
    ".attn.": ".self_attn.",
}


def converted(state):
    """open_clip's weights under transformers' names."""
    there = {"visual_projection.weight": state["visual.proj"].T.contiguous()}
    there["text_projection.weight"] = state["text_projection"].T.contiguous()
    for name, tensor in state.items():
        start = next((it for it in NAMES if name.startswith(it)), None)
        if start is None:
            continue
        target = NAMES[start] + name.removeprefix(start)
        for ours, theirs in PARTS.items():
            target = target.replace(ours, theirs)
        if "in_proj_" in target:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                there[target.replace("in_proj_", f"{part}_proj.")] = piece.clone()
        else:
            there[target] = tensor
    return there


@pytest.fixture
def clip(saved, tmp_path):
    """The test suite's small ViT of open_clip as a folder of transformers."""
    text = {**TOWER, "hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2}
    ends = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    config = transformers.CLIPConfig(
        text_config={**text, **ends, "vocab_size": 49408, "max_position_embeddings": 16},
        vision_config=IMAGES,
        projection_dim=32,
    )
    model = transformers.CLIPModel(config)
    missing, _ = model.load_state_dict(converted(saved("clipsyn-vit").model.state_dict()), False)
    assert all("position_ids" in name for name in missing)
    folder = tmp_path / "clip"
    model.save_pretrained(folder)
    save_processor(folder)
    save_bpe(folder)
    return folder


def test_clip_equals_open_clip_with_the_same_weights(saved, clip):
    ours, theirs = load(clip), load_encoder(Backbone.parse(saved("clipsyn-vit").by_file))
    np.testing.assert_array_equal(pixels(ours), pixels(theirs))
    np.testing.assert_allclose(embed(ours), embed(theirs), atol=2**-11)
    np.testing.assert_allclose(ours.encode_text(TEXTS), theirs.encode_text(TEXTS), atol=1e-5)
    assert (ours.embed_dim, ours.backbone.name) == (32, "clip")
    assert ours.logit_scale == pytest.approx(theirs.logit_scale)
    assert ours.gflops == pytest.approx(theirs.gflops, rel=0.05)
    found = source_of(ours.backbone).find(ours.backbone)
    assert (found.width, found.is_here) == (32, True)


@pytest.fixture
def siglip(tmp_path):
    """A small SigLIP with a tokenizer of few words, which knows punctuation and capitals."""
    words = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token="</s>", eos_token="</s>"
    )
    text = {**TOWER, "num_attention_heads": 1, "vocab_size": 13, "max_position_embeddings": 8}
    config = transformers.SiglipConfig(text_config=text, vision_config=IMAGES)
    folder = tmp_path / "siglip"
    transformers.SiglipModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_processor(folder)
    return folder


def test_texts_of_siglip_are_cleaned_and_padded_as_in_training(siglip):
    encoder = load(siglip)
    rows, lengths = encoder._texts.read(TEXTS)
    want = HFTokenizer(str(siglip), context_length=8, clean="canonicalize")(TEXTS)
    assert torch.stack(rows).tolist() == want.tolist()
    assert lengths.tolist() == [8] * len(TEXTS)
    assert len({tuple(row) for row in want.tolist()}) > 3
    model = transformers.SiglipModel.from_pretrained(siglip).eval()
    out = model.get_text_features(input_ids=want)
    out = out if isinstance(out, torch.Tensor) else out.pooler_output
    np.testing.assert_allclose(encoder.encode_text(TEXTS), unit(out), atol=1e-5)


class GemmaTokenizer:
    """What of it is used: ids are the characters' numbers."""

    pad_token_id = 0

    def get_vocab(self):
        return {"a": 97}

    def __call__(self, texts, **_):
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}


def test_siglip_2_keeps_punctuation(siglip, monkeypatch):
    first = load(siglip).identity["text"]
    monkeypatch.setattr(
        transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: GemmaTokenizer()
    )
    encoder = load(siglip)
    rows, _ = encoder._texts.read(["It's A"])
    assert "".join(map(chr, rows[0])) == "it's a"
    changed = {name for name, it in encoder.identity["text"].items() if it != first[name]}
    assert changed == {"clean", "vocabulary"}


def of_images(kind, **more):
    """A model of random weights; skips where this transformers does not have the kind."""
    config = getattr(transformers, f"{kind}Config", None)
    if config is None:
        pytest.skip(f"this transformers has no {kind}")
    torch.manual_seed(0)
    return getattr(transformers, f"{kind}Model")(config(**{**IMAGES, **more})).eval()


@pytest.mark.parametrize(
    ("kind", "more", "pool"),
    [
        ("Dinov2", {}, lambda it: it.last_hidden_state[:, 0]),
        ("SiglipVision", {}, lambda it: it.pooler_output),
        ("Aimv2Vision", {"use_head": False}, lambda it: it.last_hidden_state.mean(dim=1)),
    ],
)
def test_models_without_text(tmp_path, kind, more, pool):
    model = of_images(kind, **more)
    model.save_pretrained(tmp_path / "model")
    save_processor(tmp_path / "model")
    encoder = load(tmp_path / "model")
    batch = encoder.normalised(pixels(encoder))
    with torch.no_grad():
        want = unit(pool(model(pixel_values=batch)))
    np.testing.assert_allclose(embed(encoder), want, atol=2**-11)
    assert (encoder.tells_classes, encoder.identity["text"]) == (False, None)


def change(folder, name, new):
    """Another text, other values of some names, or none of it."""
    if new is None:
        (folder / name).unlink()
    else:
        text = new if isinstance(new, str) else json.dumps(read(folder, name) | new)
        (folder / name).write_text(text)


def read(folder, name="config.json"):
    return json.loads((folder / name).read_text())


CODE = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}


def test_identity_has_what_weights_do_not_say(clip):
    base = load(clip).identity
    change(clip, "config.json", {"transformers_version": "9.9"})
    assert load(clip).identity == base
    towers = read(clip)["vision_config"] | {"hidden_act": "quick_gelu"}
    change(clip, "config.json", {"vision_config": towers})
    changed = load(clip).identity
    assert [name for name, it in base.items() if it != changed[name]] == ["model"]


@pytest.mark.parametrize(
    ("name", "new"),
    [
        *(("config.json", new) for new in ("{", None, {"model_type": "bert"})),
        ("config.json", {"model_type": "evil", "auto_map": CODE}),
        ("config.json", {"projection_dim": 7}),
        *(("model.safetensors", new) for new in ("x" * 99, None)),
        *(("preprocessor_config.json", new) for new in (None, {"rescale_factor": 0.5})),
    ],
)
def test_folders_that_are_no_model_of_ours(clip, tmp_path, name, new):
    trace = tmp_path / "code-ran"
    (clip / "evil.py").write_text(f"open({str(trace)!r}, 'w')")
    change(clip, name, new)
    with pytest.raises(CheckpointError):
        load(clip)
    assert not trace.exists()


def test_what_is_not_cached_is_not_downloaded(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    backbone = Backbone.parse("hf:lab/net")
    assert not source_of(backbone).find(backbone).is_here
    with pytest.raises(CheckpointError, match="hf download lab/net"):
        load_encoder(backbone)
    for place in ("a/b/c", "./gone", "~/gone"):
        with pytest.raises(CheckpointError):
            load(place)
