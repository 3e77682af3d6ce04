"""The pages that are committed as examples: those of the recipes, of this template, telling nothing
of the machine that made them."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from pathlib import Path

import pytest

from clipsyn.run.recipe import read_recipe

ROOT = Path(__file__).parents[2]
EXAMPLES = {"zoo": "quickstart", "real": "real"}  # page: recipe


@pytest.fixture(params=EXAMPLES)
def name(request) -> str:
    return request.param


@pytest.fixture
def text(name) -> str:
    return (ROOT / "docs" / "examples" / f"{name}.html").read_text("utf-8")


def test_its_recipe_writes_it(name, text):
    *_, stage = read_recipe(ROOT / "pipelines" / f"{EXAMPLES[name]}.yaml").stages
    assert stage.stage == "report"
    assert f"<title>{stage.title}</title>" in text
    assert 'name="clipsyn-made-from" content="' in text


def test_its_policy_allows_its_own_script(text):
    (content,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = b64encode(hashlib.sha256(content.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}" in text


def test_it_tells_no_folder_of_a_machine(text):
    assert not re.search(r"/(work|home|tmp|root|Users|mnt)/", text)


def test_it_is_small_and_has_no_image_of_others(name, text):
    assert len(text) < 1_500_000
    assert name == "zoo" or "<img" not in text
