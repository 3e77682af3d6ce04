"""`clipsyn.extract.work`: names in, a plan out; what cannot work is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipsyn.extract import ExtractSettings
from clipsyn.extract.work import load_job, run_job
from clipsyn.store.features import FeatureStore


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
    work = load_job(path, job, fakes.Quiet())
    assert not path.exists()
    assert [cell.key.perturbation for cell in work.cells] == ["clean", "jpeg-2"]
    run_job(work, fakes.Quiet())
    store = FeatureStore.open(path)
    keys = store.keys()
    assert [key.backbone for key in keys] == ["tiny", "tiny"]
    assert store.samples("pets", "test").class_names == ("cat", "dog")
    work = load_job(path, job, fakes.Quiet())
    assert not work.is_needed
