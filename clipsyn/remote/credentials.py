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

_KEYS = {  # how variables begin with which obstore signs requests
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_CONTAINER_", "AWS_WEB_IDENTITY_", "AWS_SKIP_SIGNATURE"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SKIP_SIGNATURE"),
    "az": ("AZURE_",),
}
_GCLOUD = ".config/gcloud/application_default_credentials.json"
_NO_KEYS = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ENDPOINT", "AZURE_CONFIG_DIR")


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
