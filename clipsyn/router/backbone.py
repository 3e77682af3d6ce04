"""One backbone of a fitted router, with all that decides whether others are the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsyn.catalog.backbones import known_backbones
from clipsyn.errors import InputError, RouterMismatch
from clipsyn.methods.numerics.logits import zero_shot_logits
from clipsyn.methods.pool import Pool
from clipsyn.names import Identity, differences

_DIGEST = 64  # characters of a SHA-256


@dataclass(frozen=True, eq=False)
class FittedBackbone:
    """One backbone as it was when the router was fitted.

    identity: what decides an image embedding; {} if the pool came from no store.
    """

    name: str
    source: str
    identity: Identity
    logit_scale: float | None
    class_embedding: NDArray[np.float32] | None  # (class, embed)

    @property
    def text(self) -> str:
        """NAME or NAME=SOURCE, as `clipsyn extract --backbones` takes it."""
        return "=".join(dict.fromkeys((self.name, self.source)))

    @property
    def is_imported(self) -> bool:
        """Whether its embeddings were made elsewhere, by weights that nobody wrote down."""
        return "imported" in self.identity

    @property
    def precision(self) -> str:
        """The precision that it is run in; raises InputError for a backbone that cannot be run."""
        if not self.identity:
            raise self._of_arrays()
        if self.is_imported:
            raise InputError(
                f"the embeddings of {self.name} were imported, so what makes others like them is "
                "not known: give a store that has its embeddings of these images"
            )
        return str(self.identity.get("precision"))

    def logits(self, embedding: NDArray[Any], rows: int) -> NDArray[np.float32]:
        """`zero_shot_logits` of image embeddings (sample, embed) that lie in blocks of `rows`.

        Raises InputError if the router was fitted on logits that came without class embeddings, and
        RouterMismatch for embeddings of another width.
        """
        if self.class_embedding is None or self.logit_scale is None:
            raise self._of_arrays()
        ours, theirs = self.class_embedding.shape[1], embedding.shape[1]
        if ours != theirs:
            raise RouterMismatch(f"width of the embeddings of {self.name}", ours, theirs)
        return zero_shot_logits(embedding, self.class_embedding, self.logit_scale, rows)

    def check(self, identity: Identity) -> None:
        """Raise RouterMismatch naming the first field in which `identity` differs.

        Of imported embeddings no weights are known: that they are those of extracted ones is taken
        on trust.
        """
        if not self.identity:
            raise self._of_arrays()
        if self.is_imported != ("imported" in identity):
            return
        for name, fitted, given in differences(self.identity, identity):
            raise RouterMismatch(f"{name} of {self.name}", shown_value(fitted), shown_value(given))

    def _of_arrays(self) -> InputError:
        return InputError(
            "the router was fitted on plain arrays or imported logits, so nothing says whether "
            f"other embeddings of {self.name} are of the same backbone: fit it on extracted cells"
        )


def fitted_backbone(support: Pool, name: str) -> FittedBackbone:
    """What a pool that a router was fitted on knows of a backbone."""
    source = support.provenance.get("sources", {}).get(name, name)
    if name in {backbone.name for backbone in known_backbones()["zoo"]}:
        source = name  # the folder of the shipped weights is another one on each machine
    embedding = support.class_embeddings.get(name)
    return FittedBackbone(
        name,
        source,
        support.provenance.get("backbones", {}).get(name, {}),
        support.logit_scales.get(name),
        None if embedding is None else np.asarray(embedding, np.float32),
    )


def shown_value(value: Any) -> str:
    """A value for a message: a digest by its beginning, a long list by its first items."""
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else str(value)
    if len(text) == _DIGEST and text.isalnum():
        return f"{text[:12]}…"
    return text if len(text) <= 2 * _DIGEST else f"{text[: 2 * _DIGEST]}…"
