from tests.slurm import slurm

__all__ = ["slurm"]
