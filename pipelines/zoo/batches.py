"""Training batches: augmented images, the captions drawn for them, and which belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import captions
import torch
from augment import GENTLE, Strength, augment
from icons import GROUPS, TRAINING_STYLES
from images import FASHION_CLASSES, FASHION_TRAINED, load_fashion, load_icons, upscale
from torch import Tensor

ICONS, GARMENTS = 192, 64  # images of either kind in a batch
SAYS_GROUP = 0.25  # share of name captions that add the group
# Fewer garments than there are: more would cost memory, and even these are seen only once or twice.
FASHION_USED = 30_000
# Mean and deviation are measured on this many images, mixed as in a batch.
MEASURED = 1_000


@dataclass(frozen=True)
class Batch:
    """images (n, 3, h, h); tokens (text, context): `names` name captions, one of each group."""

    images: Tensor
    tokens: Tensor
    positive: Tensor  # bool (n, text)
    names: int


class Batches:
    """An endless, seeded stream of batches over the training styles and Fashion-MNIST."""

    size = ICONS + GARMENTS

    def __init__(
        self, work: Path, fashion: Path, tokenize: Callable[[list[str]], Tensor], seed: int
    ) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._load_icons(work)
        images, labels = load_fashion(fashion, "train")
        used = slice(FASHION_TRAINED - FASHION_USED, FASHION_TRAINED)
        self._garments = torch.from_numpy(upscale(images[used]))
        self._garment = torch.from_numpy(labels[used].astype("int64"))
        texts = captions.all_captions(self._concepts, list(GROUPS.values()), list(FASHION_CLASSES))
        self._row = {text: row for row, text in enumerate(texts)}
        self.tokens = tokenize(texts)
        self.mean, self.std = self._measure()

    def _load_icons(self, work: Path) -> None:
        table = load_icons(work)
        chosen = table.of_styles(TRAINING_STYLES)
        self._icons = torch.from_numpy(table.pixels[chosen])
        self._concepts = {table.concepts[i]: table.groups[i] for i in chosen}
        numbers = {concept: number for number, concept in enumerate(self._concepts)}
        self._concept = torch.tensor([numbers[table.concepts[i]] for i in chosen])
        self._name = list(self._concepts)
        groups = list(GROUPS.values())
        group = [groups.index(g) if g else -1 for g in self._concepts.values()]
        self._group = torch.tensor(group)  # of each concept, -1 for none
        # Flags and people are half of all icons; the root keeps them from filling half a batch.
        sizes = torch.bincount(self._group[self._concept] + 1).float()
        self._weight = sizes[self._group[self._concept] + 1].rsqrt()

    def _measure(self) -> tuple[list[float], list[float]]:
        """Channel mean and deviation of plain images, mixed as in a batch."""
        step = len(self._icons) // MEASURED
        icons = self._icons[::step][:MEASURED].float() / 255
        plain = icons[..., :3] + 1 - icons[..., 3:]
        grey = self._garments[: MEASURED * GARMENTS // ICONS].float() / 255
        values = torch.cat([plain.flatten(0, 2), grey.flatten()[:, None].expand(-1, 3)])
        mean, std = values.mean(0).tolist(), values.std(0).tolist()
        return [round(v, 4) for v in mean], [round(v, 4) for v in std]

    def _draw(self, options: tuple[str, ...]) -> str:
        return options[int(torch.randint(len(options), (1,), generator=self._generator))]

    def _name_caption(self, concept: int) -> str:
        name = self._name[concept]
        group = self._concepts[name]
        if group and float(torch.rand(1, generator=self._generator)) < SAYS_GROUP:
            return captions.NAME_AND_GROUP.format(c=captions.class_name(name), g=group)
        return self._draw(captions.EMOJI_TEMPLATES).format(c=captions.class_name(name))

    def _images(self, icons: Tensor, garments: Tensor) -> Tensor:
        grey = self._garments[garments][..., None].expand(-1, -1, -1, 3)
        solid = torch.full_like(grey[..., :1], 255)
        drawn = augment(self._icons[icons], 1.0, Strength(), self._generator)
        worn = augment(torch.cat([grey, solid], -1), 0.0, GENTLE, self._generator)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (torch.cat([drawn, worn]) - mean) / std

    def _batch(self) -> Batch:
        icons = torch.multinomial(self._weight, ICONS, generator=self._generator)
        garments = torch.randint(len(self._garments), (GARMENTS,), generator=self._generator)
        concept = self._concept[icons]
        present = torch.unique(concept)
        texts = [self._name_caption(int(c)) for c in present]
        texts += [self._draw(captions.FASHION_TEMPLATES).format(c=c) for c in FASHION_CLASSES]
        names = len(texts)
        texts += [self._draw(captions.GROUP_TEMPLATES).format(c=g) for g in GROUPS.values()]
        positive = torch.zeros(self.size, len(texts), dtype=torch.bool)
        positive[:ICONS, : len(present)] = concept[:, None] == present
        garment = self._garment[garments]
        positive[ICONS:, len(present) : names] = garment[:, None] == torch.arange(
            len(FASHION_CLASSES)
        )
        positive[:ICONS, names:] = self._group[concept][:, None] == torch.arange(len(GROUPS))
        rows = [self._row[text] for text in texts]
        return Batch(self._images(icons, garments), self.tokens[rows], positive, names)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self._batch()
