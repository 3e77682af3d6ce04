"""Models of the user's own: what a function of theirs returns, run as it is.

This runs a program, so nothing but a source that the user names leads here. Its identity is the
digest of the tensors that it holds and of the file that the function stands in.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from clipsyn.errors import CheckpointError, ClipsynError
from clipsyn.extract.encoder import Found, Model
from clipsyn.extract.weights import weights_digest
from clipsyn.names import Backbone
from clipsyn.text import one_line


def find(_: Backbone) -> Found:
    """Nothing is known before it is run."""
    return Found(None, None, is_here=True)


def load(backbone: Backbone, device: torch.device) -> Model:
    """What ``FACTORY(device)`` of ``py:MODULE:FACTORY`` returns.

    Raises CheckpointError for a module or factory that is not there, what they raise, and an object
    without `preprocess` or `encode_images`.
    """
    place, _, factory = backbone.source.removeprefix("py:").partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # which a command does not search otherwise
    with _running(backbone, f"{place}:{factory}"):
        module = import_module(place)
        own = _Own(backbone, getattr(module, factory)(device)).eval()
        program = hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()
        scale = float(getattr(own.made, "logit_scale", 100.0))
    weights = weights_digest(own)
    return Model(
        visual=own,
        identity={
            "model": {"py": f"{place}:{factory}", "program": program},
            "weights": weights,
            "preprocess": {"py": f"{place}:{factory}", "program": program, "weights": weights},
        },
        geometry=own.preprocess,
        normalize=None,
        texts=own if hasattr(own.made, "encode_texts") else None,
        logit_scale=scale,
    )


@contextmanager
def _running(backbone: Backbone, what: str) -> Iterator[None]:
    """Raise CheckpointError for what the program raises, but for memory that is short."""
    try:
        yield
    except (ClipsynError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)[:200]}"
        raise CheckpointError(f"{what} of {backbone.source} fails: {reason}") from error


class _Own(torch.nn.Module):
    """The user's object, with the modules that it is or has as attributes; answers are checked."""

    def __init__(self, backbone: Backbone, made: Any) -> None:
        super().__init__()
        self.backbone, self.made = backbone, made
        held = {} if isinstance(made, torch.nn.Module) else getattr(made, "__dict__", {})
        parts = {name: it for name, it in held.items() if isinstance(it, torch.nn.Module)}
        self.held = torch.nn.ModuleDict(parts)
        self.shape: tuple[int, ...] | None = None  # of a preprocessed image
        for method in ("preprocess", "encode_images"):
            if not callable(getattr(made, method, None)):
                raise CheckpointError(
                    f"{backbone.source} returns a {type(made).__name__} without {method}(): an "
                    "encoder has preprocess(image) and encode_images(batch)"
                )

    def preprocess(self, image: Image.Image) -> NDArray[Any]:
        with _running(self.backbone, "preprocess()"):
            array = np.asarray(self.made.preprocess(image))
        self.shape = self.shape or array.shape
        if array.shape != self.shape:
            raise CheckpointError(
                f"preprocess() of {self.backbone.source} gives {self.shape} for one image and "
                f"{array.shape} for another: all must have one shape"
            )
        return array

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self._rows("encode_images", batch)

    def read(self, texts: list[str]) -> tuple[list[str], torch.Tensor]:
        return texts, torch.tensor([len(text) for text in texts])

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.nn.functional.normalize(self._rows("encode_texts", list(texts)), dim=-1)

    def _rows(self, method: str, given: Any) -> torch.Tensor:
        with _running(self.backbone, f"{method}()"):
            rows = torch.as_tensor(getattr(self.made, method)(given))
        if rows.ndim != 2 or len(rows) != len(given):
            raise CheckpointError(
                f"{method}() of {self.backbone.source} gives {tuple(rows.shape)} for {len(given)}: "
                "it must be (n, embed)"
            )
        return rows
