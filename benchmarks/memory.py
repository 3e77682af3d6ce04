"""Peak memory of an extraction by number of images: only the sample table may grow.

    python benchmarks/memory.py

Each extraction runs in a process of its own: a small ViT with random weights, images made as they
are asked for, so that memory which grows is the extraction's. What has to grow is the sample table:
an id and 36 bytes an image.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import click
from common import Measured, fresh_python, report, start, workplace

SIZE = 32  # pixels
MODEL = {
    "embed_dim": 64,
    "vision_cfg": {
        "image_size": SIZE,
        "layers": 1,
        "width": 64,
        "head_width": 32,
        "patch_size": 16,
    },
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
ALLOWED = 300  # bytes an image: its id as text, its label and hash, a few times over


def peak_bytes() -> int:
    """Largest resident size of this process so far (Linux)."""
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def extraction(folder: Path, images: int) -> None:
    """Extract `images` images, then print peak bytes and seconds."""
    from clipsyn.extract import ExtractSettings, tune_process_memory

    tune_process_memory()
    import subjects

    from clipsyn.extract.run import RunSettings

    backbone = subjects.random_backbone(folder, "tiny", MODEL)
    encoders = subjects.load([backbone], "cpu")
    source = subjects.Pixels.of(SIZE, images)
    begin = time.perf_counter()
    settings = RunSettings.of(ExtractSettings(datasets=(), device="cpu"))
    subjects.extract(folder / f"store-{images}", encoders, source, settings=settings)
    click.echo(f"{peak_bytes()} {time.perf_counter() - begin}")


def measure(folder: Path, images: int) -> tuple[int, float]:
    arguments = ["--folder", str(folder), "--child", str(images)]
    command = fresh_python(__file__, *arguments)
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    peak, took = output.split()
    click.echo(f"  {images:,} images: {int(peak) / 1e6:.0f} MB in {float(took):.0f} s", err=True)
    return int(peak), float(took)


@click.command()
@click.option("--few", default=10_000, show_default=True)
@click.option("--many", default=100_000, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Keep stores and the model there.")
@click.option("--child", type=int, hidden=True)
def main(few: int, many: int, folder: Path | None, child: int | None) -> None:
    """Peak memory of extracting few and many images."""
    if child is not None and folder is not None:
        extraction(folder, child)
        return
    start("Memory of an extraction")
    with workplace(folder) as place:
        (small, _), (large, took) = (measure(Path(place), images) for images in (few, many))
    detail = (
        f"{small / 1e6:.0f} MB for {few:,} images, {large / 1e6:.0f} MB for {many:,} "
        f"({many / took:,.0f} images/s); decoded they are {many * SIZE * SIZE * 3 / 1e6:,.0f} MB"
    )
    growth = (large - small) / (many - few)
    report([Measured("growth of peak memory", growth, detail, ceiling=ALLOWED, unit="B/image")])


if __name__ == "__main__":
    main()
