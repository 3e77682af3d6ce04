from __future__ import annotations

from pathlib import Path

import pytest

from clipsyn.errors import UsageError
from clipsyn.names import Address, is_url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/store", True),
        ("https://host/store", True),
        ("file:///data/store", True),
        ("ftp://host/store", True),  # a URL, though one that is refused
        ("store", False),
        ("/data/store", False),
        ("./s3:/bucket", False),
        ("C://data", False),
        ("://x", False),
        (Path("store"), False),
        ("", False),
    ],
)
def test_a_url_has_a_scheme_of_two_letters_and_more(text: str | Path, expected: bool) -> None:
    assert is_url(text) is expected


def test_an_address_is_shown_without_user_and_query() -> None:
    address = Address.parse("https://me:s%40cret@host:8080/a/b/?token=hidden#top")
    assert address.shown == "https://host:8080/a/b"
    assert address.user == "me:s@cret"
    assert address.url == "https://host:8080/a/b?token=hidden"
    assert "cret" not in address.url


def test_a_file_url_is_a_folder() -> None:
    assert Address.parse("file:///data/my%20store/").folder == Path("/data/my store")
    assert Address.parse("file://localhost/data").folder == Path("/data")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ftp://me:secret@host/x", "ftp://host/x: a store is read from file, http, https"),
        ("file://data/store", "a file URL has three slashes"),
        ("s3:///store", "names no host or bucket"),
        ("http://[::1/x", "this is no URL"),
        ("http://me:secret@host:80x/", "this is no URL"),
    ],
)
def test_other_urls_are_refused_in_a_sentence_without_secrets(text: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        Address.parse(text)
    assert said in str(error.value)
    assert "secret" not in str(error.value)
