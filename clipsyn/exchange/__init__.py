"""What other tools wrote, into cells and out of them again, and where cells come from."""

LAYOUTS = ("npz", "huggingface")  # of an export
