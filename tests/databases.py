"""Empty databases of the three engines for tests: made under names of their own, dropped at the end.

Addresses of the servers: TASKCENTER_TEST_POSTGRES_URL and TASKCENTER_TEST_MYSQL_URL; the login must be allowed to make
databases. Without a server a test is skipped with the reason; where CI is set it fails instead.
"""

from __future__ import annotations

import atexit
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from blocks.connections import Connection, parse_url
from flows.task_types.database.quoting import quote
from taskcenter.errors import ConnectionUnavailable

__all__ = ["DIALECTS", "empty_database", "run", "server"]

DIALECTS = ("postgresql", "mysql", "sqlite")
URLS = {
    "postgresql": os.environ.get("TASKCENTER_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres"),
    "mysql": os.environ.get("TASKCENTER_TEST_MYSQL_URL", "mysql://root@127.0.0.1:3306/test"),
}


def server(dialect: str) -> Connection:
    """The server's own database, to make others from; skips (in CI: fails) when nothing answers."""
    connection = parse_url("db", URLS[dialect])
    try:
        with connection.connect():
            pass
    except ConnectionUnavailable as error:
        if os.environ.get("CI"):
            pytest.fail(f"the tests need a {dialect} server: {error.message}")
        pytest.skip(f"no {dialect} server: {error.message}")
    return connection


@contextmanager
def empty_database(dialect: str, folder: Path, name: str = "db") -> Iterator[Connection]:
    """A connection called ``name`` to a new empty database; gone at the end."""
    unique = f"tc_test_{uuid.uuid4().hex[:12]}"
    if dialect == "sqlite":
        path = folder / f"{unique}.db"
        path.touch()
        yield Connection(name=name, dialect="sqlite", database=str(path))
        path.unlink(missing_ok=True)
        return
    admin = server(dialect)
    if dialect == "postgresql" and _FREE:
        unique = _FREE.pop()
    else:
        run(admin, f"CREATE DATABASE {quote(unique, dialect)}")
        if dialect == "postgresql":  # nobody misses these rows after a power cut
            run(admin, f"ALTER DATABASE {quote(unique, dialect)} SET synchronous_commit = off")
    connection = replace(admin, name=name, database=unique)
    try:
        yield connection
    finally:
        if dialect == "postgresql":
            _tidy(connection)
        else:
            run(admin, f"DROP DATABASE {quote(unique, dialect)}")


_FREE: list[str] = []
"""Empty PostgreSQL databases to use again: to make one costs more than most tests."""


def _tidy(connection: Connection) -> None:
    """Empty it; whoever is still connected would hold a lock, so that is ended first."""
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
    run(
        connection,
        f"{others} pg_backend_pid()",
        "DO $$ DECLARE s text; BEGIN FOR s IN SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND "
        "nspname <> 'information_schema' LOOP EXECUTE format('DROP SCHEMA %I CASCADE', s); END LOOP; END $$",
        "CREATE SCHEMA public",
    )
    assert connection.database is not None
    if not _FREE:
        atexit.register(_drop_all)
    _FREE.append(connection.database)


def _drop_all() -> None:
    admin = parse_url("db", URLS["postgresql"])
    while _FREE:
        run(admin, f"DROP DATABASE IF EXISTS {quote(_FREE.pop(), 'postgresql')} WITH (FORCE)")


def run(connection: Connection, *statements: str) -> None:
    """Run statements one by one, each committed at once; ``%`` needs no doubling."""
    with connection.engine() as engine:
        autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        with autocommit.connect() as opened:
            driver = opened.connection.driver_connection
            assert driver is not None
            cursor = driver.cursor()
            for statement in statements:
                cursor.execute(statement)
            cursor.close()
