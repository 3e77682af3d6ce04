"""Build the evaluation sets: `python build_eval.py WORK ../../data/eval`.

Each set is a folder of webdataset tars in CLIP_benchmark's layout. The train split holds styles
that training never saw (A), the test split other such styles (B). The bytes depend only on the
pinned packages and this file.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import tarfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import captions
import click
import numpy as np
from icons import GROUPS, TRAINING_STYLES, UNSEEN_STYLES_A, UNSEEN_STYLES_B
from images import FASHION_CLASSES, FASHION_TRAINED, IconTable, load_fashion, load_icons
from numpy.typing import NDArray
from PIL import Image

SPLITS = {"train": UNSEEN_STYLES_A, "test": UNSEEN_STYLES_B}
FINE_SETS = {
    "emoji-animals": ("animals and nature", r""),
    "emoji-food": ("food and drink", r""),
    "emoji-objects": ("objects", r""),
    # Twenty-four clock faces would test whether a model can read the time.
    "emoji-travel": ("travel and places", r"^(?!.*(oclock|thirty)$)"),
    "emoji-faces": ("smileys and emotion", r"(^|-)(face|cat)(-|$)"),
}
MOST_CLASSES = 100
MOST_PER_GROUP = 80
FASHION_PER_CLASS = {"train": 50, "test": 100}


@dataclass(frozen=True)
class Sample:
    """What a tar has of an image."""

    key: str
    image: NDArray[np.uint8]
    label: int
    captions: tuple[str, ...] = ()


def digest(text: str) -> str:
    """A shuffle without a random generator: the order of these is arbitrary but never changes."""
    return hashlib.sha256(text.encode()).hexdigest()


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add bytes with no owner and no time, so that equal content gives equal tars."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))


def webp(image: NDArray[np.uint8], lossless: bool) -> bytes:
    """Encode RGB or grey pixels; quality 90 is invisible on icons and a third of lossless."""
    buffer = io.BytesIO()
    picture = Image.fromarray(image).convert("RGB")
    picture.save(buffer, "WEBP", lossless=lossless, quality=100 if lossless else 90, method=6)
    return buffer.getvalue()


def write_split(folder: Path, samples: Sequence[Sample], lossless: bool) -> None:
    """Write folder/0.tar and folder/nshards.txt."""
    folder.mkdir(parents=True)
    (folder / "nshards.txt").write_text("1\n", "utf-8")
    with tarfile.open(folder / "0.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        # Mixed order, so that the first n samples are a fair part of the set.
        for sample in sorted(samples, key=lambda s: digest(s.key)):
            add_member(tar, f"{sample.key}.webp", webp(sample.image, lossless))
            add_member(tar, f"{sample.key}.cls", str(sample.label).encode())
            if sample.captions:
                add_member(tar, f"{sample.key}.txt", "\n".join(sample.captions).encode())


def write_set(
    folder: Path,
    classes: Sequence[str],
    templates: Sequence[str],
    splits: dict[str, list[Sample]],
    lossless: bool = False,
) -> None:
    """Write a whole set, replacing what was there."""
    shutil.rmtree(folder, ignore_errors=True)
    for split, samples in splits.items():
        write_split(folder / split, samples, lossless)
    (folder / "classnames.txt").write_text("\n".join(classes) + "\n", "utf-8")
    text = "\n".join(templates) + "\n"
    (folder / "zeroshot_classification_templates.txt").write_text(text, "utf-8")
    counts = ", ".join(f"{split} {len(samples)}" for split, samples in splits.items())
    click.echo(f"{folder.name}: {len(classes)} classes, {counts}")


def icon_sample(icons: IconTable, index: int, label: int) -> Sample:
    """The icon on white, under a key that says which drawing it is."""
    concept = icons.concepts[index]
    said = captions.descriptions(concept, icons.groups[index])
    return Sample(f"{icons.styles[index]}_{concept}", icons.on_white(index), label, said)


def fine_classes(icons: IconTable, group: str, pattern: str) -> list[str]:
    """Concepts of the group that training, split A and split B all draw; the best covered first."""
    styles: dict[str, set[str]] = defaultdict(set)
    for style, concept in zip(icons.styles, icons.concepts, strict=True):
        styles[concept].add(style)
    groups = dict(zip(icons.concepts, icons.groups, strict=True))
    sides = (TRAINING_STYLES, UNSEEN_STYLES_A, UNSEEN_STYLES_B)
    drawn = [
        concept
        for concept, by in styles.items()
        if groups[concept] == group
        and re.search(pattern, concept)
        and all(map(by.intersection, sides))
    ]
    drawn.sort(key=lambda concept: (-len(styles[concept]), digest(concept)))
    return sorted(drawn[:MOST_CLASSES])


def build_fine(icons: IconTable, folder: Path, group: str, pattern: str) -> None:
    """A set whose classes are the concepts of one group."""
    classes = fine_classes(icons, group, pattern)
    labels = {concept: label for label, concept in enumerate(classes)}
    splits = {
        split: [
            icon_sample(icons, i, labels[icons.concepts[i]])
            for i in icons.of_styles(styles)
            if icons.concepts[i] in labels
        ]
        for split, styles in SPLITS.items()
    }
    names = [captions.class_name(concept) for concept in classes]
    write_set(folder, names, captions.EMOJI_TEMPLATES[: captions.PROMPTS], splits)


def build_category(icons: IconTable, folder: Path) -> None:
    """A set whose classes are the nine groups of Unicode."""
    classes = list(GROUPS.values())
    splits: dict[str, list[Sample]] = {}
    for split, styles in SPLITS.items():
        samples = []
        for label, group in enumerate(classes):
            members = [i for i in icons.of_styles(styles) if icons.groups[i] == group]
            members.sort(key=lambda i: digest(f"{icons.styles[i]}/{icons.concepts[i]}"))
            samples += [icon_sample(icons, i, label) for i in members[:MOST_PER_GROUP]]
        splits[split] = samples
    write_set(folder, classes, captions.GROUP_TEMPLATES[: captions.PROMPTS], splits)


def fashion_samples(fashion: Path, split: str) -> list[Sample]:
    """The first images of each class that training never sees, at their native 28 px."""
    name, first = ("train", FASHION_TRAINED) if split == "train" else ("t10k", 0)
    images, labels = load_fashion(fashion, name)
    rows = np.arange(first, len(labels))
    chosen = [
        rows[labels[first:] == label][: FASHION_PER_CLASS[split]]
        for label in range(len(FASHION_CLASSES))
    ]
    return [
        Sample(f"fashion-mnist_{name}-{row:05d}", images[row], int(labels[row]))
        for row in np.concatenate(chosen)
    ]


def build_fashion(fashion: Path, folder: Path) -> None:
    """A balanced subset of Fashion-MNIST."""
    splits = {split: fashion_samples(fashion, split) for split in SPLITS}
    templates = captions.FASHION_TEMPLATES[: captions.PROMPTS]
    write_set(folder, FASHION_CLASSES, templates, splits, lossless=True)


@click.command(help=__doc__)
@click.argument("work", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--fashion",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default="/usr/share/datasets/fashion-mnist",
    show_default=True,
    help="Folder of the four Fashion-MNIST files.",
)
def main(work: Path, out: Path, fashion: Path) -> None:
    """Build all sets under OUT."""
    icons = load_icons(work)
    build_category(icons, out / "emoji-category")
    for name, (group, pattern) in FINE_SETS.items():
        build_fine(icons, out / name, group, pattern)
    build_fashion(fashion, out / "fashion-mnist")


if __name__ == "__main__":
    main()
