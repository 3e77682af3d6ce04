"""Text embeddings, the class embeddings that are made of prompts, and how these are stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.transformer import TextTransformer

from clipsyn import __version__
from clipsyn.errors import CheckpointError, DamagedStore
from clipsyn.names import PromptSet, fingerprint
from clipsyn.text import running

if TYPE_CHECKING:
    from clipsyn.extract.encoder import Encoder
    from clipsyn.extract.work import ClassesWork
    from clipsyn.show.progress import Progress

BATCH = 256
PART = 4 * BATCH  # texts whose embeddings are kept at a time: an interruption loses no more


@dataclass(frozen=True)
class ClassTexts:
    """The prompts of classes, each distinct text once, in parts that are encoded one by one.

    The distinct texts are ordered by length and cut into whole batches. So what is encoded together
    depends on nothing but the prompts, and neither the size of a part nor where a run is
    interrupted can change a bit of the class embeddings. Raises UsageError for a class without
    prompts.
    """

    encoder: Encoder
    class_names: Sequence[str]
    prompts: PromptSet

    def __len__(self) -> int:
        return len(self._places)

    @cached_property
    def parts(self) -> list[list[str]]:
        texts = list(self._places)
        order = np.argsort(self.encoder.text_lengths(texts), kind="stable").tolist()
        return [[texts[i] for i in order[at : at + PART]] for at in range(0, len(order), PART)]

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        """The classes of each text, a class as often as it has the text."""
        places: dict[str, list[int]] = {}
        for number, name in enumerate(self.class_names):
            for text in self.prompts.prompts(name):
                places.setdefault(text, []).append(number)
        return places

    def class_embeddings(
        self, embedded: Callable[[list[str]], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """(class, embed): each prompt's unit-norm embedding, their mean over a class, normalised.

        embedded: gives the embeddings (n, embed) of one of `parts`. The order (normalise, mean,
        normalise) is CLIP's and open_clip's. A text that several classes share has one embedding,
        so classes of one name get identical rows. Raises CheckpointError where a class has none.
        """
        mean = np.zeros((len(self.class_names), self.encoder.embed_dim))
        for part in self.parts:
            for text, row in zip(part, embedded(part), strict=True):
                for number in self._places[text]:
                    mean[number] += row
        mean /= np.array([[len(self.prompts.prompts(name))] for name in self.class_names])
        length = np.linalg.norm(mean, axis=1, keepdims=True)
        if lost := int(np.count_nonzero(~((length > 0) & np.isfinite(length)))):
            raise CheckpointError(
                f"the text tower has no embedding, or NaN or Inf, for {lost:,} of {len(mean):,} "
                "classes: fetch or train the checkpoint again"
            )
        mean /= length
        return mean.astype(np.float32)


def write_classes(classes: ClassesWork, shard: tuple[int, int], progress: Progress) -> None:
    """Encode the texts that no worker has encoded, then make the class embeddings of all.

    Workers begin at different parts, so that together they encode most of them once.
    """
    draft, encoder = classes.draft, classes.encoder
    if not draft.pending():
        return
    texts = ClassTexts(encoder, classes.class_names, classes.prompts)
    name = f"{encoder.backbone.name}: prompts {classes.prompts.name}"
    done = sum(len(part) for part in texts.parts if draft.is_kept(_part_name(part)))
    counter = progress.add(name, len(texts), done, unit="texts")
    first = len(texts.parts) * shard[0] // shard[1]
    for part in texts.parts[first:] + texts.parts[:first]:
        if not draft.is_kept(_part_name(part)) and draft.pending():
            draft.keep(_part_name(part), encoder.encode_text(part))
            progress.advance(counter, len(part))
    progress.finish(counter)
    try:
        embedding = texts.class_embeddings(
            lambda part: draft.kept(_part_name(part), (len(part), encoder.embed_dim))
        )
    except DamagedStore:
        if draft.pending():  # else another worker was faster, and has cleared up
            raise
        return
    draft.write(0, {"class_embedding": embedding}, {})


def _part_name(texts: Sequence[str]) -> str:
    """What a part is kept under: it is found again only where it is cut in the same way."""
    return fingerprint({"texts": list(texts)})[:20]


def publish_classes(classes: ClassesWork, replace: bool) -> None:
    """Make class embeddings visible that are whole."""
    encoder = classes.encoder
    attributes = {
        "logit_scale": encoder.logit_scale,
        "provenance": {
            "encoder": encoder.provenance,
            "clipsyn": __version__,
            "command": running(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }
    classes.draft.publish(lambda _: attributes, replace=replace)


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

    def lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,): how many positions decide each text's embedding."""
        parts = (list(texts[at : at + PART]) for at in range(0, len(texts), PART))
        lengths = torch.cat([self._lengths(self._tokenizer(part)) for part in parts])
        return lengths.numpy()

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
