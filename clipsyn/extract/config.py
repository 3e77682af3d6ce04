"""open_clip's configuration of a model that others made: what may stand in it.

open_clip hands much of it on to timm and transformers, which would fetch, or run as a program, what
it names. So nothing passes but what is listed here. open_clip's own configurations are trusted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clipsyn.errors import CheckpointError
from clipsyn.text import first_problem, foreign, parse_json, read_text

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
