"""A Backbone becomes open_clip's model: its files are located, loaded and checked.

Nothing here runs code from a file: pickles are opened with `weights_only=True`. open_clip hands
much of a configuration on to timm and transformers, which would fetch, or run as a program, what
it names; so nothing passes but what is listed here. open_clip's own configurations are trusted.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import open_clip
import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from open_clip import factory
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.pretrained import download_pretrained_from_hf

from clipsyn.catalog.backbones import CONFIG_FILE
from clipsyn.errors import CheckpointError, ClipsynError
from clipsyn.names import Backbone
from clipsyn.registry import unknown_name
from clipsyn.text import foreign, one_line, parse_json, read_text

_FIRST = "open_clip_model.safetensors"  # which open_clip takes before all others
_RESIZING = "resize_pos_embed", "resize_text_pos_embed"


@dataclass(frozen=True)
class ModelSource:
    """The arguments of `open_clip.create_model`, resolved from a Backbone."""

    model_name: str  # with open_clip's schema: "ViT-B-32", "local-dir:…", "hf-hub:…"
    config: dict[str, Any]  # open_clip's model_cfg
    checkpoint: Path | None  # or the folder that it is in
    pretrained: str | None = None  # a tag or an absolute path; None with a schema
    architecture: str | None = None  # of ARCHITECTURE/TAG and ARCHITECTURE@CHECKPOINT
    tag: str | None = None

    @property
    def quick_gelu(self) -> bool:
        """Both of open_clip's names for a model of OpenAI mean the one with QuickGELU."""
        return self.tag == "openai" or bool(self.config.get("quick_gelu"))


def locate(backbone: Backbone, *, download: bool = True) -> ModelSource:
    """Find configuration and weights, downloading what open_clip would download.

    Without `download` what is not here is None, or {} for a configuration. Raises UnknownName for
    an architecture or tag that open_clip does not have, CheckpointError for files that are missing
    or weights that need another activation than the architecture's.
    """
    source = backbone.source
    if source.startswith("local-dir:"):
        return _from_folder(Path(source.removeprefix("local-dir:")).expanduser())
    if source.startswith("hf-hub:"):
        repository = source.removeprefix("hf-hub:")
        path = _from_hub(source, repository, CONFIG_FILE, download)
        weights = _from_hub(source, repository, HF_WEIGHTS_NAME, download)
        return ModelSource(source, read_config(path) if path else {}, path and weights)
    if "@" in source:
        architecture, _, name = source.partition("@")
        config = _architecture(architecture)
        path = Path(name).expanduser().resolve()  # absolute: open_clip cannot take it for a tag
        if not path.is_file():
            raise CheckpointError(f"there is no checkpoint file at {path}")
        return ModelSource(architecture, config, path, str(path), architecture)
    architecture, _, tag = source.partition("/")
    config, pretrained = _architecture(architecture), _pretrained(architecture, tag)
    _check_quick_gelu(architecture, tag, config, pretrained)
    checkpoint = _of_tag(source, pretrained, download)
    return ModelSource(architecture, config, checkpoint, tag, architecture, tag)


def _of_tag(source: str, pretrained: dict[str, Any], download: bool) -> Path | None:
    if "file" in pretrained:
        return Path(pretrained["file"])
    if "hf_hub" in pretrained:
        repository, filename = os.path.split(pretrained["hf_hub"])
        return _from_hub(source, repository, filename or HF_WEIGHTS_NAME, download)
    path = Path("~/.cache/clip", Path(pretrained["url"]).name).expanduser()
    if path.is_file() or not download:
        return path if path.is_file() else None
    with downloading(source, pretrained["url"]):
        return Path(open_clip.download_pretrained(pretrained))


def _from_hub(source: str, repository: str, filename: str, download: bool) -> Path | None:
    """A file that is cached, under one of the names open_clip looks for, or is downloaded now."""
    names = [filename]
    if filename == HF_WEIGHTS_NAME:
        names = [HF_SAFE_WEIGHTS_NAME, filename]
    elif filename.endswith((".bin", ".pth")):
        names = [f"{filename[:-4]}.safetensors", filename]
    for name in names:
        if isinstance(path := try_to_load_from_cache(repository, name), str):
            return Path(path)
    if not download:
        return None
    with downloading(source, repository, names[0]):
        return Path(download_pretrained_from_hf(repository, filename=filename))


def is_cached(repository: str, names: Iterable[str]) -> bool:
    """Whether one of the files of a repository of the hub is on this machine."""
    try:
        return any(isinstance(try_to_load_from_cache(repository, name), str) for name in names)
    except HFValidationError as error:
        raise CheckpointError(f"'{repository}' names no repository: {one_line(error)}") from error


@contextmanager
def downloading(source: str, where: str, name: str | None = None) -> Iterator[None]:
    """Raise CheckpointError where it fails; of a file NAME of the hub it is asked first, once."""
    try:
        if name and not constants.HF_HUB_OFFLINE:
            try:  # the download asks six times, 31 s in all, for each name
                get_hf_file_metadata(hf_hub_url(where, name))
            except HfHubHTTPError:
                pass  # it answers; the download will say why it refuses
            except Exception as error:  # of requests, httpx or httpx2, by the hub's version
                raise ConnectionError(str(error)) from error
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"the weights of {source} are not on this machine and could not be downloaded from "
            f"{where}: run `hf download {where}` where there is a network, then copy its cache here"
        ) from error


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


def _architecture(name: str) -> dict[str, Any]:
    config: dict[str, Any] | None = open_clip.get_model_config(name)
    if config is None:
        raise unknown_name("architecture", name, open_clip.list_models())
    return config


def _pretrained(architecture: str, tag: str) -> dict[str, Any]:
    config: dict[str, Any] | None = open_clip.get_pretrained_cfg(architecture, tag)
    if not config:
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        raise unknown_name(f"pretrained tag of {architecture}", tag, tags)
    return config


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

    Raises CheckpointError naming the tensor for weights of another architecture or resolution.
    """
    with making(backbone, source.checkpoint):
        model = open_clip.create_model(
            source.model_name,
            source.pretrained,
            require_pretrained=True,
            weights_only=True,
            precision="fp32",
            device="cpu",
            force_quick_gelu=source.quick_gelu,
        )
    return model.eval()


@contextmanager
def making(backbone: Backbone, of: object) -> Iterator[None]:
    """Quietly; raise CheckpointError for any exception of a library that makes a model."""
    try:
        with quiet_open_clip():
            yield
    except ClipsynError:
        raise
    except Exception as error:  # of open_clip, timm, transformers or torch
        reason = one_line(error)[:300]
        if "weights_only" in reason or isinstance(error, UnpicklingError):  # torch says how to
            reason = (
                "it is damaged, or holds objects that could run code; save the model's "
                "state_dict() alone, best as .safetensors"
            )
        raise CheckpointError(f"'{backbone.name}' cannot be made of {of}: {reason}") from error


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


_MODEL = (
    *("embed_dim", "vision_cfg", "text_cfg", "multimodal_cfg", "custom_text", "quick_gelu"),
    *("init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"),
)
_OPTIONS = {  # the other objects in a configuration, and all that they may have
    "tokenizer_kwargs": ("clean", "strip_sep_token", "language"),
    "act_kwargs": ("approximate",),
    "norm_kwargs": ("eps",),
}
_HUB_NAME = r"[\w-][\w.-]*(/[\w-][\w.-]*)?"
_TEXTS = {"timm_model_name": r"[\w.]*", "hf_model_name": _HUB_NAME, "hf_tokenizer_name": _HUB_NAME}
_WORD = r"([a-z][a-z0-9_]*)?"  # no path, no address
_LARGEST = 1 << 20


def _forbidden(value: Any, keys: tuple[str, ...]) -> str | None:
    """The place of what a `model_cfg` must not say, with numbers and words of any name allowed."""
    key = keys[-1] if keys else ""
    if isinstance(value, dict):
        known = _OPTIONS.get(key) if keys else _MODEL
        if (len(keys) > 1 and known is None) or (known and {*value} - {*known}):
            return ".".join([*keys, *sorted({*value} - {*(known or ())})])
        found = (_forbidden(part, (*keys, name)) for name, part in value.items())
        return next(filter(None, found), None)
    if isinstance(value, list):
        return next(filter(None, (_forbidden(part, keys) for part in value)), None)
    if isinstance(value, str):
        return None if re.fullmatch(_TEXTS.get(key, _WORD), value) else ".".join(keys)
    return None if value is None or abs(value) <= _LARGEST else ".".join(keys)


def read_config(path: Path) -> dict[str, Any]:
    """The `model_cfg` of open_clip's configuration file; raises CheckpointError naming the key."""
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing: write model_cfg and preprocess_cfg into it, as open_clip's "
            "push_to_hf_hub does"
        )
    with foreign(lambda reason: CheckpointError(f"{path} cannot be read as JSON: {reason}")):
        content = parse_json(read_text(path))
    model = content.get("model_cfg") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("embed_dim"), int):
        raise CheckpointError(f"{path} describes no model: it needs model_cfg, with its embed_dim")
    for part in ("vision_cfg", "text_cfg"):
        if not isinstance(model.get(part), dict):
            raise CheckpointError(f"{path} describes no model: {part} is missing in model_cfg")
    if place := _forbidden(model, ()):
        raise CheckpointError(f"{path} must not be used: model_cfg.{place} is not allowed")
    return model
