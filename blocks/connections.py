"""A saved database connection: what it is, how it opens, where a name is looked up. No Prefect in here.

The Prefect block around it is ``blocks.prefect_blocks``. SQLAlchemy is imported when a connection is opened,
so that planning, which only names connections, costs nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from taskcenter.errors import ConnectionUnavailable, SetupError
from taskcenter.settings import Settings

if TYPE_CHECKING:
    import sqlalchemy
    from sqlalchemy.engine import URL, Engine

__all__ = [
    "BLOCK_TYPE",
    "Connection",
    "block_name",
    "find_local",
    "known_dialect",
    "missing",
    "parse_url",
    "resolve",
    "variable_name",
]

BLOCK_TYPE = "taskcenter-database"
"""The slug of the Prefect block type that holds a connection."""

_DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "sqlite": "sqlite"}
_DIALECTS = {"postgres": "postgresql", "mariadb": "mysql", "sqlite3": "sqlite"}
_CONNECT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a database is and who logs in. ``database`` is the file's path for SQLite.

    ``dialect`` is ``postgresql``, ``mysql`` (MariaDB too) or ``sqlite``; another SQLAlchemy dialect name is
    passed on as it is. ``options`` go to the driver; for SQLite ``{"create": True}`` lets a missing file be made.
    """

    name: str
    dialect: str
    host: str | None = None
    port: int | None = None
    database: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def url(self) -> URL:
        """The SQLAlchemy address, with psycopg, PyMySQL or sqlite3. Its ``str()`` hides the password."""
        from sqlalchemy.engine import URL

        return URL.create(
            _DRIVERS.get(self.dialect, self.dialect),
            username=self.user,
            password=self.password,
            host=self.host,
            port=self.port,
            database=self.database,
        )

    def describe(self) -> str:
        """One line for people and logs, without the password: ``postgresql://app@db:5432/sales``."""
        who = f"{self.user}@" if self.user else ""
        where = f"{who}{self.host or ''}" + (f":{self.port}" if self.port else "")
        return f"{self.dialect}://{where}/{self.database or ''}"

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        """A SQLAlchemy engine for the duration; every connection is closed at the end (no pool is kept).

        Whatever goes wrong while a connection opens is a ConnectionUnavailable that names this connection.
        On SQLite transactions are real: SQLAlchemy's "begin" sends ``BEGIN``, so that a ``CREATE`` rolls back and
        reads see one snapshot; the execution option ``sqlite_begin="IMMEDIATE"`` takes the write lock at once.
        """
        engine = self._make_engine()
        try:
            yield engine
        finally:
            engine.dispose()

    @contextmanager
    def connect(self) -> Iterator[sqlalchemy.Connection]:
        """One open SQLAlchemy connection, closed at the end; what was not committed is rolled back."""
        with self.engine() as engine, engine.connect() as connection:
            yield connection

    def _make_engine(self) -> Engine:
        from sqlalchemy import create_engine, event
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError
        from sqlalchemy.pool import NullPool

        try:
            engine = create_engine(self.url(), poolclass=NullPool, connect_args=self._arguments())
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise self._unavailable(f"no driver for {self.dialect!r} is installed ({error})") from None
        event.listen(engine, "do_connect", self._open)
        if self.dialect == "sqlite":
            event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _arguments(self) -> dict[str, Any]:
        options = {key: value for key, value in self.options.items() if key != "create"}
        if self.dialect == "postgresql":
            return {"connect_timeout": _CONNECT_SECONDS, "application_name": "taskcenter", **options}
        if self.dialect == "mysql":
            # as bytes: PyMySQL would write a text in Latin-1, and the server has it in UTF-8
            secret = {"password": self.password.encode()} if self.password else {}
            return {"connect_timeout": _CONNECT_SECONDS, "charset": "utf8mb4", **secret, **options}
        return options

    def _open(self, dialect: Any, _record: Any, args: Any, arguments: dict[str, Any]) -> Any:
        """Open one driver connection (SQLAlchemy's ``do_connect``), with errors a person can use."""
        if self.dialect == "sqlite":
            self._check_file()
        opened: Any = None
        try:
            opened = dialect.connect(*args, **arguments)
            if self.dialect == "sqlite":
                opened.isolation_level = None
                opened.execute("PRAGMA schema_version")  # the first read is what finds out "not a database"
                opened.execute("PRAGMA foreign_keys = ON")
        except (dialect.loaded_dbapi.Error, OSError, TypeError) as error:
            # TypeError: an option the driver does not know.
            if opened is not None:
                opened.close()
            raise self._unavailable(self._short(error)) from None
        return opened

    def _check_file(self) -> None:
        name = self.database or ":memory:"
        if name == ":memory:" or self.options.get("create"):
            return
        path = Path(name)
        if path.is_dir():
            raise self._unavailable(f"{name} is a folder, not a database file")
        if not path.is_file():
            raise self._unavailable(f"the file {name} does not exist")

    def _unavailable(self, why: str) -> ConnectionUnavailable:
        return ConnectionUnavailable(
            f"the connection {self.name!r} ({self.describe()}) cannot be opened: {why}", name=self.name
        )

    def _short(self, error: BaseException) -> str:
        """What the driver said, on one line, without the password."""
        said = error.args[1] if len(error.args) == 2 and isinstance(error.args[1], str) else str(error)
        text = " ".join(said.split())
        if self.password:
            text = text.replace(self.password, "***")
        return text[:300] or type(error).__name__


def _begin_sqlite(connection: sqlalchemy.Connection) -> None:
    options = connection.get_execution_options()
    if options.get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql(f"BEGIN {options.get('sqlite_begin', '')}".strip())


def block_name(name: str) -> str:
    """``Data Warehouse`` → ``data-warehouse``: how Prefect names blocks."""
    return re.sub(r"[^a-z0-9]+", "-", name.strip().lower()).strip("-")


def variable_name(name: str) -> str:
    """``data-warehouse`` → ``TASKCENTER_CONNECTION_DATA_WAREHOUSE``."""
    return "TASKCENTER_CONNECTION_" + block_name(name).replace("-", "_").upper()


def parse_url(name: str, url: str) -> Connection:
    """A connection from ``postgresql://user:password@host:5432/db?sslmode=require`` or ``sqlite:////path``.

    Driver names (``postgresql+psycopg2``) are dropped, ours is used. What stands after ``?`` becomes options.
    Raises ConnectionUnavailable, without repeating the address, when it is not one.
    """
    match = re.match(r"^([a-z][a-z0-9_]*)(?:\+\w+)?://(.*)$", url.strip(), re.IGNORECASE | re.DOTALL)
    if match is None:
        raise ConnectionUnavailable(
            f"the connection {name!r} is not an address like postgresql://user:password@host:5432/database", name=name
        )
    dialect = _DIALECTS.get(match[1].lower(), match[1].lower())
    rest, _, query = match[2].partition("?")
    options = _options(query)
    if dialect == "sqlite":
        return Connection(name=name, dialect=dialect, database=unquote(rest.removeprefix("/")) or None, options=options)
    authority, _, database = rest.partition("/")
    login, _, place = authority.rpartition("@")
    user, _, password = login.partition(":")
    where = re.match(r"^(\[[^\]]*\]|[^:]*)(?::(\d+))?$", place)
    if where is None:
        raise ConnectionUnavailable(f"the connection {name!r} has no readable host and port in its address", name=name)
    return Connection(
        name=name,
        dialect=dialect,
        host=unquote(where[1].strip("[]")) or None,
        port=int(where[2]) if where[2] else None,
        database=unquote(database) or None,
        user=unquote(user) or None,
        password=unquote(password) or None,
        options=options,
    )


def _options(query: str) -> dict[str, Any]:
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    words: dict[str, Any] = {"true": True, "false": False}
    found: dict[str, Any] = {}
    for key, _, value in pairs:
        text = unquote(value)
        found[unquote(key)] = words.get(text.lower(), int(text) if text.isdigit() else text)
    return found


def resolve(
    name: str,
    *,
    lookup: Callable[[str], Connection | None] | None = None,
    env: Mapping[str, str] | None = None,
    home: Path | None = None,
) -> Connection:
    """The connection called ``name``. Looked for, first hit wins:

    1. the environment variable ``TASKCENTER_CONNECTION_<NAME>``, an address (see :func:`parse_url`);
    2. the sample databases ``sample`` (or ``shop``) and ``warehouse``, built under ``home`` on first use;
    3. ``lookup(block name)``, normally ``blocks.prefect_blocks.find_block``.

    Raises ConnectionUnavailable that says what is missing, where it was looked for, and how to make it.
    """
    found = find_local(name, env=env, home=home)
    if found is None and lookup is not None:
        found = lookup(block_name(name))
    if found is None:
        raise missing(name, blocks=lookup is not None)
    return found


def find_local(name: str, *, env: Mapping[str, str] | None = None, home: Path | None = None) -> Connection | None:
    """What can be answered without a server: environment and samples. None when neither knows the name."""
    env = os.environ if env is None else env
    if not block_name(name):
        raise ConnectionUnavailable(f"a connection's name needs a letter or a digit; {name!r} has none", name=name)
    url = env.get(variable_name(name))
    if url:
        return parse_url(name, url)
    from . import sample

    if block_name(name) in sample.NAMES:
        try:
            return sample.connection(block_name(name), home or Settings.from_env(env).home)
        except OSError as error:
            raise SetupError(f"the sample database cannot be written: {error}") from error
    return None


def known_dialect(name: str, env: Mapping[str, str] | None = None) -> str | None:
    """The dialect of ``name`` where that is known without opening, building or asking anything; else None."""
    from .sample import NAMES

    env = os.environ if env is None else env
    url = env.get(variable_name(name))
    if url:
        try:
            return parse_url(name, url).dialect
        except ConnectionUnavailable:
            return None
    return "sqlite" if block_name(name) in NAMES else None


def missing(name: str, *, blocks: bool) -> ConnectionUnavailable:
    """The error for a name that nobody knows."""
    looked = f"the environment variable {variable_name(name)}, the built-in sample connections (sample, warehouse)"
    if blocks:
        looked += f" and the Prefect block {BLOCK_TYPE}/{block_name(name)}"
    return ConnectionUnavailable(
        f"there is no connection {name!r}. Looked in {looked}. To make it, save a Prefect block of the type "
        f"{BLOCK_TYPE!r} named {block_name(name)!r} (Prefect's Blocks page, or "
        f"blocks.prefect_blocks.DatabaseConnection(...).save({block_name(name)!r})), or set {variable_name(name)} to "
        "an address like postgresql://user:password@host:5432/database.",
        name=name,
    )
