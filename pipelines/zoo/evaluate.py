"""Zero-shot accuracy of the shipped models on the shipped sets: `python evaluate.py ../../data`.

A plain open_clip loop over the tars, which shares no code with training. Prints the table of
accuracies on the test splits, and writes it and the table of training runs into DATA/README.md.
"""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import click
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from PIL import Image
from torch import Tensor

FACTS = ("image_parameters", "steps", "samples_seen", "learning_rate", "seconds", "cpu_seconds")


@dataclass(frozen=True)
class EvalSet:
    """One split of one set, decoded."""

    images: list[Image.Image]
    labels: Tensor
    classes: list[str]
    templates: list[str]


def read_set(folder: Path, split: str) -> EvalSet:
    """Read a set of one tar in CLIP_benchmark's layout."""
    images, labels = [], []
    with tarfile.open(folder / split / "0.tar") as tar:
        for member in tar:
            stored = tar.extractfile(member)
            if stored is None:
                continue
            data = stored.read()
            if member.name.endswith(".cls"):
                labels.append(int(data))
            elif member.name.endswith(".webp"):
                images.append(Image.open(io.BytesIO(data)).convert("RGB"))
    lines = [
        (folder / name).read_text("utf-8").splitlines()
        for name in ("classnames.txt", "zeroshot_classification_templates.txt")
    ]
    return EvalSet(images, torch.tensor(labels), *lines)


def classifier(model: CLIP, tokenize: open_clip.SimpleTokenizer, data: EvalSet) -> Tensor:
    """CLIP's zero-shot classifier (embed, class): normalise, average over templates, normalise."""
    rows = []
    for name in data.classes:
        tokens = tokenize([template.replace("{c}", name) for template in data.templates])
        rows.append(F.normalize(model.encode_text(tokens, normalize=True).mean(0), dim=0))
    return torch.stack(rows, 1)


@torch.inference_mode()
def zero_shot_logits(checkpoint: Path, data: EvalSet) -> Tensor:
    """Logits (image, class) of one checkpoint."""
    name = f"local-dir:{checkpoint}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    model.eval()
    weights = classifier(model, open_clip.get_tokenizer(name), data)
    pixels = torch.stack([preprocess(image) for image in data.images])
    features = [model.encode_image(block, normalize=True) for block in torch.split(pixels, 64)]
    scale: Tensor = model.logit_scale.exp()
    return scale * torch.cat(features) @ weights


def accuracies(checkpoint: Path, sets: Path, split: str) -> dict[str, float]:
    """Top-1 accuracy of one checkpoint on every set."""
    result = {}
    for folder in sorted(sets.iterdir()):
        data = read_set(folder, split)
        hits = zero_shot_logits(checkpoint, data).argmax(1) == data.labels
        result[folder.name] = round(hits.float().mean().item(), 4)
    return result


def measure(checkpoints: list[Path], data: EvalSet) -> list[float]:
    """Chance, every model, the best, the ensemble of mean logits and the oracle, in percent."""
    logits = torch.stack([zero_shot_logits(checkpoint, data) for checkpoint in checkpoints])
    hits = logits.argmax(2) == data.labels
    single = hits.float().mean(1)
    ensemble = (logits.mean(0).argmax(1) == data.labels).float().mean()
    oracle = hits.any(0).float().mean()
    shares = [*single.tolist(), single.max().item(), ensemble.item(), oracle.item()]
    return [100 / len(data.classes), *(100 * share for share in shares)]


def table(data: Path, split: str) -> str:
    """The Markdown table of all models on one split of all sets."""
    checkpoints = sorted(path for path in (data / "zoo").iterdir() if path.is_dir())
    head = ["set", "n", "chance", *(c.name for c in checkpoints), "best", "mean logits", "oracle"]
    rows = []
    for folder in sorted((data / "eval").iterdir()):
        members = read_set(folder, split)
        numbers = [f"{value:.1f}" for value in measure(checkpoints, members)]
        rows.append([folder.name, str(len(members.labels)), *numbers])
    return markdown(head, rows)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose first column is text and whose others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def training_table(zoo: Path) -> str:
    """The table of the models' training runs, from training.json."""
    rows = []
    for path in sorted(zoo.glob("*/training.json")):
        facts = json.loads(path.read_text("utf-8"))
        known = (facts[key] for key in FACTS)
        rows.append([path.parent.name, *("n/a" if fact is None else f"{fact:,}" for fact in known)])
    return markdown(["model", *(key.replace("_", " ") for key in FACTS)], rows)


def replace_table(readme: Path, mark: str, text: str) -> None:
    """Put a table between its two marks in the README."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->\n"
    before, rest = readme.read_text("utf-8").split(begin)
    after = rest.split(end)[1]
    readme.write_text(before + begin + text + end + after, "utf-8")


@click.command(help=__doc__)
@click.argument("data", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--split", type=click.Choice(["train", "test"]), default="test", show_default=True)
@click.option("--write/--no-write", default=True, help="Write the tables into DATA/README.md.")
def main(data: Path, split: str, write: bool) -> None:
    """Print the table."""
    text = table(data, split)
    click.echo(text)
    if write and split == "test":
        replace_table(data / "README.md", "accuracy", text)
        replace_table(data / "README.md", "training", training_table(data / "zoo"))


if __name__ == "__main__":
    main()
