"""How long a retry waits."""

from datetime import timedelta
from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from squidmesh.domain.commands import Failed
from squidmesh.domain.definition import RetryPolicy
from squidmesh.domain.retry import backoff, retry_delay
from squidmesh.domain.validation_steps import LONGEST_DURATION
from tests.domain.builders import BROKEN, BUSY, seconds

MOMENT = timedelta(microseconds=1)
MANY = 10**6

durations = st.timedeltas(min_value=timedelta(0), max_value=LONGEST_DURATION)
any_durations = st.timedeltas(min_value=timedelta(0), max_value=timedelta.max)
failure_counts = st.integers(1, 80) | st.integers(1, MANY)


@st.composite
def bounded(draw: st.DrawFn) -> RetryPolicy:
    """A policy with a minimum and a maximum that fits it."""
    low, high = sorted((draw(any_durations), draw(any_durations)))
    return RetryPolicy(max_attempts=MANY + 1, backoff_min=low, backoff_max=high)


@given(bounded(), failure_counts)
@example(RetryPolicy(backoff_min=19 * MOMENT, backoff_max=timedelta.max), 63)
@example(RetryPolicy(backoff_min=MOMENT, backoff_max=timedelta.max), MANY)
def test_no_delay_is_shorter_than_the_minimum_or_longer_than_the_maximum(
    policy: RetryPolicy, failures: int
) -> None:
    delay = backoff(policy, failures)

    assert policy.backoff_max is not None
    assert policy.backoff_min <= delay <= policy.backoff_max


@given(bounded(), st.integers(1, 60))
def test_a_delay_is_the_minimum_doubled_as_often_as_it_failed_before_or_the_maximum(
    policy: RetryPolicy, failures: int
) -> None:
    delay = backoff(policy, failures)

    assert policy.backoff_max is not None
    doubled = (policy.backoff_min // MOMENT) * 2 ** (failures - 1)
    assert delay // MOMENT == min(doubled, policy.backoff_max // MOMENT)


@given(durations, failure_counts)
def test_without_a_maximum_a_delay_never_shrinks_and_never_overflows(
    minimum: timedelta, failures: int
) -> None:
    policy = RetryPolicy(max_attempts=MANY + 2, backoff_min=minimum)

    assert minimum <= backoff(policy, failures) <= backoff(policy, failures + 1)


def test_without_a_minimum_a_retry_is_due_at_once() -> None:
    assert backoff(RetryPolicy(backoff_max=seconds(9)), MANY) == timedelta(0)


def test_delays_without_a_maximum_stop_growing_at_a_year() -> None:
    policy = RetryPolicy(backoff_min=seconds(1))

    assert backoff(policy, 20) == seconds(2**19)
    assert backoff(policy, 40) == timedelta(days=365)


def test_a_minimum_beyond_a_year_is_kept() -> None:
    policy = RetryPolicy(backoff_min=timedelta(days=400))

    assert backoff(policy, 3) == timedelta(days=400)


@given(
    durations,
    durations,
    st.integers(1, MANY),
    st.floats(0, 1),
    st.floats(-1, 1),
)
def test_jitter_moves_a_delay_by_at_most_its_fraction(
    one: timedelta, other: timedelta, failures: int, jitter: float, draw: float
) -> None:
    low, high = sorted((one, other))
    policy = RetryPolicy(max_attempts=MANY + 1, backoff_min=low, backoff_max=high, jitter=jitter)

    delay = retry_delay(policy, failures, Failed(error=BUSY), draw)

    plain = backoff(policy, failures)
    assert delay is not None
    moved = abs((delay - plain) // MOMENT)
    assert moved <= Fraction(jitter) * (plain // MOMENT) + 1
    assert timedelta(0) <= delay <= high


@given(st.integers(1, 20), failure_counts)
def test_there_are_as_many_attempts_as_the_policy_says(maximum: int, failures: int) -> None:
    delay = retry_delay(RetryPolicy(max_attempts=maximum), failures, Failed(error=BUSY), 0.0)

    assert (delay is None) == (failures >= maximum)


def test_a_terminal_error_is_never_tried_again() -> None:
    policy = RetryPolicy(max_attempts=9)

    assert retry_delay(policy, 1, Failed(error=BROKEN, retry_after=seconds(1)), 0.0) is None


def test_the_steps_own_wish_is_taken_as_it_is_and_never_lies_in_the_past() -> None:
    policy = RetryPolicy(max_attempts=9, backoff_min=seconds(5), backoff_max=seconds(6), jitter=1.0)

    late = retry_delay(policy, 1, Failed(error=BUSY, retry_after=seconds(99)), 1.0)
    past = retry_delay(policy, 1, Failed(error=BUSY, retry_after=seconds(-9)), 1.0)

    assert late == seconds(99)
    assert past == timedelta(0)
