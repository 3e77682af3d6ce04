"""`python -m clipsyn`."""

from clipsyn.cli import main

if __name__ == "__main__":
    main(prog_name="clipsyn")
