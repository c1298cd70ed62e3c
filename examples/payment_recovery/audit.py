"""The books against the gateway: was anything lost, was anything done twice?

The runs say what they believe to have done; the gateway says what it did. Nothing here trusts the
demo that made both: it compares the histories of the runs with what `GET /effects` answered.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

import attrs

from squidmesh import Attempt, Run, Step

FINAL: Final = ("completed", "failed", "cancelled")
ASKING: Final = ("ask", "credit", "collect", "tell", "compensate:credit")
"""The steps that ask the gateway for something."""

Record: TypeAlias = Mapping[str, Any]
"""What the gateway knows of one idempotency key, as it answers it."""


@attrs.frozen(kw_only=True)
class Repetition:
    """A key under which the gateway was asked more than once, and why."""

    key: str
    kind: str
    invoice: str
    requests: int
    effects: int
    retries: int
    killed: int
    lost: int
    attempts: int

    @property
    def is_explained(self) -> bool:
        """Each attempt asks once, so there cannot be more requests than attempts."""
        return self.requests <= self.attempts

    @property
    def causes(self) -> Mapping[str, int]:
        """How often which cause made an attempt come again."""
        times = {"kill": self.killed, "lost lease": self.lost - self.killed, "retry": self.retries}
        return {cause: n for cause, n in times.items() if n} if self.is_explained else {}


@attrs.frozen
class Check:
    """One thing that has to be so; *exceptions* are those for which it is not."""

    promise: str
    exceptions: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether there is no exception."""
        return not self.exceptions


@attrs.frozen(kw_only=True)
class Audit:
    """What came of comparing."""

    keys: int
    requests: int
    effects: Mapping[str, int]
    lost_attempts: int
    repetitions: tuple[Repetition, ...]
    checks: tuple[Check, ...]

    @property
    def is_clean(self) -> bool:
        """Whether all that has to be so is so."""
        return all(check.holds for check in self.checks)


def audit(runs: Sequence[Run], records: Sequence[Record], *, killed_at: datetime | None) -> Audit:
    """Compare the histories of *runs* with the gateway's *records*.

    An attempt that was lost is the kill's doing if it was claimed before *killed_at*.
    """
    steps = {f"{run.id}:{step.name}": step for run in runs for step in run.steps or ()}
    repetitions = tuple(
        _repetition(record, steps.get(record["key"]), killed_at)
        for record in records
        if record["requests"] > 1
    )
    done = Counter[str]()
    for record in records:
        done[record["kind"]] += record["effects"]
    return Audit(
        keys=len(records),
        requests=sum(record["requests"] for record in records),
        effects=dict(done),
        lost_attempts=sum(_lost(step) for step in steps.values()),
        repetitions=repetitions,
        checks=tuple(_checks(runs, records, steps, repetitions)),
    )


def _checks(
    runs: Sequence[Run],
    records: Sequence[Record],
    steps: Mapping[str, Step],
    repetitions: Iterable[Repetition],
) -> Iterator[Check]:
    believed = {key for key, step in steps.items() if _had_effect(step)}
    done = {record["key"] for record in records if record["effects"]}
    yield Check("every run has ended", _ids(run for run in runs if run.status not in FINAL))
    yield Check(
        "a run has failed only if the card refused for good, and its credit was withdrawn",
        _ids(run for run in runs if run.status == "failed" and not _is_undone(run)),
    )
    yield Check(
        "what a run recorded as done, the gateway has done: nothing is lost",
        tuple(sorted(believed - done)),
    )
    yield Check(
        "what the gateway has done, a run recorded: nothing is forgotten",
        tuple(sorted(done - believed)),
    )
    yield Check(
        "under no key was anything done twice",
        tuple(record["key"] for record in records if record["effects"] > 1),
    )
    yield Check("no invoice was charged, credited or receipted twice", _done_twice(records))
    yield Check(
        "each request that came again is explained by a retry or by the kill",
        tuple(one.key for one in repetitions if not one.is_explained),
    )


def _ids(runs: Iterable[Run]) -> tuple[str, ...]:
    return tuple(run.id for run in runs)


def _had_effect(step: Step) -> bool:
    if step.name not in ASKING or step.status != "completed":
        return False
    refused = isinstance(step.output, dict) and step.output.get("status") == "refused"
    return not refused


def _is_undone(run: Run) -> bool:
    code = run.error["code"] if run.error is not None else None
    undone = any(
        step.name == "compensate:credit" and step.status == "completed" for step in run.steps or ()
    )
    return code == "card_refused" and undone


def _done_twice(records: Iterable[Record]) -> tuple[str, ...]:
    """Invoices of which the gateway did the same twice, under whatever keys."""
    done = Counter[tuple[str, str]]()
    for record in records:
        done[record["kind"], record["invoice"]] += record["effects"]
    return tuple(f"{kind} {invoice}" for (kind, invoice), times in done.items() if times > 1)


def _repetition(record: Record, step: Step | None, killed_at: datetime | None) -> Repetition:
    attempts = step.attempts if step is not None else ()
    # Another one followed all but the last, because they had failed or were lost.
    superseded = Counter(attempt.status for attempt in attempts[:-1])
    return Repetition(
        key=record["key"],
        kind=record["kind"],
        invoice=record["invoice"],
        requests=record["requests"],
        effects=record["effects"],
        retries=superseded["failed"],
        killed=sum(1 for attempt in attempts[:-1] if _is_killed(attempt, killed_at)),
        lost=superseded["lost"],
        attempts=len(attempts),
    )


def _is_killed(attempt: Attempt, killed_at: datetime | None) -> bool:
    claimed_at = attempt.claimed_at if attempt.status == "lost" else None
    return killed_at is not None and claimed_at is not None and claimed_at <= killed_at


def _lost(step: Step) -> int:
    return sum(1 for attempt in step.attempts if attempt.status == "lost")
