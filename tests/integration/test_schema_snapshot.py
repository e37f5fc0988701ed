"""``schema_snapshot`` on real servers: what is captured, what a diff says, what breaks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from blocks.connections import Connection
from flows.task_types.database.document import schema_hash, to_document
from flows.task_types.database.reflect import reflect
from flows.task_types.database.snapshot import consistent
from flows.task_types.database.structure_diff import diff
from taskcenter.context import RunContext
from taskcenter.errors import NotFound, Refused, StepFailed
from taskcenter.task_types import registry
from taskcenter_adapter.store_memory import MemoryStore
from tests.databases import DIALECTS, empty_database, run
from tests.ddl_changes import BASE, CHANGES, OPTIONS, DdlChange
from tests.integration.test_database_structure import DDL


@pytest.fixture(scope="module", params=DIALECTS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """One database for many changes, each of which leaves it empty."""
    with empty_database(request.param, tmp_path_factory.mktemp("changes")) as connection:
        yield connection


@contextmanager
def undone(connection: Connection) -> Iterator[sa.Connection]:
    """An open connection whose changes are gone at the end: rolled back, or dropped where DDL cannot be."""
    with (
        connection.engine() as engine,
        engine.execution_options(isolation_level="AUTOCOMMIT").connect() as opened,
    ):
        if connection.dialect == "mysql":
            yield opened
            execute(opened, f"DROP DATABASE `{connection.database}`", f"CREATE DATABASE `{connection.database}`")
        else:
            execute(opened, "BEGIN")
            yield opened
            execute(opened, "ROLLBACK")


def execute(opened: sa.Connection, *statements: str) -> None:
    driver: Any = opened.connection.driver_connection
    for statement in statements:
        cursor = driver.cursor()
        cursor.execute(statement)
        cursor.close()


def plain(name: str) -> str:
    return name.replace("public.", "")


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_a_named_change(shared: Connection, change: DdlChange) -> None:
    dialect = shared.dialect
    if dialect not in change.change or (change.setup and dialect not in change.setup and dialect != "sqlite"):
        return  # this engine has no such thing
    expected = change.expected
    if change.name == "table options":
        expected = {("changed", "table", OPTIONS[dialect])}
    with undone(shared) as opened:
        execute(opened, *BASE[dialect], *change.setup.get(dialect, []))
        before = to_document(reflect(opened))
        execute(opened, *change.change[dialect])
        after = to_document(reflect(opened))
    found = diff(before, after)
    assert {(c.action, c.kind, plain(c.name)) for c in found} == expected
    assert bool([c for c in found if c.breaking]) is change.breaking
    assert (schema_hash(before) == schema_hash(after)) is not bool(expected)
    back = diff(after, before)
    opposite = {"added": "removed", "removed": "added", "changed": "changed"}
    assert {(opposite[c.action], c.kind, c.name) for c in back} == {(c.action, c.kind, c.name) for c in found}


def test_there_are_sixty_changes() -> None:
    assert len({change.name for change in CHANGES}) == len(CHANGES) >= 60
    for dialect, least in (("postgresql", 60), ("mysql", 60), ("sqlite", 35)):
        assert sum(1 for change in CHANGES if dialect in change.change) >= least, dialect


def test_the_hash_depends_on_neither_rows_nor_order(shared: Connection) -> None:
    hashes = set()
    for order in (1, -1):
        with undone(shared) as opened:
            tables = [f"CREATE TABLE n{i} (id int PRIMARY KEY, a int)" for i in range(5)]
            indexes = [f"CREATE INDEX i{i} ON n{i} (a)" for i in range(5)]
            execute(opened, *tables[::order], *indexes[::order])
            execute(opened, *(f"INSERT INTO n{i} VALUES ({order}, {order})" for i in range(5)))
            hashes.add(schema_hash(to_document(reflect(opened))))
    assert len(hashes) == 1


# the task type ---------------------------------------------------------------------------------------


@pytest.fixture(params=DIALECTS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    with empty_database(request.param, tmp_path) as connection:
        yield connection


class Runs:
    """Runs of the task type against one store."""

    def __init__(self, **connections: Connection) -> None:
        self.store = MemoryStore()
        self.ctx = RunContext(
            run_id="r1", resolve_connection=self._find, resolve_snapshots=lambda: self.store.snapshots
        )
        self.connections = connections

    def _find(self, name: str) -> Connection:
        from blocks.connections import missing

        if name not in self.connections:
            raise missing(name, blocks=False)
        return self.connections[name]

    def __call__(self, **payload: Any) -> dict[str, Any]:
        payload = {"connection": "db", **payload}
        assert registry.get("schema_snapshot").check(payload) == []
        found: dict[str, Any] = registry.get("schema_snapshot").call(payload, self.ctx)
        return found


def test_one_run_after_another(db: Connection) -> None:
    run(db, *DDL[db.dialect])
    runs = Runs(db=db)
    first = runs()
    assert (first["tableCount"], first["viewCount"], first["triggerCount"]) == (2, 1, 1)
    assert first["routineCount"] == {"postgresql": 2, "mysql": 1, "sqlite": 0}[db.dialect]
    assert first["changed"] is False
    assert first["diff"] == {"added": [], "removed": [], "changed": []}
    assert first["persisted"]
    second = runs()
    assert second["schemaHash"] == first["schemaHash"]
    assert second["snapshotId"] == first["snapshotId"] == second["comparedWith"]["snapshotId"]
    assert len(runs.store.snapshots.page()) == 1
    run(
        db,
        "ALTER TABLE item ADD COLUMN extra int"
        if db.dialect != "postgresql"
        else "ALTER TABLE sales.item ADD extra int",
    )
    third = runs(failOn="breaking")
    assert third["changed"]
    assert [c["kind"] for c in third["diff"]["added"]] == ["column"]
    run(db, "DROP VIEW busy")
    with pytest.raises(StepFailed, match=r"1 change: view .*busy was removed") as caught:
        runs(failOn="any")
    assert caught.value.error_type == "schema_changed"
    assert caught.value.output["changed"]
    back = runs(compareWith=first["snapshotId"], failOn="breaking")
    assert len(back["diff"]["removed"]) == 1
    run(db, "DROP TABLE " + ("sales.item" if db.dialect == "postgresql" else "item"))
    with pytest.raises(StepFailed, match=r"1 breaking change: the table .*item is gone"):
        runs(failOn="breaking")
    assert runs(failOn="breaking")["changed"] is False, "one change is told once"


def test_against_another_connection(db: Connection, tmp_path: Path) -> None:
    run(db, "CREATE TABLE t (a varchar(10))")
    with empty_database(db.dialect, tmp_path, "other") as other:
        run(other, "CREATE TABLE t (a varchar(20))", "CREATE TABLE t2 (a int)")
        runs = Runs(db=db, other=other)
        found = runs(compareWith="other", persistSnapshot=False)
        assert found["comparedWith"]["connectionId"] == "other"
        assert len(found["breaking"]) == 2
        assert runs.store.snapshots.page() == []
        assert "snapshotId" not in found


@pytest.mark.parametrize("db", ["sqlite"], indirect=True)
def test_what_is_refused(db: Connection) -> None:
    runs = Runs(db=db, big=replace(db, dialect="oracle"))
    with pytest.raises(NotFound, match="compareWith 'nothing' is neither the id of a kept snapshot nor a connection"):
        runs(compareWith="nothing")
    with pytest.raises(StepFailed, match="works on PostgreSQL, MySQL/MariaDB and SQLite"):
        runs(connection="big")
    with pytest.raises(StepFailed, match="is one SQLite file"):
        runs(database="elsewhere")
    runs.ctx = RunContext(resolve_connection=lambda name: db)
    with pytest.raises(Refused, match="set persistSnapshot to false"):
        runs()
    assert runs(persistSnapshot=False, compareWith="none")["changed"] is False


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_engines_are_not_compared_with_each_other(db: Connection, tmp_path: Path) -> None:
    refused = pytest.raises(StepFailed, match="cannot be compared with that of a sqlite one")
    with empty_database("sqlite", tmp_path) as other, refused:
        Runs(db=db, other=other)(compareWith="other")


def test_a_structure_is_read_as_of_one_instant(db: Connection) -> None:
    with consistent(db) as opened:
        assert reflect(opened).tables == ()
