from __future__ import annotations

import errno
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from clipsyn.errors import DamagedStore, StoreError, UsageError
from clipsyn.remote import transport
from clipsyn.remote.transport import Changed, MissingObject, Remote
from tests.daemons import free_port
from tests.remote.server import Server, serving

Serve = Callable[[Path], Server]
NAME = "features/pets--x/ViT-B%2D32--open ai@=+,~/zarr.json"  # as folders of a store are called


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "published"
    (root / NAME).parent.mkdir(parents=True)
    (root / NAME).write_bytes(b"{}")
    (root / "index.json.gz").write_bytes(b"the index")
    (root / "large").write_bytes(bytes(range(256)) * 4096)  # more than one packet
    return root


@pytest.fixture(params=["folder", "http"])
def remote(request: Any, folder: Path, serve: Serve) -> Remote:
    """The same store, in a folder and behind a web server."""
    return Remote(folder.as_uri() if request.param == "folder" else serve(folder).url)


def test_bytes_are_read_by_path(remote: Remote, folder: Path) -> None:
    assert remote.get(NAME)[0] == b"{}"


def test_what_is_known_is_not_sent_again(remote: Remote, folder: Path) -> None:
    _, first = remote.get("index.json.gz")
    assert remote.get("index.json.gz", known=first) == (b"", first)
    (folder / "index.json.gz").write_bytes(b"another")
    data, second = remote.get("index.json.gz", known=first)
    assert data == b"another"
    assert second != first


def test_a_proxy_of_the_environment_is_asked(folder, serve, monkeypatch):
    proxy = serve(folder)
    monkeypatch.setenv("http_proxy", proxy.url)
    assert Remote("http://there.invalid").get(NAME)[0] == b"{}"
    assert proxy.headers[0]["host"] == "there.invalid"
    proxy.requests.clear()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    direct = serve(folder)
    Remote(direct.url).get(NAME)
    assert (proxy.paths(), direct.paths()) == ([], [NAME])


def test_the_environment_names_a_certificate_to_trust(folder, tmp_path, monkeypatch):
    made = tmp_path / "made.pem"
    words = f"req -x509 -newkey rsa:2048 -nodes -keyout {made} -out {tmp_path}/trusted.pem -days 1"
    words += " -subj /CN=lab -addext subjectAltName=IP:127.0.0.1"
    words += " -addext basicConstraints=critical,CA:FALSE"
    subprocess.run(["openssl", *words.split()], check=True, capture_output=True)
    made.write_bytes(made.read_bytes() + (tmp_path / "trusted.pem").read_bytes())
    monkeypatch.setattr(transport, "_RETRIES", 0)
    with serving(folder, made) as server:
        with pytest.raises(StoreError, match="SSL_CERT_FILE"):
            Remote(server.url).get(NAME)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted.pem"))
        assert Remote(server.url).get(NAME)[0] == b"{}"


def test_what_is_missing_is_told_apart(remote: Remote) -> None:
    with pytest.raises(MissingObject, match=r"there is no (file|http)://.*/nothing"):
        remote.get("nothing")


def test_an_object_larger_than_expected_is_not_read(remote: Remote) -> None:
    with pytest.raises(DamagedStore):
        remote.get("index.json.gz", most=8)
    assert remote.get("index.json.gz", most=9)[0] == b"the index"


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../b", "a//b", "a\0b", "a\\b", "a/.", "a\nb"]
)
def test_paths_outside_the_store_are_refused(remote: Remote, path: str) -> None:
    for use in (remote.get, remote.list, lambda path: remote.put(path, b"")):
        with pytest.raises(UsageError, match="no path in a published store"):
            use(path)


@pytest.mark.parametrize("fault", ["403", "401", "418", "no-length", "cut", "long"])
def test_failures_are_one_sentence_without_secrets(folder, serve, monkeypatch, fault):
    server = serve(folder)
    server.ranges = False
    server.fail(fault, "", times=100)
    url = server.url.replace("//", "//me:secret@") + "?token=hidden"
    with pytest.raises(StoreError) as error:
        Remote(url).get("large")
    assert f"{server.url}/large cannot be read: " in str(error.value)
    assert ("credentials" in str(error.value)) == (fault in ("401", "403"))
    assert error.value.__cause__ is None
    assert "secret" not in str(error.value) + repr(Remote(url))
    assert "hidden" not in str(error.value) + repr(Remote(url))


@contextmanager
def sending(first: bytes) -> Iterator[str]:
    """The URL of a server that says this, and nothing more."""
    end = Event()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65_536)
            connection.sendall(first)
            end.wait()

    def serve() -> None:
        with suppress(OSError):
            while True:
                Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        end.set()
        listener.shutdown(socket.SHUT_RDWR)


_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n"
    b"Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n"
)


@pytest.mark.parametrize("first", [b"", _HEAD, b"HTTP/1.1 200 OK\r\n"])
def test_a_server_that_sends_nothing_is_left(monkeypatch, first):
    monkeypatch.setattr(transport, "_SILENCE", 1)
    with sending(first) as url:
        start = time.monotonic()
        with pytest.raises(StoreError):
            Remote(url).get("index.json.gz")
    assert time.monotonic() - start < 10  # of the quarter of an hour that a file may take


def test_what_the_system_says_is_passed_on(monkeypatch):
    monkeypatch.setattr(transport, "_RETRIES", 0)
    monkeypatch.setattr(transport, "_SILENCE", 1)
    with pytest.raises(StoreError) as error:
        Remote(f"http://127.0.0.1:{free_port()}").get("index.json.gz")
    assert os.strerror(errno.ECONNREFUSED) in str(error.value)


def test_a_server_that_has_answered_is_waited_for(folder, serve, monkeypatch):
    monkeypatch.setattr(transport, "_RETRIES", 1)
    server = serve(folder)
    server.fail("503", "large", times=4)
    with pytest.raises(StoreError):
        Remote(server.url).get("large")
    server.fail("503", "large", times=4)
    remote = Remote(server.url)
    remote.get("index.json.gz")
    assert remote.get("large")[0] == (folder / "large").read_bytes()


def test_user_and_query_of_a_url_reach_the_server(folder: Path, serve: Serve) -> None:
    server = serve(folder)
    Remote(server.url.replace("//", "//me:secret@")).get("index.json.gz")
    assert server.headers[0]["authorization"] == "Basic bWU6c2VjcmV0"


def test_a_folder_is_written_under_conditions(tmp_path: Path) -> None:
    remote = Remote((tmp_path / "new").as_uri())
    remote.put_if("index.json.gz", b"1", None)
    _, first = remote.get("index.json.gz")
    with pytest.raises(Changed, match="changed by another writer"):
        remote.put_if("index.json.gz", b"2", None)
    remote.put_if("index.json.gz", b"2", first)
    with pytest.raises(Changed):
        remote.put_if("index.json.gz", b"3", first)
    assert remote.get("index.json.gz")[0] == b"2"


def test_a_folder_takes_files_lists_and_removes(tmp_path: Path) -> None:
    remote = Remote((tmp_path / "new").as_uri())
    remote.put("a/b/c", b"content")
    remote.put("a/d", b"bytes")
    remote.put_if("index.json.gz", b"", None)
    assert set(remote.list("")) == {"a/b/c", "a/d", "index.json.gz"}
    assert {path: size for path, (size, _) in remote.list("a/b").items()} == {"a/b/c": 7}
    assert remote.list("nothing") == {}
    for path in ("a/b/c", "a/never"):
        remote.delete(path)
    assert set(remote.list("a")) == {"a/d"}
