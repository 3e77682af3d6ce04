"""What checkpoints of others may hold: a configuration, tensors that fit, finite numbers.

Nothing here runs code from a file: pickles are opened with `weights_only=True`. open_clip hands
much of a configuration on to timm and transformers, which would fetch, or run as a program, what
it names; so nothing passes but what is listed here. open_clip's own configurations are trusted.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import safe_open

from clipsyn.errors import CheckpointError
from clipsyn.text import first_problem, foreign, parse_json, read_text

Shapes = dict[str, tuple[int, ...]]

_FOREIGN = (".npz", ".npy")  # big_vision's format: open_clip converts it, there is no state dict
_REFUSED = re.compile(r"(?:GLOBAL|global|class|function)\s+([\w.]+\.[\w.]+)")


def checkpoint_shapes(path: Path) -> Shapes:
    """Name and shape of every tensor in the file, without reading the tensors' values.

    Empty for numpy archives, whose names mean nothing to open_clip's models. Raises
    CheckpointError for a file that is missing, cut, not a checkpoint, or would run code.
    """
    if not path.is_file():
        raise CheckpointError(
            f"there is no checkpoint file at {path}: give the path of a .pt, .bin or "
            ".safetensors file"
        )
    if path.suffix in _FOREIGN:
        return {}
    with foreign(
        lambda reason: CheckpointError(
            f"{path} is damaged or no checkpoint ({reason}): fetch or save it again"
        )
    ):
        return _safetensors_shapes(path) if path.suffix == ".safetensors" else _pickle_shapes(path)


def _safetensors_shapes(path: Path) -> Shapes:
    with safe_open(path, framework="pt") as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118 (not a dict)


def _pickle_shapes(path: Path) -> Shapes:
    zipped = zipfile.is_zipfile(path)
    if zipped and _is_torchscript(path):
        raise CheckpointError(
            f"{path} is a TorchScript archive, which is a program: save its state_dict() alone, "
            "or use ARCHITECTURE/TAG, for instance ViT-B-32/openai"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if refused := _REFUSED.search(str(error)):
            raise CheckpointError(
                f"{path} was not opened, as it holds Python objects that could run code "
                f"({refused[1]}): save the model's state_dict() alone, best as .safetensors"
            ) from error
        raise ValueError("a pickle of another kind") from error  # torch says how to run it
    return _state_dict_shapes(path, content)


def _is_torchscript(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _state_dict_shapes(path: Path, content: Any) -> Shapes:
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    if not isinstance(state, Mapping) or not any(torch.is_tensor(v) for v in state.values()):
        raise CheckpointError(
            f"{path} holds no state dict of tensors: save it with "
            "torch.save(model.state_dict(), PATH)"
        )
    return {
        str(name).removeprefix("module."): tuple(value.shape)
        for name, value in state.items()
        if torch.is_tensor(value)
    }


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def misshapen(shapes: Shapes, model: torch.nn.Module) -> str | None:
    """The first tensor of another shape in the file than in the model, in words; None if none.

    open_clip resizes position embeddings of another resolution on loading, without a message; the
    result is a model that was never trained. Shapes are compared up to axes of length one, as it
    stores `logit_scale` both ways.
    """
    for name, tensor in model.state_dict().items():
        plain = name.removeprefix("text.")  # before open_clip 2.0 text towers had no prefix
        shape = shapes.get(name, shapes.get(plain))
        if shape is not None and _squeezed(shape) != _squeezed(tuple(tensor.shape)):
            return f"'{name}' has shape {shape} in the file and {tuple(tensor.shape)} in the model"
    return None


def require_finite(model: torch.nn.Module, where: str) -> None:
    """Raise CheckpointError naming the first tensor of the model with NaN or Inf."""
    for name, tensor in model.state_dict().items():
        # One NaN or Inf makes the sum NaN or Inf; only then is every value checked.
        if not tensor.is_floating_point() or torch.isfinite(tensor.sum()):
            continue
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise CheckpointError(
                f"{where}: {bad} of {tensor.numel()} values of '{name}' are NaN or Inf; the "
                "checkpoint is of no use, fetch or train it again"
            )


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 (hex) over name, dtype, shape and bytes of every tensor, in order of names.

    Taken from the loaded model, so that it depends neither on the file's container nor on
    its path. Reads the tensors in place: about 2 GB/s.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()


_Number = Annotated[int | float, Field(ge=-(2**20), le=2**20, allow_inf_nan=False)]
_Word = Annotated[str, Field(pattern="^[a-z0-9_]*$")]  # one of open_clip's own: no path, no address
_ModelName = Annotated[str, Field(pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)?$")]  # of the hub
_Size = Annotated[int, Field(ge=1, le=4096)]  # pixels
_Sizes = _Size | Annotated[list[_Size], Field(min_length=2, max_length=2)]
_Mean = Annotated[float, Field(ge=-1e3, le=1e3)]
_Deviation = Annotated[float, Field(ge=1e-6, le=1e6)]
_OfChannels = Field(min_length=3, max_length=3)


class _Allowed(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _TokenizerOptions(_Allowed):
    clean: _Word = ""
    strip_sep_token: bool = False
    language: _Word = ""


class _Tower(_Allowed):
    """Of images or of texts; open_clip refuses what stands in the wrong one.

    Numbers may have any name, as they name nothing.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, bool | _Number | list[_Number] | None]

    layers: Annotated[int, Field(ge=0, le=1000)] | list[_Size] = 12
    image_size: _Sizes = 224
    timm_model_name: Annotated[str, Field(pattern=r"^[\w.]*$")] | None = None
    hf_model_name: _ModelName | None = None
    hf_tokenizer_name: _ModelName | None = None
    tokenizer_kwargs: _TokenizerOptions = _TokenizerOptions()
    act_kwargs: dict[Literal["approximate"], _Word] | None = None
    norm_kwargs: dict[Literal["eps"], _Number] | None = None
    block_type: _Word | None = None
    hf_pooler_type: _Word | None = None
    hf_proj_type: _Word | None = None
    pool_type: _Word = ""
    pos_embed_type: _Word = ""
    proj_type: _Word = ""
    timm_pool: _Word | None = None
    timm_proj: _Word | None = None
    tokenizer_mode: _Word | None = None


class _Model(_Allowed):
    embed_dim: Annotated[int, Field(ge=1, le=2**16)]
    vision_cfg: _Tower
    text_cfg: _Tower
    multimodal_cfg: _Tower | None = None
    custom_text: bool = False
    quick_gelu: bool = False
    init_logit_scale: _Number = 0
    init_logit_bias: _Number | None = None
    nonscalar_logit_scale: bool = False


class _Preprocessing(_Allowed):
    """A value may be None, and open_clip has no use for other names than these."""

    model_config = ConfigDict(extra="ignore")

    size: _Sizes | None = None
    mode: Literal["RGB"] | None = None
    mean: Annotated[list[_Mean], _OfChannels] | None = None
    std: Annotated[list[_Deviation], _OfChannels] | None = None
    interpolation: Literal["bicubic", "bilinear", "random"] | None = None
    resize_mode: Literal["shortest", "longest", "squash"] | None = None
    fill_color: Annotated[int, Field(ge=0, le=255)] | None = None


class _Config(_Allowed):
    model_config = ConfigDict(extra="ignore")

    model_cfg: _Model
    preprocess_cfg: _Preprocessing = _Preprocessing()


def read_config(path: Path) -> dict[str, Any]:
    """The `model_cfg` of open_clip's configuration file; raises CheckpointError naming the key."""
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing: it describes the model, {{'model_cfg': …, 'preprocess_cfg': …}}, "
            "as open_clip's push_to_hf_hub writes it"
        )
    with foreign(lambda reason: CheckpointError(f"{path} cannot be read as JSON: {reason}")):
        content = parse_json(read_text(path))
    try:
        _Config.model_validate(content)
    except ValidationError as error:
        raise CheckpointError(f"{path} must not be used: {first_problem(error)}") from None
    model: dict[str, Any] = content["model_cfg"]
    return model
