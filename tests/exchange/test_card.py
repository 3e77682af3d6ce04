"""The card of a published store."""

from __future__ import annotations

import yaml

from clipsyn.exchange.provenance import card
from clipsyn.text import recorded


def head(text):
    _, front, _ = text.split("---\n", 2)
    parsed: dict[str, object] = yaml.safe_load(front)
    return parsed


def test_it_says_what_there_is_on_whose_terms_citing_whom(tiny_store):
    text = card(tiny_store, "https://example.org/store")
    assert "# toy by 2 backbones" in text
    assert "8 cells over 31 images, under 2 conditions" in text
    assert "| toy/test | 20 |" in text
    assert "CC0" in text
    assert "clipsyn ls https://example.org/store" in text
    assert "@inproceedings{rodriguezopazo2025synergy," in text
    assert "no citation is known for the dataset toy" in text
    assert head(text)["license"] == "other"


def test_it_names_no_folder_host_or_command(fakes, tmp_path):
    encoder = fakes.Encoder("mine")
    encoder.provenance["source"] = "local-dir:/home/alice/secret/run7"
    with recorded(["extract", "/home/alice/store"]):
        text = card(fakes.fill(tmp_path / "store", [encoder]))
    assert "alice" not in text
    assert "local-dir:run7" in text


def test_names_are_read_as_themselves(fakes, tmp_path):
    encoder = fakes.Encoder("a|b <script>\n# big", weights="w")
    text = card(fakes.fill(tmp_path / "store", [encoder]))
    assert "<script>" not in text
    assert "\n# big" not in text
    assert text.count("\n# ") == 1
