"""When a failed attempt is tried again."""

from datetime import timedelta

from squidmesh.domain.commands import Failed
from squidmesh.domain.definition import RetryPolicy

_LONGEST_SHIFT = 62


def retry_delay(
    policy: RetryPolicy, failures: int, outcome: Failed, draw: float
) -> timedelta | None:
    """How long to wait behind the *failures*-th failure, or None if it was the last one.

    The delay doubles from ``backoff_min``, and *draw*, between -1 and 1, picks a place within its
    jitter, which never takes it over ``backoff_max``. The step's own ``retry_after`` overrides all
    of that.
    """
    if not outcome.error.retryable or failures >= policy.max_attempts:
        return None
    if outcome.retry_after is not None:
        return max(outcome.retry_after, timedelta(0))
    delay = backoff(policy, failures)
    jittered = max(delay + delay * (policy.jitter * draw), timedelta(0))
    return jittered if policy.backoff_max is None else min(jittered, policy.backoff_max)


def backoff(policy: RetryPolicy, failures: int) -> timedelta:
    """The delay before jitter: ``backoff_min * 2 ** (failures - 1)``, at most ``backoff_max``.

    The exponent is bounded before the power is taken, so that no number of attempts overflows;
    without a maximum the delay stops at a year.
    """
    longest = policy.backoff_max if policy.backoff_max is not None else timedelta(days=365)
    if not policy.backoff_min:
        return timedelta(0)
    doublings = min(failures - 1, _LONGEST_SHIFT)
    if policy.backoff_min > longest // (1 << doublings):
        return max(longest, policy.backoff_min) if policy.backoff_max is None else longest
    return min(policy.backoff_min * (1 << doublings), longest)
