"""How entries get into an index that others write, too."""

from __future__ import annotations

from typing import Any

import pytest

from clipsyn.errors import StaleCell, StoreError
from clipsyn.remote import publishing
from clipsyn.remote.index import Entry, Index
from clipsyn.remote.objects import Answer, Changed, MissingObject
from clipsyn.remote.publishing import add_to_index

MARKER = {"format": "1.2", "store_id": "ab" * 16, "chunk_rows": 8}


class FakeRemote:
    """An index in memory; before each write `others` may write theirs."""

    shown = "s3://lab/clip"

    def __init__(self, *entries: Entry) -> None:
        self.data = Index(MARKER).with_entries(entries).dumps() if entries else None
        self.number = 0
        self.others: list[list[Entry]] = []
        self.tags = True
        self.lost = False

    def get(self, path: str, known: str | None = None, most: int = 0) -> Answer:
        if self.data is None:
            raise MissingObject(path)
        return Answer(self.data, str(self.number) if self.tags else None)

    def put_if(self, path: str, data: bytes, etag: str | None) -> str:
        if self.others:
            self._write((self.index or Index(MARKER)).with_entries(self.others.pop(0)).dumps())
        if etag != (None if self.data is None else str(self.number)):
            raise Changed(path)
        self._write(data)
        if self.lost:
            self.lost = False
            raise Changed(path)
        return str(self.number)

    def _write(self, data: bytes) -> None:
        self.data, self.number = data, self.number + 1

    @property
    def index(self) -> Index | None:
        return Index.parse(self.data, self.shown) if self.data else None


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing.time, "sleep", lambda seconds: None)


def entry(name: str, content: str = "a", manifest: str = "0") -> Entry:
    place = ("samples", name, "test")
    return Entry(place, manifest * 64, 5, "1" * 64, content * 64)


def add(remote: FakeRemote, *entries: Entry, replace: bool = False) -> list[Entry]:
    return add_to_index(remote, MARKER, entries, replace=replace)  # type: ignore[arg-type]


def there(remote: FakeRemote) -> dict[str, Entry]:
    assert remote.index is not None
    return {place[1]: entry for place, entry in remote.index.entries.items()}


def test_the_first_makes_the_index() -> None:
    remote = FakeRemote()
    assert add(remote, entry("one"), entry("two")) == []
    assert set(there(remote)) == {"one", "two"}
    assert remote.index is not None
    assert remote.index.store == MARKER


def test_the_store_of_the_first_stays() -> None:
    remote = FakeRemote(entry("one"))
    add_to_index(remote, {**MARKER, "store_id": "cd" * 16}, [entry("two")], replace=False)  # type: ignore[arg-type]
    assert remote.index is not None
    assert remote.index.store == MARKER


@pytest.mark.parametrize("first", [[], [entry("zero")]])
def test_what_others_write_meanwhile_stays(first: list[Entry]) -> None:
    remote = FakeRemote(*first)
    remote.others = [[entry("others")], [entry("more")], [entry("last")]]
    add(remote, entry("one"))
    assert set(there(remote)) == {entry.place[1] for entry in first} | {
        "others",
        "more",
        "last",
        "one",
    }


def test_of_equal_content_the_first_stays() -> None:
    """They were made at other times, so their manifests differ."""
    remote = FakeRemote()
    remote.others = [[entry("one", manifest="1")]]
    assert add(remote, entry("one", manifest="2")) == []
    assert there(remote)["one"].manifest == "1" * 64
    assert remote.number == 1  # not written again


def test_other_content_that_comes_meanwhile_is_refused() -> None:
    remote = FakeRemote()
    remote.others = [[entry("one", content="b")]]
    with pytest.raises(StaleCell, match="samples/one/test in s3://lab/clip was published"):
        add(remote, entry("one"), entry("two"))
    assert set(there(remote)) == {"one"}


def test_what_makes_way_is_returned() -> None:
    old = entry("one", content="b", manifest="3")
    remote = FakeRemote(old, entry("two"))
    assert add(remote, entry("one"), entry("two"), replace=True) == [old]
    assert there(remote)["one"] == entry("one")


def test_what_makes_way_is_known_where_the_answer_was_lost() -> None:
    """The write has happened, and the second look finds nothing to do."""
    old = entry("one", content="b", manifest="3")
    remote = FakeRemote(old)
    remote.lost = True
    assert add(remote, entry("one"), replace=True) == [old]
    assert remote.number == 1


def test_nothing_to_add_writes_nothing() -> None:
    remote = FakeRemote(entry("one"))
    assert add(remote, entry("one")) == []
    assert remote.number == 0


def test_without_etags_nothing_is_overwritten() -> None:
    remote = FakeRemote(entry("one"))
    remote.tags = False
    with pytest.raises(StoreError, match="gives no ETags"):
        add(remote, entry("two"))
    assert set(there(remote)) == {"one"}


def test_it_gives_up_at_last() -> None:
    remote = FakeRemote()
    remote.others = [[entry(str(number))] for number in range(1000)]
    with pytest.raises(StoreError, match="what was sent is kept"):
        add(remote, entry("one"))


def test_entries_of_unknown_kinds_stay() -> None:
    newer: dict[str, Any] = {"place": ["depths", "toy", "test"], "bytes": 1}
    remote = FakeRemote()
    remote.data = Index(MARKER, {}, (newer,), "1.4").dumps()
    add(remote, entry("one"))
    assert remote.index is not None
    assert (remote.index.unknown, remote.index.format) == ((newer,), "1.4")
