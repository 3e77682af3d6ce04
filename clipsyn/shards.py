"""Which of several workers on one job this one is."""

from __future__ import annotations

import os

from clipsyn.errors import UsageError

Shard = tuple[int, int]  # this worker, from 0, of so many
WHOLE: Shard = (0, 1)
HELP = (
    "I/N: be the I-th (from 1) of N workers on one {}; auto: read I and N from SLURM's or "
    "torchrun's variables."
)


def parse_shard(text: str | None) -> Shard:
    """``I/N`` (I from 1), ``auto`` (SLURM's or torchrun's variables) or None as (I - 1, N)."""
    if text is None:
        return WHOLE
    if text == "auto":
        return _shard_of_environment()
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UsageError(f"shard={text}: write I/N with 1 <= I <= N, for instance 2/8, or auto")
    return int(index) - 1, int(count)


def _shard_of_environment() -> Shard:
    environment = os.environ
    if "SLURM_ARRAY_TASK_COUNT" in environment:
        first = int(environment.get("SLURM_ARRAY_TASK_MIN", "0"))
        step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
        index = (int(environment["SLURM_ARRAY_TASK_ID"]) - first) // step
        return index, int(environment["SLURM_ARRAY_TASK_COUNT"])
    for rank, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS")):
        if rank in environment and size in environment:
            return int(environment[rank]), int(environment[size])
    raise UsageError(
        "shard=auto found neither SLURM_ARRAY_TASK_ID nor RANK in the environment: write I/N"
    )
