"""What to cite for the cells of a store."""

from __future__ import annotations

import re

import pytest

from clipsyn.exchange.provenance import bibtex, cited, made, not_cited
from clipsyn.store.features import FeatureStore
from clipsyn.store.samples import SampleTable


@pytest.fixture
def published(fakes, tmp_path):
    """Two backbones of open_clip, one of nobody knows where, on a dataset that is known."""
    encoders = [fakes.Encoder(name, weights=name) for name in ("one", "two", "my@clip")]
    for encoder, tag in zip(encoders, ("openai", "laion2b_s34b_b79k"), strict=False):
        encoder.identity |= {"architecture": "ViT-B-32", "pretrained": tag}
    sources = [fakes.Source("food101"), fakes.Source("mine")]
    return fakes.fill(tmp_path / "store", encoders, sources, ("clean", "jpeg:3"))


def test_each_work_is_listed_once_with_what_it_is_for(published):
    assert {work.key: reasons for work, reasons in cited(made(published))} == {
        "rodriguezopazo2025synergy": ["the method"],
        "clipsyn": ["the software"],
        "ilharco2021openclip": ["loading the backbones"],
        "radford2021clip": ["one"],
        "cherti2023reproducible": ["two"],
        "schuhmann2022laion5b": ["two"],
        "bossard2014food101": ["food101"],
        "hendrycks2019corruptions": ["jpeg"],
    }


def test_what_is_not_known_is_named_and_not_guessed(published):
    assert not_cited(made(published)) == [
        "no citation is known for the weights my@clip (local-dir:my@clip): see their source",
        "no citation is known for the dataset mine: see its source",
    ]


def test_imports_and_the_hub_are_named_with_where_to_look(fakes, tmp_path):
    encoder = fakes.Encoder("hub")
    encoder.provenance["source"] = "hf-hub:org/repo"
    store = fakes.fill(tmp_path / "store", [encoder], [fakes.Source("food101")])
    table = SampleTable.of(
        "food101", "val", ["a"], [0], store.samples("food101", "test").class_names
    )
    with store.writer(table, "theirs") as cell:
        cell.predictions([0])
    assert not_cited(made(store)) == [
        "no citation is known for the weights hub (hf-hub:org/repo): see their source",
        "theirs was imported (predictions): "
        "it is not cited, for the store does not know who made it",
    ]


def test_an_import_is_cited_by_its_name_and_a_note_says_so(tmp_path):
    store = FeatureStore.create(tmp_path / "store")
    with store.writer(SampleTable.of("mnist", "test", ["a"], [0], ["0"]), "RN50/openai") as cell:
        cell.predictions([0])
    assert [work.key for work, _ in cited(made(store))][2:] == ["radford2021clip", "lecun1998mnist"]
    assert not_cited(made(store)) == [
        "RN50/openai was imported (predictions): it is cited by its name, which nothing proves",
    ]


def test_a_hostile_name_begins_no_entry(fakes, tmp_path):
    encoder = fakes.Encoder("evil\n@article{x,", weights="w")
    encoder.identity |= {"architecture": "ViT-B-32", "pretrained": "openai"}
    text = bibtex(made(fakes.fill(tmp_path / "store", [encoder])))
    entries = re.findall(r"^@\w+\{(\w+),", text, re.MULTILINE)
    assert text.count("@") == len(entries) == 4
