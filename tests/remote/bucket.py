"""S3 for tests: moto's server behind a small proxy that fails as it is told."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock

import pytest

from tests.remote.server import Handler, listening

Fault = (
    str | None
)  # "503", "403 AccessDenied", "lost": done, but the answer is a 500; "cut": no answer at all
_SLOW = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class Bucket:
    """An S3 bucket at `endpoint`; `fault` is asked for each request what goes wrong with it."""

    def __init__(self, name: str, moto_port: int) -> None:
        import boto3

        self.name = name
        self.moto_port = moto_port
        self.fault: Callable[[str, str], Fault] = lambda method, path: None
        self.requests: list[tuple[str, str]] = []  # method, path with query
        self.failed = 0
        self.ignored: set[str] = set()  # names of headers
        self.endpoint = ""
        self._s3 = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{moto_port}",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )
        self._s3.create_bucket(Bucket=name)

    @property
    def url(self) -> str:
        return f"s3://{self.name}/lab"

    def environment(self) -> dict[str, str]:
        """What the users of the bucket have in their environment."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "a-secret-key",
            "AWS_REGION": "us-east-1",
        }

    def paths(self) -> list[str]:
        """Paths of all objects below the URL, without the proxy."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        objects = (entry for page in pages for entry in page.get("Contents", []))
        return sorted(entry["Key"].removeprefix("lab/") for entry in objects)

    def read(self, path: str) -> bytes:
        content: bytes = self._s3.get_object(Bucket=self.name, Key=f"lab/{path}")["Body"].read()
        return content

    def write(self, path: str, data: bytes) -> None:
        self._s3.put_object(Bucket=self.name, Key=f"lab/{path}", Body=data)

    def fail_now_and_then(self, every: int) -> None:
        """Fail each request of that number, in turns: throttled, an error, an answer lost."""
        count, lock = [0], Lock()

        def decide(method: str, path: str) -> Fault:
            with lock:
                count[0] += 1
                number, rest = divmod(count[0], every)
            return None if rest else ("503", "500", "lost")[number % 3]

        self.fault = decide


@contextmanager
def in_front_of(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Start the proxy; the environment has the keys to the bucket."""

    class Told(_Handler):
        told = bucket

    with listening(Told) as bucket.endpoint:
        for name, value in bucket.environment().items():
            monkeypatch.setenv(name, value)
        yield bucket


class _Handler(Handler):
    told: Bucket

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.told.requests.append((self.command, self.path))
        fault = self.told.fault(self.command, self.path)
        self.told.failed += fault is not None
        if fault and fault[:3].isdigit():
            status, _, code = fault.partition(" ")
            said = _SLOW.replace(b"SlowDown", code.encode() or b"SlowDown")
            self._answer(int(status), {"Content-Type": "application/xml"}, said)
            return
        status, headers, data = self._asked(body)
        if fault == "lost":
            status, headers, data = 500, {"Content-Type": "application/xml"}, _SLOW
        if fault == "cut":
            self.close_connection = True
            self.connection.close()
            return
        self._answer(status, headers, data)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on  # noqa: N815 - the base's names

    def _heeded(self) -> dict[str, str]:
        headers = self.headers.items()
        return {name: value for name, value in headers if name.lower() not in self.told.ignored}

    def _asked(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.told.moto_port)
        connection.request(self.command, self.path, body, self._heeded())
        answer = connection.getresponse()
        data = answer.read()
        skipped = ("connection", "transfer-encoding", "date", "server")
        headers = {
            name: value for name, value in answer.getheaders() if name.lower() not in skipped
        }
        connection.close()
        return answer.status, headers, data

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        if not any(name.lower() == "content-length" for name in headers):
            headers = {**headers, "Content-Length": str(len(data))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):
                self.wfile.write(data)
