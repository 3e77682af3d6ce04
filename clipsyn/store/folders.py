"""The folders of a store: which names they stand for, and how names become folders."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, unquote

from clipsyn.errors import UsageError
from clipsyn.store.files import METADATA

_LONGEST = 255  # bytes
_AMBIGUOUS_HYPHEN = re.compile(r"-(?=[-/])|(?<=[-/])-")

KINDS: dict[str, tuple[str, ...]] = {  # what the folders of each kind are called after
    "samples": ("dataset", "split"),  # which images
    "classes": ("dataset", "prompts", "backbone"),  # class embeddings
    "features": ("dataset", "split", "perturbation", "backbone"),  # image embeddings
    "logits": ("dataset", "split", "perturbation", "backbone", "prompts"),
    "predictions": ("dataset", "split", "perturbation", "backbone", "prompts"),  # without logits
}
Place = tuple[str, ...]  # kind and names of a group
PROMPTS = "imported"  # stands for the prompt set of what was imported and is of no known one
ANSWERS = ("logits", "predictions")  # made from features and classes, or imported without these
ORDER = tuple(KINDS)  # of publishing: sources go first


@lru_cache(4096)
def folder_name(name: str) -> str:
    """A name as one path component: ``/`` becomes ``--``, other unusual characters ``%XX``.

    Hyphens that could be read as a ``/``, a leading dot, and the dot of ``zarr.json`` are escaped,
    too. Raises UsageError for a name that is too long for a file system.
    """
    quoted = _AMBIGUOUS_HYPHEN.sub("%2D", quote(name, safe="/@=+,", errors="surrogatepass"))
    if quoted.startswith(".") or quoted == METADATA:
        quoted = quoted.replace(".", "%2E", 1)
    folder = quoted.replace("/", "--")
    if len(folder) > _LONGEST:
        raise UsageError(
            f"'{name[:40]}…' is too long for a name: it makes {len(folder)} bytes in a path, and "
            f"file systems take {_LONGEST}; shorten it"
        )
    return folder


@lru_cache(4096)
def name_of_folder(folder: str) -> str:
    return unquote(folder.replace("--", "/"), errors="surrogatepass")


def place(store: Path, path: Path) -> list[str]:
    """Kind and names of the group in the folder at `path`."""
    kind, *folders = below(store, path)
    return [kind, *map(name_of_folder, folders)]


def below(store: Path, path: Path) -> tuple[str, ...]:
    """The parts of a path in the store's folder: quicker than `relative_to`, for thousands."""
    return path.parts[len(store.parts) :]
