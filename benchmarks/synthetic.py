"""Made-up CLIPs, whose errors go together as those of real ones do.

An image has a class, a domain, and margins: how much nearer it lies to its class than to the
classes that it is confused with. A margin is the sum of the backbone's own level, a part that all
backbones share, a part that those of a family share, and noise. So backbones of a family err on the
same images (kappa about 0.6), those of two families on fewer of them (0.25 to 0.3), as OpenAI's
do. The domain shifts the family's part and shows in the embedding, so that a router can learn it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapes import Made

Floats = NDArray[np.float32]

SCALE = 100.0
GROUP = 10  # classes that are confused with each other
DOMAINS = 8
CONFUSED = 5  # classes whose logits come near that of the true class
LEVEL = 8.0  # logit of the true class, but for what the confused classes add
NOISE = 0.7  # standard deviation of the noise of a logit
OFFSETS = 0.2, 0.5  # of what images of a class, or of a domain, have in common beside texts
COSINE = 0.33  # of the texts of a group of classes
SHARED, FAMILY, DOMAIN = 2.0, 1.3, 0.8  # those of a margin's parts
GAP = 1.2  # mean distance between the logits of confused classes
PILOT = 4_000  # images from which a backbone's level is found


@dataclass(frozen=True, eq=False)
class Images:
    """What is true of the images of a split, whatever backbone looks at them."""

    labels: NDArray[np.int32]  # (sample,)
    domains: NDArray[np.intp]  # (sample,)
    gaps: Floats  # (sample,) between the logits of confused classes
    margins: Mapping[str, Floats]  # {family: (sample,)}
    confused: Mapping[str, NDArray[np.int32]]  # {family: (sample, CONFUSED)} classes

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def draw(cls, count: int, classes: int, seed: Sequence[int]) -> Images:
        """Every class as often as any other, within one."""
        rng = np.random.default_rng([*seed])
        labels = rng.permutation(np.arange(count) % classes).astype(np.int32)
        domains = rng.integers(0, DOMAINS, count)
        shared = SHARED * rng.standard_normal(count, np.float32)
        gaps = GAP * rng.standard_exponential(count, np.float32)
        usual = _confused(rng, labels, classes)
        margins, confused = {}, {}
        for family, sign in (("RN", 1), ("ViT", -1)):
            of_domain = DOMAIN * sign * np.linspace(-1.6, 1.6, DOMAINS, dtype=np.float32)
            own = FAMILY * rng.standard_normal(count, np.float32)
            margins[family] = shared + own + of_domain[domains]
            unusual = rng.random(count) < 0.4
            confused[family] = np.where(
                unusual[:, None], _confused(rng, labels, classes), usual
            ).astype(np.int32)
        return cls(labels, domains, gaps, margins, confused)


def _confused(
    rng: np.random.Generator, labels: NDArray[np.int32], classes: int
) -> NDArray[np.int32]:
    """(sample, CONFUSED or less) classes of the group of each label, none of them the label."""
    group = min(GROUP, classes)
    first = np.minimum(labels // group * group, classes - group)
    steps = rng.permuted(np.tile(np.arange(1, group), (len(labels), 1)), axis=1)[:, :CONFUSED]
    near: NDArray[np.int64] = (labels - first)[:, None] + steps
    return (first[:, None] + near % group).astype(np.int32)


@dataclass(frozen=True)
class Encoded:
    """One made-up backbone on one dataset: class embeddings, and embeddings of any images."""

    backbone: Made
    number: int  # of the backbone, for the seed
    classes: int
    seed: int

    @cached_property
    def directions(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Unit vectors: of the classes' texts, the images' offsets, the domains, all images."""
        rng = np.random.default_rng([self.seed, 1, self.number])
        width = self.backbone.width
        common = _unit(rng.standard_normal((1, width), np.float32))
        count = -(-self.classes // GROUP)
        groups = np.repeat(rng.standard_normal((count, width), np.float32), GROUP, axis=0)
        texts = 0.7 * groups[: self.classes]
        texts += rng.standard_normal((self.classes, width), np.float32)
        others = [rng.standard_normal((n, width), np.float32) for n in (self.classes, DOMAINS)]
        texts, offsets, domains = (_unit(v - (v @ common.T) * common) for v in (texts, *others))
        return texts, offsets, domains, common

    @property
    def class_embeddings(self) -> Floats:
        """(class, embed) unit norm."""
        return self.directions[0]

    @cached_property
    def level(self) -> float:
        """What is added to all margins, so that the backbone has its accuracy."""
        pilot = Images.draw(PILOT, self.classes, [self.seed, 2])
        rng = np.random.default_rng([self.seed, 3, self.number])
        level = 0.0
        for _ in range(3):  # the noise of many classes depends a little on the level
            logits = SCALE * self._block(pilot, slice(None), rng, level) @ self.class_embeddings.T
            rows = np.arange(PILOT)
            right = logits[rows, pilot.labels].copy()
            logits[rows, pilot.labels] = -np.inf
            level -= float(np.quantile(right - logits.max(axis=1), 1 - self.backbone.accuracy))
        return level

    def blocks(self, images: Images, rows: int, number: int) -> Iterator[NDArray[np.float16]]:
        """(rows, embed) unit norm, one after the other; number: of the split, for the seed."""
        rng = np.random.default_rng([self.seed, 4, self.number, number])
        for start in range(0, len(images), rows):
            block = self._block(images, slice(start, start + rows), rng, self.level)
            yield block.astype(np.float16)

    def answers(self, images: Images, harder: float, number: int) -> NDArray[np.int32]:
        """(sample,) classes, all margins less by `harder` logits; number: for the seed."""
        rng = np.random.default_rng([self.seed, 6, self.number, number])
        family = self.backbone.family
        noise = NOISE * 2**0.5 * rng.standard_normal(len(images), np.float32)
        margins = images.margins[family] + self.level - harder + noise
        return np.where(margins > 0, images.labels, images.confused[family][:, 0])

    def _block(self, images: Images, rows: slice, rng: np.random.Generator, level: float) -> Floats:
        texts, offsets, domains, common = self.directions
        labels, family = images.labels[rows], self.backbone.family
        margins = images.margins[family][rows] + np.float32(level)
        found = rng.standard_normal((len(labels), self.backbone.width), np.float32)
        found *= np.float32(NOISE / SCALE)
        of_class, of_domain = (offset / SCALE * self.backbone.width**0.5 for offset in OFFSETS)
        found += of_class * offsets[labels]
        found += of_domain * domains[images.domains[rows]]
        away = margins / (2 * (1 - COSINE))
        found += ((LEVEL + away) / SCALE)[:, None] * texts[labels]
        for rank in range(images.confused[family].shape[1]):
            strength = LEVEL - away - rank * images.gaps[rows]
            found += (strength / SCALE)[:, None] * texts[images.confused[family][rows, rank]]
        found *= np.float32(0.8 + 0.15 * (4 * self.number % 5))  # too sure of itself, or not enough
        found *= np.minimum(1, 0.98 / np.linalg.norm(found, axis=1, keepdims=True))
        left = 1 - (found**2).sum(axis=1, keepdims=True)
        return _unit(found + np.sqrt(left) * common)


def _unit(vectors: NDArray[Any]) -> Floats:
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32, copy=False)
