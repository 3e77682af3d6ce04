from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from clipsyn.errors import UsageError
from clipsyn.names import Address
from clipsyn.remote.transport import http_headers, settings_of


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def profiles(home: Path, credentials: str = "", config: str = "") -> None:
    (home / ".aws").mkdir()
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
    assert settings_of("s3") == {}
    assert settings_of("gs") == settings_of("az") == {}


def signed(settings: dict[str, Any]) -> dict[str, Any]:
    """The keys that the profile gives, beside the settings."""
    keys = settings.pop("credential_provider")()
    keys.pop("expires_at")
    return settings | keys


def test_a_profile_has_keys_and_region(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles(
        home,
        f"[default]\n{KEYS.format('a')}\n[lab]\n{KEYS.format('b')}aws_session_token = b3\n",
        "[default]\nregion = eu-north-1\n",
    )
    assert settings_of("s3") == {"region": "us-east-1", "skip_signature": True}
    monkeypatch.setenv("AWS_PROFILE", "default")
    default = {"access_key_id": "a1", "secret_access_key": "a2", "token": None}
    assert signed(settings_of("s3")) == {"region": "eu-north-1", **default}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "environment")
    monkeypatch.delenv("AWS_PROFILE")
    assert settings_of("s3") == {"region": "us-east-1"}
    monkeypatch.setenv("AWS_PROFILE", "lab")  # who names a profile means it
    lab = {"access_key_id": "b1", "secret_access_key": "b2", "token": "b3"}
    assert signed(settings_of("s3")) == {"region": "us-east-1", **lab}


@pytest.mark.parametrize(
    "config",
    [
        "",  # no such profile
        "[profile lab]\nregion = eu-west-1\n",  # no keys
        "[profile lab]\ncredential_process = false\n",
        "secret without a section",
    ],
)
def test_a_profile_without_credentials_is_named(home, monkeypatch, config):
    profiles(home, config=config)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    with pytest.raises(UsageError) as error:
        settings_of("s3")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("name", ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE"])
def test_a_role_of_the_machine_signs(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "false")
    assert settings_of("s3") == {"region": "us-east-1"}
    assert settings_of("gs") == {"skip_signature": True}
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "false")
    assert settings_of("gs") == {}


def test_a_profile_needs_aws_own_library(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles(home, f"[default]\n{KEYS.format('a')}")
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    monkeypatch.setenv("AWS_PROFILE", "default")
    with pytest.raises(UsageError, match="pip install boto3"):
        settings_of("s3")


def test_the_token_of_the_hub_goes_to_the_hub_alone(home, monkeypatch):
    hub = Address.parse("https://huggingface.co/datasets/lab/store/resolve/main")
    assert http_headers(hub) == {}
    (home / ".cache" / "huggingface").mkdir(parents=True)
    (home / ".cache" / "huggingface" / "token").write_text("hf_file\n")
    assert http_headers(hub) == {"authorization": "Bearer hf_file"}
    monkeypatch.setenv("HF_HOME", str(home / "elsewhere"))
    assert http_headers(hub) == {}
    (home / "elsewhere").mkdir()
    (home / "elsewhere" / "token").write_text("hf_elsewhere\n")
    assert http_headers(hub) == {"authorization": "Bearer hf_elsewhere"}
    monkeypatch.setenv("HF_TOKEN", "hf_environment")
    assert http_headers(hub) == {"authorization": "Bearer hf_environment"}
    others = ("http://huggingface.co/x", "https://huggingface.co.evil.org/x", "https://lab.org/x")
    for other in others:
        assert http_headers(Address.parse(other)) == {}
