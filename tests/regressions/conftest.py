"""The fixtures of the runtime's tests: found here were mostly defects of the runtime."""

from tests.runtime.conftest import clock, composed, on_file, store

__all__ = ["clock", "composed", "on_file", "store"]
