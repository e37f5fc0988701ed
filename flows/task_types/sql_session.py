"""One open driver connection for running statements: time-outs and cancelling on the server, rows as a stream.

``watch`` looks from a second thread: a statement that runs too long, or whose run is cancelled, is stopped on
the server (cancel request, ``KILL QUERY``, ``interrupt``), whatever the driver is blocked in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Literal

from blocks.connections import Connection

__all__ = ["Session", "open_session", "said"]

_BATCH = 1_000
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 0.3
"""How much later than the server's own time-out the watcher acts, so that the server's clearer error comes first."""

Columns = list[str]
Stop = Literal["timeout", "cancelled"]


class Session:
    """A driver connection in autocommit mode. ``begin``/``commit``/``rollback`` are said by the caller."""

    def __init__(self, driver: Any, connection: Connection, timeout: float) -> None:
        self.driver = driver
        self.connection = connection
        self.timeout = timeout

    @property
    def db_type(self) -> str:
        """The dialect's name, as reported to people."""
        return self.connection.dialect

    def run(self, sql: str, values: Mapping[str, Any] | None) -> tuple[Columns | None, Iterator[Sequence[Any]], Any]:
        """Send one statement. Columns (None: no result set), its rows as they come, and the driver's cursor."""
        cursor = self.driver.cursor()
        cursor.execute(sql) if values is None else cursor.execute(sql, values)
        return _columns(cursor), _rows(cursor), cursor

    def more(self, cursor: Any) -> bool:
        """Go to the next result set of the same statement (a MySQL ``CALL``)."""
        return False

    def begin(self, *, writes: bool) -> None:
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
                if not stopped and is_cancelled is not None and is_cancelled():
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
    def run(self, sql: str, values: Mapping[str, Any] | None) -> tuple[Columns | None, Iterator[Sequence[Any]], Any]:
        import psycopg

        cursor = self.driver.cursor()
        size = _BATCH if psycopg.capabilities.has_stream_chunked() else 1
        rows = cursor.stream(sql, values, size=size)
        try:
            first = next(rows, None)
        except psycopg.ProgrammingError as error:
            if error.sqlstate is not None or "didn't produce a result" not in str(error):
                raise
            return None, iter(()), cursor  # it was a command, and it has been carried out
        return _columns(cursor) or [], _chain(first, rows), cursor

    def stop(self) -> None:
        self.driver.cancel_safe(timeout=5)

    def timed_out(self, error: BaseException) -> bool:
        return getattr(error, "sqlstate", None) == "57014" and "statement timeout" in str(error)


class _MySQL(Session):
    def __init__(self, driver: Any, connection: Connection, timeout: float, again: Callable[[], Any]) -> None:
        super().__init__(driver, connection, timeout)
        self.again = again
        self.thread = driver.thread_id()

    def run(self, sql: str, values: Mapping[str, Any] | None) -> tuple[Columns | None, Iterator[Sequence[Any]], Any]:
        from pymysql.cursors import SSCursor

        cursor = self.driver.cursor(SSCursor)
        cursor.execute(sql, values)
        return _columns(cursor), _rows(cursor), cursor

    def more(self, cursor: Any) -> bool:
        return bool(cursor.nextset())

    def begin(self, *, writes: bool) -> None:
        self.plain("START TRANSACTION")

    def stop(self) -> None:
        other = self.again()
        try:
            other.cursor().execute(f"KILL QUERY {int(self.thread)}")
        finally:
            other.close()

    def timed_out(self, error: BaseException) -> bool:
        # 1969: MariaDB's max_statement_time, 3024: MySQL's max_execution_time
        return bool(error.args) and error.args[0] in (1969, 3024)


class _SQLite(Session):
    def begin(self, *, writes: bool) -> None:
        # A reader that turns writer is refused at once when somebody wrote in between: take the lock first.
        self.plain("BEGIN IMMEDIATE" if writes else "BEGIN")

    def stop(self) -> None:
        self.driver.interrupt()


@contextmanager
def open_session(connection: Connection, timeout: float) -> Iterator[Session]:
    """Open ``connection`` for statements that may each run ``timeout`` seconds (0: without end).

    Raises ConnectionUnavailable when it cannot be opened.
    """
    with connection.engine() as engine, _closing(engine.raw_connection()) as raw:
        driver: Any = raw.driver_connection
        yield _prepare(driver, connection, timeout, lambda: engine.raw_connection().driver_connection)


def _closing(raw: Any) -> AbstractContextManager[Any]:
    from contextlib import closing

    return closing(raw)


def _prepare(driver: Any, connection: Connection, timeout: float, again: Callable[[], Any]) -> Session:
    if connection.dialect == "postgresql":
        driver.autocommit = True
        driver.execute("SELECT set_config('statement_timeout', %s, false)", [str(int(timeout * 1000))])
        return _PostgreSQL(driver, connection, timeout)
    if connection.dialect == "mysql":
        driver.autocommit(True)
        with driver.cursor() as cursor:
            if "mariadb" in driver.get_server_info().lower():
                cursor.execute("SET SESSION max_statement_time = %s", [float(timeout)])
            else:  # MySQL's own limit is for SELECT only; the watcher's KILL QUERY is for all
                cursor.execute("SET SESSION max_execution_time = %s", [int(timeout * 1000)])
        return _MySQL(driver, connection, timeout, again)
    if connection.dialect == "sqlite":
        return _SQLite(driver, connection, timeout)
    if hasattr(driver, "autocommit") and not callable(driver.autocommit):
        driver.autocommit = True
    return Session(driver, connection, timeout)


def said(error: BaseException) -> str:
    """What the server said, on few lines, without the driver's decoration."""
    message = getattr(getattr(error, "diag", None), "message_primary", None)
    if message:
        detail = getattr(error.diag, "message_detail", None)  # type: ignore[attr-defined]
        return f"{message} ({detail})" if detail else str(message)
    if len(error.args) >= 2 and isinstance(error.args[1], str):
        return error.args[1]
    return str(error) or type(error).__name__


def _columns(cursor: Any) -> Columns | None:
    """Column names; a repeated one gets a number, so that a row as a dict loses nothing."""
    if not cursor.description:
        return None
    names: Columns = []
    for column in cursor.description:
        name, count = str(column[0]), 2
        while name in names:
            name, count = f"{column[0]}_{count}", count + 1
        names.append(name)
    return names


def _rows(cursor: Any) -> Iterator[Sequence[Any]]:
    while cursor.description and (batch := cursor.fetchmany(_BATCH)):
        yield from batch


def _chain(first: Sequence[Any] | None, rest: Iterator[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    if first is not None:
        yield first
        yield from rest
