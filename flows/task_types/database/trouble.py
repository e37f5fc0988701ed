"""What a database server or its driver complains of, as a sentence and a kind of error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from blocks.connections import Connection
from taskcenter.context import Cancelled, RunContext
from taskcenter.errors import StepFailed

from ..sql_session import said, session_over

__all__ = ["explain", "watched"]

_LOCKED = {"55P03", "40P01", 1205, 1213}
_GONE = {"57P01", "57P02", "57P03", "08006", "08003", 2006, 2013, 1927, 1053}
_DENIED = {"42501", 1044, 1142, 1143, 1227, 1370}
_MISSING = {"42P01", 1146, 1356}
_MOVED = {1412}


def explain(error: BaseException, connection: Connection) -> StepFailed:
    """The failure: locked, connection_lost, permission, missing_table, moved, full, file or sql."""
    original = getattr(error, "orig", None) or error
    number = original.args[0] if original.args and isinstance(original.args[0], int) else None  # MySQL's own
    code = number or getattr(original, "sqlstate", None)
    text = said(original).strip()
    kind, hint = "sql", ""
    lost = code is None and ("connection" in text or "closed" in text)
    if code in _LOCKED or "database is locked" in text or "database table is locked" in text:
        kind, hint = "locked", "; somebody else holds a lock: try again later"
    elif code in _GONE or lost or "server closed the connection" in text or "Lost connection" in text:
        kind, hint = "connection_lost", "; the connection broke in the middle"
    elif code in _DENIED:
        kind, hint = "permission", "; the login of this connection may not do that"
    elif code in _MISSING or "no such table" in text:
        kind = "missing_table"
    elif code in _MOVED:
        kind, hint = "moved", "; a table was altered while it was read: try again"
    elif code in ("53100", 1021, 1114) or "database or disk is full" in text:
        kind, hint = "full", "; the disk of the database is full"
    elif "disk I/O error" in text:
        kind, hint = "file", "; the database's file cannot be written or read: is the disk full?"
    return StepFailed(f"{connection.describe()}: {text}{hint}", error_type=kind)


@contextmanager
def watched(opened: sa.Connection, connection: Connection, ctx: RunContext) -> Iterator[None]:
    """While this holds, a cancel of the run stops what runs on ``opened`` on the server; errors become sentences.

    Raises Cancelled, and StepFailed as :func:`explain` makes it.
    """
    engine = opened.engine
    session = session_over(engine, opened.connection.driver_connection, connection)
    with session.watch(ctx.is_cancelled) as stopped_by:
        try:
            yield
        except (engine.dialect.loaded_dbapi.Error, sa.exc.DBAPIError) as error:
            if stopped_by() == "cancelled":
                raise Cancelled("the run was asked to stop; its statement was stopped on the server") from None
            raise explain(error, connection) from error
