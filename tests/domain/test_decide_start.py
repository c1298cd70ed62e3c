"""How a run begins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squidmesh.domain.commands import AlreadyStarted, StartRun
from squidmesh.domain.decide import decide
from squidmesh.domain.entries import (
    AttemptScheduled,
    Issuer,
    RunIndexed,
    RunnablesPlanned,
    RunStarted,
)
from squidmesh.domain.evolution import rebuild
from squidmesh.domain.starting import alike
from squidmesh.domain.state import RunState, RunStatus, StepStatus
from squidmesh.domain.values import JsonObject
from tests.domain.builders import (
    RUN,
    T0,
    a_chain,
    a_log,
    a_path,
    a_pause,
    a_wait,
    a_workflow,
    an_action,
    an_approval,
    on_error,
    on_ok,
    seconds,
)
from tests.domain.script import Script, types
from tests.domain.strategies import json_values
from tests.domain.workflows import WORKFLOWS, Beginning


def test_a_start_says_everything_in_one_commit() -> None:
    run = Script(a_chain(an_action("load"), an_action("tell")))

    run.start({"account": "a1"})

    assert types(tuple(run.entries)) == [
        "RunStarted",
        "RunIndexed",
        "RunnablesPlanned",
        "AttemptScheduled",
    ]
    assert run.status is RunStatus.PENDING
    assert run.state.revision == 4
    assert run.state.facts.payload == {"account": "a1"}
    assert run.statuses == {"load": StepStatus.SCHEDULED}


def test_what_a_run_was_started_with_is_kept() -> None:
    run = Script(a_chain(an_action("load")))
    command = StartRun(
        run_id=RUN,
        workflow="orders",
        trigger="by_hand",
        fingerprint="f9",
        payload={"a": 1},
        version="2026-11",
        queue="slow",
        priority=7,
        concurrency_key="account-1",
        tags={"team": "billing"},
        schedule={"signal_id": "s1"},
        replayed_from="run-0",
        issuer=Issuer(actor="anna", comment="go"),
    )

    run.do(command)

    assert run.said(RunStarted) == [
        RunStarted(
            at=T0,
            workflow="orders",
            trigger="by_hand",
            fingerprint="f9",
            payload={"a": 1},
            version="2026-11",
            queue="slow",
            priority=7,
            concurrency_key="account-1",
            tags={"team": "billing"},
            schedule={"signal_id": "s1"},
            replayed_from="run-0",
            issuer=Issuer(actor="anna", comment="go"),
        )
    ]
    assert run.said(RunIndexed) == [RunIndexed(at=T0, workflow="orders", queue="slow")]


def test_the_entry_step_is_the_one_that_no_route_leads_to_wherever_it_was_declared() -> None:
    workflow = a_workflow(
        an_action("second"), an_action("first"), transitions=a_path("first", "second")
    )

    run = Script(workflow).start()

    assert list(run.state.steps) == ["first"]


def test_every_step_without_prerequisites_begins_at_once() -> None:
    workflow = a_workflow(
        an_action("march"),
        an_action("feast", after=("march", "sneak")),
        an_action("sneak"),
    )

    run = Script(workflow).start()

    assert run.said(RunnablesPlanned)[0].steps == ("march", "sneak")
    assert list(run.state.steps) == ["march", "sneak"]
    assert run.status is RunStatus.PENDING


def test_the_first_claim_takes_a_run_from_pending_to_running() -> None:
    run = Script(a_chain(an_action("load"), an_action("tell"))).start()

    run.claim("load")

    assert run.status is RunStatus.RUNNING


def test_a_run_with_an_unclaimed_root_runs_as_soon_as_another_is_claimed() -> None:
    run = Script(a_workflow(an_action("march"), an_action("sneak"))).start()

    run.ok("march")

    assert run.status is RunStatus.RUNNING


def test_a_run_that_begins_with_a_pause_is_paused_at_once() -> None:
    run = Script(a_chain(a_pause("hold"), an_action("tell")))

    run.start()

    assert run.status is RunStatus.PAUSED
    assert run.state.begun


def test_a_run_that_begins_with_an_approval_is_paused_at_once() -> None:
    workflow = a_workflow(
        an_approval("review"), transitions=(on_ok("review", None), on_error("review", None))
    )

    run = Script(workflow).start()

    assert run.status is RunStatus.PAUSED


def test_a_run_that_begins_with_a_timer_is_running_at_once() -> None:
    run = Script(a_chain(a_wait("settle", seconds(5)), an_action("tell")))

    run.start()

    assert run.status is RunStatus.RUNNING
    assert run.said(AttemptScheduled)[0].visible_at == T0 + seconds(5)


def test_a_run_that_begins_with_a_log_line_waits_for_a_worker() -> None:
    run = Script(a_chain(a_log("hello")))

    run.start()

    assert run.status is RunStatus.PENDING


def test_a_run_is_not_started_twice() -> None:
    run = Script(a_chain(an_action("load"))).start()
    again = StartRun(run_id=RUN, workflow="orders", trigger="by_hand", fingerprint="f1", payload={})

    refusal = run.refused(again)

    assert refusal == AlreadyStarted(run_id=RUN)


def test_a_step_that_names_a_queue_is_scheduled_there_and_the_others_in_the_runs() -> None:
    run = Script(a_chain(an_action("load", queue="gpu"), an_action("tell")))

    run.start(queue="slow")
    run.ok("load")

    assert [entry.queue for entry in run.said(AttemptScheduled)] == ["gpu", "slow"]


def test_a_run_without_entries_is_pending_and_knows_nothing() -> None:
    state = RunState(run_id=RUN)

    assert state.status is RunStatus.PENDING
    assert state.revision == 0
    assert state.paused_step is None


payloads = st.dictionaries(st.text(max_size=3), json_values, max_size=3)
issuers = st.builds(
    Issuer,
    actor=json_values,
    comment=st.none() | st.text(max_size=3),
    idempotency_key=st.none() | st.text(max_size=3),
)


@pytest.mark.parametrize("beginning", WORKFLOWS, ids=lambda beginning: beginning.name)
@given(payloads=st.tuples(payloads, payloads), issuers=st.tuples(issuers, issuers))
def test_a_start_that_is_like_another_one_comes_to_what_deciding_it_comes_to(
    beginning: Beginning, payloads: tuple[JsonObject, ...], issuers: tuple[Issuer, ...]
) -> None:
    first, second = (
        StartRun(
            run_id=f"run-{number}",
            workflow=beginning.definition.name,
            trigger="by_hand",
            fingerprint="f1",
            payload=payload,
            queue="slow",
            tags={"team": "billing"},
            from_step=beginning.from_step,
            carried=beginning.carried,
            issuer=issuer,
        )
        for number, (payload, issuer) in enumerate(zip(payloads, issuers, strict=True))
    )
    one, other = (
        decide(beginning.definition, RunState(run_id=each.run_id), each, T0).unwrap()
        for each in (first, second)
    )

    derived = alike(one, second.run_id, second.payload, second.issuer)

    assert derived == other
    assert derived.state == rebuild(second.run_id, other.entries)
    assert one == decide(beginning.definition, RunState(run_id="run-0"), first, T0).unwrap()
