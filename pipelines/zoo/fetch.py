"""Fetch the icon sets from npm and rasterise them: `python fetch.py WORK`."""

from __future__ import annotations

import collections
import subprocess
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click
import numpy as np
from icons import PACKAGES, iter_icons
from images import rasterise, save_icons


def install(work: Path) -> Path:
    """Let npm install the pinned packages under work; returns its node_modules."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "package.json").write_text('{"private": true}\n', "utf-8")
    wanted = [f"@iconify-json/{style}@{version}" for style, version in PACKAGES.items()]
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
    subprocess.run(["npm", "install", *options, *wanted], cwd=work, check=True)
    return work / "node_modules"


@click.command(help=__doc__)
@click.argument("work", type=click.Path(file_okay=False, path_type=Path))
@click.option("--workers", default=2, show_default=True, help="Processes that rasterise.")
def main(work: Path, workers: int) -> None:
    """Write WORK/icons.npy and WORK/icons.json."""
    icons = list(iter_icons(install(work)))
    with ProcessPoolExecutor(workers) as pool:
        pixels = np.stack(list(pool.map(rasterise, icons, chunksize=64)))
    save_icons(icons, pixels, work)
    counts = collections.Counter(icon.style for icon in icons)
    click.echo(", ".join(f"{style} {n}" for style, n in counts.items()))


if __name__ == "__main__":
    main()
