"""Checks that every source makes."""

import hashlib

import numpy as np
import pytest

from clipsyn.errors import DatasetError
from clipsyn.images.source import ImageSource, UndecodableImage, sample_table


class Broken(ImageSource):
    def read(self, index):
        raise PermissionError(13, "Permission denied")


def table(ids, labels, classes=()):
    return ImageSource("set", "test", ids, np.array(labels, dtype=np.int32), classes)


def test_an_unreadable_file_has_the_digest_of_nothing_and_a_reason():
    source: ImageSource = Broken("set", "test", ("a",), np.array([-1], dtype=np.int32))
    assert source.digest(0) == hashlib.sha256(b"").digest()
    with pytest.raises(UndecodableImage, match="cannot be read: Permission denied"):
        source.image(0)


@pytest.mark.parametrize(
    ("ids", "labels", "message"),
    [
        ((), [], "dataset 'set', split 'test': there is no image"),
        (("a", "b", "a"), [0, 0, 0], "the id 'a' occurs 2 times"),
        (("a", "b"), [0, 2], "label 2 of sample 'b' is beyond the 2 class names"),
        (("a",), [-2], "label -2 is negative"),
        (("caf\udce9",), [0], "is not UTF-8"),
    ],
)
def test_tables_that_cannot_be(ids, labels, message):
    with pytest.raises(DatasetError, match=message):
        table(ids, labels, ("cat", "dog"))


def test_the_sample_table_has_every_image_s_hash(fakes):
    source, quiet = fakes.Source(count=300), fakes.Quiet()
    table = sample_table(source, quiet)
    assert table.ids == source.ids
    assert np.array_equal(table.labels, source.labels)
    assert [bytes(row) for row in table.content] == [source.digest(row) for row in range(300)]
    assert (table.class_names, table.metric, table.licence) == (fakes.classes, "acc1", "CC0")
    assert quiet.counters[0] == ("toy/test: reading", 300)
    assert quiet.counts[0] == 300


def test_workers_share_hashes_and_trust_none_that_are_cut_short(fakes, tmp_path):
    sources = [fakes.Source(count=300) for _ in range(3)]
    read: list[list[int]] = [[] for _ in sources]
    for source, rows in zip(sources, read, strict=True):
        digest = source.digest
        source.digest = lambda row, rows=rows, digest=digest: rows.append(row) or digest(row)
    first, second = (sample_table(it, fakes.Quiet(), tmp_path) for it in sources[:2])
    assert sorted(read[0]) == [*range(300)] != read[0]  # workers begin at different images
    assert read[1] == []
    (part, *_) = sorted(tmp_path.glob("*/*/*"))
    part.write_bytes(part.read_bytes()[:-1])
    third = sample_table(sources[2], fakes.Quiet(), tmp_path)
    assert 0 < len(read[2]) < 300
    assert first.digest == second.digest == third.digest
    other = fakes.Source(split="train", count=300)
    other._pixels = lambda row: sources[0]._pixels(row + 1)
    assert sample_table(other, fakes.Quiet(), tmp_path).digest != first.digest
