"""A mesh belongs to one event loop, and says so instead of failing somewhere inside.

Found at a prompt: with one `asyncio.run()` for each call everything seemed to work, until closing
the mesh raised a RuntimeError about an `asyncio.Event` of which nobody had heard.
"""

import asyncio
from pathlib import Path

import pytest

from squidmesh import InvalidOptionError, SquidMesh, Workflow, manual, path, step


class Greet(Workflow[None]):
    name = "greet"
    by_hand = manual()
    greet = step(lambda: None)
    transitions = path(greet)


def test_a_mesh_refuses_a_second_event_loop_and_says_why(tmp_path: Path) -> None:
    mesh = SquidMesh.open(f"sqlite:///{tmp_path / 'runs.db'}", workflows=[Greet])

    async def started() -> str:
        run = await mesh.start_run(Greet)
        await mesh.aclose()
        return run.id

    with asyncio.Runner() as first, asyncio.Runner() as second:
        before = first.run(mesh.list_runs())
        for call in (mesh.start_run(Greet), mesh.run_until_idle(), mesh.aclose()):
            with pytest.raises(InvalidOptionError, match="another event loop"):
                second.run(call)
        run_id = first.run(started())

    assert before.runs == ()
    assert run_id
