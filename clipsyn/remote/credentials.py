"""Credentials and settings that obstore does not find by itself; nothing of them is kept or shown.

obstore reads the environment variables of AWS, Google and Azure. Here are AWS's two files, the
token of the Hugging Face hub, and the user of a URL.
"""

from __future__ import annotations

import base64
import configparser
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clipsyn.errors import UsageError
from clipsyn.urls import Address

_HUB = "huggingface.co"
_STATIC = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}
_BY_TOOLS = ("sso_session", "sso_start_url", "role_arn", "credential_process", "login_session")
_MACHINE_ROLES = (
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
_VENDOR = Path("/sys/class/dmi/id/sys_vendor")  # of a cloud's machine, which has a role of its own
_GOOGLE_KEYS = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT")
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

    Where there are no keys a bucket is read as everyone may read it, except where the machine has a
    role of its own.
    """
    if scheme == "s3":
        return _s3_settings()
    if scheme == "gs":
        gcloud = Path.home() / ".config" / "gcloud" / "application_default_credentials.json"
        keys = gcloud.exists() or any(name.startswith(_GOOGLE_KEYS) for name in os.environ)
        return {} if keys or _made_by("Google") else {"skip_signature": True}
    if scheme == "az":
        keys = any(n.startswith("AZURE_") and n not in _NO_AZURE_KEYS for n in os.environ)
        return {} if keys or _made_by("Microsoft") else {"skip_signature": True}
    return {}


def _s3_settings() -> dict[str, Any]:
    """Keys in the environment count, then those of the profile."""
    profile = _profile(os.environ.get("AWS_PROFILE") or "default")
    named = bool(os.environ.get("AWS_PROFILE"))
    settings: dict[str, Any] = {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT") or profile.get("endpoint_url")
    if endpoint:
        settings |= {"endpoint": endpoint}
    if not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        settings |= {"region": profile.get("region", "us-east-1")}
    if os.environ.get("AWS_ACCESS_KEY_ID") and not named:
        return settings
    keys: dict[str, Any] = {
        ours: profile[theirs] for theirs, ours in _STATIC.items() if theirs in profile
    }
    if not keys and any(field in profile for field in _BY_TOOLS):
        return settings | {"credential_provider": _signed_in(os.environ.get("AWS_PROFILE"))}
    role = any(map(os.environ.get, _MACHINE_ROLES)) or _made_by("Amazon EC2")
    return settings | (keys or ({} if role else {"skip_signature": True}))


def _profile(name: str) -> Mapping[str, str]:
    """What AWS's two files say of a profile, of which the one with credentials counts."""
    home = Path.home() / ".aws"
    found: dict[str, str] = {}
    for variable, file, section in (
        ("AWS_CONFIG_FILE", "config", name if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name),
    ):
        path = Path(os.environ.get(variable) or home / file).expanduser()
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            raise UsageError(f"{path} cannot be read: see `aws configure`") from None
        if parser.has_section(section):
            found |= dict(parser.items(section))
    return found


def _signed_in(profile: str | None) -> Any:
    """Credentials that AWS's own library makes, as of `aws sso login`."""
    try:
        import boto3
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ModuleNotFoundError:
        raise UsageError(
            f"the AWS profile '{profile or 'default'}' signs in by another tool: run "
            "`pip install boto3`, or put the keys into the environment by "
            '`eval "$(aws configure export-credentials --format env)"`'
        ) from None
    return Boto3CredentialProvider(boto3.session.Session(profile_name=profile))


def _made_by(vendor: str) -> bool:
    try:
        return vendor in _VENDOR.read_text()
    except OSError:
        return False
