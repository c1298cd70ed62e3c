"""Previews: what a command would do, told while nothing of it is done."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import pytest

from squidmesh import (
    Entry,
    Errored,
    IdempotencyConflictError,
    InvalidOptionError,
    InvalidPayloadError,
    InvalidReviewError,
    InvalidRunIdError,
    InvalidTransitionError,
    NotPausedError,
    Preview,
    Run,
    RunNotFoundError,
    SquidMesh,
    SquidMeshError,
    UnknownWorkflowError,
    UnsafeReplayError,
    Workflow,
    approval,
    log,
    manual,
    path,
    pause,
    step,
)
from squidmesh.domain.state import RunState
from squidmesh.testing.executors import RecordingExecutor
from tests.mesh.support import Gate, OpenMesh, Order, at_work, contents, entry_types, history

pytestmark = pytest.mark.anyio

SOMEBODY = "0190b0f0-0000-7000-8000-000000000000"


class Reviewed(Workflow[Order]):
    """A decision that leads on or aside."""

    name = "reviewed"
    by_hand = manual()
    load = step(lambda number: {"id": number}, output="invoice")
    review = approval(output="review")
    pay = step(lambda: None, compensate=lambda: None)
    page = log("page")
    transitions = (path(load, review, pay), path(page), review.on_error(page, recovery="undo"))


class Held(Workflow[Order]):
    """A pause, and an end that is told in the context."""

    name = "held"
    by_hand = manual()
    hold = pause(output="held")
    go_on = step(lambda held: {"comment": held["comment"]})
    transitions = path(hold, go_on)


class Shipped(Workflow[Order]):
    """Something that reaches outside at each step but the first and the last."""

    name = "shipped"
    by_hand = manual()
    load = step(lambda number: {"id": number}, output="invoice")
    charge = step(lambda: None, compensate=lambda: None)
    ship = step(lambda: None, irreversible=True)
    bill = step(lambda: None, compensatable=False)
    tell = step(lambda: None)
    transitions = path(load, charge, ship, bill, tell)


def the_same(entries: Sequence[Entry], *known: str) -> list[object]:
    """The entries less their times, and with ids of runs other than the *known* all alike."""
    names = {entry.data["run_id"] for entry in entries} - {*known}
    shown = json.dumps([[each.seq, each.thread, each.type, dict(each.data)] for each in entries])
    for name in names:
        shown = shown.replace(str(name), "<new>")
    found: list[object] = json.loads(re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(\+00:00|Z)", "<time>", shown))
    return found


async def written_since(mesh: SquidMesh, run: Run) -> tuple[Entry, ...]:
    """The entries that the run has got since it was looked at."""
    found = (await history(mesh, run)).entries
    assert found is not None
    return found[run.revision :]


async def ready(mesh: SquidMesh, workflow: type[Workflow[Order]]) -> Run:
    """A run of the workflow, worked on until nothing is due."""
    run = await mesh.start_run(workflow, Order(number="o9"))
    await mesh.run_until_idle()
    return await mesh.inspect_run(run.id)


@attrs.frozen
class Case:
    """A command that is legal for a run of *workflow*, and what it is called with."""

    command: str
    workflow: type[Workflow[Order]]
    said: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The command, and the step that a replay starts at."""
        return f"{self.command} {self.said.get('from_step', '')}".strip()

    async def preview(self, mesh: SquidMesh, run: Run, **more: Any) -> Preview:
        """Ask what the command would do."""
        found = await getattr(mesh, self.command)(run.id, **{**self.said, **more}, preview=True)
        assert isinstance(found, Preview)
        return found

    async def give(self, mesh: SquidMesh, run: Run, **more: Any) -> Run:
        """Give the command."""
        found = await getattr(mesh, self.command)(run.id, **{**self.said, **more})
        assert isinstance(found, Run)
        return found


ADA = {"actor": {"name": "ada"}, "comment": "fine", "metadata": {"ticket": [7]}}
CASES = [
    Case("cancel_run", Reviewed, {"actor": "ada", "reason": "changed my mind"}),
    Case("resume_run", Held, ADA),
    Case("approve_run", Reviewed, ADA),
    Case("reject_run", Reviewed, ADA),
    Case("replay_run", Reviewed, {"actor": "ada", "comment": "again"}),
    Case("replay_run", Reviewed, {"from_step": "review"}),
    Case("replay_run", Shipped, {"from_step": "ship", "allow_irreversible": True}),
]
each_command = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@each_command
async def test_a_preview_shows_what_the_command_then_writes(
    open_mesh: OpenMesh, case: Case
) -> None:
    mesh = await open_mesh(Reviewed, Held, Shipped)
    run = await ready(mesh, case.workflow)

    shown = await case.preview(mesh, run)
    given = await case.give(mesh, run)

    written = await written_since(mesh, run)
    if given.id != run.id:
        written += (await history(mesh, given)).entries or ()
    assert written != ()
    assert the_same(shown.entries, run.id) == the_same(written, run.id)
    assert [entry.at for entry in shown.entries] <= [entry.at for entry in written]


@each_command
async def test_a_preview_writes_nothing_tells_nobody_and_remembers_nothing(
    open_mesh: OpenMesh, case: Case
) -> None:
    told: list[str] = []
    executor = RecordingExecutor()

    class Sink:
        def emit(self, event: Any) -> None:
            told.append(event.name)

    mesh = await open_mesh(Reviewed, Held, Shipped, telemetry=Sink(), executor=executor)
    run = await ready(mesh, case.workflow)
    known = (await mesh.engine()).committer.states
    before, said, woken = await contents(mesh), list(told), len(executor.enqueued)
    remembered = known.get(run.id)

    shown = await case.preview(mesh, run)
    await mesh.run_until_idle()

    assert await contents(mesh) == before
    assert (told, len(executor.enqueued)) == (said, woken)
    assert known.get(run.id) is remembered
    for run_id in {entry.data["run_id"] for entry in shown.entries} - {run.id}:
        assert known.get(str(run_id)) is None
        with pytest.raises(RunNotFoundError):
            await mesh.inspect_run(str(run_id))


@each_command
async def test_asking_what_a_command_would_do_does_not_use_its_key_up(
    open_mesh: OpenMesh, case: Case
) -> None:
    mesh = await open_mesh(Reviewed, Held, Shipped)
    run = await ready(mesh, case.workflow)

    first = await case.preview(mesh, run, idempotency_key="once")
    given = await case.give(mesh, run, idempotency_key="once")
    before = await contents(mesh)
    again = await case.preview(mesh, run, idempotency_key="once")

    assert first.entries != ()
    assert again == Preview(entries=(), reruns=(), effects=())
    assert (await case.give(mesh, run, idempotency_key="once")).id == given.id
    assert await contents(mesh) == before


@each_command
async def test_the_key_of_another_command_is_a_conflict_in_a_preview_too(
    open_mesh: OpenMesh, case: Case
) -> None:
    mesh = await open_mesh(Reviewed, Held, Shipped)
    run = await ready(mesh, case.workflow)
    if case.command == "replay_run":
        other = await ready(mesh, Held)
        await mesh.resume_run(other.id, idempotency_key="once")
    else:
        other = run
        await mesh.replay_run(other.id, idempotency_key="once")

    with pytest.raises(IdempotencyConflictError):
        await Case(case.command, case.workflow, _plain(case)).preview(
            mesh, other, idempotency_key="once"
        )


def _plain(case: Case) -> Mapping[str, Any]:
    """What the command is called with, less a step that only runs of its own workflow have."""
    return {key: value for key, value in case.said.items() if key != "from_step"}


async def test_the_entries_of_a_replay_are_told_apart_by_their_run(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Reviewed)
    run = await ready(mesh, Reviewed)

    shown = await mesh.replay_run(run.id, preview=True)

    first, *rest = shown.entries
    assert (first.type, first.seq) == ("run_replayed", run.revision + 1)
    assert (first.data["run_id"], first.data["new_run_id"]) == (run.id, rest[0].data["run_id"])
    assert [entry.seq for entry in rest] == [*range(1, len(rest) + 1)]
    assert {entry.data["run_id"] for entry in rest} == {first.data["new_run_id"]}
    assert (rest[0].type, rest[0].data["replayed_from"]) == ("run_started", run.id)
    assert rest[0].data["payload"] == {"number": "o9", "amount": 100}


async def test_a_replay_names_what_runs_again_and_which_effects_that_repeats(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Shipped)
    run = await ready(mesh, Shipped)

    whole = await mesh.replay_run(run.id, allow_irreversible=True, preview=True)
    half = await mesh.replay_run(run.id, from_step="tell", preview=True)

    assert whole.reruns == ("load", "charge", "ship", "bill", "tell")
    assert whole.effects == ("charge", "ship", "bill")
    assert (half.reruns, half.effects) == (("tell",), ())


async def test_only_what_ran_runs_again(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Reviewed)
    waiting = await ready(mesh, Reviewed)
    decided = await ready(mesh, Reviewed)
    await mesh.reject_run(decided.id, actor="ada")
    await mesh.run_until_idle()
    fresh = await mesh.start_run(Reviewed)

    shown = [await mesh.replay_run(run.id, preview=True) for run in (fresh, waiting, decided)]

    assert [each.reruns for each in shown] == [(), ("load",), ("load", "review", "page")]
    assert {each.effects for each in shown} == {()}


async def test_no_other_command_runs_anything_again(open_mesh: OpenMesh) -> None:
    mesh = await open_mesh(Reviewed)
    run = await ready(mesh, Reviewed)

    shown = await mesh.approve_run(run.id, actor="ada", preview=True)

    assert (shown.reruns, shown.effects) == ((), ())
    assert [entry.type for entry in shown.entries] == [
        "manual_step_resolved",
        "runnables_planned",
        "attempt_scheduled",
    ]


async def test_effects_are_judged_by_what_the_run_carries_and_named_in_todays_order(
    open_mesh: OpenMesh,
) -> None:
    class Before(Workflow[Order]):
        name = "policy"
        by_hand = manual()
        pay = step(lambda: None, irreversible=True)
        note = log("note")
        transitions = path(pay, note)

    class After(Workflow[Order]):
        name = "policy"
        by_hand = manual()
        note = log("note")
        pay = step(lambda: None)
        transitions = path(note, pay)

    first = await open_mesh(Before)
    run = await ready(first, Before)
    store = (await first.engine()).store
    async with SquidMesh(store=store, workflows=[After]) as second:
        with pytest.raises(UnsafeReplayError):
            await second.replay_run(run.id, preview=True)
        shown = await second.replay_run(run.id, allow_irreversible=True, preview=True)

    assert (shown.reruns, shown.effects) == (("note", "pay"), ("pay",))


async def test_a_preview_asks_the_store_and_not_what_this_process_remembers(
    open_mesh: OpenMesh,
) -> None:
    mesh = await open_mesh(Reviewed)
    run = await mesh.start_run(Reviewed)
    await mesh.run_until_idle()
    engine = await mesh.engine()
    engine.committer.states.remember(await _state(mesh, run.id))
    async with SquidMesh(store=engine.store, workflows=[Reviewed]) as somebody_else:
        await somebody_else.approve_run(run.id, actor="bea")

    with pytest.raises(NotPausedError):
        await mesh.approve_run(run.id, actor="ada", preview=True)
    shown = await mesh.cancel_run(run.id, preview=True)

    revision = (await mesh.inspect_run(run.id)).revision
    assert [entry.seq for entry in shown.entries] == [revision + 1, revision + 2, revision + 3]


async def _state(mesh: SquidMesh, run_id: str) -> RunState:
    return (await (await mesh.engine()).store.load([run_id])).states[run_id]


async def test_what_a_claim_holds_back_is_not_shown_as_done(open_mesh: OpenMesh) -> None:
    gate = Gate()

    async def hold() -> None:
        await gate.wait()

    class Holding(Workflow[Order]):
        name = "holding"
        by_hand = manual()
        only = step(hold)

    mesh = await open_mesh(Holding)
    run = await mesh.start_run(Holding)
    async with at_work(mesh, gate):
        shown = await mesh.cancel_run(run.id, preview=True)

    assert [entry.type for entry in shown.entries] == ["cancel_requested"]
    assert "cancel_requested" not in entry_types(await history(mesh, run))
    assert (await mesh.inspect_run(run.id)).status == "completed"


@attrs.frozen
class Refused:
    """A command that a run of *workflow* refuses, by which error."""

    command: str
    workflow: type[Workflow[Order]]
    said: Mapping[str, Any]
    error: type[SquidMeshError]


REFUSED = [
    Refused("cancel_run", Shipped, {}, InvalidTransitionError),
    Refused("cancel_run", Held, {"actor": ""}, InvalidReviewError),
    Refused("cancel_run", Held, {"idempotency_key": 7}, InvalidOptionError),
    Refused("resume_run", Reviewed, {}, NotPausedError),
    Refused("resume_run", Held, {"metadata": object()}, InvalidReviewError),
    Refused("approve_run", Held, {"actor": "ada"}, NotPausedError),
    Refused("approve_run", Reviewed, {"actor": None}, InvalidReviewError),
    Refused("reject_run", Shipped, {"actor": "ada"}, NotPausedError),
    Refused("reject_run", Reviewed, {"actor": "ada", "connection": object()}, InvalidOptionError),
    Refused("replay_run", Shipped, {"from_step": None}, UnsafeReplayError),
    Refused("replay_run", Shipped, {"from_step": "ship"}, UnsafeReplayError),
    Refused("replay_run", Shipped, {"from_step": "nowhere"}, InvalidOptionError),
    Refused("replay_run", Reviewed, {"from_step": "pay"}, InvalidOptionError),
    Refused("replay_run", Reviewed, {"comment": ""}, InvalidReviewError),
]


@pytest.mark.parametrize("case", REFUSED, ids=[str(number) for number in range(len(REFUSED))])
async def test_what_is_refused_is_refused_by_its_preview_in_the_same_words(
    open_mesh: OpenMesh, case: Refused
) -> None:
    mesh = await open_mesh(Reviewed, Held, Shipped)
    run = await ready(mesh, case.workflow)
    before = await contents(mesh)
    call = getattr(mesh, case.command)

    with pytest.raises(case.error) as shown:
        await call(run.id, **case.said, preview=True)
    with pytest.raises(case.error) as refused:
        await call(run.id, **case.said)

    assert type(shown.value) is type(refused.value)
    assert str(shown.value) == str(refused.value)
    assert (shown.value.code, shown.value.details) == (refused.value.code, refused.value.details)
    assert await contents(mesh) == before


async def test_a_replay_that_would_start_nothing_shows_nothing(open_mesh: OpenMesh) -> None:
    class Before(Workflow[Order]):
        name = "changing"
        by_hand = manual()
        only = log("only")

    class After(Workflow[None]):
        name = "changing"
        by_hand = manual()
        only = log("only")

    first = await open_mesh(Before)
    run = await ready(first, Before)
    store = (await first.engine()).store
    before = await contents(first)
    async with (
        SquidMesh(store=store) as nobody,
        SquidMesh(store=store, workflows=[After]) as second,
    ):
        with pytest.raises(UnknownWorkflowError):
            await nobody.replay_run(run.id, preview=True)
        with pytest.raises(InvalidPayloadError):
            await second.replay_run(run.id, preview=True)

    assert await contents(first) == before


@each_command
async def test_a_preview_needs_a_run_that_is_there(open_mesh: OpenMesh, case: Case) -> None:
    mesh = await open_mesh(Reviewed, Held, Shipped)
    call = getattr(mesh, case.command)

    with pytest.raises(RunNotFoundError):
        await call(SOMEBODY, **case.said, preview=True)
    with pytest.raises(InvalidRunIdError):
        await call("some run", **case.said, preview=True)


NEARLY: list[Any] = [1, 0, None, "yes", "", [True]]


@each_command
async def test_only_a_bool_says_whether_a_preview_is_wanted(
    open_mesh: OpenMesh, case: Case
) -> None:
    mesh = await open_mesh(Reviewed, Held, Shipped)
    run = await ready(mesh, case.workflow)
    before = await contents(mesh)

    for nearly in NEARLY:
        with pytest.raises(InvalidOptionError) as refused:
            await getattr(mesh, case.command)(run.id, **case.said, preview=nearly)

        assert refused.value.details["option"] == "preview"
    assert await contents(mesh) == before


async def test_what_a_preview_shows_belongs_to_whoever_asked(open_mesh: OpenMesh) -> None:
    class Failing(Workflow[Order]):
        name = "failing"
        by_hand = manual()
        only = step(lambda: Errored("no"), output="x")

    mesh = await open_mesh(Failing)
    run = await ready(mesh, Failing)
    shown = await mesh.replay_run(run.id, preview=True)

    payload: Any = shown.entries[1].data["payload"]
    payload["number"] = "another"

    assert (await mesh.replay_run(run.id)).payload["number"] == "o9"
