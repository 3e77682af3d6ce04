"""Every line of docs/lab.md, run in its order against SLURM, S3 and nginx."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipsyn.remote.transport import Remote
from clipsyn.store.features import FeatureStore
from tests.remote.bucket import Bucket, in_front_of
from tests.remote.nginx import serving
from tests.test_docs import BLOCKS, SERVED, run_command

PAGE = "lab.md"
PUBLISHED = "s3://clip-lab/features"
WEB = "http://localhost:8080"


@pytest.fixture
def lab(moto_port: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The bucket of the page, and an environment with the keys to it."""
    with in_front_of(Bucket("clip-lab", moto_port), monkeypatch) as made:
        yield made


@pytest.fixture
def web(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("nginx"), tmp_path / "www") as url:
        yield url


def test_every_block_runs_and_leaves_what_the_page_says(lab, web, slurm, tmp_path, monkeypatch):
    assert PAGE in SERVED
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("clipsyn.run.jobs._LONGEST", 1.0)  # SLURM has nobody else to answer
    namespace: dict[str, Any] = {}
    blocks = [block for block in BLOCKS if block.page.name == PAGE]
    assert len(blocks) > 8
    for block in blocks:
        assert not block.comment
        if block.language == "python":
            exec(compile(block.text, str(block), "exec"), namespace)
        for line in block.text.splitlines() if block.language == "sh" else ():
            program, *words = shlex.split(line.replace(WEB, web), comments=True)
            assert program == "clipsyn"
            run_command(words, f"{block}: {line}")
    assert len(namespace["pool"]) == len(FeatureStore.open("store").samples("emoji-food", "test"))
    names = {"tiny-RN/zoo", "tiny-ViT-16/zoo", "tiny-ConvNeXt/zoo", "tiny-RegNet/zoo"}
    assert backbones_of(PUBLISHED) == names
    assert backbones_of("mine") == {"tiny-RN/zoo"}
    card, _ = Remote(PUBLISHED).get("index/emoji-food/README.md")
    assert "tiny-RN/zoo" in card.decode()


def backbones_of(store: str) -> set[str]:
    cells = FeatureStore.open(store).keys()
    return {key.backbone for key in cells}
