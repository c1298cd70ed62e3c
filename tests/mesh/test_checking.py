"""What `check_runs` says of a deploy beforehand, and that it is what the deploy then does."""

import types
from collections import Counter
from collections.abc import Collection
from typing import Any

import attrs
import pytest

from squidmesh import (
    BlockedRun,
    CheckReport,
    Errored,
    InvalidOptionError,
    JournalCorruptError,
    Obstacle,
    Run,
    SquidMesh,
    UnknownWorkflowError,
    VersionCheck,
    Workflow,
    compensation,
    manual,
    path,
    pause,
    step,
)
from squidmesh.adapters.memory import MemoryStore
from squidmesh.checking import LOADED_AT_ONCE, MOST_LISTED, PAGE
from squidmesh.ports.store import Loaded, RunQuery, RunSummary, StoredDefinition
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import Deploy, Gate, Order, at_work, contents

pytestmark = pytest.mark.anyio


def version(payload: type[Any] = Order, /, **body: Any) -> type[Workflow[Any]]:
    """The orders' workflow as one release has it."""
    members: dict[str, Any] = {"by_hand": manual(), "name": "orders", **body}
    generic: Any = Workflow
    return types.new_class(
        "Orders", (generic[payload],), exec_body=lambda space: space.update(members)
    )


def in_a_row(payload: type[Any] = Order, /, **steps: Any) -> type[Workflow[Any]]:
    return version(payload, **steps, transitions=path(*steps.values()))


async def reserve(number: str) -> dict[str, str]:
    return {"reserved": number}


async def release(reserved: str) -> None: ...


async def charge(number: str) -> str:
    return number


async def charge_in(number: str, currency: str) -> str:
    return number + currency


async def of_the_next_release(number: str, currency: str) -> str:
    return number + currency


of_the_next_release.__qualname__ = charge.__qualname__  # as if it stood in its place


async def ship(number: str) -> None: ...


async def refuse(number: str) -> object:
    return Errored("no")


def only(report: CheckReport) -> VersionCheck:
    (found,) = report.versions
    return found


def obstacle_of(report: CheckReport) -> Obstacle:
    (found,) = only(report).obstacles
    return found


async def ended(mesh: SquidMesh, *runs: Run) -> list[str]:
    """Where runs end that waited for a person, once they may go on."""
    for run in runs:
        await mesh.resume_run(run.id)
    await mesh.run_until_idle()
    return [(await mesh.inspect_run(run.id)).status for run in runs]


OLD = in_a_row(
    reserve=step(reserve), look=pause(), charge=step(charge, output="charged"), ship=step(ship)
)


async def test_a_store_without_runs_in_flight_is_safe_to_deploy_over(deploy: Deploy) -> None:
    async with deploy(OLD) as mesh:
        report = await mesh.check_runs()

    assert report == CheckReport(versions=())
    assert (report.ok, report.runs, report.blocked) == (True, 0, 0)


async def test_runs_under_the_very_definition_of_the_code_are_safe(deploy: Deploy) -> None:
    async with deploy(OLD) as mesh:
        await mesh.start_runs(OLD, [{}, {}])
        await mesh.run_until_idle()

        found = only(await mesh.check_runs())

    assert (found.workflow, found.fingerprint) == ("orders", OLD.definition.fingerprint)
    assert (found.registered, found.runs, found.safe, found.paused) == (True, 2, 2, 2)
    assert (found.blocked, found.listed, found.obstacles) == (0, (), {})


async def test_runs_under_another_definition_are_safe_if_all_their_functions_are_there(
    deploy: Deploy,
) -> None:
    async with deploy(OLD) as mesh:
        await mesh.start_run(OLD)
    new = in_a_row(ship=step(ship), pay=step(charge), first=step(reserve))

    async with deploy(new) as mesh:
        await mesh.start_run(new)
        report = await mesh.check_runs()

    assert report.ok
    assert [(one.registered, one.runs, one.safe) for one in report.versions] == [
        (True, 1, 1),
        (False, 1, 1),
    ]


async def test_a_function_that_is_gone_blocks_the_runs_that_may_come_by_it(
    deploy: Deploy,
) -> None:
    async with deploy(OLD) as mesh:
        run = await mesh.start_run(OLD)
        await mesh.run_until_idle()

    async with deploy(in_a_row(reserve=step(reserve), charge=step(charge))) as mesh:
        report = await mesh.check_runs()

    obstacle = obstacle_of(report)
    assert not report.ok
    assert only(report).listed == (
        BlockedRun(run_id=run.id, status="paused", current_step="look", obstacles=(obstacle,)),
    )
    assert (obstacle.code, obstacle.step, obstacle.body, obstacle.parameter) == (
        "missing_body",
        "ship",
        f"{__name__}:ship",
        None,
    )
    assert (obstacle.phase, obstacle.consequence) == ("forward", "waits")


async def test_a_function_that_a_run_has_behind_it_does_not_block_it(deploy: Deploy) -> None:
    async with deploy(OLD) as mesh:
        await mesh.start_run(OLD)
        await mesh.run_until_idle()
        late = await mesh.start_run(OLD)

    async with deploy(in_a_row(charge=step(charge), ship=step(ship))) as mesh:
        found = only(await mesh.check_runs())

    assert (found.runs, found.safe) == (2, 1)
    assert [run.run_id for run in found.listed] == [late.id]


async def test_what_is_called_safe_goes_on_and_what_is_called_blocked_waits(
    deploy: Deploy,
) -> None:
    async with deploy(OLD) as mesh:
        early = await mesh.start_run(OLD)
        await mesh.run_until_idle()
        late = await mesh.start_run(OLD)
    new = in_a_row(charge=step(charge), ship=step(ship))

    async with deploy(new) as mesh:
        (blocked,) = only(await mesh.check_runs()).listed
        await mesh.resume_run(early.id)
        await mesh.run_until_idle()
        ended, waiting = await mesh.inspect_run(early.id), await mesh.inspect_run(late.id)
        again = await mesh.check_runs()

    assert (ended.status, waiting.status) == ("completed", "pending")
    assert blocked.run_id == late.id
    assert (again.runs, again.blocked) == (1, 1)


async def test_a_run_goes_on_between_the_check_and_the_deploy(deploy: Deploy) -> None:
    """What runs meanwhile is on its way past the step that is missing, and needs it no more."""
    gate = Gate()

    async def slow(number: str) -> dict[str, str]:
        await gate.wait()
        return {"reserved": number}

    old = in_a_row(reserve=step(slow), ship=step(ship))
    async with deploy(old) as yesterday, deploy(in_a_row(ship=step(ship))) as today:
        run = await yesterday.start_run(old)
        async with at_work(yesterday, gate):
            before = await today.check_runs()
        await today.run_until_idle()
        after = await today.check_runs()

        assert (await today.inspect_run(run.id)).status == "completed"

    assert obstacle_of(before).step == "reserve"
    assert after.runs == 0


async def test_a_new_parameter_that_nothing_provides_blocks_and_one_with_a_default_does_not(
    deploy: Deploy,
) -> None:
    async def charge_at_home(number: str, currency: str = "EUR") -> str:
        return number + currency

    typed = in_a_row(charge=step(charge, output="charged"))
    async with deploy(typed) as mesh:
        await mesh.start_run(typed)

    async def currency() -> str:
        return "EUR"

    money = step(currency, output="currency")
    async with deploy(in_a_row(money=money, charge=step(charge_in, output="charged"))) as mesh:
        report = await mesh.check_runs()
    async with deploy(in_a_row(charge=step(charge_at_home, output="charged"))) as mesh:
        safe = await mesh.check_runs()

    obstacle = obstacle_of(report)
    assert (obstacle.code, obstacle.step, obstacle.parameter, obstacle.consequence) == (
        "missing_input",
        "charge",
        "currency",
        "waits",
    )
    assert "default" in obstacle.remedy
    assert safe.ok


@attrs.frozen(kw_only=True)
class Priced:
    """The payload of the orders, one release later."""

    number: str = "o1"
    amount: int = 100
    currency: str = "EUR"


async def test_a_field_that_the_payload_of_older_runs_did_not_have_blocks_these_alone(
    deploy: Deploy,
) -> None:
    """Payloads are no part of the fingerprint: a worker would claim them all, and fail some."""
    old = in_a_row(look=pause(), charge=step(charge, output="charged"))
    new = in_a_row(Priced, look=pause(), charge=step(of_the_next_release, output="charged"))
    async with deploy(old) as mesh:
        early = await mesh.start_run(old)
        await mesh.run_until_idle()

    async with deploy(new) as mesh:
        late = await mesh.start_run(new)
        await mesh.run_until_idle()
        report = await mesh.check_runs()
        statuses = await ended(mesh, early, late)

    (blocked,) = only(report).listed
    assert new.definition.fingerprint == old.definition.fingerprint
    assert (blocked.run_id, only(report).runs) == (early.id, 2)
    assert obstacle_of(report).consequence == "fails"
    assert statuses == ["failed", "completed"]


async def test_a_run_that_has_a_field_of_a_later_release_goes_on_and_one_without_it_fails(
    deploy: Deploy,
) -> None:
    """The store has the definition as the first release had it, with none of that field."""
    first = in_a_row(look=pause(), charge=step(charge, output="charged"))
    taking = step(of_the_next_release, output="charged")
    second = in_a_row(Priced, look=pause(), charge=taking)
    third = in_a_row(Priced, look=pause(), charge=taking, ship=step(ship))
    async with deploy(first) as mesh:
        early = await mesh.start_run(first)
        await mesh.run_until_idle()
    async with deploy(second) as mesh:
        late = await mesh.start_run(second)
        await mesh.run_until_idle()

    async with deploy(third) as mesh:
        report = await mesh.check_runs()
        statuses = await ended(mesh, early, late)

    assert first.definition.fingerprint == second.definition.fingerprint
    assert [run.run_id for run in only(report).listed] == [early.id]
    assert (only(report).registered, obstacle_of(report).consequence) == (False, "fails")
    assert statuses == ["failed", "completed"]


async def test_a_run_that_started_without_a_field_is_found_when_a_release_is_rolled_back(
    deploy: Deploy,
) -> None:
    """The store has the definition as the first release had it, whose function asks for it."""
    taking = step(of_the_next_release, output="charged")
    first = in_a_row(Priced, look=pause(), charge=taking)
    second = in_a_row(look=pause(), charge=step(charge, output="charged"))
    longer = in_a_row(Priced, look=pause(), charge=taking, ship=step(ship))
    async with deploy(first) as mesh:
        early = await mesh.start_run(first)
        await mesh.run_until_idle()
    async with deploy(second) as mesh:
        late = await mesh.start_run(second)
        await mesh.run_until_idle()

    async with deploy(longer) as mesh:
        forward = await mesh.check_runs()
    async with deploy(first) as mesh:
        back = await mesh.check_runs()
        statuses = await ended(mesh, early, late)

    assert first.definition.fingerprint == second.definition.fingerprint
    for report in (forward, back):
        assert [run.run_id for run in only(report).listed] == [late.id]
        assert obstacle_of(report).consequence == "fails"
    assert statuses == ["completed", "failed"]


async def test_a_field_of_one_trigger_is_enough_for_the_runs_of_that_trigger(
    deploy: Deploy,
) -> None:
    charging = step(charge, output="charged")
    old = version(
        by_api=manual(payload=Priced),
        look=(look := pause()),
        charge=charging,
        transitions=path(look, charging),
    )
    new = in_a_row(
        Priced, look=pause(), charge=step(of_the_next_release, output="charged"), ship=step(ship)
    )
    async with deploy(old) as mesh:
        by_hand = await mesh.start_run(old, trigger="by_hand")
        by_api = await mesh.start_run(old, trigger="by_api")
        await mesh.run_until_idle()

    async with deploy(new) as mesh:
        report = await mesh.check_runs()
        statuses = await ended(mesh, by_hand, by_api)

    assert [run.run_id for run in only(report).listed] == [by_hand.id]
    assert obstacle_of(report).consequence == "fails"
    assert statuses == ["failed", "completed"]


async def test_a_field_of_the_same_name_does_not_stand_in_for_what_inputs_fetch(
    deploy: Deploy,
) -> None:
    async def quote(number: str) -> dict[str, Any]:
        return {"deal": {"of": number}}

    async def convert(currency: str = "EUR") -> str:
        return currency

    async def convert_strictly(currency: str) -> str:
        return currency

    convert_strictly.__qualname__ = convert.__qualname__
    old, new = (
        in_a_row(
            Priced,
            quote=step(quote),
            look=pause(),
            convert=step(function, output="converted", inputs={"currency": "deal.currency"}),
        )
        for function in (convert, convert_strictly)
    )
    async with deploy(old) as mesh:
        run = await mesh.start_run(old)
        await mesh.run_until_idle()

    async with deploy(new) as mesh:
        report = await mesh.check_runs()
        statuses = await ended(mesh, run)

    assert (only(report).registered, only(report).blocked) == (True, 1)
    assert (obstacle_of(report).parameter, obstacle_of(report).consequence) == ("currency", "fails")
    assert statuses == ["failed"]


async def test_an_open_step_is_judged_by_what_its_run_really_holds(deploy: Deploy) -> None:
    """What a function returns without saying so may be anything; once it is there it is known."""
    old = in_a_row(reserve=step(reserve), look=pause(), charge=step(charge, output="charged"))
    async with deploy(old) as mesh:
        early = await mesh.start_run(old)
        await mesh.run_until_idle()
        await mesh.start_run(old)

    pay = step(of_the_next_release, output="charged")
    async with deploy(in_a_row(reserve=step(reserve), look=pause(), charge=pay)) as mesh:
        found = only(await mesh.check_runs())

    assert [run.run_id for run in found.listed] == [early.id]
    assert (found.runs, found.safe) == (2, 1)


async def test_a_workflow_that_the_code_does_not_have_blocks_all_its_runs(deploy: Deploy) -> None:
    async with deploy(OLD) as mesh:
        run = await mesh.start_run(OLD)

    async with deploy() as mesh:
        report = await mesh.check_runs()

    obstacle = obstacle_of(report)
    assert (obstacle.code, obstacle.step, obstacle.body) == ("unknown_workflow", None, None)
    assert [one.run_id for one in only(report).listed] == [run.id]


async def test_a_run_that_is_being_cancelled_needs_no_code(deploy: Deploy) -> None:
    gate = Gate()

    async def slow(number: str) -> None:
        await gate.wait()

    old = in_a_row(reserve=step(slow), ship=step(ship))
    async with deploy(old) as yesterday, deploy() as today:
        run = await yesterday.start_run(old)
        async with at_work(yesterday, gate):
            await yesterday.cancel_run(run.id)
            report = await today.check_runs()

    assert (report.runs, report.blocked) == (1, 0)


async def test_an_undoing_that_is_gone_blocks_and_is_told_apart(deploy: Deploy) -> None:
    old = in_a_row(
        reserve=step(reserve, compensate=compensation(release)), look=pause(), ship=step(ship)
    )
    async with deploy(old) as mesh:
        await mesh.start_run(old)
        await mesh.run_until_idle()

    async with deploy(in_a_row(reserve=step(reserve), ship=step(ship))) as mesh:
        obstacle = obstacle_of(await mesh.check_runs())

    assert (obstacle.code, obstacle.step, obstacle.phase) == (
        "missing_body",
        "reserve",
        "compensation",
    )
    assert obstacle.body == f"{__name__}:release"
    assert "undoing" in obstacle.message


async def test_a_run_that_undoes_needs_only_what_is_left_to_undo(deploy: Deploy) -> None:
    undone = step(reserve, compensate=compensation(release))
    old = in_a_row(reserve=undone, ship=step(refuse))
    async with deploy(old) as mesh:
        await mesh.start_run(old)
    async with deploy(in_a_row(reserve=step(reserve), ship=step(refuse))) as mesh:
        await mesh.run_until_idle()

    async with deploy(in_a_row(reserve=step(reserve, compensate=compensation(release)))) as mesh:
        enough = await mesh.check_runs()
    async with deploy(in_a_row(reserve=step(reserve), ship=step(refuse))) as mesh:
        lacking = await mesh.check_runs()

    assert (enough.runs, enough.ok) == (1, True)
    assert [run.status for run in only(lacking).listed] == ["compensating"]
    assert [one.phase for one in only(lacking).obstacles] == ["compensation"]


async def test_what_stops_runs_is_told_before_what_stops_only_their_undoing(
    deploy: Deploy,
) -> None:
    old = in_a_row(reserve=step(reserve, compensate=compensation(release)), ship=step(ship))
    async with deploy(old) as mesh:
        await mesh.start_run(old)

    async with deploy(in_a_row(reserve=step(reserve))) as mesh:
        found = only(await mesh.check_runs())

    phases = ["forward", "compensation"]
    assert [one.phase for one in found.listed[0].obstacles] == phases
    assert [one.phase for one in found.obstacles] == phases


async def test_versions_are_counted_apart_by_label_and_definition(deploy: Deploy) -> None:
    first = version(version="1", look=(look := pause()), transitions=path(look))
    relabelled = version(version="2", look=(look := pause()), transitions=path(look))
    longer = in_a_row(look=pause(), ship=step(ship))
    for workflow, count in ((first, 1), (relabelled, 2), (longer, 3)):
        async with deploy(workflow) as mesh:
            await mesh.start_runs(workflow, [{}] * count)

    async with deploy(relabelled) as mesh:
        report = await mesh.check_runs()

    assert [(one.version, one.registered, one.runs, one.safe) for one in report.versions] == [
        ("1", True, 1, 1),
        ("2", True, 2, 2),
        (None, False, 3, 0),
    ]
    assert (report.runs, report.blocked) == (6, 3)


async def test_runs_of_one_workflow_can_be_asked_for_alone(deploy: Deploy) -> None:
    other = version(name="others", look=(look := pause()), transitions=path(look))
    async with deploy(OLD, other) as mesh:
        await mesh.start_run(OLD)
        await mesh.start_run(other)

        by_class = await mesh.check_runs(workflow=other)
        by_name = await mesh.check_runs(workflow="others")
        of_none = await mesh.check_runs(workflow="nobody")

    assert [one.workflow for one in by_class.versions] == ["others"]
    assert by_name == by_class
    assert of_none.versions == ()


@pytest.mark.parametrize(
    ("workflow", "error"), [("", InvalidOptionError), (Order, UnknownWorkflowError)]
)
async def test_what_can_be_no_workflow_is_refused(
    deploy: Deploy, workflow: Any, error: type[Exception]
) -> None:
    async with deploy(OLD) as mesh:
        with pytest.raises(error):
            await mesh.check_runs(workflow=workflow)


async def test_runs_that_are_over_do_not_count(deploy: Deploy) -> None:
    old = in_a_row(ship=step(ship))
    async with deploy(old) as mesh:
        await mesh.start_run(old)
        await mesh.run_until_idle()
        cancelled = await mesh.start_run(old)
        await mesh.cancel_run(cancelled.id)
    failing = in_a_row(ship=step(refuse))
    async with deploy(failing) as mesh:
        await mesh.start_run(failing)
        await mesh.run_until_idle()

    async with deploy() as mesh:
        report = await mesh.check_runs()

    assert report.versions == ()


async def test_a_check_writes_nothing_and_claims_nothing(deploy: Deploy) -> None:
    async with deploy(OLD) as mesh:
        await mesh.start_run(OLD)
    new = in_a_row(charge=step(charge, output="charged"))

    async with deploy(new) as mesh:
        before = await contents(mesh)
        report = await mesh.check_runs()
        after = await contents(mesh)

    assert report.blocked == 1
    assert before == after


async def test_a_hundred_blocked_runs_are_named_and_the_rest_is_counted(deploy: Deploy) -> None:
    async with deploy(OLD) as mesh:
        ids = await mesh.start_runs(OLD, [{}] * (MOST_LISTED + 7))

    async with deploy(in_a_row(reserve=step(reserve))) as mesh:
        found = only(await mesh.check_runs())

    assert len(found.listed) == MOST_LISTED
    assert {run.run_id for run in found.listed} < set(ids)
    assert (found.blocked, found.safe) == (len(ids), 0)
    assert set(found.obstacles.values()) == {len(ids)}


class WatchedStore(MemoryStore):
    """A store that counts what it is asked, and has a run that nobody can read."""

    def __init__(self, *, clock: VirtualClock) -> None:
        super().__init__(clock=clock)
        self.asked: Counter[str] = Counter()
        self.most = 0
        self.damaged: set[str] = set()

    async def list_runs(self, query: RunQuery) -> tuple[RunSummary, ...]:
        self.asked["list_runs"] += 1
        return await super().list_runs(query)

    async def load(self, run_ids: Collection[str]) -> Loaded:
        self.asked["load"] += 1
        self.most = max(self.most, len(run_ids))
        for run_id in self.damaged.intersection(run_ids):
            raise JournalCorruptError(run_id, "a row is not JSON")
        return await super().load(run_ids)

    async def definition(self, fingerprint: str) -> StoredDefinition | None:
        self.asked["definition"] += 1
        return await super().definition(fingerprint)


@pytest.fixture
def store(clock: VirtualClock) -> WatchedStore:
    return WatchedStore(clock=clock)


async def started(store: WatchedStore, clock: VirtualClock, count: int = 1) -> list[str]:
    """Runs of the old release in the store, which has been asked nothing since."""
    async with SquidMesh(store=store, workflows=[OLD], clock=clock) as mesh:
        ids = await mesh.start_runs(OLD, [{}] * count)
    store.asked.clear()
    return ids


async def checked(store: WatchedStore, clock: VirtualClock, *code: Any) -> CheckReport:
    async with SquidMesh(store=store, workflows=code, clock=clock) as mesh:
        return await mesh.check_runs()


@pytest.mark.parametrize("document", [None, "{}", "not JSON"])
async def test_a_definition_that_cannot_be_read_blocks_its_runs(
    store: WatchedStore, clock: VirtualClock, document: str | None
) -> None:
    await started(store, clock)
    definitions = store._tables.definitions
    ((mark, stored),) = definitions.items()
    del definitions[mark]
    if document is not None:
        definitions[mark] = attrs.evolve(stored, document=document)

    elsewhere = await checked(store, clock, in_a_row(reserve=step(reserve)))
    at_home = await checked(store, clock, OLD)

    assert obstacle_of(elsewhere).code == "unreadable_definition"
    assert at_home.ok  # the code has the very definition


async def test_a_run_that_cannot_be_read_is_blocked_and_hides_no_other(
    store: WatchedStore, clock: VirtualClock
) -> None:
    damaged, whole = await started(store, clock, 2)
    store.damaged.add(damaged)

    found = only(await checked(store, clock, in_a_row(reserve=step(reserve))))

    codes = {run.run_id: {one.code for one in run.obstacles} for run in found.listed}
    assert codes == {damaged: {"unreadable_run"}, whole: {"missing_body"}}


MANY = 1_500


async def test_many_safe_runs_are_paged_through_and_none_of_them_is_loaded(
    store: WatchedStore, clock: VirtualClock
) -> None:
    await started(store, clock, MANY)

    report = await checked(store, clock, OLD)

    assert (report.runs, report.ok) == (MANY, True)
    assert store.asked == {"list_runs": MANY // PAGE + 1, "definition": 1}


async def test_many_blocked_runs_are_loaded_a_few_at_a_time(
    store: WatchedStore, clock: VirtualClock
) -> None:
    await started(store, clock, MANY)

    report = await checked(store, clock, in_a_row(reserve=step(reserve)))

    assert (report.runs, report.blocked) == (MANY, MANY)
    assert store.asked == {
        "list_runs": MANY // PAGE + 1,
        "load": MANY // LOADED_AT_ONCE,
        "definition": 1,
    }
    assert store.most == LOADED_AT_ONCE


async def test_pages_join_without_a_gap_over_every_store(deploy: Deploy) -> None:
    async with deploy(OLD) as mesh:
        await mesh.start_runs(OLD, [{}] * MANY)

    async with deploy(in_a_row(charge=step(charge, output="charged"))) as mesh:
        found = only(await mesh.check_runs())

    assert (found.runs, found.safe, found.blocked) == (MANY, 0, MANY)
    assert set(found.obstacles.values()) == {MANY}


FIELDS = {
    CheckReport: "versions",
    VersionCheck: """workflow version fingerprint registered runs safe paused blocked listed
        obstacles""",
    BlockedRun: "run_id status current_step obstacles",
    Obstacle: "code step body parameter phase consequence message remedy",
}


@pytest.mark.parametrize("answer", FIELDS, ids=lambda answer: answer.__name__)
def test_an_answer_has_the_documented_fields_and_is_frozen(answer: Any) -> None:
    assert [field.name for field in attrs.fields(answer)] == FIELDS[answer].split()
    assert answer.__setattr__ is not object.__setattr__
