"""`clipsyn.catalog.texts`: files of class names and templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipsyn.catalog.texts import find_class_names, read_class_names, read_lines
from clipsyn.errors import DatasetError


def test_lines_are_stripped_and_blank_ends_dropped(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffcat \r\n  große Katze\r\n\r\n".encode())
    assert read_lines(file) == ("cat", "große Katze")
    with pytest.raises(DatasetError, match=r"cannot be read: .*No such file"):
        read_lines(tmp_path / "nowhere.txt")


@pytest.mark.parametrize(("content", "message"), [(b"a\n\nb", "line 2"), (b"\xff\xfe", "read")])
def test_lines_that_cannot_be_names(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_lines(tmp_path / "names.txt")


def test_the_first_candidate_that_exists_is_taken(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("one")
    (tmp_path / "c.json").write_text('["two"]')
    places = [tmp_path / name for name in "abc"]
    assert find_class_names(places, "set") == (("one",), tmp_path / "b.txt")
    assert find_class_names(places[2:], "set") == (("two",), tmp_path / "c.json")
    assert find_class_names(places[:1], "set") == ((), None)


@pytest.mark.parametrize(
    "content", ['["cat", " dog"]', '{"set": ["cat", "dog"]}', '{"b": "dog", "a": "cat"}']
)
def test_json_is_a_list_or_by_dataset_or_by_folder(content: str, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(content)
    assert read_class_names(tmp_path / "names.json", "set", ["a", "b"]) == ("cat", "dog")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("names.json", '{"cat": 1}', "holds no class names for 'set'"),
        ("names.json", "[1, 2]", "holds no class names for 'set'"),
        ("names.json", '["cat", ""]', "class 1 has no name"),
        ("names.json", "[cat", "is not JSON"),
        ("names.json", "[]", "is empty: write class names"),
        ("names.txt", "\n \n", "is empty: write class names"),
    ],
)
def test_what_holds_no_names(file: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(DatasetError, match=message):
        read_class_names(tmp_path / file, "set")
