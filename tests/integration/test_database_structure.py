"""Reading structures, values and snapshots from real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from blocks.connections import Connection
from flows.task_types.database.catalog import rows
from flows.task_types.database.literals import literal
from flows.task_types.database.model import Structure, TypeKind
from flows.task_types.database.quoting import quote
from flows.task_types.database.reflect import reflect
from flows.task_types.database.snapshot import consistent
from flows.task_types.database.values import driver_value, neutral
from tests.databases import DIALECTS, empty_database, run

DDL = {
    "postgresql": [
        "CREATE SCHEMA sales",
        "CREATE TYPE sales.mood AS ENUM ('sad', 'it''s ok')",
        "CREATE DOMAIN positive AS numeric(8,2) CHECK (VALUE > 0)",
        'CREATE TABLE "order" (id serial, "Line no" int GENERATED ALWAYS AS IDENTITY, amount positive, '
        "tags text[] NOT NULL DEFAULT '{}', feeling sales.mood DEFAULT 'sad', at timestamptz(3), "
        'doubled int GENERATED ALWAYS AS (id * 2) STORED, c char(5), PRIMARY KEY (id, "Line no"))',
        "CREATE TABLE sales.item (id uuid PRIMARY KEY, o int, l int, big bigint UNIQUE CHECK (big > 1), "
        'FOREIGN KEY (o, l) REFERENCES "order" ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED)',
        "CREATE INDEX by_big ON sales.item (big DESC) WHERE big > 5",
        "CREATE INDEX by_lower ON sales.item ((big + 1))",
        "CREATE INDEX plain ON sales.item (o, l)",
        'CREATE VIEW busy AS SELECT id FROM "order"',
        "CREATE FUNCTION add(a int, b int) RETURNS int LANGUAGE sql AS 'SELECT a + b'",
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER t BEFORE INSERT ON sales.item FOR EACH ROW EXECUTE FUNCTION touch()",
        "COMMENT ON COLUMN sales.item.big IS 'quite'",
    ],
    "mysql": [
        "CREATE TABLE `order` (id int AUTO_INCREMENT, `Line no` int, amount decimal(8,2) unsigned CHECK (amount > 0), "
        "tags json, feeling enum('sad', 'it''s ok') DEFAULT 'sad', at timestamp(3) NULL, "
        "doubled int AS (`Line no` * 2) STORED, c char(5), flag tinyint(1), PRIMARY KEY (id, `Line no`))",
        "CREATE TABLE item (id binary(16) PRIMARY KEY, o int, l int, big bigint UNIQUE COMMENT 'quite', t text, "
        "KEY plain (o, l), KEY part (t(10)), "
        "CONSTRAINT back FOREIGN KEY (o, l) REFERENCES `order` (id, `Line no`) ON DELETE CASCADE)",
        "CREATE VIEW busy AS SELECT id FROM `order`",
        "CREATE FUNCTION add_up(a int, b int) RETURNS int DETERMINISTIC RETURN a + b",
        "CREATE TRIGGER t BEFORE INSERT ON item FOR EACH ROW SET NEW.big = 5",
    ],
    "sqlite": [
        'CREATE TABLE "order" (id INTEGER PRIMARY KEY AUTOINCREMENT, "Line no" INT, amount DECIMAL(8, 2) '
        "CONSTRAINT paid CHECK (amount > 0), tags JSON NOT NULL DEFAULT '[]', [feeling] TEXT COLLATE NOCASE "
        'DEFAULT \'sad\', at TIMESTAMP, doubled AS ("Line no" * 2) STORED, c CHAR(5), UNIQUE (id, "Line no"))',
        "CREATE TABLE item (id BLOB PRIMARY KEY, o INT, l INT, big BIGINT UNIQUE, "
        'CONSTRAINT back FOREIGN KEY (o, l) REFERENCES "order" (id, "Line no") ON DELETE CASCADE '
        "DEFERRABLE INITIALLY DEFERRED) WITHOUT ROWID",
        "CREATE INDEX by_big ON item (big DESC) WHERE big > 5",
        "CREATE INDEX by_lower ON item (big + 1)",
        "CREATE INDEX plain ON item (o, l)",
        'CREATE VIEW busy AS SELECT id FROM "order"',
        "CREATE TRIGGER t BEFORE INSERT ON item BEGIN SELECT 1; END",
    ],
}


@pytest.fixture(params=DIALECTS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    with empty_database(request.param, tmp_path) as connection:
        yield connection


def structure(connection: Connection, **wanted: Any) -> Structure:
    with consistent(connection) as opened:
        return reflect(opened, **wanted)


def test_everything_is_named(db: Connection) -> None:
    run(db, *DDL[db.dialect])
    found = structure(db)
    assert [t.name for t in found.tables] == (["order", "item"] if db.dialect == "postgresql" else ["item", "order"])
    order, item = found.find_table("ORDER"), found.find_table("item")
    assert order is not None
    assert item is not None
    key = order.primary_key
    assert key is not None
    assert key.columns == (("id",) if db.dialect == "sqlite" else ("id", "Line no"))
    kinds = {c.name: c.type.kind for c in order.columns}
    tags = TypeKind.ARRAY if db.dialect == "postgresql" else TypeKind.JSON
    assert kinds["id"] is kinds["Line no"] is TypeKind.INTEGER
    assert kinds["amount"] is TypeKind.DECIMAL
    assert kinds["tags"] is tags
    assert kinds["at"] is (TypeKind.TIMESTAMP if db.dialect == "sqlite" else TypeKind.TIMESTAMP_TZ)
    amount, doubled = order.column("amount"), order.column("DOUBLED")
    assert amount is not None
    assert doubled is not None
    assert (amount.type.precision, amount.type.scale) == (8, 2)
    assert doubled.generated
    assert doubled.stored
    assert not doubled.writable
    assert "doubled" not in [c.name for c in order.writable]
    assert [k.columns for k in item.unique_keys] == [("big",)]
    foreign = item.foreign_keys[0]
    assert (foreign.columns, foreign.to_table, foreign.on_delete) == (("o", "l"), "order", "CASCADE")
    assert foreign.to_columns == ("id", "Line no")
    plain = next(i for i in item.indexes if i.name == "plain")
    assert plain.columns == ("o", "l")
    assert [v.name for v in found.views] == ["busy"]
    assert [t.name for t in found.triggers] == ["t"]
    assert order.checks or db.dialect == "postgresql"
    if db.dialect != "sqlite":
        assert {r.name for r in found.routines} >= ({"add"} if db.dialect == "postgresql" else {"add_up"})
        feeling = order.column("feeling")
        assert feeling is not None
        assert feeling.type.values == ("sad", "it's ok")
    if db.dialect != "mysql":
        by_big = next(i for i in item.indexes if i.name == "by_big")
        assert by_big.where
        assert by_big.columns == ()
        assert foreign.deferrable == "initially deferred"


def test_only_the_tables_asked_for(db: Connection) -> None:
    run(db, *DDL[db.dialect])
    found = structure(db, tables=["ORDER"])
    assert [t.name for t in found.tables] == ["order"]
    assert found.views == ()
    assert structure(db, tables=["nothing"]).tables == ()


def test_a_snapshot_does_not_see_later_writes(db: Connection) -> None:
    run(db, "CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
    if db.dialect == "sqlite":
        run(db, "PRAGMA journal_mode = WAL")
    with consistent(db) as opened:
        run(db, "INSERT INTO t VALUES (2)")
        assert rows(opened, "SELECT count(*) FROM t") == [(1,)]
    with consistent(db) as opened:
        assert rows(opened, "SELECT count(*) FROM t") == [(2,)]


VALUES: list[tuple[str, str, str, Any]] = [
    ("bigint", "bigint", "bigint", -(2**63)),
    ("numeric(30,10)", "decimal(30,10)", "text", Decimal("-12345678901234567890.0123456789")),
    ("double precision", "double", "real", 1.7976931348623157e308),
    ("double precision", "double", "real", 5e-324),
    ("double precision", "double", "real", 0.1),
    ("real", "float", "real", 0.5),
    ("boolean", "tinyint(1)", "boolean", True),
    ("text", "longtext", "text", 'it\'s \\ "x" 100% :a \r\n\t ü 🎉 \x01'),
    ("text", "longtext", "text", ""),
    ("bytea", "longblob", "blob", bytes(range(256))),
    ("bytea", "longblob", "blob", b""),
    ("date", "date", "date", date(9999, 12, 31)),
    ("time(6)", "time(6)", "time", time(23, 59, 59, 999999)),
    ("timestamp(6)", "datetime(6)", "datetime", datetime(1000, 1, 1, 1, 2, 3, 4)),
    ("timestamptz(6)", "timestamp(6)", "timestamptz", datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
    ("interval", "time(6)", "interval", -timedelta(hours=25, microseconds=1)),
    ("jsonb", "json", "json", {"a": [1, None, "ü'\\"], "b": {"c": True}}),
    ("uuid", "char(36)", "uuid", UUID(int=5)),
    ("int[]", "json", "json", [[1, None], [3, 4]]),
]


@pytest.mark.parametrize("index", range(len(VALUES)))
def test_literals_and_bound_values_come_back(shared: dict[str, Connection], index: int) -> None:
    *types, value = VALUES[index]
    for dialect, sql_type in zip(("postgresql", "mysql", "sqlite"), types, strict=True):
        connection = shared[dialect]
        name = quote(f"v {index}", dialect)
        run(connection, f"CREATE TABLE {name} (a {sql_type})", f"INSERT INTO {name} VALUES ({literal(value, dialect)})")
        found = structure(connection, tables=[f"v {index}"]).tables[0].columns[0]
        mark = "?" if dialect == "sqlite" else "%s"
        with connection.connect() as opened:
            driver = opened.connection.driver_connection
            assert driver is not None
            bound = driver_value(value, dialect, found.type.kind)
            driver.cursor().execute(f"INSERT INTO {name} VALUES ({mark})", [bound])
            driver.commit()
        with consistent(connection) as opened:
            given = [neutral(row[0], found.type) for row in rows(opened, f"SELECT a FROM {name}")]
        if isinstance(value, UUID) and found.type.kind is not TypeKind.UUID:
            given = [UUID(item) for item in given]
        if isinstance(value, Decimal) and dialect == "sqlite":
            given = [Decimal(item) for item in given]
        if isinstance(value, timedelta) and dialect == "mysql":
            assert given == [value, value]
        assert given == [value, value], (dialect, sql_type)
        assert json.dumps(str(given[0])) == json.dumps(str(value))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Connection]]:
    folder = tmp_path_factory.mktemp("shared")
    with (
        empty_database("postgresql", folder) as one,
        empty_database("mysql", folder) as two,
        empty_database("sqlite", folder) as three,
    ):
        yield {"postgresql": one, "mysql": two, "sqlite": three}
