"""Webdatasets, by hand-packed tars; contents against what tarfile itself extracts."""

import gzip
import hashlib
import tarfile

import pytest

from clipsyn.errors import DatasetError
from clipsyn.extract.images import open_source
from clipsyn.images.source import UndecodableImage


def open_tars(folder, split="test"):
    return open_source(f"tars={folder}", split)


@pytest.fixture
def shards(png):
    first = [("s1.png", png(1)), ("s1.cls", b"1"), ("s0.webp", png(2, "WEBP")), ("s0.cls", b"0\n")]
    second = [("s2.cls", b"1"), ("s2.JPG", png(3, "JPEG")), ("s2.json", b"{}")]
    return [first, second]


def test_order_is_by_shard_then_position(shards, write_tars):
    folder = write_tars(shards, classes=("cat", "dog"), templates=("a {c}.", "the {c}."))
    source = open_tars(folder)
    assert source.ids == ("s1", "s0", "s2")
    assert source.labels.tolist() == [1, 0, 1]
    assert source.class_names == ("cat", "dog")
    assert source.templates == ("a {c}.", "the {c}.")
    assert source.notes == ()
    assert source.image(2).mode == "RGB"


def test_digests_are_those_of_what_tarfile_extracts(shards, write_tars):
    folder = write_tars(shards, classes=("cat", "dog"))
    expected = []
    for shard in ("0.tar", "1.tar"):
        with tarfile.open(folder / "test" / shard) as tar:
            images = [m for m in tar if not m.name.endswith(("cls", "json"))]
            expected += [hashlib.sha256(tar.extractfile(m).read()).digest() for m in images]  # type: ignore[union-attr]
    source = open_tars(folder)
    assert [source.digest(i) for i in range(len(source))] == expected


def test_keys_with_folders_dots_and_long_names(png, write_tars):
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


def test_tars_may_lie_in_the_folder_itself(shards, write_tars):
    folder = write_tars(shards, classes=("cat", "dog"), nshards=None)
    assert len(open_tars(folder / "test")) == 3


# --- what is wrong with a webdataset ---


@pytest.mark.parametrize("nshards", ["3", "two", "-2", "2.0", "9" * 5000, "2e9", "2\n2"])
def test_wrong_nshards(nshards, shards, write_tars):
    with pytest.raises(DatasetError):
        open_tars(write_tars(shards, nshards=nshards))


def test_a_tar_cut_anywhere_is_an_error(png, write_tars):
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


def test_a_tar_cut_after_it_was_indexed(shards, write_tars):
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
        ([("a.png", b"1"), ("a.cls", b"0"), ("b.cls", b"0")], "2 .cls for 1 images; 'b.cls'"),
        ([("a.png", b"1"), ("a.cls", b"cat")], "'a.cls' holds 'cat' instead of a class index"),
        ([("a.png", b"1"), ("a.cls", b"2")], "label 2 of sample 'a' is beyond the 2 class names"),
        ([("a.png", b"1"), ("a.cls", b"-4")], "label -4"),
        ([("a.png", b"1"), ("a.cls", b"4294967297")], "label 4294967297"),
        ([("a.png", b"1"), ("a.cls", b"9" * 30)], "label 9999"),
        ([("a.png", b"1"), ("a.cls", b"0" * 5000 + b"x")], None),
        ([("a.png", b"1"), ("a.jpg", b"1"), ("a.cls", b"0")], "two images have the id 'a'"),
        ([("a.png", b"1"), ("a.cls", b"0"), ("a.cls", b"1")], "two labels have the id 'a'"),
        ([("a.txt", b"1")], "no image"),
    ],
)
def test_members_that_do_not_fit(members, message, write_tars):
    with pytest.raises(DatasetError, match=message):
        open_tars(write_tars([members], classes=("cat", "dog")))


# --- tars of strangers ---


def member(name, content=b"", size=None, form=1, **fields):
    """A header that may say another size, and the content."""
    header = tarfile.TarInfo(name)
    header.size = len(content) if size is None else size
    for field, value in fields.items():
        setattr(header, field, value)
    blocks = -len(content) % tarfile.BLOCKSIZE
    return header.tobuf(form) + content + bytes(blocks)


def negative(data):
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
    "compressed": lambda png: gzip.compress(member("a.png", png) + END),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_tars_of_strangers_are_refused(name, png, write_tars, limited_memory):
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
