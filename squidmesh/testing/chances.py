"""What hypothesis may choose from when it drives a store: few values, so that they meet."""

from datetime import datetime, timedelta
from typing import Final

import attrs
from hypothesis import strategies as st

from squidmesh.domain.state import RunStatus
from squidmesh.ports.store import RunChange, RunQuery
from squidmesh.testing.builders import key, run_id, start

RUNS: Final = 5
QUEUES: Final = ("default", "mail")
DEFINITIONS: Final = ("a", "b")
OWNERS: Final = ("alice", "bob")

NUMBERS = st.integers(1, RUNS)
CHOICES = st.integers(0, 99)
MOMENTS = st.sampled_from([timedelta(0), timedelta(microseconds=1), timedelta(seconds=5)])
LENGTHS = st.sampled_from([timedelta(seconds=5), timedelta(seconds=10)])
TIMES = st.sampled_from([0.000001, 4.999999, 5, 10])


@attrs.frozen
class Wish:
    """A run that may be started, as far as chance decides about it."""

    number: int
    steps: tuple[str, ...]
    delay: timedelta
    priority: int
    queue: str
    fingerprint: str
    key: str | None
    owed: timedelta | None

    def as_change(self, now: datetime) -> RunChange:
        """The start of the run, at *now*."""
        return start(
            run_id(self.number),
            at=now,
            steps=self.steps,
            visible_at=now + self.delay,
            priority=self.priority,
            queue=self.queue,
            fingerprint=self.fingerprint,
            workflow=f"of-{self.fingerprint}",
            tags={"queue": self.queue},
            keys=() if self.key is None else (key(self.key, run_id(self.number)),),
            wake_at=None if self.owed is None else now + self.owed,
        )


WISHES = st.builds(
    Wish,
    number=NUMBERS,
    steps=st.sampled_from([("load",), ("load", "ship"), ("load", "ship", "bill")]),
    delay=MOMENTS,
    priority=st.integers(-1, 1),
    queue=st.sampled_from(QUEUES),
    fingerprint=st.sampled_from(DEFINITIONS),
    key=st.sampled_from([None, None, "k", "l"]),
    owed=st.none() | MOMENTS,
)


QUERIES = st.builds(
    RunQuery,
    statuses=st.none() | st.frozensets(st.sampled_from(RunStatus)),
    workflow=st.sampled_from([None, "of-a"]),
    tags=st.sampled_from([{}, {"queue": "mail"}]),
    limit=st.integers(1, RUNS),
)
