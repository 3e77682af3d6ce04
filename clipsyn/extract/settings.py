"""What extracting, and splitting images beforehand, are asked for."""

from __future__ import annotations

from pathlib import Path

from clipsyn.names import HELP as SHARD_HELP
from clipsyn.names import MOST, MOST_WORKERS
from clipsyn.settings import FLAG, NUMBER, PATH, REQUIRED, TEXT, TEXTS, WHOLE, Settings, setting


class ExtractSettings(Settings):
    """Settings of `clipsyn extract`: what to extract and how, as text and numbers."""

    backbones: tuple[str, ...] = setting(
        ("zoo",),
        TEXTS,
        "ARCH/TAG, hf-hub:ORG/REPO, local-dir:PATH or ARCH@CHECKPOINT, each with an optional "
        "NAME=; a collection (openai, zoo); a .txt file with one a line. Repeated or with commas.",
        letter="-b",
    )
    datasets: tuple[str, ...] = setting(
        REQUIRED,
        TEXTS,
        "A folder, a .csv or .parquet manifest, a webdataset or an image set of Hugging Face's, "
        "with an optional NAME=; or a name that `clipsyn catalog datasets` lists. Repeated or with "
        "commas.",
        flag="--dataset",
        letter="-d",
    )
    splits: tuple[str, ...] = setting(
        ("test",),
        TEXTS,
        "Which part of each dataset. Repeated or with commas.",
        flag="--split",
        letter="-s",
    )
    perturbations: tuple[str, ...] = setting(
        ("clean",),
        TEXTS,
        "clean; NAME:SEVERITY (1 to 5), for instance jpeg:3; or GROUP:SEVERITY, GROUP (all five) "
        "of imagenet-c, imagenet-c-extra, geometric, photometric, occlusion. `clipsyn "
        "catalog perturbations` lists the names. Options follow: :seed=N, :canvas=PIXELS. Repeated "
        "or with commas.",
        flag="--perturb",
        letter="-p",
    )
    prompts: str = setting(
        "auto",
        TEXT,
        "auto (the dataset's own, else known ones), own, clip-benchmark, openai (80 for ImageNet), "
        "simple ('a photo of a {c}.'), or a JSON file.",
    )
    data_root: Path | None = setting(
        None,
        PATH,
        "Where datasets that are given by name lie, and what manifests name outside their folder.",
        variable="CLIPSYN_DATA",
        instead_of_none="none",
    )
    download: bool = setting(False, FLAG, "Let torchvision fetch a dataset that is missing.")
    device: str = setting("auto", TEXT, "auto, cpu, cuda, cuda:N or mps.")
    precision: str = setting(
        "auto", TEXT, "auto (fp32 on a CPU, autocast on a GPU), fp32, bf16, amp_bf16 or amp_fp16."
    )
    batch_size: int | None = setting(
        None, WHOLE, "Images at a time.", least=1, most=MOST, instead_of_none="64; on a GPU 256"
    )
    workers: int | None = setting(
        None, WHOLE, "Decoding threads.", least=1, most=MOST_WORKERS, instead_of_none="one a core"
    )
    shard: str | None = setting(
        None, TEXT, SHARD_HELP.format("store"), instead_of_none="all of the work"
    )
    max_bad: float = setting(
        0.001,
        NUMBER,
        "Share of a split's images that may be impossible to decode.",
        least=0,
        most=1,
    )
    logits: str = setting(
        "clean",
        TEXT,
        "Which cells store logits: clean (those of unperturbed images), all, or none. The others "
        "store predictions, and logits are derived when they are read.",
        choices=("clean", "all", "none"),
    )
    replace: bool = setting(
        False, FLAG, "Make again, instead of refusing, what other weights, images or prompts made."
    )

    def of_any_device(self) -> ExtractSettings:
        """The same for a plan of what is done elsewhere: whoever makes it may have no GPU."""
        return self.replaced(device="cpu", precision="auto")
