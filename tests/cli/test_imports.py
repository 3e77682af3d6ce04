"""What each command imports, in a fresh interpreter: start-up is fast, and torch is optional."""

from __future__ import annotations

import json
import shutil
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
    "import": (["STORE", "answers.csv", "-d", "new"], READING | {"PIL"}),
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
    "run": (["recipe.yaml"], READING | {"zarr"}),
    "split": (["PHOTOS", "-o", "new.csv"], READING | {"zarr"}),
    "compare": (["predictions.parquet"], TORCH | {"sklearn", "zarr", "PIL", "safetensors"}),
    "verify": (["STORE"], READING | {"zarr", "PIL", "polars"}),
}


def imported(*lines: list[str], cwd: Path | None = None) -> set[str]:
    """Top-level modules there are after commands that succeeded."""
    script = (
        "import json, sys\n"
        "from clipsyn.cli import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        main(words)\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, end.code\n"
        "print('MODULES', *{name.partition('.')[0] for name in sys.modules})\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [
            *(sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n{script}"),
            json.dumps(lines),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.fixture(scope="module")
def prepared(_filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the commands read, each thing under the name that stands for it."""
    folder = tmp_path_factory.mktemp("prepared")
    store = FeatureStore.open(shutil.copytree(_filled, folder / "STORE"))
    (folder / "recipe.yaml").write_text(
        "store: STORE\nstages: [{stage: zeroshot, output: table}]\n"
    )
    (folder / "answers.csv").write_text("id,prediction,label\na,cat,cat\nb,cat,dog\n")
    predictions = folder / "predictions.parquet"
    evaluate(store, ensembles=["log-avg", "vote-1"], shots=(), output=predictions)
    support = store.pool("toy", "train")
    save_router(folder / "ROUTER", LogAverage().fit(support), support)
    copying.push(store, folder / "PUBLISHED")
    return folder


@pytest.fixture
def place(prepared: Path, tmp_path: Path, write_images: Any) -> Path:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    write_images("PHOTOS")
    return tmp_path


def test_every_command_is_listed_here() -> None:
    assert set(COMMANDS) == set(main.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_imports_no_more_than_it_needs(name: str, place: Path, checkpoint: Path) -> None:
    arguments, forbidden = COMMANDS[name]
    arguments = [argument.replace("CHECKPOINT", str(checkpoint)) for argument in arguments]
    found = imported([name, *arguments], cwd=place)
    assert found & forbidden == set()
    assert (found >= {"torch", "open_clip"}) == (name == "extract")  # or nothing would be seen


def test_help_imports_next_to_nothing() -> None:
    lines = [["--help"], *([name, "--help"] for name in COMMANDS)]
    assert imported(*lines) & (HELP | TORCH | SCIENCE) == set()
