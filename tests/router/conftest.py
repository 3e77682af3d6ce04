"""A pool like those of a store, and routers fitted on it."""

import numpy as np
import pytest

from clipsyn.methods.numerics.logits import zero_shot_logits
from clipsyn.methods.pool import Pool

CLASSES = ("missile", "tabby", "missile", "crane", "beacon")
WIDTHS = {"fake/one": 12, "fake/three": 8, "fake/two": 16}


def unit(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture
def make_pool():
    """Function (samples, seed) -> labelled pool of three backbones that are right now and then."""

    def make(samples=40, seed=0, views=1):
        rng = np.random.default_rng(seed)
        labels = (np.arange(samples) % len(CLASSES)).astype(np.int32)
        classes = {
            name: unit(np.random.default_rng(len(name)).normal(size=(5, width))).astype("f4")
            for name, width in WIDTHS.items()
        }

        def images(noise):
            return {
                name: unit(rows[labels] + noise * rng.normal(size=(samples, rows.shape[1]))).astype(
                    "f2"
                )
                for name, rows in classes.items()
            }

        embeddings = images(0.5)
        logits = [zero_shot_logits(embeddings[name], classes[name], 20.0) for name in WIDTHS]
        return Pool(
            np.stack(logits, axis=1),
            labels,
            tuple(WIDTHS),
            embeddings,
            tuple(images(0.7) for _ in range(views)),
            classes,
            dict.fromkeys(WIDTHS, 20.0),
            CLASSES,
            tuple(f"im{row}" for row in range(samples)),
            dataset="toy",
            split="train",
            prompts="own",
            provenance={
                "backbones": {name: {"weights": name * 8, "precision": "fp32"} for name in WIDTHS},
                "sources": {name: f"local-dir:checkpoints/{name}" for name in WIDTHS},
                "prompts": {"name": "own", "templates": ["a {c}."], "per_class": {}},
                "views": ["flip"],
                "licence": "CC0",
            },
        )

    return make


@pytest.fixture
def support(make_pool):
    return make_pool()


@pytest.fixture
def unseen(make_pool):
    return make_pool(23, seed=1, views=0)
