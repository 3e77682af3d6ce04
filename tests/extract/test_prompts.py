"""open_clip's ImageNet templates, and everything else passed on."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest

from clipsyn.errors import UsageError
from clipsyn.extract.work import source_prompts
from clipsyn.images.sources.base import EncodedSource


@pytest.fixture(autouse=True)
def no_clip_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipsyn.catalog.prompts._benchmark_json", lambda file: {})


def source(name: str, templates: tuple[str, ...] = ()) -> EncodedSource:
    labels = np.array([0], dtype=np.int32)
    return EncodedSource(name, "test", ("0",), labels, ("tench",), templates)


@pytest.mark.parametrize("spec", [None, "auto", "openai"])
@pytest.mark.parametrize("name", ["imagenet1k", "imagenet"])
def test_imagenet_has_openais_eighty(name: str, spec: str | None) -> None:
    prompt_set, note = source_prompts(source(name), spec)
    assert prompt_set.name == "openai"
    assert len(prompt_set.templates) == 80
    expected = tuple(write("tench") for write in open_clip.OPENAI_IMAGENET_TEMPLATES)
    assert prompt_set.prompts("tench") == expected
    assert note == ""


def test_they_can_be_asked_for_elsewhere() -> None:
    assert source_prompts(source("imagenet-v2"), "openai")[0].name == "openai"


def test_own_templates_and_clip_benchmark_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_prompts(source("imagenet1k", ("{c}",)))[0].templates == ("{c}",)
    templates = {"imagenet1k": ["one {c}"]}
    monkeypatch.setattr("clipsyn.catalog.prompts._benchmark_json", lambda file: templates)
    assert source_prompts(source("imagenet1k"))[0].name == "clip-benchmark"


def test_other_datasets_and_specs_are_the_catalogues() -> None:
    prompt_set, note = source_prompts(source("mine"))
    assert prompt_set.name == "simple"
    assert "mine" in note
    assert source_prompts(source("imagenet1k"), "simple")[0].name == "simple"
    with pytest.raises(UsageError, match="no 'own' prompts"):
        source_prompts(source("imagenet1k"), "own")
