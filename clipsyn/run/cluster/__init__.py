"""Commands that share one job, run elsewhere: as processes of this machine, or by SLURM."""
