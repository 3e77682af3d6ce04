"""What each command imports, in a fresh interpreter: start-up is fast, and torch is optional."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from clipsyn.analyses import ANALYSES
from clipsyn.cli import main
from clipsyn.evaluation.loop import evaluate
from clipsyn.methods.ensembles.base import LogAverage
from clipsyn.router.artefact import save_router
from tests.remote import copying

TORCH = {"torch", "torchvision", "open_clip", "timm"}
SCIENCE = {"sklearn", "scipy", "pandas", "matplotlib"}
READING = (
    TORCH | SCIENCE | {"safetensors", "jinja2", "obstore"}
)  # what no command that only reads a store needs
HELP = {
    "obstore", "numpy", "polars", "zarr", "torch", "rich", "pydantic", "yaml", "PIL", "safetensors",
}  # fmt: skip

LIGHT = set(ANALYSES) - {"cascade", "oracle", "representation", "retrieval"}

# Every command: arguments for a run that succeeds, and what that must not import. The commands of a
# chain run one after the other in one interpreter, so each of them may import what those before it
# may, and more.
CHAINS: tuple[dict[str, tuple[list[str], set[str]]], ...] = (
    {
        "pull": (["PUBLISHED", "pulled"], READING - {"obstore"} | {"zarr", "PIL", "polars"}),
        "push": (["STORE", "pushed"], READING - {"obstore"} | {"zarr", "PIL"}),  # a card of tables
    },
    {
        "gc": (["STORE", "-y"], READING | {"zarr", "PIL", "polars"}),
        "info": (["STORE"], READING | {"zarr", "PIL", "polars"}),
        "ls": (["STORE"], READING | {"zarr", "PIL", "polars"}),
        "rm": (["OTHER", "-d", "toy", "-y"], READING | {"zarr", "PIL", "polars"}),
        "verify": (["STORE"], READING | {"zarr", "PIL", "polars"}),
        "catalog": (["datasets"], READING | {"zarr", "PIL"}),
        "export": (["STORE", "new", "--layout", "npz"], READING | {"zarr", "PIL"}),
        **{name: (["STORE"], READING | {"zarr", "PIL"}) for name in LIGHT},
        "search": (["STORE", "--like", "im003.png", "-s", "test"], READING | {"zarr", "PIL"}),
        "oracle": (["STORE", "--weights"], READING | {"zarr", "PIL"}),
        "run": (["recipe.yaml"], READING | {"zarr"}),
        "split": (["PHOTOS", "-o", "new.csv"], READING | {"zarr"}),
        "plot": (["accuracy-matrix", "STORE", "-o", "a.svg"], TORCH | {"sklearn", "scipy", "zarr"}),
        "report": (["STORE", "-o", "page.html"], TORCH | {"sklearn", "zarr"}),
        "extract": (["made", "-b", "local-dir:CHECKPOINT", "-d", "PHOTOS"], {"sklearn"}),
    },
    {
        "fit": (
            ["STORE", "-d", "toy", "--ensemble", "log-avg", "-o", "new"],
            TORCH | SCIENCE | {"zarr", "PIL", "polars"},
        ),
        "predict": (["ROUTER", "STORE"], TORCH | SCIENCE | {"zarr", "PIL"}),
    },
    {
        "compare": (["predictions.parquet"], TORCH | {"sklearn", "zarr", "PIL", "safetensors"}),
        "evaluate": (
            ["STORE", "--ensembles", "log-avg", "--shots", "1", "--seeds", "1"],
            TORCH | {"sklearn", "zarr", "PIL"},
        ),
        "cascade": (["STORE"], TORCH | {"sklearn", "zarr", "PIL"}),
        "representation": (["STORE"], TORCH | {"sklearn", "zarr", "PIL"}),
        "retrieval": (["STORE"], TORCH | {"sklearn", "zarr", "PIL"}),
    },
    {"import": (["STORE", "answers.csv", "-d", "new"], READING | {"PIL"})},
)


def imported(lines, cwd=None):
    """Top-level modules there are after each of some commands, which succeed."""
    script = (
        "import json, sys\n"
        "from clipsyn.cli import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    try:\n"
        "        main(words)\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, (words, end.code)\n"
        "    print('MODULES', *{name.partition('.')[0] for name in sys.modules})\n"
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
    said = done.stdout.splitlines()
    return [set(line.split()[1:]) for line in said if line.startswith("MODULES ")]


@pytest.fixture(scope="module")
def prepared(_filled, _captioned, fakes, tmp_path_factory):
    """A folder with all that the commands read, each thing under the name that stands for it."""
    folder = tmp_path_factory.mktemp("prepared")
    store = fakes.copy(_captioned, folder / "STORE")
    fakes.copy(_filled, folder / "OTHER")
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
def place(prepared, tmp_path, write_images):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True, copy_function=shutil.copyfile)
    write_images("PHOTOS")
    return tmp_path


def test_every_command_is_listed_here():
    assert Counter(name for chain in CHAINS for name in chain) == Counter([*main.commands])


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: next(iter(chain)))
def test_a_command_imports_no_more_than_it_needs(chain, place, checkpoint):
    lines = [
        [name, *(word.replace("CHECKPOINT", str(checkpoint)) for word in words)]
        for name, (words, _) in chain.items()
    ]
    for (name, (_, forbidden)), found in zip(chain.items(), imported(lines, place), strict=True):
        assert found & forbidden == set(), name
        assert (found >= {"torch", "open_clip"}) == (name == "extract")  # or nothing would be seen


def test_help_imports_next_to_nothing():
    found = imported([["--help"], *([name, "--help"] for name in main.commands)])
    assert found[-1] & (HELP | TORCH | SCIENCE) == set()
