"""What is cited for weights and datasets: whole, well formed, and nothing by guessing."""

import re
from pathlib import Path

import pytest
import yaml

from clipsyn import __version__
from clipsyn.catalog.datasets import catalogue
from clipsyn.catalog.references import (
    METHOD,
    SOFTWARE,
    of_dataset,
    of_weights,
    terms_of_weights,
    work,
    works,
)
from clipsyn.images.perturb import BUILT_IN

ROOT = Path(__file__).parents[2]


def keys(found):
    return {known.key for known in found}


@pytest.mark.parametrize(
    ("source", "cited"),
    [
        ("ViT-B-32/openai", {"radford2021clip"}),
        ("ViT-B-32/laion2b_s34b_b79k", {"cherti2023reproducible", "schuhmann2022laion5b"}),
        ("ViT-B-16-SigLIP/webli", {"zhai2023siglip"}),
        ("ViT-B-16-SigLIP2-256/webli", {"tschannen2025siglip2"}),
        ("ViT-H-14-CLIPA-336/laion2b", {"li2023clipa", "schuhmann2022laion5b"}),
        (
            "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            {"cherti2023reproducible", "schuhmann2022laion5b"},
        ),
        ("local-dir:/opt/clipsyn/data/zoo/tiny-RN", {SOFTWARE}),
        ("hf-hub:me/mine", set()),
        ("ViT-B-32@laion2b.pt", set()),
        ("MobileCLIP2-B/dfndr2b", set()),
    ],
)
def test_weights_are_known_by_their_tag(source, cited):
    assert keys(of_weights(source)) == cited


def test_every_dataset_of_the_catalogue_has_a_citation():
    assert [info.name for info in catalogue() if not of_dataset(info.name)] == []
    assert of_dataset("mine") == ()


def test_names_are_those_of_the_other_catalogues():
    datasets = {info.name for info in catalogue()}
    perturbations = {name for group in BUILT_IN.values() for name in group}
    for known in works():
        assert set(known.datasets) <= datasets, known.key
        assert set(known.perturbations) <= perturbations, known.key


def test_the_paper_and_the_software_are_as_in_the_citation_file():
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    paper, software = work(METHOD).fields, work(SOFTWARE).fields
    preferred = told["preferred-citation"]
    assert (paper["title"], paper["year"]) == (preferred["title"], str(preferred["year"]))
    assert (paper["url"], paper["booktitle"]) == (preferred["url"], preferred["collection-title"])
    people = [
        f"{' '.join(filter(None, [who.get('name-particle'), who['family-names']]))}, "
        f"{who['given-names']}"
        for who in preferred["authors"]
    ]
    assert paper["author"] == " and ".join(people)
    assert software["version"] == told["version"] == __version__


def test_braces_are_balanced():
    for known in works():
        entry = known.bibtex()
        depth = 0
        for character in re.sub(r"\\.", "", entry):
            depth += (character == "{") - (character == "}")
            assert depth >= 0
        assert depth == 0


def test_terms_are_said_where_they_are_known():
    assert terms_of_weights("RN50/openai").licence.startswith("MIT")
    assert terms_of_weights("ViT-B-32/laion2b_s34b_b79k").licence == "MIT"
    assert terms_of_weights("ViT-L-14/commonpool_xl_s13b_b90k") is None
