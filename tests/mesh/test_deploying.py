"""What a deploy does to runs that are under way: nothing, but for what nobody can run any more."""

import types
from collections.abc import Callable
from typing import Any

import pytest

from squidmesh import (
    Errored,
    Explanation,
    Retry,
    Runner,
    Workflow,
    compensation,
    manual,
    path,
    pause,
    step,
    wait,
)
from squidmesh.testing.clock import VirtualClock
from tests.mesh.support import (
    MINUTE,
    SECOND,
    Deploy,
    Gate,
    Order,
    at_work,
    contents,
    context_of,
    history,
    step_of,
    step_statuses,
)

pytestmark = pytest.mark.anyio


def version(**body: Any) -> type[Workflow[Any]]:
    """The orders' workflow as one release has it."""
    members: dict[str, Any] = {"by_hand": manual(), **body, "name": "orders"}
    return types.new_class(
        "Orders", (Workflow[Order],), exec_body=lambda space: space.update(members)
    )


def in_a_row(**steps: Any) -> type[Workflow[Any]]:
    return version(**steps, transitions=path(*steps.values()))


def called(name: str, function: Callable[..., object]) -> Callable[..., object]:
    """The same function under a name of its own, as a module of another release has it."""
    function.__name__ = function.__qualname__ = name
    return function


async def reserve(number: str) -> dict[str, str]:
    return {"reserved": number}


async def charge(reserved: str) -> dict[str, str]:
    return {"charged": reserved}


async def ship(charged: str) -> dict[str, str]:
    return {"shipped": charged}


async def take(number: str) -> str:
    return number


async def charge_taken(taken: str) -> str:
    return taken


async def explained(mesh: Any, run: Any, step: str | None = None) -> Explanation:
    found: Explanation = await mesh.explain_run(run.id, step=step)
    return found


async def test_routes_retries_and_steps_of_a_new_release_are_for_new_runs_only(
    deploy: Deploy, clock: VirtualClock
) -> None:
    tries: list[str] = []

    async def busy(number: str) -> object:
        tries.append(number)
        return Errored("busy", retryable=True)

    old = in_a_row(reserve=step(reserve), charge=step(busy, retry=Retry(2, backoff_min=MINUTE)))
    async with deploy(old) as mesh:
        run = await mesh.start_run(old, {"number": "o1"})

    new = in_a_row(charge=step(busy), ship=step(reserve), reserve=step(reserve))
    async with deploy(new) as mesh:
        fresh = await mesh.start_run(new, {"number": "o2"})
        await mesh.run_until_idle()
        waiting = await mesh.explain_run(run.id)
        clock.advance(MINUTE)
        await mesh.run_until_idle()
        ended, failed = await history(mesh, run), await history(mesh, fresh)

    assert (waiting.reason, waiting.step) == ("waiting_for_retry", "charge")
    assert step_statuses(ended) == {"reserve": "completed", "charge": "failed"}
    assert step_statuses(failed) == {"charge": "failed", "ship": "skipped", "reserve": "skipped"}
    assert tries == ["o2", "o1", "o1"]
    assert ended.fingerprint != failed.fingerprint


async def test_a_definition_is_stored_once_for_all_the_runs_that_begin_under_it(
    deploy: Deploy,
) -> None:
    old, new = in_a_row(reserve=step(reserve)), in_a_row(reserve=step(reserve, retry=Retry(2)))
    async with deploy(old) as mesh:
        for _ in range(3):
            await mesh.start_run(old)
    async with deploy(old) as again, deploy(new) as mesh:
        await again.start_run(old)
        await mesh.start_run(new)

        stored = await (await mesh.engine()).store.definitions(["orders"])

    assert set(stored) == {old.definition.fingerprint, new.definition.fingerprint}
    assert len(stored) == 2


async def test_a_run_goes_on_though_a_step_behind_it_is_gone_from_the_code(
    deploy: Deploy,
) -> None:
    old = in_a_row(reserve=step(reserve), look=pause(), ship=step(charge))
    async with deploy(old) as mesh:
        run = await mesh.start_run(old, {"number": "o1"})
        await mesh.run_until_idle()

    async with deploy(version(ship=step(charge, inputs={"reserved": "number"}))) as mesh:
        await mesh.resume_run(run.id)
        await mesh.run_until_idle()
        ended = await history(mesh, run)

    assert ended.status == "completed"
    assert context_of(ended)["charged"] == "o1"


async def test_a_body_that_is_gone_leaves_its_attempt_waiting_and_says_who_could_run_it(
    deploy: Deploy, clock: VirtualClock
) -> None:
    old = in_a_row(reserve=step(reserve), charge=step(charge), ship=step(ship))
    async with deploy(old) as mesh:
        run = await mesh.start_run(old, {"number": "o1"})

    async with deploy(in_a_row(reserve=step(reserve))) as mesh:
        await mesh.run_until_idle()
        clock.advance(2 * MINUTE)
        await mesh.run_until_idle()
        before = await contents(mesh)
        report = await Runner(mesh).perform(
            {"kind": "step", "run_id": run.id, "step": "charge", "attempt": 1}
        )
        waiting, why = await history(mesh, run), await explained(mesh, run)
        assert await contents(mesh) == before

    assert step_statuses(waiting) == {
        "reserve": "completed",
        "charge": "scheduled",
        "ship": "waiting",
    }
    assert (report.status, report.reason) == ("skipped", "unknown_workflow")
    assert (why.reason, why.step) == ("no_worker_for_workflow", "charge")
    assert [action.name for action in why.next_actions] == ["deploy_workflow", "cancel_run"]
    assert f"'charge' ({__name__}:charge)" in why.next_actions[0].call
    assert why.details["function"] == f"{__name__}:charge"
    assert why.summary.endswith(f"no worker seen lately has a fitting {__name__}:charge.")

    async with deploy(old) as mesh:
        await mesh.run_until_idle()
        assert (await mesh.inspect_run(run.id)).status == "completed"


async def test_a_body_that_asks_for_more_than_its_run_can_provide_waits_and_does_not_fail(
    deploy: Deploy,
) -> None:
    old = in_a_row(take=step(take, output="taken"), charge=step(charge_taken, output="charged"))
    async with deploy(old) as mesh:
        run = await mesh.start_run(old, {"number": "o1"})

    async def charge_in(taken: str, currency: str) -> str:
        return taken + currency

    async def currency() -> str:
        return "EUR"

    new = in_a_row(
        take=step(take, output="taken"),
        money=step(currency, output="currency"),
        charge=step(charge_in, output="charged"),
    )
    async with deploy(new) as mesh:
        fresh = await mesh.start_run(new, {"number": "o2"})
        await mesh.run_until_idle()
        assert (await mesh.inspect_run(fresh.id)).status == "completed"
        why = await explained(mesh, run)
    async with deploy(old) as mesh:
        await mesh.run_until_idle()
        ended = await mesh.inspect_run(run.id)

    assert (why.reason, why.step) == ("no_worker_for_workflow", "charge")
    assert context_of(ended)["charged"] == "o1"


async def test_a_worker_of_an_older_release_never_claims_what_it_cannot_run(
    deploy: Deploy,
) -> None:
    old = in_a_row(reserve=step(reserve))
    new = in_a_row(reserve=step(reserve), charge=step(charge))
    async with deploy(old) as yesterday, deploy(new) as today:
        run = await today.start_run(new, {"number": "o1"})

        await yesterday.run_until_idle()
        halfway = await history(yesterday, run)
        why = await explained(today, run)
        await yesterday.run_until_idle()
        assert await history(yesterday, run) == halfway
        await today.run_until_idle()

        ended = await history(today, run)

    assert step_statuses(halfway) == {"reserve": "completed", "charge": "scheduled"}
    assert (why.reason, why.step) == ("step_scheduled", "charge")
    assert step_of(ended, "charge").attempts[0].owner != step_of(ended, "reserve").attempts[0].owner
    assert ended.status == "completed"


async def test_a_worker_that_was_seen_counts_with_what_it_can_run(
    deploy: Deploy, clock: VirtualClock
) -> None:
    old, new = in_a_row(reserve=step(reserve)), in_a_row(reserve=step(reserve), charge=step(charge))
    async with deploy(old) as yesterday, deploy(new) as today, deploy() as operator:
        await today.run_until_idle()
        run = await today.start_run(new, {"number": "o1"})
        await yesterday.run_until_idle()

        seen = await explained(operator, run)
        clock.advance(MINUTE + SECOND)
        await yesterday.run_until_idle()
        unseen = await explained(operator, run)

    assert (seen.reason, unseen.reason) == ("step_scheduled", "no_worker_for_workflow")
    assert unseen.summary.endswith(f"no worker seen lately has a fitting {__name__}:charge.")
    assert "deploy_workflow" not in [action.name for action in seen.next_actions]


async def test_a_branch_that_nobody_can_run_does_not_hold_up_the_others(deploy: Deploy) -> None:
    left, right = step(reserve), step(called("sold", reserve_twice))
    old = version(left=left, right=right, both=step(nothing, after=(left, right)))
    async with deploy(old) as mesh:
        run = await mesh.start_run(old, {"number": "o1"})

    alone = step(reserve)
    async with deploy(version(left=alone, both=step(nothing, after=(alone,)))) as mesh:
        await mesh.run_until_idle()
        waiting, why = await history(mesh, run), await explained(mesh, run)

    assert step_statuses(waiting) == {"left": "completed", "right": "scheduled", "both": "waiting"}
    assert (why.reason, why.step) == ("no_worker_for_workflow", "right")


async def reserve_twice(number: str) -> dict[str, str]:
    return {"twice": number}


async def nothing() -> None: ...


async def test_what_undoes_a_step_may_be_gone_and_waits_for_somebody_who_has_it(
    deploy: Deploy,
) -> None:
    released: list[str] = []

    async def release(reserved: str) -> None:
        released.append(reserved)

    async def refuse(reserved: str) -> object:
        return Errored("no funds")

    old = in_a_row(reserve=step(reserve, compensate=compensation(release)), charge=step(refuse))
    async with deploy(old) as mesh:
        run = await mesh.start_run(old, {"number": "o1"})

    async with deploy(in_a_row(reserve=step(reserve), charge=step(refuse))) as mesh:
        await mesh.run_until_idle()
        why = await explained(mesh, run)
    async with deploy(old) as mesh:
        await mesh.run_until_idle()
        ended = await history(mesh, run)

    assert (why.reason, why.step) == ("compensating", "compensate:reserve")
    assert "at its turn, and no worker seen lately has a fitting" in why.summary
    assert str(why.details["function"]).endswith("release")
    assert [action.name for action in why.next_actions] == [
        "wait_for_compensation",
        "deploy_workflow",
    ]
    assert (ended.status, released) == ("failed", ["o1"])


async def test_a_timer_needs_no_function_and_no_worker_of_the_newest_release(
    deploy: Deploy, clock: VirtualClock
) -> None:
    new = in_a_row(reserve=step(reserve), rest=wait(MINUTE), charge=step(charge))
    async with deploy(in_a_row(reserve=step(reserve))) as yesterday, deploy(new) as today:
        run = await today.start_run(new, {"number": "o1"})
        await yesterday.run_until_idle()
        clock.advance(MINUTE)

        await yesterday.run_until_idle()

        waiting = await history(yesterday, run)

    assert step_statuses(waiting) == {
        "reserve": "completed",
        "rest": "completed",
        "charge": "scheduled",
    }


async def test_a_body_is_chosen_anew_for_every_attempt(deploy: Deploy, clock: VirtualClock) -> None:
    async def broken(number: str) -> object:
        raise OSError(number)

    async def mended(number: str) -> dict[str, str]:
        return {"mended": number}

    old = in_a_row(reserve=step(broken, retry=Retry(2, backoff_min=SECOND)))
    async with deploy(old) as mesh:
        run = await mesh.start_run(old, {"number": "o1"})
        await mesh.run_until_idle()
    clock.advance(SECOND)

    async with deploy(in_a_row(reserve=step(mended))) as mesh:
        await mesh.run_until_idle()
        ended = await history(mesh, run)

    assert [attempt.status for attempt in step_of(ended, "reserve").attempts] == [
        "failed",
        "completed",
    ]
    assert context_of(ended) == {"mended": "o1"}


async def test_a_step_that_runs_while_its_function_is_deployed_away_still_reports(
    deploy: Deploy,
) -> None:
    gate = Gate()

    async def slow(number: str) -> dict[str, str]:
        await gate.wait()
        return {"slow": number}

    old = in_a_row(reserve=step(slow), charge=step(reserve))
    async with deploy(old) as yesterday, deploy(in_a_row(charge=step(reserve))) as today:
        run = await yesterday.start_run(old, {"number": "o1"})
        async with at_work(yesterday, gate):
            await today.run_until_idle()
            running = await explained(today, run)
        await today.run_until_idle()
        ended = await history(today, run)

    assert running.reason == "step_running"
    assert ended.status == "completed"
