"""PostgreSQL's COPY as plain bytes: out of one connection in chunks, into another as they come.

Works on libpq itself, below psycopg's rows: as fast as ``psql | psql`` in one process. A chunk holds whole rows of the
chosen format, about ``CHUNK`` bytes or one larger row. Waiting is done in ``poll``, which lets other threads run, so a
watcher can cancel on the server.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.pq.abc import PGconn, PGresult

__all__ = ["CHUNK", "CopyIn", "copy_out"]

CHUNK = 256 * 1024


class Counts(Protocol):
    """Is told of rows and bytes as they come."""

    def add(self, rows: int, size: int) -> None: ...


def copy_out(driver: Connection[Any], sql: str, counts: Counts | None = None) -> Iterator[bytearray]:
    """The data of ``COPY ... TO STDOUT``, whatever its format. Raises psycopg.Error.

    One that is not read to its end is cancelled on the server. ``counts`` is told of every row (the binary form's
    header comes with the first one, its trailer counts as one).
    """
    libpq = driver.pgconn
    wait = _Waiter(libpq)
    _start(libpq, sql, wait, "COPY_OUT")
    get, consume = libpq.get_copy_data, libpq.consume_input
    made = bytearray()  # grown row by row: joining a list of the driver's buffers takes twice the time
    rows = 0
    done = False
    try:
        while True:
            length, data = get(1)
            if length > 0:
                made += data
                rows += 1
                if len(made) >= CHUNK:
                    if counts is not None:
                        counts.add(rows, len(made))
                    yield made
                    made, rows = bytearray(), 0
            elif length == 0:
                wait.readable()
                consume()
            else:
                break
        done = True
        _finish(libpq, wait)
    finally:
        if not done:
            _abandon(driver, libpq, wait)
    if rows:
        if counts is not None:
            counts.add(rows, len(made))
        yield made


class CopyIn:
    """``COPY ... FROM STDIN``: ``write`` chunks, then ``finish``. Left without finish, the server undoes it."""

    def __init__(self, driver: Connection[Any], sql: str) -> None:
        self._driver = driver
        self._libpq = driver.pgconn
        self._wait = _Waiter(self._libpq)
        self._sql = sql
        self._open = False

    def __enter__(self) -> Self:
        _start(self._libpq, self._sql, self._wait, "COPY_IN")
        self._open = True
        return self

    def write(self, data: bytes | bytearray) -> None:
        """Hand over a chunk; waits while the server is behind. What the server has against it, ``finish`` says."""
        libpq = self._libpq
        while libpq.put_copy_data(data) == 0:
            self._flush()
        self._flush()  # so that libpq's buffer does not grow with the table

    def _flush(self) -> None:
        libpq = self._libpq
        while libpq.flush() == 1:
            if self._wait.either() & select.POLLIN:
                libpq.consume_input()

    def finish(self) -> int:
        """End the data; the number of rows that the server took. Raises psycopg.Error."""
        libpq = self._libpq
        self._open = False
        while libpq.put_copy_end() == 0:
            self._flush()
        self._flush()
        result = _finish(libpq, self._wait)
        return int(result.command_tuples or 0)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self._open:
            return
        self._open = False
        libpq = self._libpq
        if libpq.status != 0:  # lost: the server has undone it
            return
        try:
            while libpq.put_copy_end(b"the transfer was stopped") == 0:
                self._flush()
            self._flush()
            _finish(libpq, self._wait)
        except Exception:  # the refusal that was just asked for, or a lost connection: the caller's error counts
            return


class _Waiter:
    """Waits on the connection's socket without holding the interpreter."""

    def __init__(self, libpq: PGconn) -> None:
        self._libpq = libpq
        self._read, self._both = select.poll(), select.poll()
        self._read.register(libpq.socket, select.POLLIN)
        self._both.register(libpq.socket, select.POLLIN | select.POLLOUT)

    def readable(self) -> None:
        self._read.poll()

    def either(self) -> int:
        return next((event for _, event in self._both.poll()), 0)


def _start(libpq: PGconn, sql: str, wait: _Waiter, expected: str) -> None:
    libpq.nonblocking = 1
    libpq.send_query(sql.encode())
    while libpq.flush() == 1:
        if wait.either() & select.POLLIN:
            libpq.consume_input()
    result = _next(libpq, wait)
    from psycopg.pq import ExecStatus

    if result is None or result.status != ExecStatus[expected]:
        while _next(libpq, wait) is not None:
            pass
        _raise(libpq, result)


def _next(libpq: PGconn, wait: _Waiter) -> PGresult | None:
    while libpq.is_busy():
        wait.readable()
        libpq.consume_input()
    return libpq.get_result()


def _finish(libpq: PGconn, wait: _Waiter) -> PGresult:
    """Read the results to the end; the first one, which says how the COPY went."""
    from psycopg.pq import ExecStatus

    first = _next(libpq, wait)
    while _next(libpq, wait) is not None:
        pass
    if first is None or first.status != ExecStatus.COMMAND_OK:
        _raise(libpq, first)
    assert first is not None
    return first


def _abandon(driver: Connection[Any], libpq: PGconn, wait: _Waiter) -> None:
    """Stop a COPY OUT in the middle, so that the connection can roll back."""
    try:
        driver.cancel_safe(timeout=5)
        while True:
            length, _ = libpq.get_copy_data(1)
            if length == 0:
                wait.readable()
                libpq.consume_input()
            elif length < 0:
                break
        while _next(libpq, wait) is not None:
            pass
    except Exception:  # a connection that is lost or refuses is closed by its owner; the caller's error counts
        return


def _raise(libpq: PGconn, result: PGresult | None) -> None:
    from psycopg import OperationalError
    from psycopg.errors import error_from_result

    if result is not None and result.error_message:
        raise error_from_result(result)
    raise OperationalError(libpq.error_message.decode(errors="replace").strip() or "the server ended the COPY")
