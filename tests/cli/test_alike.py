"""`clipsyn extract` says which classes its backbones cannot tell apart."""

from __future__ import annotations


def test_classes_of_one_name(clipsyn, checkpoint, write_images, tmp_path):
    photos = write_images(count=1, classes=("a", "b", "c"))
    (photos / "classnames.txt").write_text("crane\ncat\ncrane\n")
    line = ("extract", tmp_path / "store", "-b", f"local-dir:{checkpoint}", "-d", photos)
    said = "photos (prompts simple): 2 of 3 classes cannot be told apart by tiny"
    assert f"note: {said}" in clipsyn(*line).stderr
    assert said in clipsyn("zeroshot", tmp_path / "store").stderr
