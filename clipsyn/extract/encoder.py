"""A backbone as an encoder, wherever its model comes from: pixels or texts in, embeddings out.

A source (`source_of`) gives a `Model`: towers, preprocessing, and all that
decides what they answer. What is the same for all of them stands here once.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import Compose, Normalize, ToTensor

from clipsyn.errors import CheckpointError, ClipsynError, UsageError
from clipsyn.extract.device import Fitting, resolve_device, resolve_precision, to_device
from clipsyn.images.source import UndecodableImage
from clipsyn.methods.numerics.logits import is_scale
from clipsyn.names import Backbone, Identity, canonical_json
from clipsyn.text import one_line

TEXT_BATCH = 256
TEXT_PART = 4 * TEXT_BATCH  # texts whose embeddings are kept at a time: no more are lost at a stop


class Found(NamedTuple):
    """What is known of a backbone without its weights; None is not known."""

    width: int | None
    gflops: float | None
    is_here: bool


class TextTower(Protocol):
    """What encodes texts, on the device of its model."""

    def read(self, texts: list[str]) -> tuple[Any, torch.Tensor]:
        """(n,) the texts as `encode` takes them, how many positions decide each embedding."""

    def encode(self, texts: Sequence[Any]) -> torch.Tensor:
        """(n, embed) float32, unit norm, of a batch of what `read` gave."""


@dataclass(frozen=True, eq=False)
class Model:
    """What a source gives of a backbone, in evaluation mode.

    visual: normalised images (n, 3, height, width) -> embeddings (n, embed). identity: everything
    that decides an embedding but the precision, with the resolved preprocessing. geometry: resize,
    crop and conversion to RGB of one image, to which `normalize` (mean and standard deviation of
    the channels) comes later; None where geometry is all. texts: None without a text tower.
    classes: (class, embed) unit norm of a classifier, which stand for those of a dataset.
    """

    visual: Any
    identity: Identity
    geometry: Callable[[Image.Image], Any]  # an image or an array
    normalize: tuple[Sequence[float], Sequence[float]] | None
    texts: TextTower | None = None
    embed_dim: int | None = None  # None is found out
    classes: NDArray[np.float32] | None = None
    logit_scale: float = 100.0  # where training bounds CLIP's
    gflops: float | None = None  # of the image tower for an image, 2 FLOPs per multiply-add
    is_convolutional: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict)


def source_of(backbone: Backbone) -> Any:
    """The module for its kind.

    ``find(backbone)`` says what is `Found` without loading or downloading weights,
    ``load(backbone, device)`` gives a `Model`, or raises CheckpointError for weights that cannot be
    used.
    """
    return import_module(f"clipsyn.extract.of_{backbone.kind}")


def load_encoder(backbone: Backbone, *, device: str = "auto", precision: str = "auto") -> Encoder:
    """Load a backbone's weights, check them and put them on a device.

    device     "auto" is a CUDA GPU if there is one, else the CPU; or "cpu", "cuda", "cuda:1",
               "mps".
    precision  of the image tower. "auto" is fp32 on the CPU and autocast on a CUDA GPU, to bf16
               where the GPU has it, else to fp16. "amp_bf16" and "amp_fp16" autocast; "bf16"
               casts the image tower's weights, which on a CPU is twice as fast for ViTs, where
               autocast gains nothing. Texts are always encoded in fp32.

    Raises UsageError for a device or precision that is not available, UnknownName for an
    architecture or tag, CheckpointError for weights that cannot be used.
    """
    target = resolve_device(device)
    resolved = resolve_precision(precision, target)
    model = source_of(backbone).load(backbone, target)
    return Encoder(backbone, model, device=target, precision=resolved)


def is_convolutional(network: torch.nn.Module) -> bool:
    """Whether it has more convolutions than the one that cuts an image into patches."""
    return sum(isinstance(part, torch.nn.Conv2d) for part in network.modules()) > 1


def split_transform(transform: Compose) -> tuple[Compose, Normalize]:
    """An evaluation transform as (resize, crop, to RGB) and the normalisation after it.

    Raises CheckpointError if it does not end in ToTensor and Normalize.
    """
    steps = transform.transforms
    if not (isinstance(steps[-1], Normalize) and isinstance(steps[-2], ToTensor)):
        names = ", ".join(type(step).__name__ for step in steps)
        raise CheckpointError(
            f"this preprocessing ({names}) does not end in ToTensor and Normalize: install "
            "open_clip_torch 3.3 and timm 1.0"
        )
    return Compose(steps[:-2]), steps[-1]


class Encoder:
    """A model on a device: images and texts in, unit-norm embeddings out.

    identity is everything that decides an embedding: the weights' digest and the settings, as JSON
    values, no path, no version. provenance is recorded, not compared; analyses read its "gflops"
    and "image_parameters". logit_scale is what cosines are multiplied by, the exponential of the
    trained parameter. gflops are of the image tower for an image, 2 FLOPs per
    multiply-add, None where they cannot be measured. Encoders of one preprocess_key share pixels.
    """

    def __init__(
        self, backbone: Backbone, model: Model, *, device: torch.device, precision: str
    ) -> None:
        self.backbone, self.device, self._precision = backbone, device, precision
        self._texts, self.classes = model.texts, model.classes
        self.identity: Identity = {**model.identity, "precision": precision}
        if not self.tells_classes:
            self.identity["text"] = None
        self.gflops = model.gflops
        self.provenance = _provenance(backbone, model, device)
        self.logit_scale = model.logit_scale
        if not is_scale(self.logit_scale):
            raise CheckpointError(
                f"the logit scale of '{backbone.name}' is {self.logit_scale:g}, which gives no "
                "usable logits: fetch or train the checkpoint again"
            )
        preprocess = model.identity["preprocess"].items()
        geometry = {key: it for key, it in preprocess if key not in {"mean", "std"}}
        self.preprocess_key = canonical_json(geometry)
        self._geometry = model.geometry
        self._convolutional = model.is_convolutional
        self._visual = self._placed(model.visual)
        self._fitting = Fitting(backbone.name, device, self._visual)
        self._white = torch.tensor(255.0, device=device)
        try:  # what cannot be is found before the work
            self._scaling = [*map(self._by_channel, model.normalize or ())]
            blank = self.preprocess(Image.new("RGB", (64, 64)))[None]
            self.normalised(blank)
            self.embed_dim = model.embed_dim or self.encode_images(blank).shape[1]
        except ClipsynError:
            raise
        except Exception as error:  # of transforms and networks of others
            reason = one_line(error)[:200]
            raise CheckpointError(f"'{backbone.name}' cannot encode an image: {reason}") from error

    def _by_channel(self, values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device).view(3, 1, 1)

    def _placed(self, visual: Any) -> Any:
        if self._precision == "bf16":
            visual = visual.bfloat16()
        if self._convolutional:  # on a CPU 10 % faster in float32, 30 % in bf16 (RN50)
            visual = visual.to(memory_format=torch.channels_last)
        return visual

    def preprocess(self, image: Image.Image) -> NDArray[np.uint8]:
        """The source's own resize, crop and conversion to RGB: (height, width, 3).

        Raises UndecodableImage for images so narrow that no pixel would be left.
        """
        try:
            return np.asarray(self._geometry(image))
        except ValueError as error:
            size = f"{image.width} x {image.height}"
            raise UndecodableImage(f"{size} pixels cannot be resized: {error}") from error

    def normalised(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """(n, height, width, 3) bytes -> (n, 3, height, width) float32 on the device.

        The same numbers, to the bit, as torchvision's ToTensor and Normalize give image by image.
        What needs no normalisation is put there as it is.
        """
        host = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
        batch = to_device(host, self.device)
        if not self._scaling:
            return batch
        mean, std = self._scaling
        batch = batch.permute(0, 3, 1, 2).float()
        # By a tensor: CUDA turns division by a number into a product, one bit off.
        return batch.div_(self._white).sub_(mean).div_(std)

    def encode_images(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """(n, height, width, 3) -> (n, embed) float16, unit norm, on the device, not waited for.

        In parts, if they are too many for its memory.
        """
        embedding = self._fitting.run(lambda rows: self._encoded(pixels[rows]), len(pixels))
        if self._fitting.peak_mb:
            self.provenance["peak_memory_mb"] = self._fitting.peak_mb
        return embedding

    def _encoded(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        with torch.inference_mode(), self._compute():
            batch = self.normalised(pixels)
            if not self._convolutional:
                batch = batch.contiguous()
            if self._precision == "bf16":
                batch = batch.bfloat16()
            embedding: torch.Tensor = self._visual(batch)
        with torch.inference_mode():
            embedding = embedding.float()
            embedding /= embedding.norm(dim=-1, keepdim=True)  # of 0: NaN, which `to_host` refuses
            return embedding.half()

    def _compute(self) -> AbstractContextManager[Any]:
        if self._precision.startswith("amp_"):
            dtype = torch.bfloat16 if self._precision == "amp_bf16" else torch.float16
            return torch.autocast(self.device.type, dtype)
        if self.device.type == "cuda" and self._precision == "fp32":
            # torch lets convolutions round to TF32 unless told otherwise
            return torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=False, allow_tf32=False
            )
        return nullcontext()

    def to_host(self, parts: Sequence[torch.Tensor]) -> NDArray[np.float16]:
        """Concatenate what `encode_images` returned, waiting for it: (n, embed).

        Raises CheckpointError if a value is not finite.
        """
        joined = torch.cat(list(parts))
        bad = int((~torch.isfinite(joined)).any(dim=1).sum())
        if bad:
            raise CheckpointError(
                f"'{self.backbone.name}' gives NaN or Inf for {bad} of {len(joined)} images in "
                f"precision {self._precision}: try precision=fp32, or fetch the weights again"
            )
        host: NDArray[np.float16] = joined.cpu().numpy()
        return host

    @property
    def reads_texts(self) -> bool:
        """Whether it has a text tower."""
        return self._texts is not None

    @property
    def tells_classes(self) -> bool:
        """Whether images can be compared with classes without any image of these."""
        return self.reads_texts or self.classes is not None

    @property
    def _tower(self) -> TextTower:
        if self._texts is None:
            raise UsageError(f"'{self.backbone.name}' has no text tower: choose another backbone")
        return self._texts

    def text_lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n,): how many positions decide each text's embedding."""
        parts = (list(texts[at : at + TEXT_PART]) for at in range(0, len(texts), TEXT_PART))
        return torch.cat([self._tower.read(part)[1] for part in parts]).numpy()

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, embed), unit norm, in float32 whatever the image tower's precision.

        In batches of texts of like length.
        """
        read, lengths = self._tower.read(list(texts))
        order = torch.argsort(lengths, stable=True)
        with torch.inference_mode():
            parts = [
                self._tower.encode([read[row] for row in rows.tolist()])
                for rows in torch.split(order, TEXT_BATCH)
            ]
        embedded: NDArray[np.float32] = torch.cat(parts)[torch.argsort(order)].cpu().numpy()
        return embedded


def _provenance(backbone: Backbone, model: Model, device: torch.device) -> dict[str, Any]:
    return {
        "source": backbone.source,
        "torch": str(torch.__version__),  # its metadata does not always say which CUDA it is for
        **{package: version(package) for package in ("timm", "torchvision", "pillow")},
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} ({platform.processor() or platform.machine()})",
        "threads": torch.get_num_threads(),
        **model.provenance,
        "image_parameters": sum(it.numel() for it in model.visual.parameters()),
        "gflops": model.gflops,
        "peak_memory_mb": None,  # of a GPU: the image tower and a batch
    }


@dataclass(frozen=True)
class RowTexts:
    """The texts of rows, each distinct one once, in parts that are encoded one by one.

    rows: the prompts of each class, or the text of each caption. The distinct texts are ordered by
    length and cut into whole batches. So what is encoded together depends on nothing but the texts,
    and neither the size of a part nor where a run is interrupted can change a bit of what comes
    out.
    """

    encoder: Encoder
    rows: Sequence[Sequence[str]]

    def __len__(self) -> int:
        return len(self._places)

    @cached_property
    def parts(self) -> list[list[str]]:
        texts = list(self._places)
        order = np.argsort(self.encoder.text_lengths(texts), kind="stable").tolist()
        return [
            [texts[i] for i in order[at : at + TEXT_PART]] for at in range(0, len(order), TEXT_PART)
        ]

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        """The rows of each text, a row as often as it has the text."""
        places: dict[str, list[int]] = {}
        for number, texts in enumerate(self.rows):
            for text in texts:
                places.setdefault(text, []).append(number)
        return places

    def embeddings(
        self,
        embedded: Callable[[list[str]], NDArray[np.float32]],
        sums: type[np.floating[Any]] = np.float64,
    ) -> NDArray[np.float32]:
        """(row, embed): each text's unit-norm embedding, their mean over a row, normalised.

        embedded: gives the embeddings (n, embed) of one of `parts`. sums: the type of the sums. The
        order (normalise, mean, normalise) is CLIP's and open_clip's. A text that several rows share
        has one embedding, so rows of the same texts are identical. Raises CheckpointError where a
        row has none.
        """
        mean = np.zeros((len(self.rows), self.encoder.embed_dim), sums)
        for part in self.parts:
            for text, row in zip(part, embedded(part), strict=True):
                for number in self._places[text]:
                    mean[number] += row
        mean /= np.array([[len(texts)] for texts in self.rows])
        length = np.linalg.norm(mean, axis=1, keepdims=True)
        if lost := int(np.count_nonzero(~((length > 0) & np.isfinite(length)))):
            raise CheckpointError(
                f"the text tower has no embedding, or NaN or Inf, for {lost:,} of {len(mean):,} "
                "classes or captions: fetch or train the checkpoint again"
            )
        mean /= length
        return mean.astype(np.float32, copy=False)
