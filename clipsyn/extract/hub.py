"""The Hugging Face Hub: which weights lie in its cache on this machine, and whether it answers."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME


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
