from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clipsyn.errors import UsageError
from clipsyn.remote import credentials
from clipsyn.remote.credentials import http_headers, settings_of
from clipsyn.urls import Address


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No cloud's machine, no variables of one."""
    monkeypatch.setattr(credentials, "_VENDOR", tmp_path / "vendor")
    for name in (
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        *credentials._MACHINE_ROLES,
    ):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home" / ".aws").mkdir(parents=True)
    return tmp_path / "home"


def profiles(home: Path, credentials: str = "", config: str = "") -> None:
    (home / ".aws" / "credentials").write_text(credentials)
    (home / ".aws" / "config").write_text(config)


KEYS = "aws_access_key_id = {0}1\naws_secret_access_key = {0}2\n"


def test_without_keys_a_bucket_is_read_as_everyone_may() -> None:
    assert settings_of("s3") == {"region": "us-east-1", "skip_signature": True}
    assert settings_of("gs") == {"skip_signature": True}
    assert settings_of("az") == {"skip_signature": True}


def test_keys_of_the_environment_are_left_to_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "key.json")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "token")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:5000")
    assert settings_of("s3") == {"endpoint": "http://localhost:5000"}
    assert settings_of("gs") == settings_of("az") == {}


def test_the_account_of_azure_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "lab")
    assert settings_of("az") == {"skip_signature": True}


def test_a_profile_has_keys_region_and_endpoint(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles(
        home,
        f"[default]\n{KEYS.format('a')}\n[lab]\n{KEYS.format('b')}aws_session_token = b3\n",
        "[default]\nregion = eu-north-1\n[profile lab]\nendpoint_url = https://s3.lab\n",
    )
    default = {"region": "eu-north-1", "access_key_id": "a1", "secret_access_key": "a2"}
    assert settings_of("s3") == default
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "environment")
    monkeypatch.setenv("AWS_PROFILE", "lab")  # who names a profile means it
    lab = {"access_key_id": "b1", "secret_access_key": "b2", "session_token": "b3"}
    assert settings_of("s3") == {"region": "us-east-1", "endpoint": "https://s3.lab", **lab}


def test_a_role_of_the_machine_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vendor").write_text("Amazon EC2\n")
    assert settings_of("s3") == {"region": "us-east-1"}
    assert settings_of("gs") == {"skip_signature": True}
    (tmp_path / "vendor").unlink()
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/token")
    assert settings_of("s3") == {"region": "us-east-1"}


def test_a_profile_that_signs_in_elsewhere_needs_aws_own_library(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles(home, config="[default]\nsso_session = lab\n")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(UsageError, match="profile 'default' signs in by another tool: run `pip"):
        settings_of("s3")


def test_files_that_cannot_be_read_are_named_and_not_quoted(home: Path) -> None:
    profiles(home, "secret without a section")
    with pytest.raises(UsageError, match=r"/credentials cannot be read: see `aws configure`") as it:
        settings_of("s3")
    assert "secret" not in str(it.value)


def test_the_token_of_the_hub_goes_to_the_hub_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Address.parse("https://huggingface.co/datasets/lab/store/resolve/main")
    assert http_headers(hub) == {}
    (home / ".cache" / "huggingface").mkdir(parents=True)
    (home / ".cache" / "huggingface" / "token").write_text("hf_file\n")
    assert http_headers(hub) == {"authorization": "Bearer hf_file"}
    monkeypatch.setenv("HF_TOKEN", "hf_environment")
    assert http_headers(hub) == {"authorization": "Bearer hf_environment"}
    others = ("http://huggingface.co/x", "https://huggingface.co.evil.org/x", "https://lab.org/x")
    for other in others:
        assert http_headers(Address.parse(other)) == {}
