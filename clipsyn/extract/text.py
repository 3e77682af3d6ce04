"""Text embeddings, and the class embeddings that are made of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.transformer import TextTransformer

from clipsyn.specs import PromptSet

BATCH = 256


class TextEncoder(Protocol):
    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


def class_embeddings(
    encoder: TextEncoder, class_names: Sequence[str], prompts: PromptSet
) -> NDArray[np.float32]:
    """(class, embed): each prompt's unit-norm embedding, their mean over a class, normalised.

    The order (normalise, mean, normalise) is CLIP's and open_clip's. A text that several classes
    share is encoded once, so classes of one name get identical rows. Raises UsageError for
    a class without prompts.
    """
    per_class = [prompts.prompts(name) for name in class_names]
    row = {text: i for i, text in enumerate(dict.fromkeys(t for ts in per_class for t in ts))}
    embedded = encoder.encode_text(list(row))
    mean = np.zeros((len(per_class), embedded.shape[1]))
    for i, texts in enumerate(per_class):
        mean[i] = embedded[[row[text] for text in texts]].mean(axis=0, dtype=np.float64)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    return mean.astype(np.float32)


class TextTower:
    """open_clip's text encoder in float32, in batches of texts of like length.

    Causal towers that read the end token need no more positions than the batch's longest text
    has, as later ones cannot reach it. That is five times faster for usual prompts, and exact.
    """

    def __init__(
        self, model: Any, tokenizer: Callable[[list[str]], torch.Tensor], device: torch.device
    ) -> None:
        """`model` is open_clip's, with its text tower in float32 on `device`."""
        self._model = model
        self._tokenizer = tokenizer
        self._device = device
        self._causal = _causal_tower(model)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, embed), unit norm, in the order given."""
        tokens = self._tokenizer(list(texts))
        lengths = self._lengths(tokens)
        order = torch.argsort(lengths, stable=True)
        parts = [
            self._encode_batch(tokens[rows, : int(lengths[rows].max())])
            for rows in torch.split(order, BATCH)
        ]
        embedded: NDArray[np.float32] = torch.cat(parts)[torch.argsort(order)].cpu().numpy()
        return embedded

    def _lengths(self, tokens: torch.Tensor) -> torch.Tensor:
        """(n,): how many positions decide each text's embedding."""
        if self._causal is None:
            return torch.full((len(tokens),), tokens.shape[1])
        if self._causal.pool == "argmax":  # the end token has the highest number
            return tokens.argmax(dim=-1) + 1
        return (tokens == self._causal.end_token).int().argmax(dim=-1) + 1

    def _encode_batch(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens.to(self._device)
        with torch.inference_mode():
            if self._causal is None:
                return self._model.encode_text(tokens, normalize=True)  # type: ignore[no-any-return]
            # open_clip adds all positions to the tokens, so it is lent as many as there are tokens
            shorter = self._causal.tensors_of_length(tokens.shape[1])
            outputs = torch.func.functional_call(self._model, shorter, (None, tokens))
            return outputs[1]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _CausalTower:
    """The parts of a text tower that depend on its context length."""

    prefix: str  # of its tensors' names in the model
    tower: Any
    pool: str  # how open_clip finds the end token: "argmax" or "eos"
    end_token: int

    def tensors_of_length(self, n: int) -> dict[str, torch.Tensor]:
        return {
            f"{self.prefix}positional_embedding": self.tower.positional_embedding[:n],
            f"{self.prefix}attn_mask": self.tower.attn_mask[:n, :n],
        }


def _causal_tower(model: Any) -> _CausalTower | None:
    """None if a text's embedding may depend on what comes after its end token."""
    if type(model) is open_clip.CLIP:
        tower = _CausalTower("", model, model.text_pool_type, model.text_eos_id)
    elif type(model) is open_clip.CustomTextCLIP and type(model.text) is TextTransformer:
        tower = _CausalTower("text.", model.text, model.text.pool_type, model.text.eos_id)
    else:
        return None
    appended = getattr(tower.tower, "cls_emb", None) is not None
    exact = tower.tower.attn_mask is not None and tower.pool in {"argmax", "eos"} and not appended
    return tower if exact else None
