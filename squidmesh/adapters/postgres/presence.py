"""Who is there, and who may do what only one should do at a time."""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Final

from squidmesh.adapters.postgres.statements import Query, Steps
from squidmesh.codec import encode
from squidmesh.presence import able, definitions_to_text
from squidmesh.records import microseconds

# Every process start is a new worker; those that were not seen for so long are forgotten.
_FORGOTTEN_AFTER: Final = timedelta(days=7)

_TAKE_LEASE: Final = """
with clock as materialized (
    select coalesce($1::timestamptz, clock_timestamp()) as at
)
insert into {schema}.leases (name, owner, until)
select $2::text, $3::text, at + $4::bigint * interval '1 microsecond'
from clock
on conflict (name) do update
set owner = excluded.owner,
    until = excluded.until
where leases.owner = excluded.owner
    or leases.until <= (select at from clock)
returning 1
"""

_SEEN: Final = """
with clock as materialized (
    select coalesce($1::timestamptz, clock_timestamp()) as at
), forgotten as (
    delete from {schema}.workers
    where seen_at < (select at from clock) - $5::bigint * interval '1 microsecond'
        and owner <> $2::text
)
insert into {schema}.workers (owner, queues, definitions, seen_at)
select $2::text, $3::text, $4::text, at
from clock
on conflict (owner) do update
set queues = excluded.queues,
    definitions = excluded.definitions,
    seen_at = excluded.seen_at
"""

_WORKERS: Final = """
select owner, definitions
from {schema}.workers
where seen_at >= coalesce($1::timestamptz, clock_timestamp())
    - $2::bigint * interval '1 microsecond'
order by owner
"""


def take_lease(name: str, owner: str, length: timedelta, now: str | None) -> Steps[bool]:
    """Take the lease, or renew one's own; say whether *owner* has it now."""
    rows = yield Query(_TAKE_LEASE, (now, name, owner, microseconds(length)))
    return bool(rows)


def worker_seen(
    owner: str, queues: Sequence[str], definitions: Mapping[str, Collection[str]], now: str | None
) -> Steps[None]:
    """Note a worker and what it can run."""
    told = (encode(list(queues)), definitions_to_text(definitions))
    yield Query(_SEEN, (now, owner, *told, microseconds(_FORGOTTEN_AFTER)))


def workers_for(
    fingerprint: str, within: timedelta, now: str | None
) -> Steps[dict[str, frozenset[str]]]:
    """Return the workers seen *within* the time that know it, and what each lacks of it."""
    return able((yield Query(_WORKERS, (now, microseconds(within)))), fingerprint)
