"""Recipes, and the processes and SLURM jobs that share the work of a command."""
