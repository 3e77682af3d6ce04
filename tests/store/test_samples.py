"""`clipsyn.store.samples`: what a sample table's digest covers, and its refusals."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clipsyn.errors import DatasetError, UsageError
from clipsyn.store.files import folder_name, name_of_folder
from clipsyn.store.samples import SampleTable, changed_samples


def table(
    ids: str = "abc", content: bytes = b"123", labels: tuple[int, ...] = (0, 1, 0)
) -> SampleTable:
    hashes = [hashlib.sha256(bytes([byte])).digest() for byte in content]
    return SampleTable(
        "toy",
        "test",
        tuple(ids),
        np.array(labels, np.int32),
        np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32),
        ("cat", "dog"),
    )


def test_the_digest_is_that_of_lengths_ids_and_contents() -> None:
    one, two = hashlib.sha256(b"1").digest(), hashlib.sha256(b"2").digest()
    content = np.frombuffer(one + two, np.uint8).reshape(2, 32)
    made = SampleTable("toy", "test", ("a.png", "ü"), np.array([0, 0], np.int32), content)
    expected = hashlib.sha256(b"5:a.png" + one + "1:ü".encode() + two).hexdigest()
    assert made.digest == expected
    assert made.identity()["samples"] == expected


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(DatasetError, match="label 2 of sample 'b' is beyond the 2 class names"):
        table(labels=(0, 2, 1))


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (("axc", b"199"), "1 added (x), 1 gone (b), 1 changed (c)"),
        (("cab", b"312"), "the order of the images changed"),
    ],
)
def test_changes_are_said_in_words(new: tuple[str, bytes], words: str) -> None:
    ids, content = new
    assert changed_samples(table(), table(ids, content, (0,) * len(ids))) == words


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


@pytest.mark.parametrize("name", ["n" * 256, "é" * 100, "a/" * 100])
def test_a_name_that_no_file_system_takes_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"is too long for a name: it makes [23567]"):
        folder_name(name)


@pytest.mark.parametrize("name", ["zarr.json", "zarr.json2", "a/zarr.json"])
def test_a_name_is_no_file_of_zarr(name: str) -> None:
    """Else a dataset of that name would lie where a group has its metadata."""
    assert folder_name(name) != "zarr.json"
    assert name_of_folder(folder_name(name)) == name
