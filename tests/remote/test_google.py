"""Conditional writes to Google's buckets, whose objects have generations beside their ETags."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from urllib.parse import unquote, urlsplit

import pytest
from obstore.store import GCSStore

from clipsyn.remote.transport import Changed, Remote
from tests.remote.server import Handler, listening


class Google:
    """As much of a bucket as clipsyn uses: objects by path with a generation each."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.generation = 1_000
        self.lock = Lock()

    def put(self, path: str, data: bytes, match: str | None) -> int:
        """The new generation; 0 where the one that is there is not the one asked for."""
        with self.lock:
            _, there = self.objects.get(path, (b"", 0))
            if match is not None and int(match) != there:
                return 0
            self.generation += 1
            self.objects[path] = data, self.generation
            return self.generation


class Answering(Handler):
    google: Google

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if found := self.google.objects.get(unquote(url.path)):
            self._answer(200, found[0], found[1])
        else:
            self._answer(404)

    do_HEAD = do_GET  # noqa: N815 - as the base class calls it

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        match = self.headers.get("x-goog-if-generation-match")
        generation = self.google.put(unquote(urlsplit(self.path).path), data, match)
        self._answer(200 if generation else 412, b"", generation)

    def _answer(self, status: int, data: bytes = b"", generation: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        if generation:
            self.send_header("ETag", f'"tag-{generation}"')
            self.send_header("x-goog-generation", str(generation))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    """A bucket called lab, and the key to it as a service account has it."""

    class Told(Answering):
        google = Google()

    account = {
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
    plain = {"allow_http": True}  # clipsyn connects by TLS alone
    monkeypatch.setattr(
        Remote,
        "_connected",
        lambda self, *_: GCSStore.from_url(self._address.url, client_options=plain),
    )
    with listening(Told) as url:
        (tmp_path / "account.json").write_text(json.dumps({"gcs_base_url": url, **account}))
        yield Told.google


def test_an_object_is_replaced_if_it_is_the_one_that_was_read(google: Google) -> None:
    remote = Remote("gs://lab/clip")
    remote.put_if("index.json.gz", b"1", None)
    with pytest.raises(Changed):
        remote.put_if("index.json.gz", b"other", None)
    _, first = remote.get("index.json.gz")
    remote.put_if("index.json.gz", b"2", first)
    _, second = remote.get("index.json.gz")
    with pytest.raises(Changed):
        remote.put_if("index.json.gz", b"late", first)
    remote.put_if("index.json.gz", b"3", second)
    assert remote.get("index.json.gz")[0] == b"3"


def test_a_write_between_the_look_and_the_write_is_seen(google, monkeypatch):
    remote = Remote("gs://lab/clip")
    remote.put_if("index.json.gz", b"1", None)
    _, first = remote.get("index.json.gz")
    original = google.put

    def put(path: str, data: bytes, match: str | None) -> int:
        monkeypatch.setattr(google, "put", original)
        original(path, b"faster", None)
        return original(path, data, match)

    monkeypatch.setattr(google, "put", put)
    with pytest.raises(Changed):
        remote.put_if("index.json.gz", b"2", first)
    assert google.objects["/lab/clip/index.json.gz"][0] == b"faster"
