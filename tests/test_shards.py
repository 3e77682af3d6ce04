"""Which of several workers this one is."""

from __future__ import annotations

import pytest

from clipsyn.errors import UsageError
from clipsyn.names import parse_shard

SCHEDULERS = (
    "SLURM_ARRAY_TASK_ID",
    "SLURM_ARRAY_TASK_COUNT",
    "SLURM_ARRAY_TASK_MIN",
    "SLURM_ARRAY_TASK_STEP",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "RANK",
    "WORLD_SIZE",
)


@pytest.mark.parametrize(
    ("text", "shard"), [(None, (0, 1)), ("1/1", (0, 1)), ("2/8", (1, 8)), ("8/8", (7, 8))]
)
def test_shards_count_from_one(text: str | None, shard: tuple[int, int]) -> None:
    assert parse_shard(text) == shard


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/5", "", "1.0/3"])
def test_impossible_shards_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"write I/N with 1 <= I <= N"):
        parse_shard(text)


@pytest.mark.parametrize(
    ("variables", "shard"),
    [
        ({"RANK": "2", "WORLD_SIZE": "4"}, (2, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "3"}, (0, 3)),
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "8"}, (7, 8)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "9",
                "SLURM_ARRAY_TASK_COUNT": "4",
                "SLURM_ARRAY_TASK_MIN": "3",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            (3, 4),
        ),
    ],
)
def test_the_scheduler_s_shard_is_found(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], shard: tuple[int, int]
) -> None:
    for name in SCHEDULERS:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert parse_shard("auto") == shard
