"""Folding entries, and putting a state together from rows."""

from collections.abc import Iterable
from datetime import timedelta

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squidmesh.domain.commands import Failed, PutOff
from squidmesh.domain.definition import RetryPolicy
from squidmesh.domain.entries import (
    AfterFailure,
    AttemptFailed,
    AttemptHeartbeat,
    Carried,
    Entry,
    LiveWakeupEmitted,
    RunIndexed,
    RunnablesPlanned,
)
from squidmesh.domain.evolution import assemble, evolve, merged, rebuild
from squidmesh.domain.state import (
    RunState,
    RunStatus,
    StepState,
    StepStatus,
    compensated_step,
    compensation_of,
    is_compensation,
)
from squidmesh.domain.values import Json
from tests.domain.builders import (
    BROKEN,
    BUSY,
    LEASE,
    RUN,
    T0,
    a_chain,
    a_pause,
    a_workflow,
    an_action,
    an_approval,
    an_undoable,
    on_error,
    on_ok,
    seconds,
)
from tests.domain.script import Script


def row_of(state: RunState) -> RunState:
    """What a store keeps of a run beside its steps."""
    return attrs.evolve(state, steps={}, context={}, open={}, applied=0)


def a_busy_run() -> Script:
    """A graph of joins with a step in every condition that a step can be in."""
    workflow = a_workflow(
        an_action("done", output="x"),
        an_action("merged", after=("done",)),
        an_action("held"),
        an_action("retried", retry=RetryPolicy(max_attempts=2, backoff_min=seconds(5))),
        an_action("untouched"),
        an_action("put_off"),
    )
    run = Script(workflow).start()
    run.ok("done", [1])
    run.ok("merged", {"y": 1})
    run.claim("held")
    run.fail("retried", BUSY)
    run.defer("put_off", seconds(9), reason="the gateway opens at nine")
    return run


def a_decided_run() -> Script:
    """A run whose two manual steps are decided, with and without an output."""
    workflow = a_workflow(
        a_pause("hold"),
        an_approval("review", output="review"),
        an_action("tell"),
        transitions=(
            on_ok("hold", "review"),
            on_ok("review", "tell"),
            on_error("review", None),
            on_ok("tell", None),
        ),
    )
    run = Script(workflow).start()
    run.resume()
    run.approve()
    return run


def an_undoing_run() -> Script:
    """A failed run of which one step is being undone."""
    run = Script(a_chain(an_undoable("a"), an_undoable("b"), an_action("c"))).start()
    run.ok("a", {"x": 1})
    run.ok("b", {"x": 2})
    run.fail("c")
    run.fail("compensate:b")
    run.claim("compensate:a")
    return run


def a_replayed_run() -> Script:
    """A run that began half-way."""
    workflow = a_chain(an_action("a"), an_action("b", output="b"), an_action("c"))
    carried = (
        Carried(step="a", output={"x": 1, "b": 0}),
        Carried(step="b", output=2, under="b"),
    )
    run = Script(workflow).start(from_step="c", carried=carried)
    run.ok("c", {"x": 3})
    return run


RUNS = {
    "busy": a_busy_run,
    "decided": a_decided_run,
    "undoing": an_undoing_run,
    "replayed": a_replayed_run,
}


@pytest.mark.parametrize("name", RUNS)
def test_the_journal_rebuilds_the_state(name: str) -> None:
    run = RUNS[name]()

    assert rebuild(RUN, run.entries) == run.state


@pytest.mark.parametrize("name", RUNS)
def test_every_beginning_of_a_journal_rebuilds_a_state_of_its_length(name: str) -> None:
    entries = RUNS[name]().entries

    lengths = [rebuild(RUN, entries[:count]).revision for count in range(len(entries) + 1)]

    assert lengths == list(range(len(entries) + 1))


@pytest.mark.parametrize("name", RUNS)
def test_folding_leaves_the_states_before_as_they_were(name: str) -> None:
    entries = RUNS[name]().entries
    states = [RunState(run_id=RUN)]
    for entry in entries:
        states.append(evolve(states[-1], entry))

    assert states == [rebuild(RUN, entries[:count]) for count in range(len(entries) + 1)]


@pytest.mark.parametrize("name", RUNS)
@given(data=st.data())
def test_rows_in_any_order_put_the_same_state_together(name: str, data: st.DataObject) -> None:
    state = RUNS[name]().state
    steps = data.draw(st.permutations(list(state.steps.values())))

    assert assemble(row_of(state), steps) == state


def test_a_run_without_entries_is_rebuilt_from_none() -> None:
    assert rebuild(RUN, ()) == RunState(run_id=RUN)


def test_the_busy_run_holds_what_it_says() -> None:
    """The other tests here lean on it."""
    run = a_busy_run()

    assert run.state.open == {
        StepStatus.RUNNING: 1,
        StepStatus.RETRYING: 1,
        StepStatus.SCHEDULED: 2,
    }
    assert run.state.running == 1
    assert run.state.context == {"x": [1], "y": 1}
    assert run.status is RunStatus.RUNNING


@pytest.mark.parametrize(
    "entry",
    [
        RunnablesPlanned(at=T0, steps=("work",)),
        RunIndexed(at=T0, workflow="orders", queue="default"),
        AttemptHeartbeat(at=T0, step="work", number=1, claim_id="claim-1", lease=LEASE),
        LiveWakeupEmitted(at=T0, step="work", number=1),
    ],
    ids=lambda entry: type(entry).__name__,
)
def test_some_facts_only_count(entry: Entry) -> None:
    run = Script(a_chain(an_action("work"))).start()
    run.claim("work")

    after = evolve(run.state, entry)

    assert after == attrs.evolve(run.state, revision=run.state.revision + 1)


def test_the_first_failure_stays_the_runs_error_whoever_wrote_the_journal() -> None:
    run = Script(a_workflow(an_action("a"), an_action("b"))).start()
    run.claim("a")
    run.claim("b")
    first, second = (
        AttemptFailed(at=T0, step=step, number=1, error=BROKEN, then=AfterFailure.FAIL)
        for step in ("b", "a")
    )

    after = evolve(evolve(run.state, first), second)

    assert after.error == attrs.evolve(BROKEN, step="b")


def test_a_heartbeat_of_the_vocabulary_leaves_the_lease_to_the_store() -> None:
    run = Script(a_chain(an_action("work"))).start()
    claim = run.claim("work")
    beat = AttemptHeartbeat(
        at=T0 + seconds(20), step="work", number=1, claim_id=claim.claim_id, lease=LEASE
    )

    after = evolve(run.state, beat)

    assert after.steps["work"].attempts[0].lease_until == T0 + LEASE


def test_what_belongs_to_the_store_alone_takes_no_part_in_comparisons() -> None:
    run = Script(a_chain(an_action("work"))).start()
    run.claim("work")
    (attempt,) = run.step("work").attempts

    assert attempt == attrs.evolve(attempt, lease_until=T0 + timedelta(days=1), wake_at=T0)
    assert attempt != attrs.evolve(attempt, owner="worker-2")


def test_a_claim_settles_what_was_owed_to_the_attempt() -> None:
    run = Script(a_chain(an_action("work"))).start()
    (attempt,) = run.step("work").attempts
    owed = attrs.evolve(run.step("work"), attempts=(attrs.evolve(attempt, wake_at=T0),))
    run.state = assemble(row_of(run.state), [owed])

    run.claim("work")

    assert run.step("work").attempts[0].wake_at is None


def test_an_attempt_that_ended_has_no_lease_left() -> None:
    run = a_busy_run()

    assert run.step("done").attempts[0].lease_until is None
    assert run.step("done").attempts[0].ended_at == T0
    assert run.step("retried").attempts[0].ended_at == T0


def test_a_state_is_as_old_as_its_last_entry() -> None:
    run = Script(a_chain(an_action("work"))).start()
    run.pass_time(seconds(7))

    run.claim("work")

    assert run.state.updated_at == T0 + seconds(7)
    assert run.step("work").since == T0


@pytest.mark.parametrize(
    ("context", "output", "under", "after"),
    [
        ({"a": 1}, {"b": 2}, None, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": 2}, None, {"a": 2}),
        ({"a": 1}, {}, None, {"a": 1}),
        ({"a": 1}, None, None, {"a": 1}),
        ({"a": 1}, [1], None, {"a": 1}),
        ({"a": 1}, {"a": 2}, "b", {"a": 1, "b": {"a": 2}}),
        ({"a": 1}, None, "a", {"a": None}),
    ],
)
def test_an_output_is_kept_under_its_key_or_merged_key_by_key(
    context: dict[str, Json], output: Json, under: str | None, after: dict[str, Json]
) -> None:
    assert merged(context, output, under) == after


def test_decisions_come_out_the_same_whatever_order_rows_were_read_in() -> None:
    forwards, backwards = a_busy_run(), a_busy_run()
    backwards.state = assemble(row_of(backwards.state), in_reverse(backwards.state.steps.values()))

    forwards.cancel()
    backwards.cancel()

    assert backwards.entries == forwards.entries


def in_reverse(steps: Iterable[StepState]) -> list[StepState]:
    return list(steps)[::-1]


def test_a_compensation_is_named_after_its_step() -> None:
    assert compensation_of("charge") == "compensate:charge"
    assert compensated_step("compensate:charge") == "charge"
    assert is_compensation("compensate:charge")
    assert not is_compensation("charge")


def test_an_attempt_put_off_after_a_failure_keeps_the_error_of_the_step() -> None:
    run = Script(a_chain(an_action("ask", retry=RetryPolicy(max_attempts=3)))).start()
    run.report(run.claim("ask"), Failed(error=BUSY))

    run.report(run.claim("ask"), PutOff(delay=seconds(1)))

    assert run.step("ask").error == BUSY
    assert run.step("ask").attempts[0].error == BUSY


def test_the_reason_of_the_last_deferral_stands_until_the_step_is_taken_up_again() -> None:
    run = Script(a_chain(an_action("ask"))).start()

    run.defer("ask", reason="the carrier is closed")
    first = run.step("ask").deferred
    claim = run.claim("ask")
    held = run.step("ask").deferred
    run.report(claim, PutOff(delay=seconds(1)))
    silent = run.step("ask").deferred

    assert (first, held, silent) == ("the carrier is closed", None, None)
    assert run.step("ask").deferrals == 2


def test_a_deferred_step_that_is_cancelled_gives_no_reason_any_more() -> None:
    run = Script(a_chain(an_action("ask"))).start()
    run.defer("ask", reason="the carrier is closed")

    run.cancel()

    assert run.step("ask").status is StepStatus.CANCELLED
    assert run.step("ask").deferred is None
