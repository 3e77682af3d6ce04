"""`clipsyn.store.folders`: names as folders, and back."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from clipsyn.store.folders import folder_name, name_of_folder

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
TRICKY = st.text("-/%.2DF ab", min_size=1, max_size=8)


@given(st.one_of(NAMES, TRICKY))
@example("a--b")
@example("a-/b")
@example("%2D")
@example("..")
@example("ViT-B-32/openai")
@example("hf-hub:org/repo")
def test_a_folder_name_says_which_name_it_is(name: str) -> None:
    folder = folder_name(name)
    assert name_of_folder(folder) == name
    assert "/" not in folder
    assert not folder.startswith(".")
    assert folder.isascii()


@given(TRICKY, TRICKY)
def test_two_names_have_two_folders(one: str, other: str) -> None:
    assert (folder_name(one) == folder_name(other)) == (one == other)


def test_usual_names_stay_readable() -> None:
    assert folder_name("ViT-B-32/openai") == "ViT-B-32--openai"
    assert folder_name("emoji-food") == "emoji-food"
    assert folder_name("jpeg-3-seed1") == "jpeg-3-seed1"
    assert folder_name("ViT-B-32@run=7+a,b") == "ViT-B-32@run=7+a,b"
