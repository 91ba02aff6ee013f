"""Run the command line as ``python -m kinoloom``."""

from kinoloom.cli import main

if __name__ == "__main__":
    main()
