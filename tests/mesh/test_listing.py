"""Lists of runs: filters, order, pages, and cursors that only fit where they came from."""

import base64
from datetime import datetime, timedelta
from typing import Any

import pytest

from squidmesh import InvalidOptionError, RunPage, SquidMesh, Workflow, log, manual, path, pause
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import MINUTE, OpenMesh, Order

pytestmark = pytest.mark.anyio


class Short(Workflow[Order]):
    name = "short"
    by_hand = manual()
    only = log("only")


class Held(Workflow[Order]):
    name = "held"
    by_hand = manual()
    hold = pause()
    transitions = path(hold)


async def filled(mesh: SquidMesh, clock: VirtualClock) -> list[str]:
    """Nine runs, a minute apart: every third is held, every second is blue."""
    ids = []
    for number in range(9):
        tags = {"team": "blue" if number % 2 else "red", "n": str(number)}
        run = await mesh.start_run(Held if number % 3 == 0 else Short, tags=tags)
        ids.append(run.id)
        clock.advance(MINUTE)
    await mesh.run_until_idle()
    return ids


def ids_of(page: RunPage) -> list[str]:
    return [run.id for run in page.runs]


async def test_runs_are_listed_newest_first(open_mesh: OpenMesh, clock: VirtualClock) -> None:
    mesh = await open_mesh(Short, Held)
    ids = await filled(mesh, clock)

    page = await mesh.list_runs()

    assert isinstance(page, RunPage)
    assert ids_of(page) == ids[::-1]
    assert page.next_cursor is None
    assert page.runs[0].status == "completed"
    assert page.runs[0].payload == {"number": "o1", "amount": 100}
    assert page.runs[0].steps is None


async def test_every_filter_narrows_the_list_and_all_of_them_together(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Short, Held)
    ids = await filled(mesh, clock)
    begin = (await mesh.inspect_run(ids[0])).started_at

    async def found(**filters: Any) -> list[int]:
        return [ids.index(one) for one in ids_of(await mesh.list_runs(**filters))]

    assert await found(workflow="held") == [6, 3, 0]
    assert await found(workflow="unknown") == []
    assert await found(status="paused") == [6, 3, 0]
    assert await found(status=["paused", "completed"]) == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert await found(status=("failed",)) == []
    assert await found(tags={"team": "blue"}) == [7, 5, 3, 1]
    assert await found(tags={"team": "blue", "n": "5"}) == [5]
    assert await found(tags={"n": "99"}) == []
    assert await found(tags={}) == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert await found(started_before=begin + MINUTE * 2) == [1, 0]
    assert await found(started_after=begin + MINUTE * 7) == [8, 7]
    assert await found(started_after=begin + MINUTE * 6.5) == [8, 7]
    assert await found(
        workflow="short",
        status="completed",
        tags={"team": "red"},
        started_after=begin + MINUTE * 3.5,
        started_before=begin + MINUTE * 7.5,
    ) == [4]


async def test_a_workflow_may_be_given_as_its_class(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Short, Held)
    ids = await filled(mesh, clock)

    assert ids_of(await mesh.list_runs(workflow=Held)) == [ids[6], ids[3], ids[0]]


@pytest.mark.parametrize("limit", [1, 2, 4, 9])
async def test_pages_together_hold_every_run_once(
    open_mesh: OpenMesh, clock: VirtualClock, limit: int
) -> None:
    mesh = await open_mesh(Short, Held)
    ids = await filled(mesh, clock)

    seen, cursor = [], None
    while True:
        page = await mesh.list_runs(limit=limit, cursor=cursor)
        seen += ids_of(page)
        cursor = page.next_cursor
        if cursor is None:
            break

    assert seen == ids[::-1]


async def test_runs_of_one_instant_are_paged_without_loss(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Short)
    ids = await mesh.start_runs(Short, [{}] * 7)

    first = await mesh.list_runs(limit=4)
    second = await mesh.list_runs(limit=4, cursor=first.next_cursor)

    assert sorted(ids_of(first) + ids_of(second)) == sorted(ids)


async def test_runs_that_start_meanwhile_do_not_move_a_page(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Short, Held)
    ids = await filled(mesh, clock)
    first = await mesh.list_runs(limit=4)
    await mesh.start_run(Short)

    second = await mesh.list_runs(limit=5, cursor=first.next_cursor)

    assert ids_of(first) + ids_of(second) == ids[::-1]


GARBLED: list[Any] = [
    "",
    "garbage",
    "AAAA",
    "é",
    "x" * 5000,
    7,
    b"bytes",
    ["list"],
    base64.urlsafe_b64encode(b'[1,"2030-01-01T00:00:00+00:00","x","y"]').decode(),
]


@pytest.mark.parametrize("cursor", GARBLED, ids=range(len(GARBLED)))
async def test_a_garbled_cursor_is_refused(open_mesh: OpenMesh, cursor: Any) -> None:
    mesh = await open_mesh(Short)

    with pytest.raises(InvalidOptionError) as refused:
        await mesh.list_runs(cursor=cursor)

    assert refused.value.code == "invalid_cursor"
    assert refused.value.details["option"] == "cursor"


@pytest.mark.parametrize("place", [0, 10, -1])
async def test_a_cursor_with_one_sign_changed_is_refused(
    open_mesh: OpenMesh, clock: VirtualClock, place: int
) -> None:
    mesh = await open_mesh(Short, Held)
    await filled(mesh, clock)
    cursor = (await mesh.list_runs(limit=2)).next_cursor
    assert cursor is not None
    signs = list(cursor)
    signs[place] = "A" if signs[place] != "A" else "B"

    with pytest.raises(InvalidOptionError) as refused:
        await mesh.list_runs(cursor="".join(signs))

    assert refused.value.code == "invalid_cursor"


async def test_a_cursor_of_a_list_with_other_filters_is_refused(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Short, Held)
    await filled(mesh, clock)
    cursor = (await mesh.list_runs(limit=2, workflow="short")).next_cursor

    for filters in ({}, {"workflow": "held"}, {"workflow": "short", "status": "completed"}):
        with pytest.raises(InvalidOptionError) as refused:
            await mesh.list_runs(cursor=cursor, **filters)  # type: ignore[arg-type]
        assert refused.value.code == "invalid_cursor"

    more = await mesh.list_runs(limit=3, workflow="short", cursor=cursor)
    assert len(more.runs) == 3


BAD: list[tuple[str, Any]] = [
    ("limit", 0),
    ("limit", -1),
    ("limit", 1.5),
    ("limit", True),
    ("limit", "10"),
    ("limit", 10**9),
    ("workflow", ""),
    ("workflow", 7),
    ("workflow", "a\x00"),
    ("status", "done"),
    ("status", ["paused", "done"]),
    ("status", []),
    ("status", 7),
    ("tags", "blue"),
    ("tags", {"team": 7}),
    ("tags", {7: "blue"}),
    ("tags", {"": "blue"}),
    ("started_after", "2026-01-01"),
    ("started_after", datetime(2026, 1, 1)),  # noqa: DTZ001
    ("started_before", 7),
    ("started_before", timedelta(1)),
]


@pytest.mark.parametrize(("option", "value"), BAD, ids=range(len(BAD)))
async def test_a_filter_that_makes_no_sense_is_refused_by_its_name(
    open_mesh: OpenMesh, option: str, value: Any
) -> None:
    mesh = await open_mesh(Short)

    with pytest.raises(InvalidOptionError) as refused:
        await mesh.list_runs(**{option: value})

    assert isinstance(refused.value, ValueError)
    assert refused.value.code == "invalid_option"
    assert refused.value.details["option"] == option
