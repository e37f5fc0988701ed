"""Which rows are new since the last time, so that none is lost or taken twice while others insert.

The mark is the greatest value that the target holds; it moves in the same transaction as the rows. The upper bound is
a value below which nothing can appear any more: the greatest one that was visible, once all transactions have ended
that were writing to the table at that moment. That needs values that only grow: a sequence or auto-increment column
(without a cache per session), or the time of the insert.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from blocks.connections import Connection
from taskcenter.errors import StepFailed

from ..database.model import Column, Table, TypeKind
from ..database.quoting import qualified, quote
from . import lines
from .side import Guard, Side, open_reader
from .sources import Reading, chunks
from .texts import Field

__all__ = ["MARKS", "Window", "check_column", "mark_of", "settle"]

MARKS = (TypeKind.INTEGER, TypeKind.DECIMAL, TypeKind.DATE, TypeKind.TIMESTAMP, TypeKind.TIMESTAMP_TZ)
_POLL_SECONDS = 0.05
_STALE_SECONDS = 0.12


@dataclass(frozen=True, slots=True)
class Window:
    """From (exclusive) and to (inclusive), as neutral texts; None: no bound, or nothing there."""

    above: str | None
    up_to: str | None

    def condition(self, column: Column, dialect: str) -> str:
        """The WHERE that keeps to it."""
        name = quote(column.name, dialect)
        if self.up_to is None:
            return "1 = 0"
        upper = f"{name} <= {_literal(self.up_to, column)}"
        return upper if self.above is None else f"{upper} AND {self.lower(column, dialect)}"

    def lower(self, column: Column, dialect: str) -> str:
        """The condition of the lower bound alone."""
        assert self.above is not None
        return f"{quote(column.name, dialect)} > {_literal(self.above, column)}"


def _literal(text: str, column: Column) -> str:
    if column.type.kind in (TypeKind.INTEGER, TypeKind.DECIMAL):
        return text
    return "'" + text.replace("'", "''") + "'"


def check_column(source: Column, target: Column, what: str = "watermark") -> None:
    """StepFailed for a column that cannot be a mark. ``what`` it is for, in the sentence and as the kind of error."""
    for role, column in (("source", source), ("target", target)):
        if column.type.kind not in MARKS:
            raise StepFailed(
                f"the {what} column {column.name!r} of the {role} is of the type {column.type.sql or 'any'}: "
                "a mark is a whole or decimal number, a date or a timestamp",
                error_type=what,
            )
    fine = 6 if source.type.precision is None else source.type.precision
    if source.type.kind in (TypeKind.TIMESTAMP, TypeKind.TIMESTAMP_TZ) and (
        target.type.kind is TypeKind.DATE or (target.type.precision is not None and target.type.precision < fine)
    ):
        raise StepFailed(
            f"the {what} column {source.name!r} is finer than {target.name!r} in the target ({target.type.sql}), "
            "which would forget parts of a second",
            error_type=what,
        )


def mark_of(side: Side, table: Table, column: Column, kind: Column) -> str | None:
    """The greatest value of ``column`` in ``table``, as the text for a column like ``kind``."""
    name = quote(column.name, side.dialect)
    query = f"SELECT max({name}) AS {name} FROM {qualified(table.schema, table.name, side.dialect)}"
    made = [Field(column, kind)]
    for data, _ in chunks(side, Reading(query=query), made, "mark"):
        for row in lines.rows(data):
            return row[0]
    return None


def settle(connection: Connection, table: Table, column: Column, guard: Guard) -> str | None:
    """The upper bound; waits for the transactions that are writing to the table now. None when it is empty."""
    with open_reader(connection) as side, guard.holding(side):
        top = mark_of(side, table, column, column)
        writers = _writers(side, table, guard)
    waited = time.monotonic()
    while writers:
        guard.check()
        if time.monotonic() - waited > 2.0:
            guard.say(
                f"waiting for {len(writers)} transaction{'s' if len(writers) > 1 else ''} that write to {table.label}: "
                "their rows may still come in below the mark"
            )
            waited = time.monotonic() + 30.0
        time.sleep(_POLL_SECONDS)
        with open_reader(connection) as side, guard.holding(side):
            now = _writers(side, table, guard)
            writers = [w for w in writers if w in now]
    return top


def _writers(side: Side, table: Table, guard: Guard) -> Sequence[str]:
    """The transactions that may have rows of the table in hand. SQLite has one writer and no such gap."""
    if side.dialect == "postgresql":
        name = qualified(table.schema, table.name, "postgresql")
        return [
            str(row[0])
            for row in side.rows(
                "SELECT DISTINCT l.virtualtransaction FROM pg_locks l WHERE l.locktype = 'relation' AND l.granted "
                "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
                "AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') "
                "AND (l.relation = %s::regclass OR l.relation IN (SELECT relid FROM pg_partition_tree(%s::regclass))) "
                "AND l.pid <> pg_backend_pid()",
                [name, name],
            )
        ]
    return _writers_of_mysql(side, guard) if side.dialect == "mysql" else []


def _writers_of_mysql(side: Side, guard: Guard) -> Sequence[str]:
    """InnoDB shows a copy of its list, a new one only when nobody has looked for 0.1 s. One that does not show the
    transaction of ``side`` itself is older than what ``side`` sees, and may lack a writer."""
    waited = time.monotonic()
    while True:
        found = side.rows(
            "SELECT trx_id, trx_mysql_thread_id = connection_id(), trx_rows_modified > 0 OR trx_tables_locked > 0 "
            "FROM information_schema.innodb_trx"
        )
        if any(own for _, own, _ in found):
            return [str(number) for number, own, writes in found if writes and not own]
        guard.check()
        if time.monotonic() - waited > 2.0:
            guard.say("waiting for the server's list of transactions, which somebody else reads all the time")
            waited = time.monotonic() + 30.0
        time.sleep(_STALE_SECONDS)
