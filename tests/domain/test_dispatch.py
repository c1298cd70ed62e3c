"""The dispatch protocol: time, names, and the kinds of contradiction."""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squidmesh.domain.commands import (
    ClaimAttempt,
    ClaimIsStale,
    NotClaimable,
    PutOff,
    SkipReason,
    Succeeded,
)
from squidmesh.domain.dispatch import (
    LATEST,
    LONGEST_GRACE,
    WAKEUP_GRACE,
    Anomaly,
    AnomalyKind,
    anomaly_of,
    claim_order,
    find_attempt,
    first_wakeup,
    holder_of,
    idempotency_key,
    is_due,
    is_held,
    is_lost,
    next_wakeup,
    runnable_key,
    visible_from,
)
from squidmesh.domain.entries import AttemptId
from squidmesh.domain.state import AttemptState, AttemptStatus
from tests.domain.builders import LEASE, RUN, T0, a_chain, a_pause, an_action, seconds
from tests.domain.script import Claim, Script, offer_of, report_of

MOMENT = timedelta(microseconds=1)


def a_job() -> Script:
    """A run of two steps and a pause in between."""
    return Script(a_chain(an_action("work"), a_pause("hold"), an_action("tell"))).start()


def an_attempt(
    *,
    visible_at: datetime = T0,
    status: AttemptStatus = AttemptStatus.SCHEDULED,
    lease_until: datetime | None = None,
    step: str = "work",
    number: int = 1,
) -> AttemptState:
    """An attempt by itself."""
    return AttemptState(
        step=step,
        visit=1,
        number=number,
        status=status,
        queue="default",
        scheduled_at=T0,
        visible_at=visible_at,
        lease_until=lease_until,
    )


def test_an_attempt_is_due_from_its_visible_time_on() -> None:
    attempt = an_attempt(visible_at=T0)

    assert not is_due(attempt, T0 - MOMENT)
    assert is_due(attempt, T0)
    assert is_due(attempt, T0 + LEASE)


def test_only_a_scheduled_attempt_is_due() -> None:
    others = [status for status in AttemptStatus if status is not AttemptStatus.SCHEDULED]

    assert not any(is_due(an_attempt(status=status), T0) for status in others)


def test_a_lease_is_held_before_its_end_and_over_at_it() -> None:
    attempt = an_attempt(status=AttemptStatus.CLAIMED, lease_until=T0)

    assert (is_held(attempt, T0 - MOMENT), is_lost(attempt, T0 - MOMENT)) == (True, False)
    assert (is_held(attempt, T0), is_lost(attempt, T0)) == (False, True)


def test_an_attempt_that_nobody_claimed_is_neither_held_nor_lost() -> None:
    attempt = an_attempt(lease_until=T0)

    assert not is_held(attempt, T0 - MOMENT)
    assert not is_lost(attempt, T0)


def test_a_claim_without_a_known_lease_counts_as_lost() -> None:
    assert is_lost(an_attempt(status=AttemptStatus.CLAIMED), T0)


def test_due_attempts_go_by_priority_then_age_then_name() -> None:
    rows = [
        (0, "run-1", an_attempt(visible_at=T0 + LEASE)),
        (0, "run-1", an_attempt(step="b")),
        (0, "run-1", an_attempt(step="a")),
        (0, "run-1", an_attempt(number=2)),
        (0, "run-0", an_attempt(step="z")),
        (9, "run-9", an_attempt(visible_at=T0 + LEASE)),
    ]

    ordered = sorted(rows, key=lambda row: claim_order(*row))

    assert [(run, one.step, one.number) for _, run, one in ordered] == [
        ("run-9", "work", 1),
        ("run-0", "z", 1),
        ("run-1", "a", 1),
        ("run-1", "b", 1),
        ("run-1", "work", 2),
        ("run-1", "work", 1),
    ]


def test_a_runnable_key_names_one_attempt_and_an_idempotency_key_one_visit() -> None:
    assert runnable_key(RUN, AttemptId("work", 3)) == "run-1:work:3"
    assert idempotency_key(RUN, "work", 1) == "run-1:work"
    assert idempotency_key(RUN, "work", 2) == "run-1:work:2"


@given(st.timedeltas(min_value=timedelta(0)))
def test_no_delay_leads_beyond_the_calendar(delay: timedelta) -> None:
    assert T0 <= visible_from(T0, delay) <= LATEST
    assert first_wakeup(visible_from(T0, delay), T0, timedelta(0)) > T0


def test_a_delay_that_there_is_time_for_is_kept_to_the_microsecond() -> None:
    assert visible_from(T0, seconds(1) + MOMENT) == T0 + seconds(1) + MOMENT
    assert visible_from(T0, LATEST - T0 - MOMENT) == LATEST - MOMENT


def test_attempts_are_found_by_step_visit_and_number() -> None:
    run = a_job()
    run.lose(run.claim("work"))

    found = find_attempt(run.state, AttemptId("work", 2))

    assert found is run.step("work").attempts[1]
    assert found.id == AttemptId("work", 2)
    assert find_attempt(run.state, AttemptId("work", 3)) is None
    assert find_attempt(run.state, AttemptId("work", 0)) is None
    assert find_attempt(run.state, AttemptId("work", 1, visit=2)) is None
    assert find_attempt(run.state, AttemptId("tell", 1)) is None


def test_only_a_claim_has_a_holder() -> None:
    run = a_job()
    before = holder_of(run.state, "work")
    claim = run.claim("work", owner="worker-7")
    during = holder_of(run.state, "work")
    run.report(claim, Succeeded())

    assert (before, during) == (None, "worker-7")
    assert holder_of(run.state, "work") is None
    assert holder_of(run.state, "hold") is None
    assert holder_of(run.state, "nowhere") is None


def untouched(run: Script) -> Claim:
    return run.a_claim("work")


def held_by_another(run: Script) -> Claim:
    run.claim("work")
    return run.a_claim("work")


def put_back(run: Script) -> Claim:
    claim = run.claim("work")
    run.report(claim, PutOff(delay=seconds(5)))
    return claim


def lost(run: Script) -> Claim:
    claim = run.claim("work")
    run.lose(claim)
    return claim


def ended(run: Script) -> Claim:
    claim = run.claim("work")
    run.report(claim, Succeeded())
    return claim


def over(run: Script) -> Claim:
    claim = ended(run)
    run.cancel()
    return claim


def unheard_of(run: Script) -> Claim:
    return run.a_claim("nowhere")


@pytest.mark.parametrize(
    ("lead_to", "kind"),
    [
        (untouched, AnomalyKind.STALE_CLAIM),
        (held_by_another, AnomalyKind.STALE_CLAIM),
        (put_back, AnomalyKind.STALE_CLAIM),
        (lost, AnomalyKind.EXPIRED_CLAIM),
        (ended, AnomalyKind.TERMINAL_ATTEMPT),
        (over, AnomalyKind.TERMINAL_RUN),
        (unheard_of, AnomalyKind.UNKNOWN_RUNNABLE_INTENT),
    ],
)
def test_a_refused_report_contradicts_the_protocol_in_one_of_its_ways(
    lead_to: Callable[[Script], Claim], kind: AnomalyKind
) -> None:
    run = a_job()
    claim = lead_to(run)
    refusal = run.refused(report_of(claim, Succeeded()))

    assert isinstance(refusal, ClaimIsStale)
    anomaly = anomaly_of(run.state, refusal)

    assert anomaly == Anomaly(kind=kind, run_id=RUN, attempt=claim.attempt)


@pytest.mark.parametrize(
    ("lead_to", "kind"),
    [
        (held_by_another, AnomalyKind.ACTIVE_CLAIM),
        (lost, AnomalyKind.TERMINAL_ATTEMPT),
        (ended, AnomalyKind.TERMINAL_ATTEMPT),
        (over, AnomalyKind.TERMINAL_RUN),
        (unheard_of, AnomalyKind.UNKNOWN_RUNNABLE_INTENT),
    ],
)
def test_a_refused_claim_contradicts_the_protocol_in_one_of_its_ways(
    lead_to: Callable[[Script], Claim], kind: AnomalyKind
) -> None:
    run = a_job()
    claim = lead_to(run)
    refusal = run.refused(ClaimAttempt(attempt=claim.attempt, offer=offer_of(claim)))

    assert isinstance(refusal, NotClaimable)
    anomaly = anomaly_of(run.state, refusal)

    assert anomaly == Anomaly(kind=kind, run_id=RUN, attempt=claim.attempt)


def test_a_claim_that_a_store_refused_before_its_time_is_one_of_an_invisible_attempt() -> None:
    run = a_job()
    attempt = AttemptId("work", 1)
    refusal = NotClaimable(attempt=attempt, reason=SkipReason.NOT_YET_VISIBLE, visible_at=T0)

    anomaly = anomaly_of(run.state, refusal)

    assert anomaly.kind is AnomalyKind.ATTEMPT_NOT_VISIBLE


def test_an_engine_that_holds_the_delay_is_reminded_when_it_has_been_silent() -> None:
    later = T0 + seconds(600)

    assert first_wakeup(later, T0, None) == later + WAKEUP_GRACE
    assert first_wakeup(later, T0, seconds(600)) == later + WAKEUP_GRACE
    assert first_wakeup(T0, T0, timedelta(0)) == T0 + WAKEUP_GRACE


def test_an_engine_that_cannot_hold_the_delay_is_told_when_the_attempt_is_due() -> None:
    later = T0 + seconds(600)

    assert first_wakeup(later, T0, seconds(599)) == later


def test_reminders_come_after_thirty_seconds_and_then_half_as_often_each_time() -> None:
    attempt = an_attempt(visible_at=T0)
    moments = [first_wakeup(T0, T0, None)]
    for _ in range(9):
        moments.append(next_wakeup(attempt, moments[-1]))

    waits = [(later - earlier) for earlier, later in pairwise(moments)]

    assert waits[:4] == [seconds(30), seconds(60), seconds(120), seconds(240)]
    assert waits[-2:] == [LONGEST_GRACE, LONGEST_GRACE]


def test_a_reminder_before_the_due_time_waits_half_a_minute() -> None:
    attempt = attrs.evolve(an_attempt(), visible_at=T0 + LEASE)

    assert next_wakeup(attempt, T0) == T0 + WAKEUP_GRACE
