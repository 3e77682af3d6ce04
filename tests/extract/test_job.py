"""`clipsyn.extract.job`: names in, a plan out; what cannot work is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipsyn.errors import ClipsynError, DatasetError, StoreError, UnknownName, UsageError
from clipsyn.extract.job import load_job, plan_job, run_job
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


def test_an_empty_folder_is_as_good_as_none(
    tmp_path: Path, options: dict[str, Any], fakes: Any
) -> None:
    (tmp_path / "store").mkdir()
    plan, settings = load_job(tmp_path / "store", ExtractSettings(**options), fakes.Quiet())
    run_job(plan, settings, fakes.Quiet())
    assert len(FeatureStore.open(tmp_path / "store").keys()) == 1


FAULTS: dict[str, tuple[dict[str, Any], type[ClipsynError], str]] = {
    "unknown backbone": ({"backbones": ["ViT-B-23/openai"]}, UnknownName, "ViT-B-32"),
    "unknown tag": ({"backbones": ["ViT-B-32/opanai"]}, UnknownName, "openai"),
    "unknown dataset": ({"datasets": ["cifar01"]}, ClipsynError, "cifar10"),
    "no dataset": ({"datasets": [""]}, UsageError, "datasets=… '' is empty, perhaps a variable"),
    "no split": ({"splits": ["", ","]}, UsageError, "splits=… '' is empty"),
    "no perturbation": ({"perturbations": []}, UsageError, "perturbations=… is empty"),
    "unknown perturbation": ({"perturbations": ["jpg:3"]}, UnknownName, "jpeg"),
    "severity": ({"perturbations": ["jpeg:9"]}, UsageError, "1 to 5"),
    "device": ({"device": "gpu"}, UsageError, "device 'gpu'"),
    "precision": ({"precision": "fp8"}, UsageError, "precision 'fp8'"),
    "prompts": ({"prompts": "simpel"}, UnknownName, "simple"),
    "prompt file": ({"prompts": "absent.json"}, UsageError, "absent.json"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, options: dict[str, Any], fakes: Any, name: str
) -> None:
    change, error, words = FAULTS[name]
    with pytest.raises(error, match=words) as caught:
        load_job(tmp_path / "store", ExtractSettings(**{**options, **change}), fakes.Quiet())
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code > 1
    assert not (tmp_path / "store").exists()


def test_two_backbones_of_one_name_are_refused(
    tmp_path: Path, options: dict[str, Any], saved: Any, fakes: Any
) -> None:
    backbones = [*options["backbones"], f"tiny={saved('clipsyn-rn').by_folder}"]
    with pytest.raises(UsageError, match="'tiny'"):
        load_job(
            tmp_path / "s", ExtractSettings(**{**options, "backbones": backbones}), fakes.Quiet()
        )


def test_a_folder_of_other_things_is_no_store(
    tmp_path: Path, options: dict[str, Any], fakes: Any
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(StoreError):
        load_job(tmp_path / "mine", ExtractSettings(**options), fakes.Quiet())
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_several_splits_of_a_folder_that_has_none_are_refused(
    tmp_path: Path, options: dict[str, Any], fakes: Any
) -> None:
    job = ExtractSettings(**options, splits="train,test")
    with pytest.raises(DatasetError):
        plan_job(tmp_path / "store", job)
    with pytest.raises(DatasetError):
        load_job(tmp_path / "store", job, fakes.Quiet())
