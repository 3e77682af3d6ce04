"""A folder as a bucket of S3 and as a web page, by nginx; and what makes a server distant.

nginx serves, with one worker process, and takes what is written. What it cannot do is left to a
process of Python behind it: lists, and writes on a condition, of which a push has few.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 1000  # objects in an answer to a list, as S3 has
NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error;
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; keepalive_requests 100000; client_max_body_size 0;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    map $request_method $etag {{ PUT '"0"'; }}
    map $request_method:$http_if_match$http_if_none_match $conditional {{ ~^PUT:. 1; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096; root {root};
        location = /requests {{ stub_status; }}
        location = /bucket {{ proxy_pass http://127.0.0.1:{behind}; }}
        location /bucket/ {{
            error_page 418 = @conditional;
            if ($conditional) {{ return 418; }}
            alias {root}/; dav_methods PUT DELETE; create_full_put_path on;
            add_header ETag $etag;
        }}
        location @conditional {{ proxy_pass http://127.0.0.1:{behind}; }}
    }}
}}
"""


@dataclass(frozen=True)
class Served:
    """Where a folder is served; as a bucket of S3 its name is `bucket`."""

    url: str

    def requests(self) -> int:
        """How many there were so far; that which asks is one of them."""
        with urllib.request.urlopen(f"{self.url}/requests") as answer:
            return int(answer.read().split()[9])


@contextmanager
def serving(root: Path, folder: Path) -> Iterator[Served]:
    """nginx with `root`; `folder` is for its own files, on the same disk."""
    folder.mkdir()
    with beside(behind, root) as other:
        port, config = free_port(), folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, port=port, root=root, behind=other))
        user = ["-g", "user root;"] if os.getuid() == 0 else []  # or it may not read what we wrote
        command = ["nginx", "-c", str(config), *user]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            wait_for(port)
            yield Served(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait()


def allow_many_files() -> None:
    """For us and who we start: an idle connection is kept for a minute, at both of its ends."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.05)
    raise TimeoutError(f"no server at port {port}")


@contextmanager
def beside(serve: Callable[..., None], *arguments: object) -> Iterator[int]:
    """A server in a process of its own, begun without our threads; its port."""
    ours, theirs = multiprocessing.Pipe()
    made = multiprocessing.get_context("spawn").Process
    process = made(target=serve, args=(theirs, *arguments), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


# Lists, and writes on a condition


class Bucket(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path
    lock = Lock()

    def do_GET(self) -> None:
        """A page of what lies in folders whose path begins with the prefix."""
        asked = {name: value for name, (value, *_) in parse_qs(urlsplit(self.path).query).items()}
        prefix, after = asked.get("prefix", ""), asked.get("continuation-token", "")
        walk = os.walk(self.root / prefix.rpartition("/")[0])
        paths = (f"{folder}/{name}" for folder, _, names in walk for name in names)
        every = sorted(path.removeprefix(f"{self.root}/") for path in paths)
        every = [path for path in every if path.startswith(prefix) and path > after]
        some, more = every[:PAGE], len(every) > PAGE
        last = f"<NextContinuationToken>{escape(some[-1])}</NextContinuationToken>" if more else ""
        objects = "".join(map(self.described, some))
        cut = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        self.answer(200, f"<ListBucketResult>{cut}{last}{objects}</ListBucketResult>")

    def described(self, path: str) -> str:
        file = (self.root / path).stat()
        when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(file.st_mtime))
        return (
            f"<Contents><Key>{escape(path)}</Key><Size>{file.st_size}</Size>"
            f"<LastModified>{when}</LastModified><ETag>{escape(etag_of(file))}</ETag></Contents>"
        )

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        file = self.root / unquote(urlsplit(self.path).path).removeprefix("/bucket/")
        with self.lock:
            there = etag_of(file.stat()) if file.exists() else None
            if there != self.headers["If-Match"]:  # both None: it is to be new
                self.answer(412, "<Error><Code>PreconditionFailed</Code></Error>")
                return
            file.parent.mkdir(parents=True, exist_ok=True)
            file.with_suffix(".new").write_bytes(data)
            file.with_suffix(".new").rename(file)
            self.answer(200, "", ETag=etag_of(file.stat()))

    def answer(self, status: int, text: str, **headers: str) -> None:
        data = text.encode()
        self.send_response(status)
        headers |= {"Content-Type": "application/xml", "Content-Length": str(len(data))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """nginx keeps no log, either."""


def etag_of(file: os.stat_result) -> str:
    """As nginx has it."""
    return f'"{int(file.st_mtime):x}-{file.st_size:x}"'


class Behind(ThreadingHTTPServer):
    request_queue_size = 1024  # with its 5, lists at a time wait for a second


def behind(told: Connection, root: Path) -> None:
    server = Behind(("127.0.0.1", 0), type("Of", (Bucket,), {"root": root}))
    told.send(server.server_port)
    server.serve_forever()


# Distance


@contextmanager
def far_away(near: Served, seconds: float) -> Iterator[str]:
    """The URL of a server that is so far away: what is said to it arrives later."""
    with beside(delay, int(near.url.rpartition(":")[2]), seconds) as port:
        yield f"http://127.0.0.1:{port}"


class End(asyncio.Protocol):
    """One of two connections: what comes here goes out there, `wait` seconds later."""

    def __init__(self, wait: float, there: End | None = None) -> None:
        self.wait, self.there = wait, there
        self.early: list[bytes] = []  # what came before there was an other end
        self.transport: Any = None
        self.is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        if self.there:
            self.there.meet(self)

    def meet(self, there: End) -> None:
        self.there = there
        for data in self.early:
            self.data_received(data)
        if self.is_closed:
            self.connection_lost(None)

    def data_received(self, data: bytes) -> None:
        if self.there:
            later(self.wait, self.there.transport.write, data)
        else:
            self.early.append(data)

    def connection_lost(self, _: Exception | None) -> None:
        self.is_closed = True
        if self.there:
            later(self.wait, self.there.transport.close)


def later(wait: float, what: Callable[..., None], *arguments: object) -> None:
    loop = asyncio.get_running_loop()
    if wait:
        loop.call_later(wait, what, *arguments)
    else:
        what(*arguments)


class Entrance(End):
    """Whoever connects is connected on, or is cut off: without an answer it would wait forever."""

    def __init__(self, port: int, wait: float) -> None:
        super().__init__(wait)
        self.port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.task = asyncio.get_running_loop().create_task(self.connect())

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(partial(End, 0, self), "127.0.0.1", self.port)
        except OSError:
            self.transport.abort()


def delay(told: Connection, port: int, seconds: float) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Entrance(port, seconds), "127.0.0.1", 0, backlog=4096
        )
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())
