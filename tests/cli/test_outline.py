"""`clipsyn extract --dry-run` without weights or images: from the catalogue, and it says so."""

from __future__ import annotations

import csv
import socket
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from clipsyn import catalog


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a network, and without weights in its cache."""

    def getaddrinfo(host: str, *_: Any, **__: Any) -> None:
        pytest.fail(f"the network was asked for {host}")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CLIPSYN_DATA", raising=False)


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_plan_needs_no_weights_and_no_images(clipsyn: Any, tmp_path: Path) -> None:
    result = clipsyn("extract", tmp_path / "s", "-b", "openai", "-d", "food101", "--dry-run")
    assert result.exit_code == 0
    assert not (tmp_path / "s").exists()
    lines = files(catalog).joinpath("backbones.csv").read_text("utf-8").splitlines()
    nine = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    found = rows(result.stdout)
    for row in nine:
        width, cost = f"{int(row['embed_dim']):,}", f"{float(row['image_gflops']):.1f}"
        assert [row["name"], width, cost, "not", "here"] in found
    images, classes = 25_250, 101
    gflops = f"{images * sum(float(row['image_gflops']) for row in nine):,.0f}"
    embeddings = sum(images * (2 * int(row["embed_dim"]) + 1) for row in nine)
    logits, predictions = 9 * images * 4 * classes, 9 * images * 2
    (row,) = (row for row in found if row[:1] == ["food101"])
    assert row[1:8] == ["test", "clean", "25,250", "101", "9", "0", gflops]
    shown = [float(size) * 1e6 for size in row[8:11]]
    assert shown == pytest.approx([embeddings, logits, predictions], rel=2e-3)
    assert row[11:] == ["not", "here"]
    sizes = [f"{size / 1e6:,.1f}" for size in (embeddings, logits, predictions)]
    megabytes = f"{(embeddings + logits + predictions) / 1e6:,.1f}"
    assert (
        f"9 of 9 cells to make: {9 * images:,} images through a backbone, {gflops} GFLOPs, "
        f"{megabytes} MB to store (embeddings {sizes[0]}, logits {sizes[1]}, "
        f"predictions {sizes[2]})"
    ) in result.stdout
    assert "not here: the weights of 9 of 9 backbones and the images of food101/test" in (
        result.stdout
    )
    assert (
        "note: dataset 'food101' does not ship: say where it is with --data-root ROOT"
        in result.stderr
    )


def test_what_nobody_knows_is_not_guessed(clipsyn: Any, tmp_path: Path) -> None:
    line = ("extract", tmp_path / "s", "-b", "hf-hub:a/b", "-d", "caltech101", "-s", "all")
    result = clipsyn(*line, "--dry-run")
    found = rows(result.stdout)
    nothing = "\N{EN DASH}"
    assert ["hf-hub:a/b", nothing, nothing, "not", "here"] in found
    unknown = ["vtab/caltech101", "all", "clean", nothing, "102", "1", "0", *[nothing] * 4]
    assert [*unknown, "not", "here"] in found
    assert result.stdout.count("an unknown number of") == 3


def test_what_is_here_is_counted_here(clipsyn, checkpoint, write_images, tmp_path):
    line = ("extract", tmp_path / "s", "-b", f"tiny=local-dir:{checkpoint}", "-d", write_images())
    assert clipsyn(*line).exit_code == 0
    more = ("-p", "clean,jpeg:2,jpeg:3", "-d", "cifar10")
    result = clipsyn(*line, *more, "--dry-run")
    found = [row[:7] for row in rows(result.stdout)]
    assert ["photos", "test", "clean", "8", "2", "1", "1"] in found
    assert ["photos", "test", "jpeg-2,3", "8", "2", "2", "0"] in found
    assert ["cifar10", "test", "jpeg-2,3", "10,000", "10", "2", "0"] in found
    assert "5 of 6 cells to make: 30,016 images through a backbone" in result.stdout
    assert "not here: the images of cifar10/test (" in result.stdout


def test_a_dry_run_downloads_no_images(clipsyn, monkeypatch, tmp_path):
    asked = []

    def food(root: str, *, download: bool, **_: Any) -> None:
        asked.append(download)
        raise RuntimeError("Dataset not found.")

    monkeypatch.setattr("torchvision.datasets.Food101", food)
    line = ("extract", tmp_path / "s", "-b", "zoo", "-d", "food101", "--data-root", tmp_path)
    assert clipsyn(*line, "--download", "--dry-run").exit_code == 0
    assert asked == [False]
