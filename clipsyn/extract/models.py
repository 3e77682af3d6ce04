"""A Backbone becomes open_clip's model: its files are located, loaded and checked.

Every form of source ends in `open_clip.create_model`. Files are checked before it, so that a wrong
name, a missing file or an unfit checkpoint gives an error of one sentence. Weights are checked
after it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.pretrained import download_pretrained_from_hf

from clipsyn.catalog.backbones import CONFIG_FILE
from clipsyn.errors import CheckpointError
from clipsyn.extract.checkpoint import (
    checkpoint_shapes,
    misshapen,
    read_config,
    require_finite,
)
from clipsyn.names import Backbone
from clipsyn.registry import unknown_name
from clipsyn.text import one_line

# In open_clip's order of preference: what its own tools write.
_WEIGHTS_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)


@dataclass(frozen=True)
class ModelSource:
    """The arguments of `open_clip.create_model`, resolved from a Backbone."""

    model_name: str  # with open_clip's schema: "ViT-B-32", "local-dir:…", "hf-hub:…"
    config: dict[str, Any]  # open_clip's model_cfg
    checkpoint: Path
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
        located = locate(backbone)
        checkpoint_shapes(located.checkpoint)
        return True, int(located.config["embed_dim"])
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
    return ModelSource(f"local-dir:{folder}", config, _weights_in(folder))


def _weights_in(folder: Path) -> Path:
    weights = sorted(p for p in folder.iterdir() if p.suffix in {".safetensors", ".bin", ".pth"})
    for name in _WEIGHTS_FILES:
        if folder / name in weights:
            return folder / name
    if len(weights) != 1:
        held = f"several ({', '.join(p.name for p in weights)})" if weights else "none"
        raise CheckpointError(
            f"{folder} must hold one weights file and holds {held}: name it {_WEIGHTS_FILES[0]}"
        )
    return weights[0]


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
    shapes = checkpoint_shapes(source.checkpoint)
    what = f"'{backbone.name}' cannot be made of {source.checkpoint}"
    with quiet_open_clip():
        try:
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
            raise CheckpointError(f"{what}: {one_line(error)[:300]}") from error
    if resized := misshapen(shapes, model):
        raise CheckpointError(f"{what}: {resized}")
    require_finite(model, backbone.name)
    return model.eval()


@contextmanager
def quiet_open_clip() -> Iterator[None]:
    """Keep open_clip's logging off the user's terminal and out of the root logger's set-up.

    It logs through the root logger, whose first message would install a handler permanently. Nor
    does transformers ask here whether code of a repository may run: it may not.
    """
    with suppress(ImportError):
        from transformers import dynamic_module_utils

        dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # seconds for an answer
    before = logging.root.manager.disable
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
        logging.root.removeHandler(handler)
