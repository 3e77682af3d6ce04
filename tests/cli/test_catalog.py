"""`clipsyn catalog`."""

from __future__ import annotations

import json

from click.testing import CliRunner

from clipsyn.catalog.backbones import resolve_backbones
from clipsyn.catalog.datasets import catalogue
from clipsyn.cli.info import catalog


def test_json_lists_every_backbone() -> None:
    result = CliRunner().invoke(catalog, ["backbones", "-o", "-"], catch_exceptions=False)
    assert result.exit_code == 0
    rows = {row["backbone"]: row for row in json.loads(result.stdout)}
    nine = [backbone.name for backbone in resolve_backbones(["openai"])]
    assert list(rows)[:9] == nine
    assert rows["ViT-L-14-336/openai"] == {
        "backbone": "ViT-L-14-336/openai",
        "collection": "openai",
        "image_size": 336,
        "embed_dim": 768,
        "image_params_m": 304.29,
        "text_params_m": 123.65,
        "image_gflops": 381.92,
        "text_gflops": 13.3,
    }
    assert {row["collection"] for name, row in rows.items() if name not in nine} <= {"zoo"}


def test_the_table_has_every_dataset_with_its_facts() -> None:
    result = CliRunner().invoke(catalog, ["datasets"], catch_exceptions=False)
    assert result.exit_code == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert {info.name for info in catalogue()} <= set(rows)
    assert "27000" not in rows["vtab/eurosat"]
    for fact in ("47", "1880", "acc1", "research only", "torchvision"):
        assert fact in rows["vtab/dtd"].replace(",", "")
    assert "shipped" in rows["emoji-food"]
    assert "--data-root" in result.stderr


def test_json_has_aliases_splits_and_warnings() -> None:
    result = CliRunner().invoke(catalog, ["datasets", "-o", "-"], catch_exceptions=False)
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert list(rows) == [info.name for info in catalogue()]
    assert "dtd" in rows["vtab/dtd"]["aliases"]
    assert rows["vtab/eurosat"]["splits"]["all"] == {"n": 27000, "args": {}}
    assert "no splits" in rows["sun397"]["warning"]
    assert rows["cub"]["where"] == "webdataset"
