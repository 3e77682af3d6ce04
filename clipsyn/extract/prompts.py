"""Prompts of a source of images, with open_clip's ImageNet templates where they apply."""

from __future__ import annotations

from clipsyn.catalog.datasets import find_dataset
from clipsyn.catalog.prompts import benchmark_templates, resolve_prompts
from clipsyn.extract.sources.base import ImageSource
from clipsyn.specs import PromptSet


def source_prompts(source: ImageSource, spec: str | None = None) -> tuple[PromptSet, str]:
    """`catalog.prompts.resolve_prompts` for a source; ImageNet also knows ``openai``.

    ``openai`` is the list of 80 templates in open_clip. It is what ``auto`` takes for ImageNet
    when neither the source nor an installed clip-benchmark has templates.
    """
    if spec == "openai" or (spec in (None, "auto") and _falls_back_to_openai(source)):
        import open_clip

        templates = tuple(write("{c}") for write in open_clip.OPENAI_IMAGENET_TEMPLATES)
        return PromptSet("openai", templates), ""
    return resolve_prompts(spec, source.name, source.class_names, source.templates)


def _falls_back_to_openai(source: ImageSource) -> bool:
    info = find_dataset(source.name)
    is_imagenet = info is not None and info.name == "imagenet1k"
    return is_imagenet and not source.templates and not benchmark_templates(source.name)
