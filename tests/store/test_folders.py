"""`clipsyn.store.files`: names as folders, and back."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clipsyn.errors import UsageError
from clipsyn.store.files import folder_name, name_of_folder

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


@pytest.mark.parametrize("name", ["n" * 256, "é" * 100, "a/" * 100])
def test_a_name_that_no_file_system_takes_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"is too long for a name: it makes [23567]"):
        folder_name(name)


def test_the_longest_name() -> None:
    assert folder_name("n" * 255) == "n" * 255


@pytest.mark.parametrize("name", ["zarr.json", "zarr.json2", "a/zarr.json"])
def test_a_name_is_no_file_of_zarr(name: str) -> None:
    """Else a dataset of that name would lie where a group has its metadata."""
    assert folder_name(name) != "zarr.json"
    assert name_of_folder(folder_name(name)) == name
