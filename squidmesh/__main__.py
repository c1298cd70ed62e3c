"""Lets `python -m squidmesh` do what the command `squidmesh` does."""

from squidmesh.cli import main

if __name__ == "__main__":
    main()
