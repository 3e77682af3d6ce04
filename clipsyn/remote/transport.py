"""The bytes of a published store, over HTTP, in a bucket or in a folder, by obstore.

Nothing that is said or raised here has a credential in it: of what obstore says of a failed request
URLs and the answers of servers are left out. obstore reads the environment variables of AWS, Google
and Azure, SSL_CERT_FILE and those of proxies. AWS's profiles are read by its own library, boto3;
the token of the Hugging Face hub and the user of a URL are found here.
"""

from __future__ import annotations

import base64
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clipsyn.errors import DamagedStore, StoreError, UsageError
from clipsyn.names import Address
from clipsyn.store import files
from clipsyn.text import one_line

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_TRIES = 3  # of an answer that is cut off; obstore tries again what a server refuses for now
_RETRIES = 6  # of obstore, until a first answer shows that there is a server
_PATIENCE = 120  # seconds, thereafter: a server that restarts or throttles is waited for
_PAUSE = 0.2  # seconds before the second try
_SILENCE = 30  # seconds without a byte, after which nobody waits for an answer
_MOST_OBJECT = 1 << 31  # bytes
_BUCKETS = {"s3": "S3Store", "gs": "GCSStore", "az": "AzureStore"}
_MAY_NOT = (
    "you may not: the credentials that the environment or the configuration has lack the right, or "
    "there are none"
)
_KEYS = {  # how variables begin with which obstore signs requests
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_CONTAINER_", "AWS_WEB_IDENTITY_", "AWS_SKIP_SIGNATURE"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SKIP_SIGNATURE"),
    "az": ("AZURE_",),
}
_GCLOUD = ".config/gcloud/application_default_credentials.json"
_NO_KEYS = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ENDPOINT", "AZURE_CONFIG_DIR")


Span = tuple[int, int]  # of bytes: from, to


class MissingObject(StoreError):
    """There is no object of that path."""


class Changed(StoreError):
    """The object is another than the writer has seen."""


class Remote:
    """The root of one published store.

    Paths are relative, with ``/``. Reading raises MissingObject where there is nothing, StoreError
    where the server, the network or a lacking permission is in the way.
    """

    def __init__(self, url: str) -> None:
        self._address = Address.parse(url)
        self.shown = self._address.shown
        self._is_folder = self._address.scheme == "file"
        self._is_offline = not self._is_folder and bool(os.environ.get("CLIPSYN_OFFLINE"))
        self._answered = False
        self._clients: dict[tuple[int, bool], ObjectStore] = {}

    def get(
        self,
        path: str,
        known: str | None = None,
        most: int = files.MOST_METADATA,
        span: Span | None = None,
    ) -> tuple[bytes, str | None]:
        """The bytes of an object, or of a span of it, and its ETag; none if that is `known` still.

        Raises DamagedStore for an object of more than `most` bytes, before it is read; StoreError
        where nothing comes for half a minute. Where CLIPSYN_OFFLINE is set, what is known is as it
        was.
        """
        if known and self._is_offline:
            return b"", known
        for attempt in range(1, _TRIES):
            with suppress(_Cut):
                return self._get(path, known, most, span)
            time.sleep(_PAUSE * attempt)
        return self._get(path, known, most, span)

    def _get(
        self, path: str, known: str | None, most: int, span: Span | None
    ) -> tuple[bytes, str | None]:
        from obstore.exceptions import GenericError, NotModifiedError, NotSupportedError

        asked = {"if_none_match": known, "range": span}
        options: Any = {name: value for name, value in asked.items() if value}
        with self._told(path):
            try:
                result = self._store.get(self._at(path), options=options)
            except NotModifiedError:
                if known is None:
                    raise
                return b"", known
            except (NotSupportedError, GenericError) as error:  # a server that sends no parts
                if span is None or "range request" not in str(error).lower():
                    raise
                data, etag = self._get(path, None, _MOST_OBJECT, None)
                return data[slice(*span)], etag
        if span is None and result.meta["size"] > most:
            raise DamagedStore(f"{self.shown}/{path} has more than {most:,} bytes")
        with self._told(path, kind=_Cut):
            return bytes(result.bytes()), result.meta["e_tag"]

    def put(self, path: str, data: bytes) -> None:
        """Write an object, whole or not at all."""
        with self._told(path, "written"):
            self._writer.put(self._at(path), data, mode="overwrite")

    def put_if(self, path: str, data: bytes, etag: str | None) -> None:
        """Write an object if its ETag is this one, or if there is none.

        Raises Changed where another writer was faster. Where a request was lost on its way back it
        may have been this one: look at what is there.
        """
        folder = self._address.folder
        lock = files.locked(folder) if self._is_folder else nullcontext()
        with self._told(path, "written"), lock:
            at, mode = self._at(path), self._condition(path, etag)
            self._writer.put(at, data, mode=mode)

    def _condition(self, path: str, etag: str | None) -> Any:
        """Of a write. Google tells versions by other numbers; a folder has a lock instead."""
        if etag is None:
            return "create"
        if not (self._is_folder or self._address.scheme == "gs"):
            return {"e_tag": etag}
        there = self._store.head(self._at(path))
        if there["e_tag"] != etag:
            raise self._changed(path)
        return "overwrite" if self._is_folder else {"e_tag": etag, "version": there["version"]}

    def delete(self, path: str) -> None:
        """Remove an object, if it is there."""
        with suppress(MissingObject), self._told(path, "removed"):
            self._writer.delete(self._at(path))

    def list(self, folder: str) -> dict[str, tuple[int, float]]:
        """All objects below a folder, with their bytes and when they were written, in seconds since
        1970 by the clock of the server; not over HTTP.
        """
        start = len(self._at(""))
        with self._told(folder, "listed"):
            return {
                str(meta["path"])[start:]: (meta["size"], meta["last_modified"].timestamp())
                for some in self._store.list(self._at(folder), chunk_size=1000)
                for meta in some
            }

    def _at(self, path: str) -> str:
        """Where obstore finds an object; raises UsageError for a path that leads elsewhere."""
        parts = path.split("/") if path else []
        if any(part in ("", ".", "..") for part in parts) or re.search(r"[\x00-\x1f\x7f\\]", path):
            raise UsageError(f"{path!r} is no path in a published store")
        return f"{self._address.folder.absolute()}/{path}"[1:] if self._is_folder else path

    def _changed(self, path: str) -> Changed:
        return Changed(
            f"{self.shown}/{path} was changed by another writer: run the same command again"
        )

    def check_online(self, path: str) -> None:
        """Raise StoreError where CLIPSYN_OFFLINE is set, for an object would travel."""
        if self._is_offline:
            raise StoreError(
                f"{self.shown}/{path} is not in the cache as it was published, and CLIPSYN_OFFLINE "
                "is set: run the same command without it where there is a network"
            )

    @contextmanager
    def _told(
        self, path: str, done: str = "read", kind: type[StoreError] = StoreError
    ) -> Iterator[None]:
        """Make one sentence of what obstore raises, with the URL and without a secret."""
        from obstore import exceptions

        self.check_online(path)
        what = f"{self.shown}/{path}"
        try:
            yield
            self._answered = True
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            raise self._changed(path) from None
        except (exceptions.BaseError, OSError) as error:
            said = str(error)
            refused = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
            if "NoSuchBucket" in said or "ContainerNotFound" in said:
                why = "there is no such bucket: check its name, or make it"
            elif isinstance(error, FileNotFoundError):
                raise MissingObject(f"there is no {what}") from None
            elif isinstance(error, refused) or re.search(r"status code: 40[13]\b", said):  # a list
                why = _MAY_NOT
            elif "InvalidCertificate" in said:
                why = (
                    "this machine does not trust its certificate: SSL_CERT_FILE names one to trust"
                )
            else:  # the end of its first line, without what the server has sent, and without URLs
                last = said.partition("\n")[0].partition("<")[0].rpartition(" - ")[2]
                why = re.sub(r"\w+://\S+", "…", last).strip() or type(error).__name__
            raise kind(f"{what} cannot be {done}: {why}") from None

    @property
    def _store(self) -> ObjectStore:
        return self._client(_SILENCE)

    @property
    def _writer(self) -> ObjectStore:
        """The time in which a server is silent includes that of sending."""
        return self._client(10 * _SILENCE)

    def _client(self, silence: int) -> ObjectStore:
        """Made once, and once again after the first answer: then it is patient."""
        kind = silence, self._answered
        if kind not in self._clients:
            self._clients[kind] = self._connected(*kind)
        return self._clients[kind]

    def _connected(self, silence: int, patient: bool) -> ObjectStore:
        from obstore import store

        address = self._address
        if self._is_folder:
            return store.LocalStore()
        endpoint = os.environ.get("AWS_ENDPOINT_URL", "") if address.scheme == "s3" else address.url
        return getattr(store, _BUCKETS.get(address.scheme, "HTTPStore")).from_url(  # type: ignore[no-any-return]
            address.url,
            client_options={
                "connect_timeout": "10s",
                "read_timeout": f"{silence}s",
                "timeout": "15m",
                "allow_http": endpoint.startswith("http://"),
                "default_headers": http_headers(address),
            },
            retry_config={
                "max_retries": 5 * _RETRIES if patient else _RETRIES,
                "retry_timeout": timedelta(seconds=max(silence, _PATIENCE if patient else 0)),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=10),
                    "base": 2,
                },
            },
            **settings_of(address.scheme),
        )


class _Cut(StoreError):
    """An answer that ended before its end."""


def http_headers(address: Address) -> dict[str, str]:
    """Who asks: the user of the URL, or for the Hugging Face hub its token."""
    if not address.is_http:
        return {}
    if address.user:
        return {"authorization": f"Basic {base64.b64encode(address.user.encode()).decode()}"}
    on_hub = address.scheme == "https" and urlsplit(address.url).hostname == "huggingface.co"
    token = _hub_token() if on_hub else None
    return {"authorization": f"Bearer {token}"} if token else {}


def _hub_token() -> str | None:
    """The token that the environment has, or that `hf auth login` keeps."""
    if token := os.environ.get("HF_TOKEN"):
        return token.strip()
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    try:
        return Path(home, "token").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def settings_of(scheme: str) -> dict[str, Any]:
    """Settings for obstore beside what it reads from the environment.

    Where there are no keys a bucket is read as everyone may read it. A machine with a role of its
    own is asked for it where AWS_SKIP_SIGNATURE=false is set, or that of GOOGLE or AZURE.
    """
    if scheme not in _KEYS:
        return {}
    signed = any(name.startswith(_KEYS[scheme]) and name not in _NO_KEYS for name in os.environ)
    if scheme == "gs":
        signed |= (Path.home() / _GCLOUD).exists()
    settings = {} if signed else {"skip_signature": True}
    if scheme != "s3":
        return settings
    if named := os.environ.get("AWS_PROFILE"):
        settings = _profile_settings(named)
    has_region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return settings if has_region else {"region": "us-east-1"} | settings


def _profile_settings(named: str) -> dict[str, Any]:
    """What AWS's own library makes of a profile: of its keys, or by `aws sso login` and its like.

    Raises UsageError for one that is not there, or cannot be signed in.
    """
    try:
        from boto3.session import Session
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ModuleNotFoundError:
        raise UsageError(
            f"the AWS profile '{named}' is read by AWS's own library: run `pip install boto3`"
        ) from None
    try:
        session = Session(profile_name=named)
        provider = Boto3CredentialProvider(session)
        provider()  # here, where what fails can be told
    except (BotoCoreError, ValueError) as error:
        raise UsageError(
            f"the AWS profile '{named}' has no credentials ({one_line(error)}): see "
            "`aws configure list`"
        ) from None
    region = {"region": session.region_name} if session.region_name else {}
    return {"credential_provider": provider, **region}
