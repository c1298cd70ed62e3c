"""What a step body may return besides a value: that it failed, or that it is too early."""

from collections.abc import Mapping
from datetime import timedelta

import attrs


@attrs.frozen
class Errored:
    """The step failed, and says so in its own words instead of raising.

    Without *retryable* the failure is final and takes the error route; with it the step's retry
    policy decides, and *retry_after* overrides its delay. *details* are kept with the run, so
    they must be JSON and hold no secrets.
    """

    message: str
    code: str = attrs.field(default="step_error", kw_only=True)
    details: Mapping[str, object] | None = attrs.field(default=None, kw_only=True)
    retryable: bool = attrs.field(default=False, kw_only=True)
    retry_after: timedelta | None = attrs.field(default=None, kw_only=True)


@attrs.frozen
class Deferred:
    """The step cannot run yet: the same attempt is due again after *delay*, and none is used up."""

    delay: timedelta
    reason: str | None = attrs.field(default=None, kw_only=True)
