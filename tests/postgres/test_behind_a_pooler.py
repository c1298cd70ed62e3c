"""Behind a pooler in transaction mode a mesh does all that it does elsewhere."""

from collections.abc import Iterator

import pytest

from squidmesh import SquidMesh
from tests.postgres.pooler import Pooler
from tests.postgres.support import ears
from tests.postgres.whole_runs import LEASE, Fulfilment, fulfil, working

pytestmark = pytest.mark.anyio


@pytest.fixture
def pooler(postgres_database: str) -> Iterator[Pooler]:
    with Pooler.start(postgres_database) as pooler:
        yield pooler


async def test_runs_come_to_their_ends_behind_a_pooler(pooler: Pooler) -> None:
    mesh = SquidMesh.open(pooler.url, workflows=[Fulfilment], lease=LEASE, prepare_threshold=None)

    with ears() as heard:
        async with mesh, working(mesh):
            paid = await fulfil(mesh, "pays", "completed")
            declined = await fulfil(mesh, "declines", "failed")
            again = await mesh.replay_run(declined.id, from_step="charge", actor="ana")
            cancelled = await mesh.cancel_run(again.id, actor="ana")

    steps = {step.name: step for step in declined.steps or ()}
    assert [len(step.attempts) for step in paid.steps or () if step.name == "charge"] == [2]
    assert [attempt.status for attempt in steps["pack"].attempts] == ["completed"]
    assert steps["hold"].recovery is not None
    assert cancelled.status in ("cancelled", "cancelling")
    assert pooler.swaps > 0
    assert [line for line in heard.warnings if line.startswith("heartbeat")] == []
