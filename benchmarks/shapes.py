"""The shapes of the datasets that the paper is about: nine backbones, 21 datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

SHOTS = 16  # labelled images a class


@dataclass(frozen=True)
class Made:
    """A made-up backbone: its name, the width of its embeddings, its accuracy (0 to 1)."""

    name: str
    width: int
    accuracy: float

    @property
    def family(self) -> str:
        return "RN" if self.name.startswith("RN") else "ViT"


@dataclass(frozen=True)
class Set:
    """A dataset: classes, test images, accuracies of the weakest and the best backbone."""

    name: str
    classes: int
    test: int
    weakest: float
    best: float
    narrower: int = 1  # its embeddings than OpenAI's

    def smaller(self, by: int) -> Set:
        """With fewer classes and images, and narrower embeddings, to try things on."""
        classes, test = max(2, self.classes // by), max(20, self.test // by)
        return replace(self, classes=classes, test=test, narrower=by)

    @property
    def train(self) -> int:
        return SHOTS * self.classes

    @property
    def backbones(self) -> tuple[Made, ...]:
        """OpenAI's, from the weakest to the best as on ImageNet."""
        low, high = OPENAI[0].accuracy, OPENAI[-1].accuracy
        step = (self.best - self.weakest) / (high - low)
        return tuple(
            replace(
                made,
                width=made.width // self.narrower,
                accuracy=self.weakest + step * (made.accuracy - low),
            )
            for made in OPENAI
        )


def _openai(sizes: Sequence[tuple[str, int, float]]) -> tuple[Made, ...]:
    return tuple(Made(f"{name}/openai", width, accuracy) for name, width, accuracy in sizes)


# Accuracies on ImageNet, here and below: OpenCLIP, docs/openclip_results.csv.
OPENAI = _openai(
    (
        ("RN50", 1024, 0.598),
        ("RN101", 512, 0.623),
        ("RN50x4", 640, 0.663),
        ("RN50x16", 768, 0.707),
        ("RN50x64", 1024, 0.739),
        ("ViT-B-32", 512, 0.633),
        ("ViT-B-16", 512, 0.683),
        ("ViT-L-14", 768, 0.755),
        ("ViT-L-14-336", 768, 0.766),
    )
)
IMAGENET = Set("imagenet", 1000, 50_000, 0.598, 0.766)
# Test images as CLIP's evaluation has them; of CUB-200 no accuracy of these backbones is published.
PAPER = (
    Set("caltech101", 102, 6_085, 0.833, 0.925),
    Set("cars", 196, 8_041, 0.545, 0.793),
    Set("cifar10", 10, 10_000, 0.716, 0.956),
    Set("cifar100", 100, 10_000, 0.403, 0.758),
    Set("clevr", 8, 15_000, 0.194, 0.244),
    Set("country211", 211, 21_100, 0.154, 0.344),
    Set("cub200", 200, 5_794, 0.45, 0.63),
    Set("dtd", 47, 1_880, 0.415, 0.556),
    Set("eurosat", 10, 5_400, 0.313, 0.626),
    Set("fgvc-aircraft", 100, 3_333, 0.170, 0.335),
    Set("flowers102", 102, 6_149, 0.652, 0.792),
    Set("food101", 101, 25_250, 0.808, 0.939),
    Set("gtsrb", 43, 12_630, 0.326, 0.524),
    IMAGENET,
    Set("mnist", 10, 10_000, 0.484, 0.858),
    Set("pcam", 2, 32_768, 0.507, 0.639),
    Set("pets", 37, 3_669, 0.853, 0.937),
    Set("rendered-sst2", 2, 1_821, 0.565, 0.711),
    Set("resisc45", 45, 6_300, 0.452, 0.638),
    Set("stl10", 10, 8_000, 0.942, 0.994),
    Set("sun397", 397, 19_850, 0.580, 0.687),
)
