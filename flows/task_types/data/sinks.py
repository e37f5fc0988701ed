"""Writing lines into a database table: COPY on PostgreSQL, LOAD DATA LOCAL on MySQL, executemany on SQLite."""

from __future__ import annotations

import fcntl
import os
import termios
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from taskcenter.errors import StepFailed

from ..database.quoting import column_list
from . import lines
from .lines import Chunk
from .pg_copy import CopyIn
from .side import Side
from .texts import Field, load_clauses, to_sqlite

__all__ = ["Writer", "insert_rows", "writing"]

_INSERT_BYTES = 512 * 1024


class Writer(Protocol):
    """Takes chunks in order; ``rows`` is what the server took, true after the end."""

    rows: int

    def write(self, chunk: Chunk) -> None: ...


@contextmanager
def writing(side: Side, table: str, fields: Sequence[Field], temp: Path) -> Iterator[Writer]:
    """A writer into ``table`` (quoted) of ``side``, within the transaction that is open there.

    ``temp`` is a folder for a pipe. Leaving it without an error makes sure that every row was taken; raises what the
    driver raises, and StepFailed for a value that the table does not take as it is.
    """
    kind = {"postgresql": _postgresql, "mysql": _mysql, "sqlite": _sqlite}[side.dialect]
    with kind(side, table, fields, temp) as writer:
        yield writer


class _CopyWriter:
    def __init__(self, copy: CopyIn) -> None:
        self._copy = copy
        self.rows = 0

    def write(self, chunk: Chunk) -> None:
        self._copy.write(chunk[0])


@contextmanager
def _postgresql(side: Side, table: str, fields: Sequence[Field], temp: Path) -> Iterator[Writer]:
    columns = column_list([f.target.name for f in fields], "postgresql")
    with CopyIn(side.driver, f"COPY {table} ({columns}) FROM STDIN") as copy:
        writer = _CopyWriter(copy)
        yield writer
        writer.rows = copy.finish()


class _SQLiteWriter:
    def __init__(self, side: Side, table: str, fields: Sequence[Field]) -> None:
        columns = column_list([f.target.name for f in fields], "sqlite")
        marks = ", ".join("?" * len(fields))
        self._sql = f"INSERT INTO {table} ({columns}) VALUES ({marks})"
        self._driver = side.driver
        self._convert = to_sqlite(fields)
        self.rows = 0

    def write(self, chunk: Chunk) -> None:
        rows = list(lines.rows(chunk[0]))
        for index, convert in self._convert:
            for row in rows:
                text = row[index]
                if text is not None:
                    try:
                        row[index] = convert(text)
                    except ValueError as error:
                        raise StepFailed(f"a value cannot be written on SQLite: {error}", error_type="value") from None
        insert_rows(self._driver, self._sql, rows)
        self.rows += len(rows)


def insert_rows(driver: Any, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run an INSERT for each row, as SQLite's driver does it best."""
    with closing(driver.cursor()) as cursor:
        cursor.executemany(sql, rows)


@contextmanager
def _sqlite(side: Side, table: str, fields: Sequence[Field], temp: Path) -> Iterator[Writer]:
    yield _SQLiteWriter(side, table, fields)


class _PipeWriter:
    """Feeds ``LOAD DATA LOCAL INFILE`` through a named pipe, which a thread of its own reads for the server."""

    def __init__(self, side: Side, sql: str, pipe: Path) -> None:
        self.rows = 0
        self._side, self._sql, self._pipe = side, sql, pipe
        self._error: Exception | None = None
        self._out = self._keep = -1
        self._thread: threading.Thread | None = None

    def _start(self) -> None:
        os.mkfifo(self._pipe, 0o600)
        # a reader of our own, so that opening for writing does not wait for the driver's
        self._keep = os.open(self._pipe, os.O_RDONLY | os.O_NONBLOCK)
        self._out = os.open(self._pipe, os.O_WRONLY)
        self._thread = threading.Thread(target=self._load, name="load-data", daemon=True)
        self._thread.start()

    def _load(self) -> None:
        try:
            self.rows = self._side.run(self._sql)
        except Exception as error:  # handed to the thread that writes
            self._error = error if isinstance(error, self._side.errors) else _lost(error)
        finally:
            os.close(self._keep)  # from here on nobody reads: a writer that waits for room is told so

    def write(self, chunk: Chunk) -> None:
        if self._thread is None:
            self._start()
        data = memoryview(lines.for_mysql(chunk[0]))
        try:
            while data:
                data = data[os.write(self._out, data) :]
        except BrokenPipeError:
            raise self._ended() from None

    def finish(self) -> None:
        """End the data and wait for the server's word on it."""
        if self._thread is None:
            return
        # the driver opens the pipe when the server asks for it; with no writer left it would wait for ever
        while self._thread.is_alive() and self._unread():
            time.sleep(0.001)
        os.close(self._out)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def abort(self) -> None:
        """Stop the statement on the server; the transaction is undone by its owner."""
        if self._thread is None:
            return
        with suppress(Exception):
            self._side.stop()
        while self._thread.is_alive() and self._unread():
            time.sleep(0.001)
        os.close(self._out)
        self._thread.join()

    def _unread(self) -> bool:
        held = bytearray(4)
        fcntl.ioctl(self._out, termios.FIONREAD, held)
        return any(held)

    def _ended(self) -> Exception:
        assert self._thread is not None
        self._thread.join()
        return self._error or StepFailed("the server stopped reading before the last row", error_type="sql")


@contextmanager
def _mysql(side: Side, table: str, fields: Sequence[Field], temp: Path) -> Iterator[Writer]:
    if not side.value("SELECT @@local_infile"):
        raise StepFailed(
            "the target server does not allow LOAD DATA LOCAL: set its variable local_infile to ON", error_type="setup"
        )
    pipe = temp / f"rows-{uuid.uuid4().hex}"
    path = str(pipe).replace("\\", "\\\\").replace("'", "''")
    sql = f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE {table} CHARACTER SET utf8mb4 {load_clauses(fields)}"
    writer = _PipeWriter(side, sql, pipe)
    try:
        yield writer
    except BaseException:
        writer.abort()
        raise
    else:
        writer.finish()
        _check_warnings(side)
    finally:
        pipe.unlink(missing_ok=True)


def _lost(error: Exception) -> Exception:
    """PyMySQL stumbles over its own closed socket when the connection breaks within LOAD DATA."""
    from pymysql.err import OperationalError

    if isinstance(error, AttributeError):
        return OperationalError(2013, "Lost connection to MySQL server during query")
    return error


def _check_warnings(side: Side) -> None:
    """LOCAL turns errors into warnings and skips rows: here they are errors again."""
    found = [row for row in side.rows("SHOW WARNINGS LIMIT 20") if row[0] != "Note"]
    if found:
        said = "; ".join(dict.fromkeys(str(row[2]) for row in found[:3]))
        code = int(found[0][1])
        raise StepFailed(
            f"the target does not take the rows as they are: {said}",
            error_type="constraint" if code in (1048, 1062, 1263, 1452, 3819, 4025) else "value",
        )
