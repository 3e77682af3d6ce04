"""What the folders of a store are called after, and how names become folders and back."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

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

    So do hyphens that could be read as a ``/``, and a leading dot.
    """
    quoted = _AMBIGUOUS_HYPHEN.sub("%2D", quote(name, safe="/@=+,"))
    quoted = f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted
    return quoted.replace("/", "--")


def name_of_folder(folder: str) -> str:
    return unquote(folder.replace("--", "/"))
