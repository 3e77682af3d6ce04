"""`clipsyn.extract.job`: names in, a plan out; what cannot work is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipsyn.errors import UsageError
from clipsyn.extract.job import load_job, run_job
from clipsyn.extract.settings import ExtractSettings
from clipsyn.store.features import FeatureStore


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"datasets": ["x"], "batch_size": 0}, "batch_size=…"),
        ({"datasets": ["x"], "workers": -1}, "workers=…"),
        ({"datasets": ["x"], "max_bad": 2}, "max_bad=…"),
        ({}, "datasets=…"),
        ({"datasets": ["x"], "speed": 1}, "unknown setting 'speed'"),
    ],
)
def test_impossible_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ExtractSettings(**options)


@pytest.fixture
def options(saved: Any, write_images: Callable[..., Path]) -> dict[str, Any]:
    return {
        "backbones": [f"tiny={saved('clipsyn-vit').by_folder}"],
        "datasets": [f"pets={write_images()}"],
        "device": "cpu",
    }


def test_a_job_is_planned_and_run(tmp_path: Path, options: dict[str, Any], fakes: Any) -> None:
    path = tmp_path / "store"
    job = ExtractSettings(**{**options, "perturbations": ["clean,jpeg:2", "clean"]})
    plan, settings = load_job(path, job, fakes.Quiet())
    assert not path.exists()
    assert [cell.key.perturbation for cell in plan.cells] == ["clean", "jpeg-2"]
    assert (settings.batch_size, settings.shard) == (64, (0, 1))
    run_job(plan, settings, fakes.Quiet())
    store = FeatureStore.open(path)
    keys = store.keys()
    assert [key.backbone for key in keys] == ["tiny", "tiny"]
    assert store.samples("pets", "test").class_names == ("cat", "dog")
    plan, _ = load_job(path, job, fakes.Quiet())
    assert not plan.is_needed


def test_two_backbones_of_one_name_are_refused(tmp_path, options, saved, fakes):
    backbones = [*options["backbones"], f"tiny={saved('clipsyn-rn').by_folder}"]
    with pytest.raises(UsageError, match="'tiny'"):
        load_job(
            tmp_path / "s", ExtractSettings(**{**options, "backbones": backbones}), fakes.Quiet()
        )
