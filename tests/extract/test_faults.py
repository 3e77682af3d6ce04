"""Bad images, through the command line: one clear sentence, nothing lost."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipsyn.store import arrays
from clipsyn.store.features import FeatureStore


@pytest.fixture
def tiny(saved: Any) -> str:
    return f"tiny={saved('clipsyn-vit').by_folder}"


def refusal(result: Any) -> str:
    """The one sentence of a command that failed."""
    assert result.exit_code not in (0, 1), result.stderr
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ")
    assert "Traceback" not in result.stderr
    return line


# Images


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)).save(
        buffer, "JPEG"
    )
    return buffer.getvalue()


BAD: dict[str, tuple[bytes, str]] = {
    "cut.jpg": (jpeg()[:700], "damaged"),
    "text.png": (b"I am no image.\n", "not an image"),
}


def test_bad_images_are_named_and_the_others_are_read(tmp_path, clipsyn, tiny, write_images):
    images = write_images(count=3)
    for name, (content, _) in BAD.items():
        (images / "dog" / name).write_bytes(content)
    (images / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    line = ["extract", tmp_path / "store", "-b", tiny, "-d", f"pets={images}", "-p", "clean,jpeg:2"]
    sentence = refusal(clipsyn(*line))
    assert "3 of 9 images of pets/test cannot be decoded" in sentence
    assert "--max-bad 0.334" in sentence
    assert FeatureStore.open(tmp_path / "store").keys() == []
    result = clipsyn(*line, "--max-bad", "0.334")
    assert result.exit_code == 0, result.stderr
    store = FeatureStore.open(tmp_path / "store")
    keys = store.keys()
    for key in keys:
        errors = arrays.read_attributes(store.at("features", *key.names))["errors"]
        assert set(errors) == {f"dog/{name}" for name in [*BAD, "gone.png"]}
        assert all(words in errors[f"dog/{name}"] for name, (_, words) in BAD.items())
        names = store.samples("pets", "test").ids
        assert [
            name for name, ok in zip(names, store.cell(key).valid(), strict=True) if not ok
        ] == [name for name in names if name in errors]
        assert np.isfinite(store.cell(key).embeddings()[store.cell(key).valid()]).all()
    table = clipsyn("zeroshot", tmp_path / "store", "-o", "-")
    assert table.exit_code == 0, table.stderr
    assert {r["n"] for r in json.loads(table.stdout) if r["ensemble"] != "chance"} == {6}
