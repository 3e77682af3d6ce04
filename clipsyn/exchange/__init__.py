"""What other tools wrote, into cells and out of them again, and where cells come from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from clipsyn.errors import UsageError
from clipsyn.names import CLEAN
from clipsyn.settings import FLAG, PAIRS, PATH, TEXT, Settings, defaults, setting

LAYOUTS = ("npz", "huggingface")  # of an export


class ImportSettings(Settings):
    """Settings of `clipsyn import`; docs/importing.md explains each."""

    dataset: str | None = setting(
        None,
        TEXT,
        "What of: a dataset of the store, or a new one.",
        instead_of_none="as an export says",
    )
    split: str = setting("test", TEXT, "Which part of it.")
    perturbation: str = setting(
        CLEAN.label,
        TEXT,
        "NAME:SEVERITY of all rows; NAME alone where a column has the severities.",
    )
    backbone: str | None = setting(
        None, TEXT, "What made it.", instead_of_none="as a column says, or the file's name"
    )
    kind: str = setting(
        "auto",
        TEXT,
        "What the numbers are.",
        choices=("auto", "predictions", "logits", "probabilities", "embeddings"),
    )
    prompts: str | None = setting(
        None, TEXT, "Prompt set of the predictions, or of the class embeddings."
    )
    row_order: bool = setting(False, FLAG, "Rows without ids are the samples in their order.")
    classes: Path | None = setting(None, PATH, "Class names by index: one a line, or a JSON list.")
    columns: Mapping[str, str] = setting(
        {},
        PAIRS,
        "Which column is what, where it is not called as usual: id=key,label=truth. ROLE is id, "
        "prediction, confidence, label, backbone, perturbation or severity.",
        metavar="ROLE=NAME",
    )
    names: Mapping[str, str] = setting(
        {},
        PAIRS,
        "What to call the backbones of the files: clip=ViT-B-32. Repeated or with commas.",
        metavar="OLD=NEW",
    )
    intersect: bool = setting(False, FLAG, "Take the ids in common; the rest has no value.")
    replace: bool = setting(False, FLAG, "Replace what was imported under the same names.")

    def check_unset(self, path: Path, names: Collection[str]) -> None:
        """Raise UsageError for any of these settings, of which the file or folder says itself."""
        usual = defaults(type(self))
        for name in names:
            if getattr(self, name) != usual[name]:
                raise UsageError(f"{path} says itself what it holds: leave {name}=… away")
