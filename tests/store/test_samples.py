"""`clipsyn.store.samples`: what a sample table's digest covers, and its refusals."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from clipsyn.errors import DatasetError
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
        (("abcd", b"1234"), "1 added (d)"),
        (("ab", b"12"), "1 gone (c)"),
        (("abc", b"129"), "1 changed (c)"),
        (("axc", b"199"), "1 added (x), 1 gone (b), 1 changed (c)"),
        (("cab", b"312"), "the order of the images changed"),
        (("abcdefg", b"1239999"), "4 added (d, e, f, …)"),
    ],
)
def test_changes_are_said_in_words(new: tuple[str, bytes], words: str) -> None:
    ids, content = new
    assert changed_samples(table(), table(ids, content, (0,) * len(ids))) == words
