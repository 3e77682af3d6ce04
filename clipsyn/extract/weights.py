"""A Backbone becomes open_clip's model: its files are located, loaded and checked.

Nothing here runs code from a file: pickles are opened with `weights_only=True`. open_clip hands
much of a configuration on to timm and transformers, which would fetch, or run as a program, what
it names; so nothing passes but what is listed here. open_clip's own configurations are trusted.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any, Literal

import open_clip
import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from open_clip import factory
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.pretrained import download_pretrained_from_hf
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipsyn.catalog.backbones import CONFIG_FILE
from clipsyn.errors import CheckpointError
from clipsyn.names import Backbone
from clipsyn.registry import unknown_name
from clipsyn.text import first_problem, foreign, one_line, parse_json, read_text

_FIRST = "open_clip_model.safetensors"  # which open_clip takes before all others
_RESIZING = "resize_pos_embed", "resize_text_pos_embed"


@dataclass(frozen=True)
class ModelSource:
    """The arguments of `open_clip.create_model`, resolved from a Backbone."""

    model_name: str  # with open_clip's schema: "ViT-B-32", "local-dir:…", "hf-hub:…"
    config: dict[str, Any]  # open_clip's model_cfg
    checkpoint: Path  # or the folder that it is in
    pretrained: str | None = None  # a tag or an absolute path; None with a schema
    architecture: str | None = None  # of ARCHITECTURE/TAG and ARCHITECTURE@CHECKPOINT
    tag: str | None = None

    @property
    def quick_gelu(self) -> bool:
        """Both of open_clip's names for a model of OpenAI mean the one with QuickGELU."""
        return self.tag == "openai" or bool(self.config.get("quick_gelu"))


def locate(backbone: Backbone) -> ModelSource:
    """Find configuration and weights, downloading what open_clip would download.

    Raises UnknownName for an architecture or tag that open_clip does not have, CheckpointError
    for files that are missing or weights that need another activation than the architecture's.
    """
    source = backbone.source
    if source.startswith("local-dir:"):
        return _from_folder(Path(source.removeprefix("local-dir:")).expanduser())
    if source.startswith("hf-hub:"):
        return _from_hub(source)
    if "@" in source:
        architecture, _, path = source.partition("@")
        return _from_file(architecture, Path(path))
    architecture, _, tag = source.partition("/")
    return _from_tag(architecture, tag)


def look_for(backbone: Backbone) -> tuple[bool, int | None]:
    """Whether the weights are here, and the embedding width, None where only the weights tell it.

    Neither loads nor downloads anything. Raises what `locate` raises, except for a download.
    """
    source = backbone.source
    if source.startswith("hf-hub:"):
        repository = source.removeprefix("hf-hub:")
        config = cached(repository, CONFIG_FILE)
        width = int(read_config(config)["embed_dim"]) if config else None
        return bool(config and cached(repository)), width
    if source.startswith("local-dir:") or "@" in source:
        return True, int(locate(backbone).config["embed_dim"])
    architecture, _, tag = source.partition("/")
    width = int(_architecture(architecture)["embed_dim"])
    return _is_downloaded(_pretrained(architecture, tag)), width


def cached(repository: str, filename: str = "") -> Path | None:
    """The path of a cached file, under one of the names open_clip looks for; "" is weights."""
    places = (try_to_load_from_cache(repository, name) for name in _names(filename))
    return next((Path(path) for path in places if isinstance(path, str)), None)


def require_answer(repository: str, filename: str = "") -> None:
    """Ask the hub once for a file that is not cached; raises ConnectionError if nobody answers.

    Its download would ask six times, 31 s in all, for each name that a file can have. With the
    hub's offline mode nobody is asked, and the download says so at once.
    """
    if constants.HF_HUB_OFFLINE or cached(repository, filename):
        return
    try:
        get_hf_file_metadata(hf_hub_url(repository, _names(filename)[0]))
    except HfHubHTTPError:
        return  # it answers; the download will say why it refuses
    except Exception as error:  # of requests, httpx or httpx2, by the hub's version
        raise ConnectionError(str(error)) from error


def _names(filename: str) -> tuple[str, ...]:
    if not filename or filename == HF_WEIGHTS_NAME:
        return HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
    if filename.endswith((".bin", ".pth")):
        return f"{filename[:-4]}.safetensors", filename
    return (filename,)


def _is_downloaded(pretrained: dict[str, Any]) -> bool:
    if "file" in pretrained:
        return True
    if "hf_hub" in pretrained:
        return cached(*os.path.split(pretrained["hf_hub"])) is not None
    return (Path("~/.cache/clip").expanduser() / Path(pretrained["url"]).name).is_file()


def _from_folder(folder: Path) -> ModelSource:
    if not folder.is_dir():
        raise CheckpointError(
            f"there is no folder {folder}: local-dir:PATH needs one with {CONFIG_FILE} and weights"
        )
    config = read_config(folder / CONFIG_FILE)
    weights = [p.name for p in folder.iterdir() if p.suffix in {".safetensors", ".bin", ".pth"}]
    if len(weights) != 1 and _FIRST not in weights:
        held = ", ".join(sorted(weights)) or "none"
        raise CheckpointError(
            f"{folder} must hold one weights file and holds {held}: name it {_FIRST}"
        )
    return ModelSource(f"local-dir:{folder}", config, folder)


def _from_hub(source: str) -> ModelSource:
    repository = source.removeprefix("hf-hub:")
    try:
        require_answer(repository, CONFIG_FILE)
        config_path = download_pretrained_from_hf(repository, filename=CONFIG_FILE)
        require_answer(repository)
        checkpoint = download_pretrained_from_hf(repository)
    except (OSError, RuntimeError, ValueError) as error:
        raise _not_downloaded(source, repository) from error
    return ModelSource(source, read_config(Path(config_path)), Path(checkpoint))


def _not_downloaded(source: str, where: str) -> CheckpointError:
    return CheckpointError(
        f"the weights of {source} are not on this machine and could not be downloaded from "
        f"{where}: run `hf download {where}` where there is a network, then copy its cache here"
    )


def _architecture(name: str) -> dict[str, Any]:
    config: dict[str, Any] | None = open_clip.get_model_config(name)
    if config is None:
        raise unknown_name("architecture", name, open_clip.list_models())
    return config


def _from_file(architecture: str, path: Path) -> ModelSource:
    config = _architecture(architecture)
    path = path.expanduser().resolve()  # absolute: open_clip cannot take it for a tag
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint file at {path}")
    return ModelSource(architecture, config, path, str(path), architecture)


def _pretrained(architecture: str, tag: str) -> dict[str, Any]:
    config: dict[str, Any] | None = open_clip.get_pretrained_cfg(architecture, tag)
    if not config:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        raise unknown_name(f"pretrained tag of {architecture}", tag, tags)
    return config


def _from_tag(architecture: str, tag: str) -> ModelSource:
    config = _architecture(architecture)
    pretrained = _pretrained(architecture, tag)
    _check_quick_gelu(architecture, tag, config, pretrained)
    try:
        if "hf_hub" in pretrained and "file" not in pretrained:
            require_answer(*os.path.split(pretrained["hf_hub"]))
        checkpoint = open_clip.download_pretrained(pretrained)
    except (OSError, RuntimeError, ValueError) as error:
        where = (pretrained.get("hf_hub") or pretrained.get("url") or "").rstrip("/")
        raise _not_downloaded(f"{architecture}/{tag}", where) from error
    return ModelSource(architecture, config, Path(checkpoint), tag, architecture, tag)


def _check_quick_gelu(
    architecture: str, tag: str, config: dict[str, Any], pretrained: dict[str, Any]
) -> None:
    """Raise CheckpointError if the weights were trained with another activation.

    open_clip only warns, and then computes other embeddings. OpenAI's weights are the exception:
    every one of them needs QuickGELU, so it is switched on.
    """
    trained, built = bool(pretrained.get("quick_gelu")), bool(config.get("quick_gelu"))
    if trained == built or tag == "openai":
        return
    plain = architecture.removesuffix("-quickgelu")
    other = f"{plain}-quickgelu" if trained else plain
    raise CheckpointError(
        f"the weights {architecture}/{tag} were trained {'with' if trained else 'without'} "
        f"QuickGELU and {architecture} is built {'without' if trained else 'with'} it: "
        f"use {other}/{tag}"
    )


def build(backbone: Backbone, source: ModelSource) -> Any:
    """The open_clip model in float32 on the CPU, in evaluation mode, its weights checked.

    Raises CheckpointError naming the tensor for weights of another architecture or resolution
    and for NaN or Inf.
    """
    what = f"'{backbone.name}' cannot be made of {source.checkpoint}"
    try:
        with quiet_open_clip():
            model = open_clip.create_model(
                source.model_name,
                source.pretrained,
                require_pretrained=True,
                weights_only=True,
                precision="fp32",
                device="cpu",
                force_quick_gelu=source.quick_gelu,
            )
    except Exception as error:  # of open_clip, timm, transformers or torch
        reason = one_line(error)[:300]
        if "weights_only" in reason or isinstance(
            error, UnpicklingError
        ):  # torch says how to run it
            reason = (
                "it is damaged, or holds objects that could run code; save the model's "
                "state_dict() alone, best as .safetensors"
            )
        raise CheckpointError(f"{what}: {reason}") from error
    require_finite(model, backbone.name)
    return model.eval()


@contextmanager
def quiet_open_clip() -> Iterator[None]:
    """Keep open_clip's logging off the user's terminal and out of the root logger's set-up.

    It logs through the root logger, whose first message would install a handler permanently. Nor
    does transformers ask here whether code of a repository may run: it may not. And position
    embeddings of another resolution are refused: open_clip would resize them without a message, to
    a model that was never trained.
    """
    with suppress(ImportError):
        from transformers import dynamic_module_utils

        dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # seconds for an answer
    before, resizing = logging.root.manager.disable, [getattr(factory, it) for it in _RESIZING]
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    for name in _RESIZING:
        setattr(factory, name, lambda *_: None)
    try:
        yield
    finally:
        for name, function in zip(_RESIZING, resizing, strict=True):
            setattr(factory, name, function)
        logging.disable(before)
        logging.root.removeHandler(handler)


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
_Word = Annotated[str, Field(pattern="^([a-z][a-z0-9_]*)?$")]  # no path, no address
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

    Numbers and words may have any name, but for what names a model.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, bool | _Number | _Word | list[_Number] | None]

    layers: Annotated[int, Field(ge=0, le=1000)] | list[_Size] = 12
    image_size: _Sizes = 224
    timm_model_name: Annotated[str, Field(pattern=r"^[\w.]*$")] | None = None
    hf_model_name: _ModelName | None = None
    hf_tokenizer_name: _ModelName | None = None
    tokenizer_kwargs: _TokenizerOptions = _TokenizerOptions()
    act_kwargs: dict[Literal["approximate"], _Word] | None = None
    norm_kwargs: dict[Literal["eps"], _Number] | None = None


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
