"""The command line, in this process and in its own; a tiny checkpoint for it to load."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result

from clipsyn.evaluation.results.frame import RESULT

NAMES = pl.List(pl.String)
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def clipsyn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Run a command in this process; anything but an orderly end is raised."""
    from clipsyn.cli import main

    monkeypatch.delenv("CLIPSYN_STORE", raising=False)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object, **options: Any) -> Result:
        texts = [str(argument) for argument in arguments]
        return CliRunner().invoke(main, texts, catch_exceptions=False, **options)

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def fails(clipsyn: Callable[..., Result]) -> Callable[..., str]:
    """Run a command that must fail with this exit code and one line of `Error: …`; the line."""

    def run(code: int, *arguments: object, **options: Any) -> str:
        result = clipsyn(*arguments, **options)
        assert result.exit_code == code, result.output
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1, result.stderr
        assert result.stderr.rstrip().endswith(errors[0])
        return errors[0].removeprefix("Error: ")

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for ``local-dir:``, called tiny: a CLIP with random weights."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    configs = tmp_path_factory.mktemp("configs")
    (configs / "clipsyn-cli.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(configs)
    torch.manual_seed(0)
    model = open_clip.create_model("clipsyn-cli")
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    folder.mkdir()
    content = {"model_cfg": CONFIG, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture
def read_results() -> Callable[[Path], pl.DataFrame]:
    """Function (a CSV file of results): the frame it was written from."""

    def read(path: Path) -> pl.DataFrame:
        written = {name: kind for name, kind in RESULT.items() if name != "data"}  # a struct
        kinds = {name: pl.String if kind == NAMES else kind for name, kind in written.items()}
        return pl.read_csv(path, schema=kinds).with_columns(
            pl.col(name).str.json_decode(NAMES) for name, kind in RESULT.items() if kind == NAMES
        )

    return read
