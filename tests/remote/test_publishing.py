"""How entries get into an index that others write, too."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from clipsyn.errors import StaleCell, StoreError
from clipsyn.remote import push
from clipsyn.remote.index import INDEX, Entry, Index
from clipsyn.remote.push import _check_conditions, add_to_index
from clipsyn.remote.transport import Changed, MissingObject

MARKER = {"format": "2.0", "store_id": "ab" * 16, "chunk_rows": 8}


class FakeRemote:
    """An index in memory; before each write `others` may write theirs."""

    shown = "s3://lab/clip"

    def __init__(self, *entries: Entry) -> None:
        self.data = Index(MARKER).with_entries(entries).dumps() if entries else None
        self.number = 0
        self.others: list[list[Entry]] = []
        self.lost = False
        self.touched: list[str] = []

    def get(self, path: str, most: int = 0) -> tuple[bytes, str | None]:
        if path != INDEX:
            return path.encode(), "tag"
        if self.data is None:
            raise MissingObject(path)
        return self.data, str(self.number)

    def put(self, path: str, data: bytes) -> None:
        if path == INDEX:
            self._write(data)
        else:
            self.touched.append(path)

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
    monkeypatch.setattr(push.time, "sleep", lambda seconds: None)


def entry(name: str, content: str = "a", manifest: str = "0") -> Entry:
    place = ("samples", name, "test")
    return Entry(place, manifest * 64, 5, "1" * 64, content * 64)


def add(remote: FakeRemote, *entries: Entry, gone: Sequence[Entry] = ()) -> None:
    making_way = [entry.manifest for entry in gone]
    add_to_index(remote, Index(MARKER), entries, making_way)  # type: ignore[arg-type]


def there(remote: FakeRemote) -> dict[str, Entry]:
    assert remote.index is not None
    return {place[1]: entry for place, entry in remote.index.entries.items()}


def test_the_first_makes_the_index() -> None:
    remote = FakeRemote()
    add(remote, entry("one"), entry("two"))
    assert set(there(remote)) == {"one", "two"}
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
    add(remote, entry("one", manifest="2"))
    assert there(remote)["one"].manifest == "1" * 64
    assert remote.number == 1  # not written again


def test_other_content_that_comes_meanwhile_is_refused() -> None:
    remote = FakeRemote()
    remote.others = [[entry("one", content="b")]]
    with pytest.raises(StaleCell, match="samples/one/test in s3://lab/clip was published"):
        add(remote, entry("one"), entry("two"))
    assert set(there(remote)) == {"one"}


def test_what_was_seen_makes_way() -> None:
    old = entry("one", content="b", manifest="3")
    remote = FakeRemote(old, entry("two"))
    add(remote, entry("one"), entry("two"), gone=[old])
    assert there(remote)["one"] == entry("one")


def test_what_makes_way_is_known_where_the_answer_was_lost() -> None:
    """The write has happened, and the second look finds nothing to do."""
    old = entry("one", content="b", manifest="3")
    remote = FakeRemote(old)
    remote.lost = True
    add(remote, entry("one"), gone=[old])
    assert there(remote)["one"] == entry("one")
    assert remote.number == 1


class Careless(FakeRemote):
    """Heeds not all conditions of a write; `refuses` are the ETags that it does."""

    def __init__(self, *refuses: str | None) -> None:
        super().__init__()
        self.refuses = refuses

    def put_if(self, path: str, data: bytes, etag: str | None) -> str:
        if etag in self.refuses:
            raise Changed(path)
        self.touched.append(path)
        return "new"


def test_a_place_is_asked_for_writes_that_it_has_to_refuse() -> None:
    _check_conditions(Careless(None, '"0"'), b"")  # type: ignore[arg-type]
    for refuses in ((), (None,), ('"0"',)):
        with pytest.raises(StoreError):
            _check_conditions(Careless(*refuses), b"")  # type: ignore[arg-type]


def test_it_gives_up_at_last() -> None:
    remote = FakeRemote()
    remote.others = [[entry(str(number))] for number in range(1000)]
    with pytest.raises(StoreError, match="what was sent is kept"):
        add(remote, entry("one"))
