"""What the folders of a store are called after, and how names become folders and back."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from clipsyn.errors import UsageError
from clipsyn.store.arrays import METADATA

_LONGEST = 255  # bytes
_AMBIGUOUS_HYPHEN = re.compile(r"-(?=[-/])|(?<=[-/])-")

KINDS: dict[str, tuple[str, ...]] = {  # what the folders of each kind are called after
    "samples": ("dataset", "split"),
    "classes": ("dataset", "prompts", "backbone"),
    "features": ("dataset", "split", "perturbation", "backbone"),
    "logits": ("dataset", "split", "perturbation", "backbone", "prompts"),
    "imports": ("dataset", "split", "perturbation", "backbone"),
    "prompted": ("dataset", "split", "perturbation", "backbone", "prompts"),
}


def folder_name(name: str) -> str:
    """A name as one path component: ``/`` becomes ``--``, other unusual characters ``%XX``.

    So do hyphens that could be read as a ``/``, a leading dot, and the dot of what Zarr calls its
    metadata. Raises UsageError for a name that no file system takes.
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


def name_of_folder(folder: str) -> str:
    return unquote(folder.replace("--", "/"), errors="surrogatepass")
