"""A web server for tests that serves a folder, and fails as it is told."""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

Fault = str | None  # "503", "404", "403", "cut", "long", "altered", "no-length"


class Server:
    """Serves `folder` at `url`; `fault` is asked for each request what goes wrong with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fault: Callable[[str], Fault] = lambda path: None
        self.ranges = self.tags = True
        self.requests: list[tuple[str, str]] = []  # method, path
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []
        self.url = ""

    def paths(self) -> list[str]:
        return [path for _, path in self.requests]

    def fail(self, fault: str, pattern: str, times: int = 1) -> None:
        """Fail so many of the next requests whose path has the pattern."""
        left = [times]

        def decide(path: str) -> Fault:
            if left[0] and re.search(pattern, path):
                left[0] -= 1
                return fault
            return None

        self.fault = decide


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Nothing: a test asks for `requests`."""


@contextmanager
def listening(
    handler: type[BaseHTTPRequestHandler], certificate: Path | None = None
) -> Iterator[str]:
    """The URL at which the handler answers on loopback, in threads of its own.

    certificate: with its key; then it answers by HTTPS.
    """
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    httpd.daemon_threads = True
    Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{httpd.server_address[1]}"
    finally:
        httpd.shutdown()
        httpd.server_close()


@contextmanager
def serving(folder: Path, certificate: Path | None = None) -> Iterator[Server]:
    server = Server(folder)

    class Told(_Handler):
        told = server

    with listening(Told, certificate) as server.url:
        yield server


class _Handler(Handler):
    told: Server

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        self.told.requests.append((self.command, path))
        self.told.headers.append({name.lower(): value for name, value in self.headers.items()})
        fault = self.told.fault(path)
        if fault and fault.isdigit():
            self._answer(int(fault), b"", {})
            return
        try:
            data = (self.told.folder / path).read_bytes()
        except (OSError, ValueError):
            self._answer(404, b"", {})
            return
        if fault == "altered":
            data = bytes(len(data))
        etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        if self.headers.get("If-None-Match") == etag:
            self._answer(304, b"", {"ETag": etag})
            return
        self._serve(data, {"ETag": etag} if self.told.tags else {}, fault)

    do_HEAD = do_GET  # noqa: N815 - as the base class calls it

    def _serve(self, data: bytes, headers: dict[str, str], fault: Fault) -> None:
        status, asked = 200, re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and self.told.ranges:
            start, stop = int(asked[1]), int(asked[2] or len(data) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            data, status = data[start:stop], 206
        self._answer(status, data, headers, fault)

    def _answer(
        self, status: int, data: bytes, headers: dict[str, str], fault: Fault = None
    ) -> None:
        self.told.statuses.append(status)
        self.send_response(status)
        length = len(data) + (1000 if fault == "long" else 0)
        for name, value in headers.items():
            self.send_header(name, value)
        if fault != "no-length" and status != 304:
            self.send_header("Content-Length", str(length))
        if fault:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # refused by its size
                self.wfile.write(data[: len(data) // 2] if fault == "cut" else data)
