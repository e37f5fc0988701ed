"""The two ends of a transfer or a comparison: an open connection each, and the watcher that can stop what they run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from blocks.connections import Connection
from taskcenter.context import Cancelled, RunContext
from taskcenter.errors import StepFailed, TaskCenterError, TimedOut

from ..database.snapshot import consistent
from ..database.trouble import explain
from ..sql_session import said

__all__ = ["NAMES", "UNTOUCHED", "Guard", "Side", "guarded", "in_database", "open_reader", "open_writer"]

NAMES = {"postgresql": "PostgreSQL", "mysql": "MySQL/MariaDB", "sqlite": "SQLite"}
UNTOUCHED = "the target is as it was"
_POLL_SECONDS = 0.1
_WRITER = {
    "postgresql": ("SET TIME ZONE 'UTC'", "SET datestyle = 'ISO, YMD'", "SET intervalstyle = 'postgres'"),
    "mysql": (
        "SET SESSION time_zone = '+00:00'",
        # a value that does not fit is an error, and a 0 in an auto-increment column is a 0
        "SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO')",
        "SET NAMES utf8mb4",
    ),
    "sqlite": (),
}


@dataclass(frozen=True, slots=True)
class Side:
    """One open connection in autocommit mode; ``driver`` is the driver's own."""

    connection: Connection
    opened: sa.Connection
    driver: Any
    errors: type[Exception]

    @property
    def dialect(self) -> str:
        return self.connection.dialect

    def run(self, sql: str, values: Sequence[Any] | None = None) -> Any:
        """Run one statement on the driver; the number of rows it changed, or -1."""
        with closing(self.driver.cursor()) as cursor:
            cursor.execute(sql) if values is None else cursor.execute(sql, values)
            return cursor.rowcount

    def rows(self, sql: str, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
        with closing(self.driver.cursor()) as cursor:
            cursor.execute(sql) if values is None else cursor.execute(sql, values)
            return [tuple(row) for row in cursor.fetchall()]

    def value(self, sql: str, values: Sequence[Any] | None = None) -> Any:
        """The first cell of the first row; None without a row."""
        found = self.rows(sql, values)
        return found[0][0] if found else None

    def stop(self) -> None:
        """Stop the running statement on the server. Called from another thread."""
        if self.dialect == "postgresql":
            self.driver.cancel_safe(timeout=5)
        elif self.dialect == "sqlite":
            self.driver.interrupt()
        elif self.dialect == "mysql":
            with self.connection.engine() as engine, closing(engine.raw_connection()) as other:
                other.cursor().execute(f"KILL QUERY {int(self.driver.thread_id())}")


def in_database(connection: Connection, database: str | None, role: str) -> Connection:
    """The connection, pointed at another database of its server. A SQLite file has only one."""
    if not database or database == connection.database:
        return connection
    if connection.dialect == "sqlite":
        raise StepFailed(
            f"the {role} connection {connection.name!r} is a SQLite file, which holds one database; "
            f"leave {role}Database out, or save a connection for the other file",
            error_type="configuration",
        )
    return replace(connection, database=database)


def _check(connection: Connection, role: str) -> None:
    if connection.dialect not in NAMES:
        raise StepFailed(
            f"the {role} connection {connection.name!r} is a {connection.dialect} database: "
            "this works between PostgreSQL, MySQL/MariaDB and SQLite",
            error_type="unsupported",
        )


@contextmanager
def open_reader(connection: Connection, role: str = "source") -> Iterator[Side]:
    """A read-only side that sees one instant of the database to its end. Raises ConnectionUnavailable."""
    _check(connection, role)
    with consistent(connection) as opened:
        yield _side(connection, opened)


@contextmanager
def open_writer(connection: Connection) -> Iterator[Side]:
    """A side to write to; transactions are begun in words. What was not committed is undone at the end."""
    _check(connection, "target")
    if connection.dialect == "mysql":
        connection = replace(connection, options={**connection.options, "local_infile": True})
    with connection.engine() as engine, engine.execution_options(isolation_level="AUTOCOMMIT").connect() as opened:
        side = _side(connection, opened)
        for statement in _WRITER.get(connection.dialect, ()):
            side.run(statement)
        try:
            yield side
        finally:
            with suppress(Exception):  # a lost connection has undone it itself; SQLite says when nothing is open
                side.run("ROLLBACK")


def _side(connection: Connection, opened: sa.Connection) -> Side:
    return Side(connection, opened, opened.connection.driver_connection, opened.dialect.loaded_dbapi.Error)


class Guard:
    """Stops the sides on cancel and at the deadline, and turns what the drivers then say into what happened.

    ``left`` is what the user is told of the target when it ends early.
    """

    def __init__(self, ctx: RunContext, seconds: float, what: str) -> None:
        self._ctx = ctx
        self._seconds = seconds
        self._what = what
        self._end = time.monotonic() + seconds if seconds else None
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._sides: list[Side] = []
        self.reason: str | None = None
        self.left = UNTOUCHED

    def add(self, side: Side) -> Side:
        """From now on ``side`` is stopped with the others."""
        with self._lock:
            self._sides.append(side)
        return side

    def drop(self, side: Side) -> None:
        with self._lock:
            self._sides.remove(side)

    @contextmanager
    def holding(self, side: Side) -> Iterator[Side]:
        self.add(side)
        try:
            yield side
        finally:
            self.drop(side)

    def check(self) -> None:
        """Between batches: raises Cancelled or TimedOut when it is time."""
        if self.reason is None and self._end is not None and time.monotonic() > self._end:
            self.reason = "timeout"
        if self.reason == "timeout":
            raise TimedOut(f"{self._what} was stopped after {self._seconds:g} s; {self.left}")
        if self.reason == "cancelled":
            raise Cancelled(f"{self._what} was stopped; {self.left}")
        self._ctx.checkpoint()

    def say(self, sentence: str) -> None:
        """One line for the run's log."""
        self._ctx.logger.info(sentence)

    def look(self) -> None:
        while not self._done.wait(_POLL_SECONDS):
            if self.reason is None:
                if _asks(self._ctx.is_cancelled):
                    self.reason = "cancelled"
                elif self._end is not None and time.monotonic() > self._end:
                    self.reason = "timeout"
            if self.reason is not None:
                # Again and again: a request that arrives between two statements is lost.
                with self._lock:
                    sides = list(self._sides)
                for side in sides:
                    with suppress(Exception):
                        side.stop()
                self._done.wait(0.4)

    def close(self) -> None:
        self._done.set()

    def explain(self, error: Exception, where: str) -> Exception:
        """The error that the user sees for ``error``: why it was stopped, or what the server said."""
        if isinstance(error, TaskCenterError | Cancelled) and self.reason is None:
            return error
        if self.reason is not None:
            try:
                self.check()
            except (TimedOut, Cancelled) as known:
                return known
        if isinstance(error, OSError):
            return StepFailed(f"{where}: {error.strerror or error}", error_type="file")
        with self._lock:
            side = next((s for s in self._sides if isinstance(error, s.errors)), None)
        return StepFailed(f"{where}: {said(error)}", error_type=_kind(error, side))


def _asks(is_cancelled: Callable[[], bool] | None) -> bool:
    try:
        return is_cancelled is not None and is_cancelled()
    except Exception:  # whoever cannot be asked has not cancelled; the watcher must live on for the deadline
        return False


_CONSTRAINTS = (1048, 1062, 1451, 1452, 3819, 4025)
"""MySQL's numbers for NULL, doubled keys, foreign keys and checks."""


def _kind(error: Exception, side: Side | None) -> str:
    """``error_type`` for what a driver says."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else None
    broken = str(getattr(error, "sqlstate", None) or "").startswith("23") or number in _CONSTRAINTS
    if broken or "constraint failed" in str(error):
        return "constraint"
    return explain(error, side.connection).error_type if side is not None else "sql"


@contextmanager
def guarded(ctx: RunContext, seconds: float, what: str) -> Iterator[Guard]:
    """A guard with its watching thread, ended at the end."""
    guard = Guard(ctx, seconds, what)
    watcher = threading.Thread(target=guard.look, name="data-watch", daemon=True)
    watcher.start()
    try:
        yield guard
    finally:
        guard.close()
        watcher.join()
