"""Reading a database as it was at one instant, while others write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from blocks.connections import Connection

__all__ = ["consistent"]

_BEGIN = {
    # the first query is what takes the snapshot
    "postgresql": ("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY", "SELECT 1"),
    # WITH CONSISTENT SNAPSHOT: the snapshot is taken here, not at the first read
    "mysql": (
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    ),
    "sqlite": ("BEGIN", "SELECT count(*) FROM sqlite_master"),
}
_EXACT = {
    # texts that the server reads back as the same value, whatever this login's settings are
    "postgresql": (
        "SET TIME ZONE 'UTC'",
        "SET datestyle = 'ISO, YMD'",
        "SET intervalstyle = 'postgres'",
        "SET extra_float_digits = 1",
        "SET bytea_output = 'hex'",
        "SET xmloption = 'content'",
        "SET lc_monetary = 'C'",
    ),
    "mysql": ("SET SESSION time_zone = '+00:00'",),
    "sqlite": (),
}


@contextmanager
def consistent(connection: Connection) -> Iterator[sa.Connection]:
    """One open connection inside one read-only snapshot; instants come in UTC. Undone and closed at the end.

    The connection is in autocommit mode around a transaction that was begun in words: commit nothing on it.
    On MySQL only InnoDB tables are part of the snapshot; a table that is altered meanwhile is refused by the server.
    Raises ConnectionUnavailable.
    """
    with connection.engine() as engine:
        autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        with autocommit.connect() as opened:
            for statement in (*_EXACT.get(connection.dialect, ()), *_BEGIN.get(connection.dialect, ("BEGIN",))):
                opened.exec_driver_sql(statement)
            try:
                yield opened
            finally:
                with suppress(sa.exc.SQLAlchemyError):  # a connection that broke has undone it itself
                    opened.exec_driver_sql("ROLLBACK")
