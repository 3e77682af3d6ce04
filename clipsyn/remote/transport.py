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
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from clipsyn.errors import DamagedStore, StoreError, UsageError
from clipsyn.names import Address, is_url
from clipsyn.store import files
from clipsyn.text import foreign

if TYPE_CHECKING:
    from obstore.store import ObjectStore

FILES = 64  # requests at a time
_RETRIES = 6  # of obstore, until a first answer shows that there is a server
_PATIENCE = 120  # seconds, thereafter: a server that restarts or throttles is waited for
_SILENCE = 30  # seconds without a byte, after which nobody waits for an answer
_SENDING = 10  # times as long where the time includes that of sending
_MOST_OBJECT = 1 << 31  # bytes
_BUCKETS = {"s3": "S3Store", "gs": "GCSStore", "az": "AzureStore"}
_MAY_NOT = "you may not: the credentials of the environment lack the right, or there are none"
_KEYS = {  # variables with which obstore signs requests
    "s3": "AWS_(ACCESS_KEY_ID|CONTAINER_|WEB_IDENTITY_|SKIP_SIGNATURE)",
    "gs": "GOOGLE_(APPLICATION_CREDENTIALS|SERVICE_ACCOUNT|SKIP_SIGNATURE)",
    "az": "AZURE_(?!(STORAGE_ACCOUNT_NAME|STORAGE_ENDPOINT|CONFIG_DIR)$)",
}
_GCLOUD = ".config/gcloud/application_default_credentials.json"


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
        was; `known` is "" for what came without an ETag.
        """
        from obstore.exceptions import GenericError, NotModifiedError, NotSupportedError

        if known is not None and self._is_offline:
            return b"", known
        asked = {"if_none_match": known, "range": span}
        options: Any = {name: value for name, value in asked.items() if value}
        with self._told(path):
            try:
                result = self._client().get(self._at(path), options=options)
            except NotModifiedError:
                return b"", known
            except (NotSupportedError, GenericError) as error:  # a server that sends no parts
                if span is None or "range request" not in str(error).lower():
                    raise
                data, etag = self.get(path, most=_MOST_OBJECT)
                return data[slice(*span)], etag
            if span is None and result.meta["size"] > most:
                raise DamagedStore(f"{self.shown}/{path} has more than {most:,} bytes")
            return bytes(result.bytes()), result.meta["e_tag"]

    def put(self, path: str, data: bytes) -> None:
        """Write an object, whole or not at all."""
        with self._told(path, "written"):
            self._client(_SENDING).put(self._at(path), data, mode="overwrite")

    def put_if(self, path: str, data: bytes, etag: str | None) -> None:
        """Write an object if its ETag is this one, or if there is none.

        Raises Changed where another writer was faster. Where a request was lost on its way back it
        may have been this one: look at what is there.
        """
        lock = files.locked(self._address.folder) if self._is_folder else nullcontext()
        with self._told(path, "written"), lock:
            self._client(_SENDING).put(self._at(path), data, mode=self._condition(path, etag))

    def _condition(self, path: str, etag: str | None) -> Any:
        """Of a write. Google tells versions by other numbers; a folder has a lock instead."""
        from obstore.exceptions import PreconditionError

        if etag is None:
            return "create"
        if not (self._is_folder or self._address.scheme == "gs"):
            return {"e_tag": etag}
        there = self._client().head(self._at(path))
        if there["e_tag"] != etag:
            raise PreconditionError
        return "overwrite" if self._is_folder else {"e_tag": etag, "version": there["version"]}

    def delete(self, path: str) -> None:
        """Remove an object, if it is there."""
        with suppress(MissingObject), self._told(path, "removed"):
            self._client(_SENDING).delete(self._at(path))

    def list(self, folder: str) -> dict[str, tuple[int, float]]:
        """All objects below a folder, with their bytes and when they were written, in seconds since
        1970 by the clock of the server; not over HTTP.
        """
        start = len(self._at(""))
        with self._told(folder, "listed"):
            return {
                str(meta["path"])[start:]: (meta["size"], meta["last_modified"].timestamp())
                for some in self._client().list(self._at(folder), chunk_size=1000)
                for meta in some
            }

    def _at(self, path: str) -> str:
        """Where obstore finds an object; raises UsageError for a path that leads elsewhere."""
        parts = path.split("/") if path else []
        if any(part in ("", ".", "..") for part in parts) or re.search(r"[\x00-\x1f\x7f\\]", path):
            raise UsageError(f"{path!r} is no path in a published store")
        return f"{self._address.folder.absolute()}/{path}"[1:] if self._is_folder else path

    def check_online(self, path: str) -> None:
        """Raise StoreError where CLIPSYN_OFFLINE is set, for an object would travel."""
        if self._is_offline:
            raise StoreError(
                f"{self.shown}/{path} is not in the cache as it was published, and CLIPSYN_OFFLINE "
                "is set: run the same command without it where there is a network"
            )

    @contextmanager
    def _told(self, path: str, done: str = "read") -> Iterator[None]:
        """Make one sentence of what obstore raises, with the URL and without a secret."""
        from obstore import exceptions

        self.check_online(path)
        what = f"{self.shown}/{path}"
        try:
            yield
            self._answered = True
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            raise Changed(
                f"{what} was changed by another writer: run the same command again"
            ) from None
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
                why = "its certificate is not trusted here: SSL_CERT_FILE names one to trust"
            elif "kind: Timeout" in said:
                why = "the server was silent for too long"
            else:  # what the system says, or the end of the first line; not what the server sent
                found = re.search(r'(?:message|error): "([^"\\]+)"', said)
                last = said.partition("\n")[0].partition("<")[0].rpartition(" - ")[2]
                why = re.sub(r"\w+://\S+", "…", found[1] if found else last).strip(" :")
                why = why or type(error).__name__
            raise StoreError(f"{what} cannot be {done}: {why}") from None

    def _client(self, times: int = 1) -> ObjectStore:
        """Made once, and once again after the first answer: then it is patient."""
        kind = times * _SILENCE, self._answered
        if kind not in self._clients:
            self._clients[kind] = self._connected(*kind)
        return self._clients[kind]

    def _connected(self, silence: int, answered: bool) -> ObjectStore:
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
                "max_retries": 5 * _RETRIES if answered else _RETRIES,
                "retry_timeout": timedelta(seconds=max(silence, _PATIENCE if answered else 0)),
            },
            **settings_of(address.scheme),
        )


def address_of(place: str) -> str:
    """The URL of a published store, which may also be named by the path of its folder."""
    return place if is_url(place) else Path(place).resolve().as_uri()


def writable(place: str) -> Remote:
    """A destination, which may be a folder, too; raises UsageError for a web server."""
    url = address_of(place)
    if (address := Address.parse(url)).is_http:
        raise UsageError(
            f"{address.shown} can only be read, and HTTP lists no files: give s3://, gs://, az:// "
            "or the folder that is served there"
        )
    return Remote(url)


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
    with suppress(OSError, UnicodeDecodeError):
        return Path(home, "token").read_text().strip()
    return None


def settings_of(scheme: str) -> dict[str, Any]:
    """Settings for obstore beside what it reads from the environment.

    Where there are no keys a bucket is read as everyone may read it. A machine with a role of its
    own is asked for it where AWS_SKIP_SIGNATURE=false is set, or that of GOOGLE or AZURE.
    """
    if scheme not in _KEYS:
        return {}
    signed = any(re.match(_KEYS[scheme], name) for name in os.environ)
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
    with foreign(
        lambda why: UsageError(
            f"the AWS profile '{named}' has no credentials ({why}): run `pip install boto3`, and "
            "see `aws configure list`"
        )
    ):
        from boto3.session import Session
        from obstore.auth.boto3 import Boto3CredentialProvider

        provider = Boto3CredentialProvider(Session(profile_name=named))
        provider()  # here, where what fails can be told
        return {"credential_provider": provider, **provider.config}
