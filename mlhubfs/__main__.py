"""`python -m mlhubfs` is the command `mlhubfs`."""

from mlhubfs.cli import main

if __name__ == "__main__":
    main()
