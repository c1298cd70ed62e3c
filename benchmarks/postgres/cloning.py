"""Makes a database look as if it had been in use for long: real rows, many times over.

What a run has written since a moment is copied by SQL, with other keys and from ever earlier times.
There is no bloat, and statistics are fresh: a real database of that size is worse.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing, suppress
from typing import Any, Final, LiteralString, TypeAlias

import attrs
import psycopg
from psycopg import sql

Keys: TypeAlias = Mapping[str, Sequence[str]]
"""Which columns of a table are keys of a run or of a part of it; `*` stands for any table."""

Changes: TypeAlias = Mapping[str, Mapping[str, LiteralString]]
"""What a copy has instead in some columns of a table: an expression over the row `t`.

The number of the copy is `g`.
"""

_AT_ONCE: Final = 100_000
_APART: Final = 10_000

_COLUMNS: Final = """
select n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
       a.attidentity <> '' or pg_get_expr(d.adbin, d.adrelid) like 'nextval(%',
       pg_get_serial_sequence(format('%I.%I', n.nspname, c.relname), a.attname)
from pg_attribute a
join pg_class c on c.oid = a.attrelid
join pg_namespace n on n.oid = c.relnamespace
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where c.relkind = 'r' and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
  and n.nspname not in ('pg_catalog', 'information_schema')
order by n.nspname, c.relname, a.attnum
"""


@attrs.frozen
class _Column:
    name: str
    kind: str
    counts_itself: bool
    sequence: str | None


@attrs.frozen
class Original:
    """A database before the run that will be copied."""

    url: str
    began: int

    @classmethod
    def before(cls, url: str) -> "Original":
        """Remember the moment; nobody may write anything else until the run was copied."""
        with closing(psycopg.connect(url, autocommit=True)) as connection:
            return cls(url, _now(connection))

    def copy(self, times: int, keys: Keys, changes: Changes | None = None) -> None:
        """Copy what was written since to the tables that have keys, and look at it once."""
        with closing(psycopg.connect(self.url, autocommit=True)) as connection:
            copies = 0
            for (schema, name), columns in _tables(connection).items():
                found = {*keys.get(name, ()), *keys.get("*", ())}
                table = _Table(
                    sql.Identifier(schema, name), columns, found, (changes or {}).get(name, {})
                )
                if any(column.name in found for column in columns):
                    copies += self._copy(connection, table, times)
            assert copies >= times, "There was nothing to copy."
            connection.execute("vacuum analyze")
            with suppress(psycopg.errors.InsufficientPrivilege):
                connection.execute("checkpoint")  # not to be done while something is measured

    def _copy(self, connection: "psycopg.Connection[Any]", table: "_Table", times: int) -> int:
        now, copies = _now(connection), 0
        connection.execute("set session_replication_role = replica")  # no triggers
        for first in range(1, times + 1, _AT_ONCE):
            last = min(first + _AT_ONCE - 1, times)
            done = connection.execute(table.copying(), (first, last, self.began, now))
            copies += done.rowcount
        connection.execute("reset session_replication_role")
        for column in table.columns:
            if column.sequence is not None and column.name in table.keys:
                moving = sql.SQL("select setval(%s::regclass, (select max({}) from {}))")
                told = moving.format(sql.Identifier(column.name), table.name)
                connection.execute(told, (column.sequence,))
        return copies


@attrs.frozen
class _Table:
    """A table with keys, and what its copies have instead."""

    name: sql.Identifier
    columns: Sequence[_Column]
    keys: AbstractSet[str]
    changes: Mapping[str, LiteralString]

    def copying(self) -> sql.Composed:
        """The statement that copies what was written between two transactions, so many times."""
        taken = [each for each in self.columns if each.name in self.keys or not each.counts_itself]
        return sql.SQL(
            "insert into {} ({}) select {} from {} t, generate_series(%s::bigint, %s::bigint) g"
            " where t.xmin::text::bigint > %s and t.xmin::text::bigint < %s"
        ).format(
            self.name,
            sql.SQL(", ").join(sql.Identifier(column.name) for column in taken),
            sql.SQL(", ").join(self._copied(column) for column in taken),
            self.name,
        )

    def _copied(self, column: _Column) -> sql.Composable:
        name = sql.SQL("t.{}").format(sql.Identifier(column.name))
        if column.name in self.changes:
            return sql.SQL(self.changes[column.name])
        if column.name not in self.keys:
            if column.kind.startswith("timestamp"):
                return sql.SQL("{} - g * interval '10 ms'").format(name)
            return name
        if column.kind == "uuid":
            ending = "overlay({}::text placing lpad(to_hex(g), 10, '0') from 27)::uuid"
            return sql.SQL(ending).format(name)
        if column.kind in ("integer", "bigint"):
            return sql.SQL("{} + g * {}").format(name, sql.Literal(_APART))
        return sql.SQL("{} || '-' || g").format(name)


def _tables(connection: "psycopg.Connection[Any]") -> dict[tuple[str, str], list[_Column]]:
    tables: dict[tuple[str, str], list[_Column]] = {}
    for schema, table, name, kind, counts_itself, sequence in connection.execute(_COLUMNS):
        column = _Column(name, kind, bool(counts_itself), sequence)
        tables.setdefault((schema, table), []).append(column)
    return tables


def _now(connection: "psycopg.Connection[Any]") -> int:
    """A transaction's number as rows bear it, which is its lower half."""
    found = connection.execute("select txid_current() % 4294967296").fetchone()
    assert found is not None
    return int(found[0])
