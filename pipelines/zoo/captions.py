"""Captions of images, in training and in the prompts of the evaluation sets."""

from __future__ import annotations

# Every fine-grained emoji set is prompted with the first PROMPTS of these.
EMOJI_TEMPLATES = (
    "an emoji of {c}",
    "a {c} emoji",
    "an icon of {c}",
    "a drawing of {c}",
    "a picture of {c}",
    "a cartoon of {c}",
    "{c}",
)
GROUP_TEMPLATES = (
    "an emoji from the group {c}",
    "an icon of the kind {c}",
    "a picture from the category {c}",
    "{c}",
)
FASHION_TEMPLATES = (
    "a photo of a {c}, a fashion product",
    "a grey photo of a {c}",
    "a product photo of a {c}",
    "fashion, a {c}",
)
# A caption that says both, as people's captions do.
NAME_AND_GROUP = "{c}, an emoji from the group {g}"
PROMPTS = 3
# What is said of the images of the emoji sets: forms that are no prompts of theirs.
DESCRIPTIONS = ("a drawing of {c}", "a picture of {c}", "a cartoon of {c}", NAME_AND_GROUP)


def class_name(concept: str) -> str:
    """`red-apple` as a person writes it."""
    return concept.replace("-", " ")


def descriptions(concept: str, group: str) -> tuple[str, ...]:
    """The captions of an emoji: its name tells it from others, its style is not said."""
    return tuple(text.format(c=class_name(concept), g=group) for text in DESCRIPTIONS)


def all_captions(concepts: dict[str, str], groups: list[str], fashion: list[str]) -> list[str]:
    """Every caption that training can draw; concepts maps a concept to its group ("" for none)."""
    names = [class_name(c) for c in concepts]
    captions = [t.format(c=n) for n in names for t in EMOJI_TEMPLATES]
    captions += [NAME_AND_GROUP.format(c=class_name(c), g=g) for c, g in concepts.items() if g]
    captions += [t.format(c=g) for g in groups for t in GROUP_TEMPLATES]
    return captions + [t.format(c=f) for f in fashion for t in FASHION_TEMPLATES]
