"""Images of training and of the evaluation sets: rasterised icons and Fashion-MNIST."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from icons import Icon
from numpy.typing import NDArray
from PIL import Image

SIZE = 64
FASHION_CLASSES = (
    "t-shirt", "trousers", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
# The last images of the training file are kept for the evaluation set's train split.
FASHION_TRAINED = 55_000


@dataclass(frozen=True)
class IconTable:
    """Rasterised icons: parallel lists and premultiplied RGBA pixels (icon, SIZE, SIZE, 4)."""

    styles: list[str]
    names: list[str]
    concepts: list[str]
    groups: list[str]
    pixels: NDArray[np.uint8]

    def on_white(self, index: int) -> NDArray[np.uint8]:
        """RGB pixels (SIZE, SIZE, 3) over a white background."""
        pixels = self.pixels[index]
        white: NDArray[np.uint8] = pixels[..., :3] + (255 - pixels[..., 3:])
        return white

    def of_styles(self, styles: Sequence[str]) -> list[int]:
        """Indices of the icons drawn in one of the styles."""
        return [i for i, style in enumerate(self.styles) if style in styles]


def rasterise(icon: Icon) -> NDArray[np.uint8]:
    """Premultiplied RGBA (SIZE, SIZE, 4), centred where the drawing is not square.

    Premultiplied, because averaging neighbours must not mix in the colour of transparent pixels.
    """
    import resvg_py  # needed only to fetch the icons

    png = resvg_py.svg_to_bytes(svg_string=icon.svg, width=SIZE, skip_system_fonts=True)
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    if image.size != (SIZE, SIZE):
        image.thumbnail((SIZE, SIZE), Image.Resampling.BICUBIC)
        canvas = Image.new("RGBA", (SIZE, SIZE))
        canvas.paste(image, ((SIZE - image.width) // 2, (SIZE - image.height) // 2))
        image = canvas
    pixels = np.asarray(image).astype(np.uint16)
    alpha = pixels[..., 3:]
    colour = (pixels[..., :3] * alpha + 127) // 255
    return np.concatenate([colour, alpha], axis=-1).astype(np.uint8)


def save_icons(icons: Sequence[Icon], pixels: NDArray[np.uint8], work: Path) -> None:
    """Write the table to work/icons.json and work/icons.npy."""
    rows = [
        {"style": i.style, "name": i.name, "concept": i.concept, "group": i.group} for i in icons
    ]
    np.save(work / "icons.npy", pixels)
    (work / "icons.json").write_text(json.dumps(rows, indent=0), "utf-8")


def load_icons(work: Path) -> IconTable:
    """The table that save_icons wrote."""
    rows = json.loads((work / "icons.json").read_text("utf-8"))
    styles, names, concepts, groups = (
        [row[key] for row in rows] for key in ("style", "name", "concept", "group")
    )
    return IconTable(styles, names, concepts, groups, np.load(work / "icons.npy"))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An unsigned-byte array in the IDX format of the MNIST family (http://yann.lecun.com/exdb/mnist)."""
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    shape = np.frombuffer(data, ">u4", count=rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load_fashion(folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Fashion-MNIST images (n, 28, 28) and labels (n,); split is `train` or `t10k`."""
    images = read_idx(folder / f"{split}-images-idx3-ubyte.gz")
    return images, read_idx(folder / f"{split}-labels-idx1-ubyte.gz")


def upscale(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey images (n, h, w) to (n, SIZE, SIZE), as open_clip's preprocessing does it."""
    resized = [
        np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        for image in images
    ]
    return np.stack(resized)
