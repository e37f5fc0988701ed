"""The door to Task Center's own database: engines, migrations, and what to tell people when it does not open.

PostgreSQL goes through psycopg 3, SQLite through the standard library. Times, identifiers and errors come out
alike; nothing here or in an error message ever shows a password or a stored value. (spec 6.1)
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from taskcenter.errors import ServerAway, SetupError, TaskCenterError

from .rows import json_text
from .search_index import SEARCH_INDEXES, SEARCH_TABLES
from .tables import AUDIT_PURGE_SWITCH
from .turns import waiting

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = [
    "BUSY_MS",
    "LONG_LOG_PAGES",
    "audit_deletes",
    "check",
    "current",
    "include_name",
    "make_engine",
    "speaking",
    "upgrade",
    "where",
    "writing",
]

BUSY_MS = 5_000
"""How long a writer waits for another one's lock before it gives up, on both databases."""

LONG_LOG_PAGES = 64_000
"""256 MB. Where a service runs it never gets so long (``write_ahead``)."""
_LOOK_AGAIN = 0.001
"""Seconds."""
_UPGRADE_BUSY_MS = 60_000
_UPGRADE_LOCK = 7_236_548_911
"""PostgreSQL's advisory lock of upgrades: any number, the same in every process."""

_WRITE = "taskcenter_write"
_MIGRATIONS = Path(__file__).with_name("migrations")
_POSTGRES_NAMES = frozenset({"postgres", "postgresql", "postgresql+psycopg", "postgresql+asyncpg"})
_SQLITE_NAMES = frozenset({"sqlite", "sqlite+pysqlite", "sqlite+aiosqlite"})


# opening -------------------------------------------------------------------------------------------


def make_engine(url: str | URL) -> Engine:
    """An engine that is ready for use; nothing is opened yet.

    ``postgresql://…`` and ``postgres://…`` mean psycopg 3, with a unix socket as ``postgresql:///db?host=/dir``;
    ``sqlite:////path/file.db`` is a file. A SQLite database in memory is refused: it would be another database
    for each thread (``memory://`` is the store for that).
    """
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        # `from None`: the text that could not be read may hold a password.
        raise SetupError(
            "The database address cannot be read: write sqlite:////path/to/file.db "
            "or postgresql://user@host:5432/database."
        ) from None
    # Without this, an error would show the values of the statement, and with them what a user stored.
    common: dict[str, Any] = {"hide_parameters": True, "json_serializer": json_text}
    if parsed.drivername in _POSTGRES_NAMES:
        # What the address says itself goes first.
        waits = {"connect_timeout": 5, "options": f"-c lock_timeout={BUSY_MS}"}
        return sa.create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            connect_args={name: value for name, value in waits.items() if name not in parsed.query},
            **common,
        )
    if parsed.drivername in _SQLITE_NAMES:
        if parsed.database in (None, "", ":memory:"):
            raise SetupError("A SQLite database needs a file: write sqlite:////path/to/file.db, or use memory://.")
        engine = sa.create_engine(
            parsed.set(drivername="sqlite"),
            connect_args={"timeout": BUSY_MS / 1000, "check_same_thread": False},
            **common,
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    raise SetupError(
        f"{parsed.drivername} is not a database Task Center can live in: use sqlite:////path/to/file.db "
        "or postgresql://user@host:5432/database."
    )


def writing(engine: Engine) -> Engine:
    """The same pool, for transactions that write.

    On SQLite they take the writer's place at their start (``BEGIN IMMEDIATE``): a transaction that reads first and
    writes later could not wait for its turn and would fail at once instead.
    """
    return engine.execution_options(**{_WRITE: True})


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, see _begin_sqlite
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            # Before the first page is written, or never: retention gives free pages back by it.
            if connection.execute("PRAGMA page_count").fetchone()[0] == 0:
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError as error:
            # The switch to WAL needs the file for itself and does not wait by itself: two processes that open a
            # new file in the same instant meet here.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    connection.execute("PRAGMA synchronous=NORMAL")
    # A commit that finds so long a log of changes brings it into the file itself.
    connection.execute(f"PRAGMA wal_autocheckpoint={LONG_LOG_PAGES}")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin_sqlite(connection: Connection) -> None:
    if not connection.get_execution_options().get(_WRITE, False):
        connection.exec_driver_sql("BEGIN")
        return
    raw = connection.connection.dbapi_connection
    assert isinstance(raw, sqlite3.Connection)
    (patience,) = raw.execute("PRAGMA busy_timeout").fetchone()
    raw.execute("PRAGMA busy_timeout=0")
    try:
        if not _begun(raw):
            deadline = time.monotonic() + patience / 1000
            with waiting(str(connection.engine.url.database)):
                while not _begun(raw):
                    if time.monotonic() > deadline:
                        connection.exec_driver_sql("BEGIN IMMEDIATE")  # a last time, with SQLAlchemy's error
                        break
                    # SQLite would look again after 1, 2, 5, ... and in the end every 100 ms.
                    time.sleep(_LOOK_AGAIN)
    finally:
        raw.execute(f"PRAGMA busy_timeout={patience}")


def _begun(raw: sqlite3.Connection) -> bool:
    try:
        raw.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise
        return False
    return True


# saying what went wrong ----------------------------------------------------------------------------


def where(engine: Engine) -> str:
    """The place of the database for a sentence; never the password."""
    url = engine.url
    if engine.dialect.name == "sqlite":
        return str(url.database)
    host = url.host or url.query.get("host") or "the local socket"
    return f"{host}{f':{url.port}' if url.port else ''}/{url.database or ''}"


@contextmanager
def speaking(engine: Engine) -> Iterator[None]:
    """Turns what the driver says into a sentence for people; what is a defect of ours passes as it is."""
    try:
        yield
    except PoolTimeout as error:
        raise ServerAway(
            f"All connections to the database {where(engine)} are in use: try again, or run fewer things at once."
        ) from error
    except (DBAPIError, sqlite3.Error) as error:
        said = _sentence(engine, error)
        if said is None:
            raise
        raise said from error


_POSTGRES_CODES = {
    "28P01": "login",
    "28000": "login",
    "3D000": "missing",
    "42P01": "tables",
    "42703": "tables",
    "42501": "rights",
    "25006": "readonly",
    "53100": "full",
    "40001": "busy",
    "40P01": "busy",
    "55P03": "busy",
}
_POSTGRES_WORDS = {
    'database "[^"]*" is not currently accepting connections': "away",
    "password authentication failed": "login",
    "no password supplied": "login",
    "no pg_hba.conf entry": "login",
    "role ": "login",
    "permission denied": "rights",
    "database ": "missing",
}
_SQLITE_WORDS = {
    "not a database": "foreign",
    "malformed": "foreign",
    "unable to open": "place",
    "readonly": "readonly",
    "read-only": "readonly",
    "no such table": "tables",
    "no such column": "tables",
    "is locked": "busy",
    "is full": "full",
    "disk i/o error": "full",
}


def _sentence(engine: Engine, error: DBAPIError | sqlite3.Error) -> TaskCenterError | None:
    place = where(engine)
    kind = _kind(engine, error)
    upgrade_it = "run `taskcenter db upgrade`"
    said: dict[str, TaskCenterError] = {
        "login": SetupError(
            f"The database server {place} refuses the user {engine.url.username or 'of this process'!r}: "
            "check the user and the password in TASKCENTER_DATABASE_URL."
        ),
        "missing": SetupError(
            f"There is no database {engine.url.database!r} on the server ({place}): create it, "
            "or correct TASKCENTER_DATABASE_URL."
        ),
        "tables": SetupError(f"The database {place} lacks tables of this version: {upgrade_it}."),
        "rights": SetupError(
            f"The user of the database {place} may not do this: give it the rights, or use its owner."
        ),
        "readonly": SetupError(f"The database {place} can only be read: make it writable for this user."),
        "full": ServerAway(f"The database {place} cannot write any more: make room on its disk, then try again."),
        "foreign": SetupError(
            f"The file {place} is not a database, or is damaged: name another file, or restore it from a backup."
        ),
        "place": SetupError(
            f"The database file {place} cannot be opened: its folder must exist and be writable for this user."
        ),
        "busy": ServerAway(
            f"The database {place} is locked by another program for longer than this one waits "
            f"({BUSY_MS / 1000:g} s): end that program, or try again."
        ),
        "away": ServerAway(
            f"The database server {place} does not answer: start it, or correct TASKCENTER_DATABASE_URL."
        ),
    }
    return said.get(kind)


def _kind(engine: Engine, error: DBAPIError | sqlite3.Error) -> str:
    original = error.orig if isinstance(error, DBAPIError) else error
    text = str(original).lower()
    if engine.dialect.name == "sqlite":
        return next((kind for words, kind in _SQLITE_WORDS.items() if words in text), "")
    code = getattr(original, "sqlstate", None)
    if code in _POSTGRES_CODES:
        return _POSTGRES_CODES[code]
    # Classes 08 (connection), 57 (operator intervention) and 53 (resources): the server cannot serve us now.
    if code is not None and code[:2] in ("08", "57", "53"):
        return "away"
    if code is None and isinstance(original, engine.dialect.loaded_dbapi.OperationalError):
        # The server refused or never answered. A refusal has no code here, only its (English) words.
        return next((kind for words, kind in _POSTGRES_WORDS.items() if re.search(f"fatal:  {words}", text)), "away")
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return "away"
    return ""


# migrations ----------------------------------------------------------------------------------------


def upgrade(engine: Engine) -> None:
    """Bring the tables to this version, all of it or nothing. Safe when several processes do it at once."""
    from alembic import command

    with speaking(engine), _alone(engine) as connection, _newer(engine):
        command.upgrade(_config(connection), "head")


def current(engine: Engine) -> str | None:
    """The revision the tables stand at, or None when there are none."""
    from alembic.migration import MigrationContext

    with speaking(engine), engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def check(engine: Engine) -> bool:
    """True when the tables are those of this version."""
    from alembic.script import ScriptDirectory

    return current(engine) == ScriptDirectory.from_config(_config(None)).get_current_head()


def include_name(name: str | None, type_: str, _parents: Any = None) -> bool:
    """Whether a comparison of the database with ``tables.py`` looks at this name (alembic's hook)."""
    if type_ == "index":
        return name not in SEARCH_INDEXES  # the metadata have no word for them
    return not (type_ == "table" and (name == AUDIT_PURGE_SWITCH or name in SEARCH_TABLES))


def _config(connection: Connection | None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """A transaction that no other upgrade runs beside."""
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_UPGRADE_BUSY_MS}")
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
            yield connection
        return
    with writing(engine).connect() as connection:
        raw = connection.connection.dbapi_connection
        assert isinstance(raw, sqlite3.Connection)
        raw.execute(f"PRAGMA busy_timeout={_UPGRADE_BUSY_MS}")
        # SQLite rebuilds a table to change it; with foreign keys on, dropping the old one would delete its children.
        raw.execute("PRAGMA foreign_keys=OFF")
        try:
            with connection.begin():
                yield connection
                if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
                    raise SetupError(f"The database {where(engine)} holds rows without their parents: nothing changed.")
        finally:
            raw.execute("PRAGMA foreign_keys=ON")
            raw.execute(f"PRAGMA busy_timeout={BUSY_MS}")


@contextmanager
def _newer(engine: Engine) -> Iterator[None]:
    from alembic.util import CommandError

    try:
        yield
    except CommandError as error:
        raise SetupError(
            f"The database {where(engine)} belongs to a newer Task Center than this one: install that version."
        ) from error


# the one way around the audit's lock -----------------------------------------------------------------


@contextmanager
def audit_deletes(connection: Connection) -> Iterator[None]:
    """Inside, this transaction alone may delete audit entries: for retention, which leaves an anchor for them.

    PostgreSQL: the setting ``taskcenter.purge`` for this transaction. SQLite: the one-row table
    ``audit_purge_switch``, which nobody else can see open, because there is one writer at a time.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL taskcenter.purge = 'on'")
        yield
        connection.exec_driver_sql("SET LOCAL taskcenter.purge = 'off'")
    else:
        connection.exec_driver_sql(f"UPDATE {AUDIT_PURGE_SWITCH} SET open = 1")
        yield
        connection.exec_driver_sql(f"UPDATE {AUDIT_PURGE_SWITCH} SET open = 0")
