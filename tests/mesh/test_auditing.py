"""The audit of a run: its eleven kinds of events, and what each of them says."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias, get_args

import attrs
import pytest

from squidmesh import (
    AuditEvent,
    Errored,
    Run,
    SquidMesh,
    Workflow,
    approval,
    compensation,
    log,
    manual,
    path,
    pause,
    step,
)
from squidmesh.domain.audit import AuditType
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import (
    MINUTE,
    Deploy,
    OpenMesh,
    Order,
    audit_types,
    event_of,
    history,
)

pytestmark = pytest.mark.anyio

Drive: TypeAlias = Callable[[SquidMesh, Run], Awaitable[object]]

SAID: dict[str, Any] = {"actor": "ada", "comment": "because", "metadata": {"ticket": "T-1"}}


class Release(Workflow[Order]):
    name = "release"
    by_hand = manual()
    hold = pause()
    ship = log("shipped")
    transitions = path(hold, ship)


class Credit(Workflow[Order]):
    name = "credit"
    by_hand = manual()
    review = approval()
    pay = log("paid")
    transitions = (path(review, pay), review.on_error(Workflow.complete))


def refuse() -> Errored:
    return Errored("no", code="declined")


class Routed(Workflow[Order]):
    """One failure is made up for by compensation, as its author says, and one by undoing."""

    name = "routed"
    by_hand = manual()
    first = step(refuse, output="x")
    second = step(refuse, output="y")
    third = log("third")
    transitions = (
        path(first),
        path(second),
        path(third),
        first.on_error(second, recovery="compensation"),
        second.on_error(third, recovery="undo"),
    )


class Undone(Workflow[Order]):
    name = "undone"
    by_hand = manual()
    a = step(lambda: None, compensate=lambda: None)
    b = step(lambda: None, compensate=compensation(lambda: Errored("shut", code="shut")))
    c = step(refuse, output="x")
    transitions = path(a, b, c)


async def work(mesh: SquidMesh, run: Run) -> None:
    await mesh.run_until_idle()


async def resume(mesh: SquidMesh, run: Run) -> None:
    await mesh.resume_run(run.id, **SAID)


async def approve(mesh: SquidMesh, run: Run) -> None:
    await mesh.approve_run(run.id, **SAID)


async def reject(mesh: SquidMesh, run: Run) -> None:
    await mesh.reject_run(run.id, **SAID)


async def cancel(mesh: SquidMesh, run: Run) -> None:
    await mesh.cancel_run(run.id, actor="ada", reason="because")


@attrs.frozen
class Case:
    """What makes a run tell of something, and what it tells then."""

    kind: AuditType
    workflow: type[Workflow[Order]]
    drive: Drive
    step: str | None
    actor: str | None = None
    comment: str | None = None
    metadata: Mapping[str, Any] = attrs.field(factory=dict[str, Any])


CASES: list[Case] = [
    Case("paused", Release, work, "hold"),
    Case("resumed", Release, resume, "hold", "ada", "because", {"ticket": "T-1"}),
    Case("approved", Credit, approve, "review", "ada", "because", {"ticket": "T-1"}),
    Case("rejected", Credit, reject, "review", "ada", "because", {"ticket": "T-1"}),
    Case("cancel_requested", Release, cancel, None, "ada", "because"),
    Case("compensation_routed", Routed, work, "first", metadata={"target": "second"}),
    Case("undo_routed", Routed, work, "second", metadata={"target": "third"}),
    Case("compensation_started", Undone, work, "c", metadata={"steps": ["b", "a"]}),
    Case("compensation_completed", Undone, work, "a"),
    Case("compensation_failed", Undone, work, "b", metadata={"code": "shut"}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
async def test_each_kind_of_event_says_what_it_is_about_who_gave_it_and_when(
    open_mesh: OpenMesh, clock: VirtualClock, case: Case
) -> None:
    mesh = await open_mesh(case.workflow)
    run = await mesh.start_run(case.workflow)
    began = clock.now()
    # What opens with the start is told with the start's time, all else with its own.
    clock.advance(MINUTE)

    await case.drive(mesh, run)

    assert event_of(await history(mesh, run), case.kind) == AuditEvent(
        type=case.kind,
        step=case.step,
        actor=case.actor,
        comment=case.comment,
        metadata=case.metadata,
        at=began if case.kind == "paused" else began + MINUTE,
    )


async def test_a_replay_is_an_event_of_its_source_and_names_the_new_run(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    mesh = await open_mesh(Release)
    source = await mesh.start_run(Release)
    clock.advance(MINUTE)

    new = await mesh.replay_run(source.id, actor="ada", comment="because")

    told = event_of(await history(mesh, source), "replayed")
    assert told == AuditEvent(
        type="replayed",
        step=None,
        actor="ada",
        comment="because",
        metadata={"new_run_id": new.id},
        at=source.started_at + MINUTE,
    )
    assert audit_types(await history(mesh, new)) == ["paused"]


def test_there_are_eleven_kinds_of_events_and_each_is_shown_here() -> None:
    shown = {case.kind for case in CASES} | {"replayed"}

    assert shown == set(get_args(AuditType))
    assert len(shown) == 11


async def test_the_audit_tells_everything_in_the_order_in_which_it_happened(
    open_mesh: OpenMesh, clock: VirtualClock
) -> None:
    class Whole(Workflow[Order]):
        name = "whole"
        by_hand = manual()
        hold = pause()
        a = step(lambda: None, compensate=lambda: None)
        ask = approval()
        b = step(refuse, output="x")
        c = step(refuse, output="y")
        transitions = (
            path(hold, a, ask, b),
            ask.on_error(b, recovery="undo"),
            b.on_error(c, recovery="compensation"),
            path(c),
        )

    mesh = await open_mesh(Whole)
    run = await mesh.start_run(Whole)
    clock.advance(MINUTE)
    await mesh.resume_run(run.id)
    await mesh.run_until_idle()
    clock.advance(MINUTE)
    await mesh.reject_run(run.id, actor="ada")
    await mesh.run_until_idle()
    await mesh.replay_run(run.id, actor="eve")

    told = await history(mesh, run)
    assert audit_types(told) == [
        "paused",
        "resumed",
        "paused",
        "rejected",
        "undo_routed",
        "compensation_routed",
        "compensation_started",
        "compensation_completed",
        "replayed",
    ]
    times = [event.at - run.started_at for event in told.audit_events or ()]
    assert times == [timedelta(0), *[MINUTE] * 2, *[MINUTE * 2] * 6]


async def test_the_audit_is_there_where_nobody_knows_the_workflow_any_more(
    deploy: Deploy,
) -> None:
    async with deploy(Undone) as before:
        run = await before.start_run(Undone)
        await before.run_until_idle()
        told = (await history(before, run)).audit_events

    async with deploy() as after:
        found = (await history(after, run)).audit_events

    assert found == told
    assert len(found or ()) == 3
