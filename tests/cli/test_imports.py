"""What each command imports, in a fresh interpreter: start-up is fast, and torch is optional."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clipsyn.analyses import ANALYSES
from clipsyn.cli import main
from clipsyn.evaluation.loop import evaluate
from clipsyn.methods.ensembles.static import LogAverage
from clipsyn.router.artefact import save_router
from clipsyn.store.features import FeatureStore
from tests.remote import copying

TORCH = {"torch", "torchvision", "open_clip", "timm"}
SCIENCE = {"sklearn", "scipy", "pandas", "matplotlib"}
READING = (
    TORCH | SCIENCE | {"safetensors", "jinja2", "obstore"}
)  # what no command that only reads a store needs
HELP = {
    "obstore",
    "numpy",
    "polars",
    "zarr",
    "torch",
    "rich",
    "pydantic",
    "yaml",
    "PIL",
    "safetensors",
}

# Every command: arguments for a run that succeeds, and what that must not import.
COMMANDS: dict[str, tuple[list[str], set[str]]] = {
    **{name: (["STORE"], READING | {"zarr", "PIL"}) for name in ANALYSES},
    "cascade": (["STORE"], TORCH | {"sklearn", "zarr", "PIL"}),
    "catalog": (["datasets"], READING | {"zarr", "PIL"}),
    "evaluate": (
        ["STORE", "--ensembles", "log-avg", "--shots", "1", "--seeds", "1"],
        TORCH | {"sklearn", "zarr", "PIL"},
    ),
    "export": (["STORE", "new", "--layout", "npz"], READING | {"zarr", "PIL"}),
    "extract": (["new", "-b", "local-dir:CHECKPOINT", "-d", "PHOTOS"], {"sklearn"}),
    "fit": (
        ["STORE", "-d", "toy", "--ensemble", "log-avg", "-o", "new"],
        TORCH | SCIENCE | {"zarr", "PIL", "polars"},
    ),
    "gc": (["STORE", "-y"], READING | {"zarr", "PIL", "polars"}),
    "import": (["STORE", "ANSWERS", "-d", "new"], READING | {"PIL"}),
    "info": (["STORE"], READING | {"zarr", "PIL", "polars"}),
    "ls": (["STORE"], READING | {"zarr", "PIL"}),
    "oracle": (["STORE", "--weights"], READING | {"zarr", "PIL"}),
    "plot": (["accuracy-matrix", "STORE", "-o", "new.svg"], TORCH | {"sklearn", "scipy", "zarr"}),
    "predict": (["ROUTER", "STORE"], TORCH | SCIENCE | {"zarr", "PIL"}),
    "pull": (["PUBLISHED", "pulled"], READING | {"zarr", "PIL", "polars", "obstore"}),
    "push": (["STORE", "pushed"], READING | {"zarr", "PIL", "obstore"}),  # the card has tables
    "report": (["STORE", "-o", "page.html"], TORCH | {"sklearn", "zarr"}),
    "representation": (["STORE"], TORCH | {"sklearn", "zarr", "PIL"}),
    "rm": (["STORE", "-d", "toy", "-y"], READING | {"zarr", "PIL", "polars"}),
    "run": (["RECIPE"], READING | {"zarr"}),
    "split": (["PHOTOS", "-o", "new.csv"], READING | {"zarr"}),
    "compare": (["PREDICTIONS"], TORCH | {"sklearn", "zarr", "PIL", "safetensors"}),
    "verify": (["STORE"], READING | {"zarr", "PIL", "polars"}),
}


def imported(*arguments: object, cwd: Path | None = None) -> set[str]:
    """Top-level modules there are after a command that succeeded."""
    script = (
        "import sys\n"
        "from clipsyn.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "print('MODULES', *{name.partition('.')[0] for name in sys.modules})\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n{script}"]
        + [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.fixture
def places(
    tiny_store: FeatureStore, tmp_path: Path, write_images: Any, checkpoint: Path
) -> dict[str, str]:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"store: {tiny_store.path}\nstages: [{{stage: zeroshot, output: {tmp_path / 'table'}}}]\n"
    )
    answers = tmp_path / "answers.csv"
    answers.write_text("id,prediction,label\na,cat,cat\nb,cat,dog\n")
    predictions = tmp_path / "predictions.parquet"
    evaluate(tiny_store, ensembles=["log-avg", "vote-1"], shots=(), predictions=predictions)
    support, router = tiny_store.pool("toy", "train"), tmp_path / "router"
    save_router(router, LogAverage().fit(support), support)
    found = {"STORE": tiny_store.path, "PHOTOS": write_images(), "RECIPE": recipe, "ROUTER": router}
    found |= {"ANSWERS": answers, "PREDICTIONS": predictions}
    found["RESULTS"], found["THEIRS"] = tmp_path / "z.parquet", tmp_path / "theirs.csv"
    ANALYSES.load("zeroshot")(tiny_store).write_parquet(found["RESULTS"])
    found["THEIRS"].write_text("dataset,backbone,accuracy,source\ntoy,fake/one,0.5,A\n")
    found["PUBLISHED"] = tmp_path / "published"
    copying.push(tiny_store, found["PUBLISHED"])
    return {name: str(path) for name, path in found.items()} | {"CHECKPOINT": str(checkpoint)}


def test_every_command_is_listed_here() -> None:
    assert set(COMMANDS) == set(main.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_imports_no_more_than_it_needs(
    name: str, places: dict[str, str], tmp_path: Path
) -> None:
    arguments, forbidden = COMMANDS[name]
    for place, path in places.items():
        arguments = [argument.replace(place, path) for argument in arguments]
    assert imported(name, *arguments, cwd=tmp_path) & forbidden == set()


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_next_to_nothing(arguments: list[str]) -> None:
    assert imported(*arguments) & (HELP | TORCH | SCIENCE) == set()


def test_extract_and_run_do_import_torch(places: dict[str, str], tmp_path: Path) -> None:
    """Or else the test above would hold for want of anything to see."""
    options = ["-b", f"local-dir:{places['CHECKPOINT']}", "-d", places["PHOTOS"], "--dry-run"]
    assert imported("extract", "new", *options, cwd=tmp_path) >= {"torch", "open_clip"}
