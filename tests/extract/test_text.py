"""Texts and class embeddings against open_clip's own, and by hand."""

import numpy as np
import open_clip
import pytest
import torch

from clipsyn.errors import UsageError
from clipsyn.extract import encoder as seam
from clipsyn.extract.encoder import RowTexts
from clipsyn.names import PromptSet
from tests.extract.conftest import load

TEXTS = [
    "a",
    "",
    "a photo of a cat.",
    "zebra",
    "a very long caption " * 9,  # beyond the context
    "!!! 7 émigrés <end_of_text> after the end",
    "a photo of a dog.",
    "two words",
]
TOWERS = ["vit", "custom-text", "eos", "bidirectional"]


@pytest.mark.parametrize("tower", TOWERS)
def test_texts_equal_open_clip_at_full_context(saved, monkeypatch, tower):
    monkeypatch.setattr(seam, "TEXT_BATCH", 3)
    checkpoint = saved(f"clipsyn-{tower}")
    encoder = load(checkpoint.by_file)
    tokens = open_clip.get_tokenizer(checkpoint.architecture)(TEXTS)
    with torch.no_grad():
        want = checkpoint.model.encode_text(tokens, normalize=True).numpy()
    got = encoder.encode_text(TEXTS)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize(("tower", "width"), [("vit", 4), ("eos", 4), ("bidirectional", 16)])
def test_causal_towers_see_no_more_positions_than_needed(saved, monkeypatch, tower, width):
    encoder = load(saved(f"clipsyn-{tower}").by_file)
    seen: list[int] = []
    model = encoder._texts.model
    embedding = getattr(model, "text", model).token_embedding
    embedding.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    encoder.encode_text(["two words", "one"])
    assert seen == [width]


class CountingEncoder:
    """Embeds a text as its counts of a, b and c; remembers what it was asked."""

    embed_dim = 3

    def __init__(self):
        self.asked: list[str] = []

    def text_lengths(self, texts):
        return np.array([len(text) for text in texts])

    def encode_text(self, texts):
        self.asked += texts
        rows = np.array([[text.count(c) for c in "abc"] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def class_embeddings(encoder, class_names, prompts):
    rows = [prompts.prompts(name) for name in class_names]
    return RowTexts(encoder, rows).embeddings(encoder.encode_text)


def test_class_embeddings_by_hand():
    encoder = CountingEncoder()
    got = class_embeddings(encoder, ["b", "c", "b"], PromptSet("p", ("{c}", "a {c}", "{c}")))
    # "b" -> (0, 1, 0), "a b" -> (1, 1, 0) / sqrt 2; the first counts twice
    mean = np.array([1 / np.sqrt(2), 2 + 1 / np.sqrt(2)]) / 3
    x, y = mean / np.linalg.norm(mean)
    np.testing.assert_allclose(got, [[x, y, 0], [x, 0, y], [x, y, 0]], atol=1e-7)
    assert got.dtype == np.float32
    assert got[0].tobytes() == got[2].tobytes()
    assert sorted(encoder.asked) == ["a b", "a c", "b", "c"]


def test_prompts_of_each_class():
    prompts = PromptSet("cupl", per_class={"x": ("a", "ab"), "y": ("c",), "z": ()})
    got = class_embeddings(CountingEncoder(), ["y", "x"], prompts)
    np.testing.assert_allclose(got[0], [0, 0, 1])
    assert got[1, 0] > got[1, 1] > 0
    with pytest.raises(UsageError, match="prompt set 'cupl' has no prompts for class 'z'"):
        class_embeddings(CountingEncoder(), ["y", "z"], prompts)
    with pytest.raises(UsageError, match="no prompts for class 'w'"):
        class_embeddings(CountingEncoder(), ["w"], prompts)


@pytest.mark.parametrize("parts", [(2, 3), (100, 100)], ids=["in parts", "at once"])
@pytest.mark.parametrize("tower", TOWERS)
def test_class_embeddings_equal_the_zero_shot_classifier(saved, monkeypatch, tower, parts):
    monkeypatch.setattr(seam, "TEXT_BATCH", parts[0])
    monkeypatch.setattr(seam, "TEXT_PART", parts[1])
    checkpoint = saved(f"clipsyn-{tower}")
    names = ["missile", "sunglasses", "missile", "a rather long class name, with a comma"]
    templates = ("a photo of a {c}.", "{c}", "many drawings of the {c}, in a book")
    want = open_clip.build_zero_shot_classifier(
        checkpoint.model,
        open_clip.get_tokenizer(checkpoint.architecture),
        names,
        [template.replace("{c}", "{}") for template in templates],
    )
    encoder = load(checkpoint.by_folder)
    got = class_embeddings(encoder, names, PromptSet("p", templates))
    np.testing.assert_allclose(got, want.T.numpy(), atol=1e-6)
    assert np.array_equal(got[0], got[2])
