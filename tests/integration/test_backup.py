"""``backup`` on real servers: what is restored is what was there."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from blocks.connections import Connection
from flows.task_types.database.catalog import rows
from flows.task_types.database.model import Structure
from flows.task_types.database.quoting import qualified, quote
from flows.task_types.database.reflect import reflect
from flows.task_types.database.restore import restore
from flows.task_types.database.snapshot import consistent
from taskcenter.context import RunContext
from taskcenter.task_types import registry
from tests.databases import DIALECTS, empty_database, run
from tests.integration.test_database_structure import DDL
from tests.random_databases import RandomDatabase, databases, fill

CASES = int(os.environ.get("TASKCENTER_TEST_CASES", "15"))
"""How many random databases per engine."""


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def pair(dialect: str, tmp_path: Path) -> Iterator[tuple[Connection, Connection]]:
    with empty_database(dialect, tmp_path) as source, empty_database(dialect, tmp_path) as target:
        yield source, target


@pytest.fixture
def ctx(home: Path, pair: tuple[Connection, Connection]) -> RunContext:
    return context(pair[0], home)


def context(connection: Connection, home: Path) -> RunContext:
    temp = home / "tmp"
    temp.mkdir(exist_ok=True)
    return RunContext(task="nightly", data_dir=home, temp_dir=temp, resolve_connection=lambda name: connection)


def backup(ctx: RunContext, **payload: Any) -> dict[str, Any]:
    payload = {"connection": "db", **payload}
    assert registry.get("backup").check(payload) == []
    result: dict[str, Any] = registry.get("backup").call(payload, ctx)
    return result


def content(connection: Connection) -> tuple[Structure, dict[str, list[Any]]]:
    """Structure and all rows, in an order of their own, exact to the bit."""
    with consistent(connection) as opened:
        found = reflect(opened)
        driver: Any = opened.connection.driver_connection
        if connection.dialect == "mysql":
            driver.decoders = {}
        if connection.dialect == "sqlite":
            driver.text_factory = bytes
        data = {}
        for table in found.tables:
            name = qualified(table.schema, table.name, connection.dialect)
            sql = f"SELECT * FROM {name}"
            if connection.dialect == "postgresql":
                sql = f"SELECT t::text FROM {name} t"
            if connection.dialect == "mysql":
                names = (quote(c.name, "mysql") + (" + 0e0" if c.type.sql == "float" else "") for c in table.columns)
                sql = f"SELECT {', '.join(names)} FROM {name}"
            data[table.label] = sorted(repr(row) for row in rows(opened, sql))
    return replace(found, database="", version=""), data


def assert_equal(one: Connection, two: Connection) -> None:
    (left, left_rows), (right, right_rows) = content(one), content(two)
    for part in dataclasses.fields(left):
        assert getattr(left, part.name) == getattr(right, part.name), part.name
    assert left_rows == right_rows


MORE: dict[str, list[str]] = {
    "postgresql": [
        "CREATE TABLE a (id int PRIMARY KEY, b int)",
        "CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a)",
        "INSERT INTO a VALUES (1, NULL)",
        "INSERT INTO b VALUES (2, 1)",
        "UPDATE a SET b = 2",
        "ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b",
        'INSERT INTO "order" (amount, tags) VALUES (5, \'{"x y",NULL,"\\\\"}\'), (6, \'{}\')',
        "CREATE VIEW zz AS SELECT id, count(*) AS n FROM a GROUP BY id",
        "CREATE VIEW aa AS SELECT * FROM zz",
        "CREATE MATERIALIZED VIEW mv AS SELECT * FROM aa",
        "CREATE UNIQUE INDEX mvi ON mv (id)",
        "CREATE FUNCTION of_view() RETURNS SETOF aa LANGUAGE sql AS 'SELECT * FROM public.aa'",
        "CREATE FUNCTION seven() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 7'",
        "CREATE TABLE uses (i int DEFAULT seven(), j int GENERATED ALWAYS AS (seven()) STORED, k int)",
        "INSERT INTO uses (k) VALUES (1)",
        "CREATE TABLE part (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
        "CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
        "CREATE INDEX part_i ON part (at)",
        "INSERT INTO part VALUES (1, '2020-05-05')",
        "CREATE RULE nothing AS ON DELETE TO uses DO INSTEAD NOTHING",
        "CREATE STATISTICS st ON id, b FROM a",
        "ALTER TABLE a ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY seen ON a FOR SELECT TO PUBLIC USING (id > 0)",
        "COMMENT ON FUNCTION seven() IS 'it''s'",
        "COMMENT ON TABLE a IS 'x'",
        "CREATE SEQUENCE lone START 5",
        "SELECT nextval('lone')",
        "ALTER TABLE sales.item DISABLE TRIGGER t",
        "CREATE UNLOGGED TABLE quick (a int)",
        "CREATE TABLE nothing ()",
    ],
    "mysql": [
        "CREATE TABLE a (id int PRIMARY KEY, b int)",
        "CREATE TABLE b (id int PRIMARY KEY, a int, FOREIGN KEY (a) REFERENCES a (id))",
        "INSERT INTO a VALUES (1, NULL)",
        "INSERT INTO b VALUES (2, 1)",
        "UPDATE a SET b = 2",
        "ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b (id)",
        "CREATE VIEW zz AS SELECT id, count(*) AS n FROM a GROUP BY id",
        "CREATE VIEW aa AS SELECT * FROM zz",
        "CREATE SEQUENCE s START WITH 5",
        "CREATE TABLE uses (id bigint DEFAULT nextval(s), b int)",
        "INSERT INTO uses (b) VALUES (1)",
        "CREATE PROCEDURE p() BEGIN SELECT 1; SELECT 'it''s; //'; END",
        "CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DO BEGIN SELECT 1; END",
        "INSERT INTO `order` (`Line no`, amount) VALUES (0, 5)",
    ],
    "sqlite": [
        "CREATE TABLE a (id int PRIMARY KEY, b int)",
        "INSERT INTO a VALUES (1, 'x' || char(0) || 'y'), (2, 0.1), (3, 5e-324), (4, 1.7976931348623157e308), "
        "(5, x'00ff'), (6, 9e999), (7, CAST(x'ff41' AS TEXT)), (-9223372036854775808, 1e300), (8, '')",
        "CREATE VIEW zz AS SELECT * FROM a",
        "CREATE VIEW aa AS SELECT * FROM zz",
        "CREATE TRIGGER on_view INSTEAD OF DELETE ON zz BEGIN DELETE FROM a WHERE id = old.id; END",
        'INSERT INTO "order" ("Line no", amount) VALUES (1, 5)',
        "PRAGMA user_version = 7",
    ],
}


def test_all_kinds_of_objects_come_back(pair: tuple[Connection, Connection], ctx: RunContext, dialect: str) -> None:
    source, target = pair
    run(source, *DDL[dialect], *MORE[dialect])
    result = backup(ctx, compress="gzip", verify=True)
    path = Path(result["filePath"])
    assert path.parent == ctx.data_dir / "backups"
    assert path.name.endswith(".sql.gz")
    assert path.stat().st_mode & 0o777 == 0o600
    assert result["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert result["bytes"] == path.stat().st_size
    assert result["verified"] is True
    assert result["rowCount"] == sum(len(data) for data in content(source)[1].values()) - (dialect == "postgresql")
    restore(path, target, "gzip")
    assert_equal(source, target)


CLIENTS: dict[str, Callable[[Connection], list[str]]] = {
    "postgresql": lambda c: ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", f"postgresql://{c.user}@{c.host}:{c.port}/{c.database}"],
    "mysql": lambda c: ["mariadb", "--no-defaults", f"-h{c.host}", f"-P{c.port}", f"-u{c.user}", str(c.database)],
    "sqlite": lambda c: ["sqlite3", "-bail", str(c.database)],
}  # fmt: skip


def test_the_script_is_for_the_engines_own_client_too(
    pair: tuple[Connection, Connection], ctx: RunContext, dialect: str
) -> None:
    source, target = pair
    argv = CLIENTS[dialect](target)
    if shutil.which(argv[0]) is None:
        pytest.skip(f"the client {argv[0]} is not installed here; restore() is tested without it")
    run(source, *DDL[dialect], *MORE[dialect])
    path = Path(backup(ctx)["filePath"])
    with path.open("rb") as script:
        done = subprocess.run(argv, stdin=script, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert_equal(source, target)


EMPTY = {
    "postgresql": ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"],
    "mysql": ["DROP DATABASE {0}", "CREATE DATABASE {0}", "USE {0}"],
}


def test_random_databases_come_back(pair: tuple[Connection, Connection], ctx: RunContext, dialect: str) -> None:
    source, target = pair

    @settings(
        max_examples=CASES,
        deadline=None,
        derandomize=CASES < 100,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(databases(dialect))
    def check(database: RandomDatabase) -> None:
        for connection in (source, target):
            if dialect == "sqlite":
                Path(str(connection.database)).write_bytes(b"")
            else:
                run(connection, *(s.format(connection.database) for s in EMPTY[dialect]))
        fill(source, database)
        result = backup(ctx)
        path = Path(result["filePath"])
        try:
            restore(path, target, "none")
            assert_equal(source, target)
            assert result["tableCount"] == len(database.tables)
        finally:
            path.unlink()

    check()
