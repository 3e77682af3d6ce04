"""CLIPs of open_clip, as `extract.weights` loads them; preprocessing is split to be shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.transformer import TextTransformer

from clipsyn.catalog.backbones import cost_of
from clipsyn.extract.device import measure_gflops
from clipsyn.extract.encoder import Found, Model, split_transform
from clipsyn.extract.weights import build, locate, making, weights_digest
from clipsyn.names import Backbone


def find(backbone: Backbone) -> Found:
    """What is known without loading or downloading weights."""
    source, facts = locate(backbone, download=False), cost_of(backbone)
    gflops = facts.image_gflops if facts else None
    return Found(source.config.get("embed_dim"), gflops, source.checkpoint is not None)


def load(backbone: Backbone, device: torch.device) -> Model:
    """A CLIP; raises UnknownName for an architecture or tag, CheckpointError for bad weights."""
    source = locate(backbone)
    model = build(backbone, source)
    with making(backbone, "its tokenizer and preprocessing"):
        tokenizer = open_clip.get_tokenizer(source.model_name)
        config = PreprocessCfg(**model.visual.preprocess_cfg)
        geometry, normalize = split_transform(image_transform_v2(config, is_train=False))
    known = cost_of(backbone)
    gflops = known.image_gflops if known else measure_gflops(model.visual, config.size)
    return Model(
        visual=model.visual,
        embed_dim=int(source.config["embed_dim"]),
        identity={
            "architecture": source.architecture if source.tag else None,
            "pretrained": source.tag,
            "model": {**source.config, "quick_gelu": source.quick_gelu},
            "weights": weights_digest(model),
            "preprocess": _resolved(config),
        },
        geometry=geometry,
        normalize=(normalize.mean, normalize.std),
        texts=_Texts(model.to(device), tokenizer, device),
        logit_scale=float(model.logit_scale.detach().exp()),
        gflops=gflops,
        is_convolutional=not hasattr(model.visual, "transformer"),
        provenance={
            "open_clip": version("open_clip_torch"),
            "parameters": sum(p.numel() for p in model.parameters()),
        },
    )


class _Texts:
    """A CLIP's text tower.

    Causal towers that read the end token need no more positions than the batch's longest text has,
    as later ones cannot reach it. That is five times faster for usual prompts, and exact.
    """

    def __init__(
        self, model: Any, tokenizer: Callable[[list[str]], torch.Tensor], device: torch.device
    ) -> None:
        self.model, self._tokenizer, self._device = model, tokenizer, device
        self._causal = _causal_tower(model)

    def read(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self._tokenizer(texts)
        return tokens, self._lengths(tokens)

    def _lengths(self, tokens: torch.Tensor) -> torch.Tensor:
        if self._causal is None:
            return torch.full((len(tokens),), tokens.shape[1])
        _, _, pool, end_token = self._causal
        if pool == "argmax":  # the end token has the highest number
            return tokens.argmax(dim=-1) + 1
        return (tokens == end_token).int().argmax(dim=-1) + 1

    def encode(self, texts: Sequence[torch.Tensor]) -> torch.Tensor:
        tokens = torch.stack(list(texts))
        n = int(self._lengths(tokens).max())
        tokens = tokens[:, :n].to(self._device)
        if self._causal is None:
            return self.model.encode_text(tokens, normalize=True)  # type: ignore[no-any-return]
        # open_clip adds all positions to the tokens, so it is lent as many as there are tokens
        prefix, tower, *_ = self._causal
        shorter = {
            f"{prefix}positional_embedding": tower.positional_embedding[:n],
            f"{prefix}attn_mask": tower.attn_mask[:n, :n],
        }
        outputs = torch.func.functional_call(self.model, shorter, (None, tokens))
        return outputs[1]  # type: ignore[no-any-return]


def _causal_tower(model: Any) -> tuple[str, Any, str, int] | None:
    """The text tower with its prefix in the model, how it finds the end token, and that token.

    None if a text's embedding may depend on what comes after its end token.
    """
    if type(model) is open_clip.CLIP:
        prefix, tower, pool, end_token = "", model, model.text_pool_type, model.text_eos_id
    elif type(model) is open_clip.CustomTextCLIP and type(model.text) is TextTransformer:
        prefix, tower = "text.", model.text
        pool, end_token = tower.pool_type, tower.eos_id
    else:
        return None
    appended = getattr(tower, "cls_emb", None) is not None
    exact = tower.attn_mask is not None and pool in {"argmax", "eos"} and not appended
    return (prefix, tower, pool, end_token) if exact else None


def _resolved(config: PreprocessCfg) -> dict[str, Any]:
    """open_clip's preprocessing as JSON; one size or two, as towers spell it, mean the same."""
    size = [config.size] * 2 if isinstance(config.size, int) else list(config.size)
    return {**asdict(config), "size": size, "mean": list(config.mean), "std": list(config.std)}
