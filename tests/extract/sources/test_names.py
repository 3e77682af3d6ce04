"""Files of class names and templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipsyn.errors import DatasetError
from clipsyn.extract.sources.names import check_count, find_class_names, read_lines


def test_lines_are_stripped_and_blank_ends_dropped(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffcat \r\n  große Katze\r\n\r\n".encode())
    assert read_lines(file) == ("cat", "große Katze")
    assert read_lines(tmp_path / "nowhere.txt") == ()


@pytest.mark.parametrize(("content", "message"), [(b"a\n\nb", "line 2"), (b"\xff\xfe", "read")])
def test_lines_that_cannot_be_names(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_lines(tmp_path / "names.txt")


def test_the_first_candidate_that_exists_is_taken(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("one")
    (tmp_path / "c.json").write_text('["two"]')
    candidates = [tmp_path / name for name in ("a.txt", "b.txt", "c.json")]
    assert find_class_names(candidates, "set") == (("one",), candidates[1])
    assert find_class_names(candidates[2:], "set") == (("two",), candidates[2])
    assert find_class_names(candidates[:1], "set") == ((), None)


def test_counts(tmp_path: Path) -> None:
    check_count(("a", "b"), 2, tmp_path, "folders")
    with pytest.raises(DatasetError, match="has 2 class names for 3 folders"):
        check_count(("a", "b"), 3, tmp_path, "folders")
