"""Webdatasets, by hand-packed tars; contents against what tarfile itself extracts."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from clipsyn.errors import DatasetError
from clipsyn.extract.sources import open_source
from clipsyn.images.decode import UndecodableImage
from clipsyn.images.sources.base import ImageSource

WriteTars = Callable[..., Path]
Png = Callable[..., bytes]
Limit = Callable[[int], AbstractContextManager[None]]
Members = list[tuple[str, bytes]]


def open_tars(folder: Path, split: str = "test") -> ImageSource:
    return open_source(f"tars={folder}", split)


@pytest.fixture
def shards(png: Png) -> list[Members]:
    first = [
        ("s1.png", png(1)),
        ("s1.cls", b"1"),
        ("s0.webp", png(2, "WEBP")),
        ("s0.cls", b"0\n"),
    ]
    second = [("s2.cls", b"1"), ("s2.JPG", png(3, "JPEG")), ("s2.json", b"{}")]
    return [first, second]


def test_order_is_by_shard_then_position(shards: list[Members], write_tars: WriteTars) -> None:
    folder = write_tars(shards, classes=("cat", "dog"), templates=("a {c}.", "the {c}."))
    source = open_tars(folder)
    assert source.ids == ("s1", "s0", "s2")
    assert source.labels.tolist() == [1, 0, 1]
    assert source.class_names == ("cat", "dog")
    assert source.templates == ("a {c}.", "the {c}.")
    assert source.notes == ()
    assert source.image(2).mode == "RGB"


def test_digests_are_those_of_what_tarfile_extracts(
    shards: list[Members], write_tars: WriteTars
) -> None:
    folder = write_tars(shards, classes=("cat", "dog"))
    expected = []
    for shard in ("0.tar", "1.tar"):
        with tarfile.open(folder / "test" / shard) as tar:
            images = [m for m in tar if not m.name.endswith(("cls", "json"))]
            expected += [hashlib.sha256(tar.extractfile(m).read()).digest() for m in images]  # type: ignore[union-attr]
    source = open_tars(folder)
    assert [source.digest(i) for i in range(len(source))] == expected


def test_threads_read_at_once(png: Png, write_tars: WriteTars) -> None:
    members = [(f"{i}.{kind}", data) for i in range(50) for kind, data in
               (("png", png(i)), ("cls", b"0"))]  # fmt: skip
    source = open_tars(write_tars([members], classes=("x",)))
    expected = [source.digest(i) for i in range(50)]
    assert len(set(expected)) == 50
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.digest, [*range(50)] * 20)) == expected * 20


def test_ten_shards_are_in_numeric_order(png: Png, write_tars: WriteTars) -> None:
    shards = [[(f"k{i}.png", png(i)), (f"k{i}.cls", b"0")] for i in range(11)]
    source = open_tars(write_tars(shards, classes=("x",)))
    assert source.ids == tuple(f"k{i}" for i in range(11))


def test_keys_used_in_several_shards_get_the_shard(png: Png, write_tars: WriteTars) -> None:
    shards = [[("a.png", png(i)), ("a.cls", b"0")] for i in range(2)]
    assert open_tars(write_tars(shards, classes=("x",))).ids == ("0/a", "1/a")


def test_keys_with_folders_dots_and_long_names(png: Png, write_tars: WriteTars) -> None:
    long = "d/" + "n" * 150
    members = [
        (f"{long}.png", png(1)),
        (f"{long}.cls", b"0"),
        ("./b.png", png(2)),
        ("./b.cls", b"0"),
    ]
    source = open_tars(write_tars([members], classes=("x",)))
    assert source.ids == (long, "b")
    assert source.image(0).size == (12, 9)


def test_tars_without_any_label_are_unlabelled(png: Png, write_tars: WriteTars) -> None:
    source = open_tars(write_tars([[("a.png", png()), ("b.png", png(1))]]))
    assert source.labels.tolist() == [-1, -1]
    assert source.class_names == ()


def test_without_class_names_they_are_numbers_and_it_says_so(
    shards: list[Members], write_tars: WriteTars
) -> None:
    source = open_tars(write_tars(shards))
    assert source.class_names == ("0", "1")
    assert "no classnames.txt" in source.notes[0]


def test_tars_may_lie_in_the_folder_itself(shards: list[Members], write_tars: WriteTars) -> None:
    folder = write_tars(shards, classes=("cat", "dog"), nshards=None)
    assert len(open_tars(folder / "test")) == 3


def test_a_bad_image_keeps_its_row(png: Png, write_tars: WriteTars) -> None:
    members = [("a.png", b""), ("a.cls", b"0"), ("b.jpg", b"text"), ("b.cls", b"0")]
    source = open_tars(write_tars([members], classes=("x",)))
    assert source.ids == ("a", "b")
    with pytest.raises(UndecodableImage, match="empty file"):
        source.image(0)
    with pytest.raises(UndecodableImage, match="not an image"):
        source.image(1)
    assert source.digest(0) == hashlib.sha256(b"").digest()


# --- what is wrong with a webdataset ---


def test_another_split_than_there_are(shards: list[Members], write_tars: WriteTars) -> None:
    folder = write_tars(shards, classes=("cat", "dog"))
    with pytest.raises(DatasetError, match="no split 'train'; it has test"):
        open_tars(folder, "train")


@pytest.mark.parametrize("nshards", ["3", "two", "-2", "2.0", "9" * 5000, "2e9", "2\n2"])
def test_wrong_nshards(nshards: str, shards: list[Members], write_tars: WriteTars) -> None:
    with pytest.raises(DatasetError):
        open_tars(write_tars(shards, nshards=nshards))


def test_a_tar_cut_anywhere_is_an_error(png: Png, write_tars: WriteTars) -> None:
    members = [(f"{i}.{kind}", data) for i in range(2) for kind, data in
               (("png", png(i)), ("cls", b"0"))]  # fmt: skip
    folder = write_tars([members], classes=("x",))
    tar = folder / "test" / "0.tar"
    whole = tar.read_bytes()
    with tarfile.open(tar) as opened:
        end = opened.getmembers()[-1].offset_data + tarfile.BLOCKSIZE
    for length in range(0, end + tarfile.BLOCKSIZE, 256):  # every member boundary is among these
        tar.write_bytes(whole[:length])
        with pytest.raises(DatasetError, match=r"0\.tar.*(cut short|no image)"):
            open_tars(folder)
    tar.write_bytes(whole[: end + tarfile.BLOCKSIZE])
    assert len(open_tars(folder)) == 2


def test_a_tar_that_is_none(write_tars: WriteTars) -> None:
    folder = write_tars([[]])
    (folder / "test" / "0.tar").write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(DatasetError, match="damaged or cut short"):
        open_tars(folder)


def test_a_tar_cut_after_it_was_indexed(shards: list[Members], write_tars: WriteTars) -> None:
    folder = write_tars(shards, classes=("cat", "dog"))
    source = open_tars(folder)
    tar = folder / "test" / "0.tar"
    tar.write_bytes(tar.read_bytes()[:600])
    with pytest.raises(UndecodableImage, match=r"'0.tar' ends before it"):
        source.image(0)
    tar.unlink()
    with pytest.raises(UndecodableImage, match="No such file"):
        source.image(0)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.png", b"1"), ("a.cls", b"0"), ("b.png", b"1")], "2 images but 1 labels; 'b'"),
        ([("a.png", b"1"), ("a.cls", b"0"), ("b.cls", b"0")], "2 labels for 1 images; 'b.cls'"),
        ([("a.png", b"1"), ("a.cls", b"cat")], "'a.cls' holds 'cat' instead of a class index"),
        ([("a.png", b"1"), ("a.cls", b"2")], "label 2 of sample 'a' is beyond the 2 class names"),
        ([("a.png", b"1"), ("a.cls", b"-4")], "label -4"),
        ([("a.png", b"1"), ("a.cls", b"2000000000")], "label 2000000000"),
        ([("a.png", b"1"), ("a.cls", b"4294967297")], "label 4294967297"),
        ([("a.png", b"1"), ("a.cls", b"9" * 30)], "label 9999"),
        ([("a.png", b"1"), ("a.cls", b"0" * 5000 + b"x")], None),
        ([("a.png", b"1"), ("a.jpg", b"1"), ("a.cls", b"0")], "two images have the id 'a'"),
        ([("a.png", b"1"), ("a.cls", b"0"), ("a.cls", b"1")], "two labels have the id 'a'"),
        ([("a.txt", b"1")], "no image"),
    ],
)
def test_members_that_do_not_fit(members: Members, message: str, write_tars: WriteTars) -> None:
    with pytest.raises(DatasetError, match=message):
        open_tars(write_tars([members], classes=("cat", "dog")))


# --- tars of strangers ---


def member(
    name: str, content: bytes = b"", size: int | None = None, form: int = 1, **fields: Any
) -> bytes:
    """A header that may say another size, and the content."""
    header = tarfile.TarInfo(name)
    header.size = len(content) if size is None else size
    for field, value in fields.items():
        setattr(header, field, value)
    blocks = -len(content) % tarfile.BLOCKSIZE
    return header.tobuf(form) + content + bytes(blocks)


def negative(data: bytes) -> bytes:
    """The size of a header as a negative number."""
    data = data[:124] + b"\xff" * 10 + b"\xfc\x00" + data[136:]
    total = sum(data[:148]) + 8 * 32 + sum(data[156:512])
    return data[:148] + b"%06o\0 " % total + data[156:]


END = bytes(2 * tarfile.BLOCKSIZE)
SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(8 << 30)}
HOSTILE = {
    "a member of 8 GB": lambda png: member("a.png", png, size=8 << 30),
    "a member of 2^62 bytes": lambda png: member("a.png", png, size=1 << 62),
    "a member before the last": lambda png: member("b.png", png) + negative(member("a.png")),
    "a label of 8 GB": lambda png: member("a.png", png) + member("a.cls", b"0", size=8 << 30),
    "a name of 8 GB": lambda png: member("././@L", b"x" * 512, size=8 << 30, type=b"L"),
    "attributes of 8 GB": lambda png: member("x", b"30 path=a\n", size=8 << 30, type=b"x"),
    "a sparse member": lambda png: member("a.png", png, type=b"S"),
    "a sparse member of 8 GB": lambda png: member(
        "a.png", b"1\n0\n1\n".ljust(512, b"\0"), pax_headers=SPARSE, form=tarfile.PAX_FORMAT
    ),
    "a sparse map without end": lambda png: member(
        "a.png", b"9" * 512, pax_headers=SPARSE, form=tarfile.PAX_FORMAT
    ),
    "links alone": lambda png: (
        member("a.png", type=b"1", linkname="/etc/passwd")
        + member("b.png", type=b"2", linkname="/etc/passwd")
    ),
    "devices and pipes alone": lambda png: b"".join(
        member(f"{kind}.png", type=f"{kind}".encode()) for kind in (3, 4, 6)
    ),
    "compressed": lambda png: gzip.compress(member("a.png", png) + END),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_tars_of_strangers_are_refused(
    name: str, png: Png, write_tars: WriteTars, limited_memory: Limit
) -> None:
    """Whatever they declare; the tar may be a sparse file, so that what is declared is there."""
    tar = write_tars([[]]) / "test" / "0.tar"
    content = HOSTILE[name](png())
    tar.write_bytes(content + END)
    with limited_memory(500), pytest.raises(DatasetError):
        open_tars(tar.parent.parent)
    with tar.open("r+b") as file:
        file.truncate(9 << 30)
    with limited_memory(500), pytest.raises((DatasetError, UndecodableImage)):
        open_tars(tar.parent.parent).image(0)


def test_names_that_lead_elsewhere_are_names(png: Png, write_tars: WriteTars) -> None:
    members = [("../../a.png", png(1)), ("/etc/passwd.png", png(2))]
    source = open_tars(write_tars([members]))
    assert source.ids == ("../../a", "/etc/passwd")
    assert source.image(1).mode == "RGB"


def test_a_pipe_is_no_tar(write_tars: WriteTars) -> None:
    tar = write_tars([[]]) / "test" / "0.tar"
    tar.unlink()
    os.mkfifo(tar)
    with pytest.raises(DatasetError):
        open_tars(tar.parent.parent)


def test_members_that_are_no_images_take_no_memory(write_tars: WriteTars) -> None:
    tar = write_tars([[]]) / "test" / "0.tar"
    tar.write_bytes(member("notes.txt") * 20_000 + END)
    tracemalloc.start()
    with pytest.raises(DatasetError):
        open_tars(tar.parent.parent)
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()
