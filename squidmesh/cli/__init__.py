"""The command line over the public interface."""

from squidmesh.cli.app import cli, main

__all__ = ["cli", "main"]
