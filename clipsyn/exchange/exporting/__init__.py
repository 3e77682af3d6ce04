"""Cells as files that other tools read, and that `clipsyn import` reads back bit for bit."""

LAYOUTS = ("npz", "huggingface")
