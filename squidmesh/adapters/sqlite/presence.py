"""Who is there, and who may do what only one should do at a time."""

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from squidmesh.codec import encode
from squidmesh.presence import able, definitions_to_text
from squidmesh.records import instant

# Every process start is a new worker; those that were not seen for so long are forgotten.
_FORGOTTEN_AFTER: Final = timedelta(days=7)

_TAKE_LEASE: Final = """
insert into squidmesh_leases (name, owner, until)
values (:name, :owner, :until)
on conflict (name) do update
set owner = excluded.owner,
    until = excluded.until
where squidmesh_leases.owner = excluded.owner
    or squidmesh_leases.until <= :now
"""

_SEEN: Final = """
insert into squidmesh_workers (owner, queues, definitions, seen_at)
values (?, ?, ?, ?)
on conflict (owner) do update
set queues = excluded.queues,
    definitions = excluded.definitions,
    seen_at = excluded.seen_at
"""

_FORGET: Final = """
delete from squidmesh_workers
where seen_at < ?
"""

_WORKERS: Final = """
select owner, definitions
from squidmesh_workers
where seen_at >= ?
order by owner
"""


def take_lease(
    connection: sqlite3.Connection, name: str, owner: str, length: timedelta, now: datetime
) -> bool:
    """Take the lease, or renew one's own; say whether *owner* has it now."""
    values = {
        "name": name,
        "owner": owner,
        "until": instant(now + length),
        "now": instant(now),
    }
    return connection.execute(_TAKE_LEASE, values).rowcount == 1


def worker_seen(
    connection: sqlite3.Connection,
    owner: str,
    queues: Sequence[str],
    definitions: Mapping[str, Collection[str]],
    now: datetime,
) -> None:
    """Note a worker and what it can run."""
    connection.execute(
        _SEEN, (owner, encode(list(queues)), definitions_to_text(definitions), instant(now))
    )
    connection.execute(_FORGET, (instant(now - _FORGOTTEN_AFTER),))


def workers_for(
    connection: sqlite3.Connection, fingerprint: str, since: datetime
) -> dict[str, frozenset[str]]:
    """Return the workers seen *since* then that know the definition, and what each lacks of it."""
    return able(connection.execute(_WORKERS, (instant(since),)), fingerprint)
