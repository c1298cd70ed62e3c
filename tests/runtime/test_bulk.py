"""Many starts in one transaction: all of them or none, and a key stands for one run."""

import asyncio

import pytest

from squidmesh import IdempotencyConflictError, RunExistsError, StoreUnavailableError
from squidmesh.runtime.bulk import AT_ONCE, CHUNK
from squidmesh.testing.clock import VirtualClock
from squidmesh.testing.ids import SequentialIds
from tests.runtime.conftest import OpenMesh
from tests.runtime.support import ShakyStore, only, turns

pytestmark = pytest.mark.anyio


async def quick() -> None: ...


def orders(*numbers: str) -> list[dict[str, str]]:
    return [{"number": number} for number in numbers]


async def test_runs_are_started_together_and_ids_come_in_order(
    composed: OpenMesh, store: ShakyStore
) -> None:
    made = only(quick)
    mesh = await composed(made)

    ids = await mesh.start_runs(made, orders("a", "b", "c"))
    await mesh.run_until_idle()

    runs = [await mesh.inspect_run(run_id) for run_id in ids]
    assert [run.payload["number"] for run in runs] == ["a", "b", "c"]
    assert {run.status for run in runs} == {"completed"}
    assert len(store.commits[0]) == 1


async def test_runs_that_are_started_together_are_as_if_each_was_started_alone(
    composed: OpenMesh, clock: VirtualClock
) -> None:
    made, keys = only(quick), ["k1", None, "k3"]
    alone, together = ShakyStore(clock=clock), ShakyStore(clock=clock)
    one_by_one = await composed(made, store=alone, ids=SequentialIds())
    at_once = await composed(made, store=together, ids=SequentialIds())

    for order, key in zip(orders("a", "b", "c"), keys, strict=True):
        await one_by_one.start_run(made, order, idempotency_key=key)
    ids = await at_once.start_runs(made, orders("a", "b", "c"), idempotency_keys=keys)

    assert await together.load(ids) == await alone.load(ids)
    assert [await together.read(id_) for id_ in ids] == [await alone.read(id_) for id_ in ids]
    assert await together.definitions() == await alone.definitions()
    for key in ("k1", "k3"):
        assert await together.find_key("start:only:by_hand", key) is not None
        assert await together.find_key("start:only:by_hand", key) == (
            await alone.find_key("start:only:by_hand", key)
        )


async def test_a_key_that_comes_twice_in_one_call_stands_for_one_run(composed: OpenMesh) -> None:
    made = only(quick)
    mesh = await composed(made)

    ids = await mesh.start_runs(
        made, orders("a", "b", "a", "c"), idempotency_keys=["k", None, "k", None]
    )

    assert ids[0] == ids[2]
    assert len(set(ids)) == 3
    assert len((await mesh.list_runs()).runs) == 3


async def test_a_key_with_other_input_in_one_call_starts_nothing(composed: OpenMesh) -> None:
    made = only(quick)
    mesh = await composed(made)

    with pytest.raises(IdempotencyConflictError):
        await mesh.start_runs(made, orders("a", "b"), idempotency_keys=["k", "k"])

    assert (await mesh.list_runs()).runs == ()


async def test_keys_that_were_used_before_stand_for_the_runs_that_they_started(
    composed: OpenMesh,
) -> None:
    made = only(quick)
    mesh = await composed(made)
    first = await mesh.start_runs(made, orders("a", "b"), idempotency_keys=["k1", "k2"])

    again = await mesh.start_runs(
        made, orders("a", "c", "b", "a"), idempotency_keys=["k1", None, "k2", "k1"]
    )

    assert [again[0], again[2], again[3]] == [first[0], first[1], first[0]]
    assert again[1] not in first
    assert await mesh.start_runs(made, orders("b"), idempotency_keys=["k2"]) == [first[1]]


async def test_a_used_key_with_other_input_starts_nothing(composed: OpenMesh) -> None:
    made = only(quick)
    mesh = await composed(made)
    await mesh.start_run(made, {"number": "a"}, idempotency_key="k")

    with pytest.raises(IdempotencyConflictError):
        await mesh.start_runs(made, orders("x", "b"), idempotency_keys=[None, "k"])

    assert len((await mesh.list_runs()).runs) == 1


async def test_an_id_that_is_taken_starts_nothing(composed: OpenMesh) -> None:
    made = only(quick)
    here, there = (
        await composed(made, ids=SequentialIds()),
        await composed(made, ids=SequentialIds()),
    )
    await here.start_run(made)

    with pytest.raises(RunExistsError):
        await there.start_runs(made, orders("a", "b"))

    assert len((await here.list_runs()).runs) == 1


async def test_no_payloads_are_no_runs(composed: OpenMesh) -> None:
    made = only(quick)
    mesh = await composed(made)

    assert await mesh.start_runs(made, []) == []


async def test_an_accident_is_the_callers_and_the_keys_tell_what_happened(
    composed: OpenMesh, store: ShakyStore
) -> None:
    made = only(quick)
    mesh = await composed(made)
    store.after = 1
    with pytest.raises(StoreUnavailableError):
        await mesh.start_runs(made, orders("a", "b"), idempotency_keys=["k1", "k2"])

    ids = await mesh.start_runs(made, orders("a", "b"), idempotency_keys=["k1", "k2"])

    assert sorted(run.id for run in (await mesh.list_runs()).runs) == sorted(ids)


async def test_what_is_under_way_when_a_thousand_fail_is_seen_through_and_no_more_are_begun(
    composed: OpenMesh, store: ShakyStore
) -> None:
    made = only(quick)
    mesh = await composed(made)
    await mesh.start_run(made)
    store.passable.clear()
    starting = asyncio.create_task(mesh.start_runs(made, orders(*"x" * 4 * CHUNK)))
    await turns()
    store.before = 1
    store.passable.set()

    with pytest.raises(StoreUnavailableError):
        await starting

    sizes = [sum(len(change.runs) for change in commit) for commit in store.commits]
    assert sizes == [1, *[CHUNK] * (AT_ONCE - 1)]


async def test_thousands_with_keys_are_started_one_after_the_other(
    composed: OpenMesh, store: ShakyStore
) -> None:
    made = only(quick)
    mesh = await composed(made)
    await mesh.start_run(made)
    numbers = [str(one % 1500) for one in range(2 * CHUNK)]
    store.passable.clear()
    starting = asyncio.create_task(
        mesh.start_runs(made, orders(*numbers), idempotency_keys=numbers)
    )
    await turns()
    store.before = 1
    store.passable.set()

    with pytest.raises(StoreUnavailableError):
        await starting

    assert len(store.commits) == 1
    ids = await mesh.start_runs(made, orders(*numbers), idempotency_keys=numbers)
    assert len(set(ids)) == 1500


async def test_two_processes_that_start_the_same_keys_at_once_start_them_once(
    on_file: OpenMesh,
) -> None:
    made = only(quick)
    meshes = [await on_file(made) for _ in range(2)]
    numbers = [str(one) for one in range(50)]

    first, second = await asyncio.gather(
        meshes[0].start_runs(made, orders(*numbers), idempotency_keys=numbers),
        meshes[1].start_runs(made, orders(*numbers), idempotency_keys=numbers),
    )

    assert first == second
    assert len((await meshes[0].list_runs(limit=1000)).runs) == 50
