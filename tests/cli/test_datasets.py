"""`clipsyn datasets`."""

from __future__ import annotations

import json
import subprocess
import sys

from click.testing import CliRunner

from clipsyn.catalog.datasets import catalogue
from clipsyn.cli.datasets import datasets


def test_the_table_has_every_dataset_with_its_facts() -> None:
    result = CliRunner().invoke(datasets, catch_exceptions=False)
    assert result.exit_code == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert {info.name for info in catalogue()} <= set(rows)
    assert "27000" not in rows["vtab/eurosat"]
    for fact in ("47", "1880", "acc1", "research only", "torchvision"):
        assert fact in rows["vtab/dtd"].replace(",", "")
    assert "shipped" in rows["emoji-food"]
    assert "--data-root" in result.stderr


def test_json_has_aliases_splits_and_warnings() -> None:
    result = CliRunner().invoke(datasets, ["--json"], catch_exceptions=False)
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert list(rows) == [info.name for info in catalogue()]
    assert "dtd" in rows["vtab/dtd"]["aliases"]
    assert rows["vtab/eurosat"]["splits"]["all"] == {"n": 27000, "args": {}}
    assert "no splits" in rows["sun397"]["warning"]
    assert rows["cub"]["where"] == "webdataset"


def test_it_needs_no_torch() -> None:
    script = (
        "import sys; from clipsyn.cli.datasets import datasets;"
        "datasets([], standalone_mode=False);"
        "heavy = {'torch', 'torchvision', 'open_clip', 'zarr', 'PIL'} & set(sys.modules);"
        "print(sorted(heavy), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stderr.strip().endswith("[]")
