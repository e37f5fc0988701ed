"""One open driver connection for running statements: time-outs and cancelling on the server, rows as a stream.

``watch`` looks from a second thread: a statement that runs too long, or whose run is cancelled, is stopped on
the server (cancel request, ``KILL QUERY``, ``interrupt``), whatever the driver is blocked in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from blocks.connections import Connection

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

__all__ = ["Result", "Session", "open_session", "said", "session_over"]

_BATCH = 1_000
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 0.3
"""How much later than the server's own time-out the watcher acts, so that the server's clearer error comes first."""

Stop = Literal["timeout", "cancelled"]


@dataclass(frozen=True, slots=True)
class Result:
    """One answer of the server: a result set (columns, rows as they come) or a number of changed rows."""

    columns: list[str] | None
    rows: Iterator[Sequence[Any]]
    changed: int = 0


class Session:
    """A driver connection in autocommit mode; transactions are begun and ended by the caller, in words."""

    def __init__(self, driver: Any, connection: Connection, timeout: float, errors: type[Exception]) -> None:
        self.driver = driver
        self.connection = connection
        self.timeout = timeout
        self.errors = errors

    def results(self, sql: str, values: Mapping[str, Any] | None, *, reads: bool) -> Iterator[Result]:
        """Send one statement and give its results, each to be read before the next is asked for.

        ``reads`` says that rows are expected, so that a driver may fetch them in pieces.
        """
        cursor = self.driver.cursor()
        try:
            cursor.execute(sql) if values is None else cursor.execute(sql, values)
            yield _result(cursor)
        finally:
            cursor.close()

    def prepare(self) -> None:
        """Autocommit on, and the server's own time-out set, where it has one."""
        if hasattr(self.driver, "autocommit") and not callable(self.driver.autocommit):
            self.driver.autocommit = True

    def begin(self, *, writes: bool) -> None:
        """Begin a transaction; ``writes`` says whether it may change anything."""
        self.plain("BEGIN")

    def commit(self) -> None:
        self.plain("COMMIT")

    def rollback(self) -> None:
        """Undo; a connection that is already lost has undone it itself."""
        with suppress(Exception):
            self.plain("ROLLBACK")

    def plain(self, sql: str) -> None:
        cursor = self.driver.cursor()
        cursor.execute(sql)
        cursor.close()

    def stop(self) -> None:
        """Stop the running statement on the server. Called from another thread."""
        self.driver.cancel()

    def timed_out(self, error: BaseException) -> bool:
        """Whether the server's own time-out is what ``error`` says."""
        return False

    @contextmanager
    def watch(self, is_cancelled: Callable[[], bool] | None) -> Iterator[Callable[[], Stop | None]]:
        """Watch over one statement; the yielded function tells what stopped it, None when nothing did."""
        done = threading.Event()
        stopped: list[Stop] = []
        deadline = time.monotonic() + self.timeout + _GRACE_SECONDS if self.timeout else None

        def look() -> None:
            while not done.wait(_POLL_SECONDS):
                if not stopped and _asks(is_cancelled):
                    stopped.append("cancelled")
                if not stopped and deadline is not None and time.monotonic() > deadline:
                    stopped.append("timeout")
                if stopped and not done.is_set():
                    # Again and again: a request that arrives between two steps of the server is lost.
                    with suppress(Exception):
                        self.stop()
                    done.wait(0.4)

        watcher = threading.Thread(target=look, name="sql-watch", daemon=True)
        watcher.start()
        try:
            yield lambda: stopped[0] if stopped else None
        finally:
            done.set()
            watcher.join()


class _PostgreSQL(Session):
    def results(self, sql: str, values: Mapping[str, Any] | None, *, reads: bool) -> Iterator[Result]:
        import psycopg

        with self.driver.cursor() as cursor:
            if not reads:
                cursor.execute(sql, values)
                yield _result(cursor)
                return
            # execute() would hold the whole result in memory
            rows = cursor.stream(sql, values, size=_BATCH if psycopg.capabilities.has_stream_chunked() else 1)
            first = next(rows, None)
            yield Result(_columns(cursor) or [], iter(()) if first is None else chain((first,), rows))

    def prepare(self) -> None:
        self.driver.autocommit = True
        self.driver.execute("SELECT set_config('statement_timeout', %s, false)", [str(int(self.timeout * 1000))])
        with suppress(Exception):  # servers before 14, and some systems, cannot
            # when this process is killed nobody can cancel: the server looks by itself whether we are there
            self.driver.execute("SELECT set_config('client_connection_check_interval', '2000', false)")

    def stop(self) -> None:
        self.driver.cancel_safe(timeout=5)

    def timed_out(self, error: BaseException) -> bool:
        return getattr(error, "sqlstate", None) == "57014" and "statement timeout" in str(error)


class _MySQL(Session):
    again: Callable[[], Any]
    """Opens a second connection to the same server."""

    def results(self, sql: str, values: Mapping[str, Any] | None, *, reads: bool) -> Iterator[Result]:
        from pymysql.cursors import SSCursor

        cursor = self.driver.cursor(SSCursor)
        try:
            cursor.execute(sql, values)
            yield _result(cursor)
            while cursor.nextset():  # a CALL gives several
                yield _result(cursor)
        finally:
            cursor.close()

    def prepare(self) -> None:
        self.driver.autocommit(True)
        with self.driver.cursor() as cursor:
            if "mariadb" in self.driver.get_server_info().lower():
                cursor.execute("SET SESSION max_statement_time = %s", [float(self.timeout)])
            else:  # MySQL's own limit is for SELECT only; the watcher's KILL QUERY is for all
                cursor.execute("SET SESSION max_execution_time = %s", [int(self.timeout * 1000)])

    def begin(self, *, writes: bool) -> None:
        self.plain("START TRANSACTION")

    def stop(self) -> None:
        with self.again() as other:
            other.cursor().execute(f"KILL QUERY {int(self.driver.thread_id())}")

    def timed_out(self, error: BaseException) -> bool:
        # 1969: MariaDB's max_statement_time, 3024: MySQL's max_execution_time
        return bool(error.args) and error.args[0] in (1969, 3024)


class _SQLite(Session):
    def prepare(self) -> None:
        """Nothing to set: autocommit is on, and the watcher interrupts."""

    def begin(self, *, writes: bool) -> None:
        # A reader that turns writer is refused at once when somebody wrote in between: take the lock first.
        self.plain("BEGIN IMMEDIATE" if writes else "BEGIN")

    def stop(self) -> None:
        self.driver.interrupt()


@contextmanager
def open_session(connection: Connection, timeout: float) -> Iterator[Session]:
    """Open ``connection`` for statements that may each run ``timeout`` seconds (0: without end).

    Raises ConnectionUnavailable when it cannot be opened. What was not committed is undone at the end.
    """
    with connection.engine() as engine, closing(engine.raw_connection()) as raw:
        session = session_over(engine, raw.driver_connection, connection, timeout)
        session.prepare()
        yield session


def session_over(engine: Engine, driver: Any, connection: Connection, timeout: float = 0) -> Session:
    """A session over a driver connection of ``engine`` as it stands, to watch over what runs on it."""
    kind = {"postgresql": _PostgreSQL, "mysql": _MySQL, "sqlite": _SQLite}.get(connection.dialect, Session)
    session = kind(driver, connection, timeout, engine.dialect.loaded_dbapi.Error)
    if isinstance(session, _MySQL):
        session.again = lambda: closing(engine.raw_connection())
    return session


def _asks(is_cancelled: Callable[[], bool] | None) -> bool:
    try:
        return is_cancelled is not None and is_cancelled()
    except Exception:  # whoever cannot be asked has not cancelled; the watcher must live on for the time-out
        return False


def said(error: BaseException) -> str:
    """What the server said, on few lines, without the driver's decoration."""
    diagnosis = getattr(error, "diag", None)
    message = getattr(diagnosis, "message_primary", None)
    if message:
        detail = getattr(diagnosis, "message_detail", None)
        return f"{message} ({detail})" if detail else str(message)
    if len(error.args) >= 2 and isinstance(error.args[1], str):
        return error.args[1]
    return str(error) or type(error).__name__


def _result(cursor: Any) -> Result:
    columns = _columns(cursor)
    if columns is None:
        return Result(None, iter(()), max(0, cursor.rowcount))
    return Result(columns, _rows(cursor))


def _columns(cursor: Any) -> list[str] | None:
    """Column names; a repeated one gets a number, so that a row as a dict loses nothing."""
    if not cursor.description:
        return None
    names: list[str] = []
    for column in cursor.description:
        name, count = str(column[0]), 2
        while name in names:
            name, count = f"{column[0]}_{count}", count + 1
        names.append(name)
    return names


def _rows(cursor: Any) -> Iterator[Sequence[Any]]:
    while batch := cursor.fetchmany(_BATCH):
        yield from batch
