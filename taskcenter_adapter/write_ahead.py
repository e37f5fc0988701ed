"""SQLite's log of changes (its write-ahead log), brought into its file beside others who write. (spec 6.1, 6.5)

A commit that finds the log longer than ``LONG_LOG_PAGES`` does that work itself, and everybody waits for it. So the
service does it once a second and a purge every few steps, while nobody is kept from writing.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import AbstractContextManager

from sqlalchemy import Engine

from .database import BUSY_MS, speaking

__all__ = ["begin_anew", "bring_in", "catch_up"]

_A_FEW_PAGES = 300
_SOME_PAGES = 1_500
_MOMENT_MS = 5
_TRIES = 6


def bring_in(engine: Engine) -> tuple[bool, int, int]:
    """As much as can be without keeping anybody from writing: whether it could, the log's pages and those done."""
    if engine.dialect.name != "sqlite":
        return True, 0, 0
    with speaking(engine), engine.connect() as connection:
        return _bring_in(_raw(connection.connection.dbapi_connection))


def begin_anew(engine: Engine) -> int:
    """Bring everything in, so that the log begins anew; how many pages it had. 0: it goes on.

    What comes in meanwhile is brought in while nobody can write, for a moment, and only if nobody reads just then.
    (To wait for a gap between two writes instead was tried: beside 50 writes a second the log grew and grew.)
    """
    first = 0
    with speaking(engine), engine.connect() as connection:
        raw = _raw(connection.connection.dbapi_connection)
        for _ in range(_TRIES):
            free, pages, done = _bring_in(raw)
            first = first or pages
            if free and pages - done <= _A_FEW_PAGES and _restart(raw):
                return first
            time.sleep(_MOMENT_MS / 1_000)
    return 0


def catch_up(engine: Engine, alone: AbstractContextManager[None]) -> int:
    """The same behind somebody who writes all the time, and who does not inside ``alone``.

    Most of it is brought in beside them, the rest while they stand still: nobody else is kept from writing but for the
    last few pages.
    """
    first = 0
    with speaking(engine), engine.connect() as connection:
        raw = _raw(connection.connection.dbapi_connection)
        for _ in range(_TRIES):
            free, pages, done = _bring_in(raw)
            first = first or pages
            if free and pages - done <= _SOME_PAGES:
                break
        with alone:
            for _ in range(3):
                # The pass that nobody wrote beside syncs the file too; after it the last one has nearly nothing to do.
                _bring_in(raw)
            return first if _restart(raw) else 0


def _restart(raw: sqlite3.Connection) -> bool:
    raw.execute(f"PRAGMA busy_timeout={_MOMENT_MS}")
    (busy, _, _) = raw.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
    raw.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    return not busy


def _bring_in(raw: sqlite3.Connection) -> tuple[bool, int, int]:
    busy, pages, done = raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return not busy, int(pages), int(done)


def _raw(connection: object) -> sqlite3.Connection:
    assert isinstance(connection, sqlite3.Connection)
    return connection
