"""Credentials and settings that obstore does not find by itself; nothing of them is kept or shown.

obstore reads the environment variables of AWS, Google and Azure. AWS's profiles are read by its own
library, boto3; here are the token of the Hugging Face hub, and the user of a URL.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clipsyn.errors import UsageError
from clipsyn.names import Address
from clipsyn.text import one_line

_HUB = "huggingface.co"
_AWS_ROLES = (  # what lets obstore ask who the machine is
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_SKIP_SIGNATURE",
)
_GOOGLE_KEYS = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SKIP_SIGNATURE",
)
_NO_AZURE_KEYS = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ENDPOINT", "AZURE_CONFIG_DIR")


def http_headers(address: Address) -> dict[str, str]:
    """Who asks: the user of the URL, or for the Hugging Face hub its token."""
    if address.user:
        return {"authorization": f"Basic {base64.b64encode(address.user.encode()).decode()}"}
    host = urlsplit(address.url).hostname
    token = _hub_token() if address.scheme == "https" and host == _HUB else None
    return {"authorization": f"Bearer {token}"} if token else {}


def _hub_token() -> str | None:
    """The token that `hf auth login` keeps, or that the environment has."""
    if token := os.environ.get("HF_TOKEN"):
        return token.strip()
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    try:
        return Path(os.environ.get("HF_TOKEN_PATH") or Path(home) / "token").read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def settings_of(scheme: str) -> dict[str, Any]:
    """Settings for obstore beside what it reads from the environment.

    Where there are no keys a bucket is read as everyone may read it. A machine with a role of its
    own is asked for it where AWS_SKIP_SIGNATURE=false is set, or that of GOOGLE or AZURE.
    """
    if scheme == "s3":
        return _s3_settings()
    if scheme == "gs":
        gcloud = Path.home() / ".config" / "gcloud" / "application_default_credentials.json"
        keys = gcloud.exists() or any(name.startswith(_GOOGLE_KEYS) for name in os.environ)
        return {} if keys else {"skip_signature": True}
    if scheme == "az":
        keys = any(n.startswith("AZURE_") and n not in _NO_AZURE_KEYS for n in os.environ)
        return {} if keys else {"skip_signature": True}
    return {}


def _s3_settings() -> dict[str, Any]:
    """Of a profile that is named, else of the environment, else of the default profile."""
    told = os.environ
    named = told.get("AWS_PROFILE")
    settings: dict[str, Any] = {}
    if named or (_has_profiles() and not told.get("AWS_ACCESS_KEY_ID")):
        settings = _profile_settings(named)
    elif not any(map(told.get, ("AWS_ACCESS_KEY_ID", *_AWS_ROLES))):
        settings = {"skip_signature": True}
    if not (told.get("AWS_REGION") or told.get("AWS_DEFAULT_REGION")):
        settings = {"region": "us-east-1"} | settings
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    endpoint = next(filter(None, map(told.get, names)), None)
    return settings | ({"endpoint": endpoint} if endpoint else {})


def _has_profiles() -> bool:
    return (Path.home() / ".aws").exists() or any(
        map(os.environ.get, ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"))
    )


def _profile_settings(named: str | None) -> dict[str, Any]:
    """What AWS's own library makes of a profile: of its keys, or by `aws sso login` and its like.

    Raises UsageError for a profile that is not there, or that cannot be signed in.
    """
    try:
        from boto3.session import Session
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ModuleNotFoundError:
        if named is None:
            return {"skip_signature": True}
        raise UsageError(
            f"the AWS profile '{named}' is read by AWS's own library: run `pip install boto3`"
        ) from None
    try:
        session = Session(profile_name=named)
        region = {"region": session.region_name} if session.region_name else {}
        if session.get_credentials() is None and named is None:
            return {"skip_signature": True, **region}
        provider = Boto3CredentialProvider(session)
        provider()  # here, where what fails can be told
    except (BotoCoreError, ValueError) as error:
        raise UsageError(
            f"the AWS profile '{named or 'default'}' has no credentials ({one_line(error)}): see "
            "`aws configure list`"
        ) from None
    return {"credential_provider": provider, **region}
