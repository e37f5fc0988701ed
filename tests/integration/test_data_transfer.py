"""``data_transfer_migration`` on the real servers, between every pair of engines."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from datetime import date, datetime
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from blocks.connections import Connection
from flows.task_types.data.load import Counter
from flows.task_types.data.parquet import write_parquet
from flows.task_types.data.side import Guard
from flows.task_types.data.texts import Field
from flows.task_types.database.model import Column, ColumnType, TypeKind
from taskcenter.context import Cancelled, RunContext
from taskcenter.errors import StepFailed, TimedOut
from taskcenter.task_types import registry
from tests.many_databases import ENGINES, Make, making, query, run

PAIRS = [(a, b) for a in ENGINES for b in ENGINES]

SHOP = {
    "postgresql": """create table "Order Lines" (id bigint primary key, "select" text not null, price numeric(12,4),
        ratio double precision, small real, done boolean, day date, clock time, at timestamp, seen timestamptz,
        raw bytea, doc jsonb, code char(5), uid uuid, flags bit(4), mood text)""",
    "mysql": """create table `Order Lines` (id bigint primary key, `select` text not null, price decimal(12,4),
        ratio double, small float, done boolean, day date, clock time(6), at datetime(6), seen timestamp(6) null,
        raw longblob, doc json, code char(5), uid char(36), flags bit(4), mood enum('glad', 'sad')) charset utf8mb4""",
    "sqlite": """create table "Order Lines" (id integer primary key, "select" text not null, price decimal_text(12,4),
        ratio real, small real, done boolean, day date, clock time, at timestamp, seen timestamptz,
        raw blob, doc json_text, code char(5), uid uuid, flags text, mood text)""",
}
ROWS = [
    "(1, 'plain', 10.5, 0.1, 0.5, {true}, '2026-01-02', '10:11:12', '2026-01-02 03:04:05.678', {seen}, {raw}, "
    "'{{\"a\": [1, null, \"x\"]}}', 'abc', '00000000-0000-4000-8000-000000000001', {bits}, 'glad')",
    "(2, '', null, null, null, null, null, null, null, null, null, null, null, null, null, null)",
    "(-3, {odd}, -99999999.9999, 1e300, -2.5, {false}, '9999-12-31', '23:59:59.999999', "
    "'1000-01-01 00:00:00', {seen}, {empty}, '[]', 'x', 'ffffffff-ffff-4fff-bfff-ffffffffffff', {bits}, 'sad')",
    "(9223372036854775807, 'ü€😀''\"%s :x', 0, -0.0000001, 0, {true}, '1970-01-01', '00:00:00', "
    "'2026-06-30 12:00:00.000001', null, {raw}, '\"text\"', '', null, null, null)",
]
WORDS = {
    "postgresql": {
        "true": "true", "false": "false", "seen": "'2026-03-04 05:06:07.89+00'", "raw": r"'\x00ff0a095c'",
        "empty": "''", "bits": "b'0101'", "odd": r"E'tab\tline\nback\\slash \\N \r end\b\f\x0b'",
    },
    "mysql": {
        "true": "1", "false": "0", "seen": "'2026-03-04 05:06:07.89'", "raw": "x'00ff0a095c'", "empty": "''",
        "bits": "b'0101'", "odd": r"concat('tab\tline\nback\\slash \\N \r end', char(8), char(12), char(11))",
    },
    "sqlite": {
        "true": "1", "false": "0", "seen": "'2026-03-04 05:06:07.89+00:00'", "raw": "x'00ff0a095c'", "empty": "x''",
        "bits": "'0101'",
        "odd": r"'tab' || char(9) || 'line' || char(10) || 'back\slash \N ' || char(13) || ' end' || char(8, 12, 11)",
    },
}  # fmt: skip


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setenv("TASKCENTER_PROJECT", str(tmp_path))
    with making(tmp_path) as made:
        yield made


def fill(connection: Connection) -> None:
    """The table of all kinds with its four rows."""
    engine = connection.dialect
    if engine == "mysql":
        run(connection, "set time_zone = '+00:00'")
    mark = "`" if engine == "mysql" else '"'
    values = [row.format(**WORDS[engine]) for row in ROWS]
    first = ["set time_zone = '+00:00'"] if engine == "mysql" else []
    run(connection, *first, SHOP[engine], *(f"insert into {mark}Order Lines{mark} values {v}" for v in values))


def transfer(source: Connection, target: Connection | None, temp: Path, *objects: dict[str, Any], **more: Any) -> Any:
    """Run the task type; the ``run`` part of its output."""
    known = {"source": source, **({"target": target} if target else {})}
    ctx = RunContext(resolve_connection=known.__getitem__, temp_dir=temp, data_dir=temp)
    payload = {"source": "source", **({"target": "target"} if target else {}), "objects": list(objects), **more}
    kind = registry.get("data_transfer_migration")
    assert kind.check(payload) == []
    return kind.call(payload, ctx)["run"]


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_every_pair_carries_every_kind_of_value(left: str, right: str, make: Make, tmp_path: Path) -> None:
    source, target = make(left, "source"), make(right, "target")
    fill(source)
    made = transfer(source, target, tmp_path, {"sourceTable": "Order Lines", "verify": True})["objects"][0]
    assert (made["rowsRead"], made["rowsWritten"], made["created"]) == (4, 4, True)
    assert made["checksum"]["rows"] == 4
    # and back into a table of the source's own types: nothing was lost on the way
    back = transfer(
        target, source, tmp_path, {"sourceTable": "Order Lines", "targetTable": "Order Lines", "mode": "replace"}
    )["objects"][0]
    assert back["rowsWritten"] == 4
    other = make(left, "other")
    fill(other)
    mark = "`" if left == "mysql" else '"'
    everything = f"select * from {mark}Order Lines{mark} order by 1"
    assert [tuple(map(shortest, row)) for row in query(source, everything)] == [
        tuple(map(shortest, row)) for row in query(other, everything)
    ]


def shortest(value: object) -> object:
    """SQLite keeps texts: 10.5000 is 10.5 there, and a fraction of a second may end in zeros."""
    match = re.fullmatch(r"(.*\d\.\d*?)0+(\+00:00)?", value) if isinstance(value, str) else None
    return match[1].rstrip(".") + (match[2] or "") if match else value


SMALL = "create table t (id integer primary key, name varchar(40), amount decimal(10,2))"


def rows_of(connection: Connection, table: str = "t") -> list[tuple[Any, ...]]:
    return [
        (r[0], r[1], float(str(r[2]))) for r in query(connection, f"select id, name, amount from {table} order by id")
    ]


@pytest.fixture(params=PAIRS, ids=lambda p: f"{p[0]}-{p[1]}")
def pair(request: pytest.FixtureRequest, make: Make) -> tuple[Connection, Connection]:
    """Source with the rows 2, 3, 4 and target with 1, 2, 3."""
    left, right = request.param
    source, target = make(left, "source"), make(right, "target")
    run(source, SMALL, "insert into t values (2, 'two', 2.5), (3, 'new', 3), (4, 'four', 4)")
    run(target, SMALL, "insert into t values (1, 'one', 1), (2, 'two', 2.5), (3, 'old', 0)")
    return source, target


def test_the_three_modes(pair: tuple[Connection, Connection], tmp_path: Path) -> None:
    source, target = pair
    made = transfer(source, target, tmp_path, {"sourceTable": "t", "mode": "upsert", "keyColumns": ["id"]})["objects"][
        0
    ]
    assert (made["rowsRead"], made["created"]) == (3, False)
    merged = [(1, "one", 1.0), (2, "two", 2.5), (3, "new", 3.0), (4, "four", 4.0)]
    assert rows_of(target) == merged
    with pytest.raises(StepFailed, match="moving t to t failed, the target is as it was") as caught:
        transfer(source, target, tmp_path, {"sourceTable": "t"})  # the keys are there already
    assert caught.value.error_type == "constraint"
    assert rows_of(target) == merged
    transfer(source, target, tmp_path, {"sourceTable": "t", "mode": "replace", "where": "id > 2"})
    assert rows_of(target) == merged[2:]
    transfer(
        source, target, tmp_path, {"sourceQuery": "select 9 as id, 'it''s' as name, 1.5 as amount", "targetTable": "t"}
    )
    assert rows_of(target)[-1] == (9, "it's", 1.5)


def test_a_failed_replace_leaves_the_old_rows(pair: tuple[Connection, Connection], tmp_path: Path) -> None:
    source, target = pair
    run(source, "insert into t values (5, null, 5)")
    old = rows_of(target)
    run(target, "alter table t rename to was")
    run(target, "create table t (id integer primary key, name varchar(40) not null, amount decimal(10,2))")
    run(target, "insert into t select id, name, amount from was")
    with pytest.raises(StepFailed, match="target is as it was"):
        transfer(source, target, tmp_path, {"sourceTable": "t", "mode": "replace"})
    assert rows_of(target) == old
    with pytest.raises(StepFailed, match="target is as it was"):
        transfer(source, target, tmp_path, {"sourceTable": "t", "mode": "upsert", "keyColumns": ["id"]})
    assert rows_of(target) == old


def test_columns_are_paired_and_cast(pair: tuple[Connection, Connection], tmp_path: Path) -> None:
    source, target = pair
    run(target, "create table u (number integer primary key, label varchar(50), extra varchar(10))")
    text = {"postgresql": "text", "mysql": "char", "sqlite": "text"}[source.dialect]
    columns = {"id": "number", "amount": {"target": "label", "cast": text}}
    transfer(source, target, tmp_path, {"sourceTable": "t", "targetTable": "u", "columns": columns})
    found = query(target, "select number, label, extra from u order by number")
    assert [row[0] for row in found] == [2, 3, 4]
    assert float(str(found[0][1])) == 2.5
    assert found[0][2] is None
    with pytest.raises(StepFailed, match="has no column 'nothing'"):
        transfer(source, target, tmp_path, {"sourceTable": "t", "columns": {"nothing": "id"}})
    with pytest.raises(StepFailed, match="has no column 'nowhere'"):
        transfer(source, target, tmp_path, {"sourceTable": "t", "columns": {"id": "nowhere"}})


def test_errors_say_what_and_where(pair: tuple[Connection, Connection], tmp_path: Path) -> None:
    source, target = pair
    with pytest.raises(StepFailed, match="there is no source table 'absent' on source") as caught:
        transfer(source, target, tmp_path, {"sourceTable": "absent"})
    assert caught.value.error_type == "missing_table"
    with pytest.raises(
        StepFailed, match=r"upsert goes by \(name\), but the target table .*t has no primary key or unique"
    ):
        transfer(source, target, tmp_path, {"sourceTable": "t", "mode": "upsert", "keyColumns": ["name"]})
    twice = "select 7 as id, 'a' as name, 1 as amount union all select 7, 'b', 2"
    more = {"targetTable": "t", "mode": "upsert", "keyColumns": ["id"]}
    with pytest.raises(StepFailed, match="several rows for t with the same key"):
        transfer(source, target, tmp_path, {"sourceQuery": twice, **more})
    with pytest.raises(StepFailed, match="would be moved onto itself"):
        transfer(source, source, tmp_path, {"sourceTable": "t", "mode": "replace"})


def test_dry_run_and_preflight(pair: tuple[Connection, Connection], tmp_path: Path) -> None:
    source, target = pair
    before = rows_of(target)
    made = transfer(source, target, tmp_path, {"sourceTable": "t", "mode": "replace"}, dryRun=True)["objects"][0]
    assert (made["rowsRead"], made["targetRows"], made["rowsWritten"]) == (3, 3, 0)
    made = transfer(source, target, tmp_path, {"sourceTable": "t", "targetTable": "new"}, dryRun=True)["objects"][0]
    assert made["targetExists"] is False
    run(target, "create table narrow (id integer primary key, amount decimal(10,2), must integer not null)")
    item = {"sourceTable": "t", "targetTable": "narrow"}
    with pytest.raises(StepFailed, match=r"breaking .*nothing was moved \(lockGuard\)") as caught:
        transfer(source, target, tmp_path, item, includeSchemaMigration=True)
    check = caught.value.output["preflight"]
    assert any("has no column name" in sentence for sentence in check["breaking"])
    assert any("must must not be NULL" in sentence for sentence in check["breaking"])
    assert check["statements"][0].startswith("ALTER TABLE")
    assert rows_of(target) == before


def test_incremental_takes_what_is_new(pair: tuple[Connection, Connection], tmp_path: Path) -> None:
    source, target = pair
    item = {"sourceTable": "t", "targetTable": "copy", "watermarkColumn": "id"}
    assert transfer(source, target, tmp_path, item)["objects"][0]["rowsWritten"] == 3
    assert transfer(source, target, tmp_path, item)["objects"][0]["rowsWritten"] == 0
    run(source, "insert into t values (7, 'seven', 7), (6, 'six', 6)")
    made = transfer(source, target, tmp_path, item)["objects"][0]
    assert made["rowsWritten"] == 2
    assert made["watermark"] == {"above": "4", "upTo": "7"}
    assert rows_of(target, "copy") == rows_of(source)


def test_rows_of_mysql_of_every_size(make: Make, tmp_path: Path) -> None:
    """Around each length that its protocol writes in another way, and rows that no read buffer holds."""
    source, target = make("mysql", "source"), make("sqlite", "target")
    sizes = [0, 1, 240, *range(243, 256), 65_520, 65_535, 65_536, 262_144, 300_000, 1_000_000]
    run(source, "create table t (id integer primary key, a longtext character set utf8mb4, b longblob)")
    with source.connect() as opened:
        for number, size in enumerate([*sizes, *sizes]):
            text = "".join(chr((7 * n + number) % 128) for n in range(min(size, 300))) + "ü" * ((size - 300) // 2)
            values = (number, None if number % 9 == 8 else text, bytes(range(256)) * (size // 700))
            opened.exec_driver_sql("insert into t values (%s, %s, %s)", values)
        opened.exec_driver_sql(
            "insert into t (id, a) select seq, concat('\t', repeat('\\n', mod(seq, 3))) from seq_1000_to_30000"
        )
        opened.commit()
    item = {"sourceTable": "t", "verify": True}
    assert transfer(source, target, tmp_path, item)["objects"][0]["rowsWritten"] == 2 * len(sizes) + 29_001
    everything = "select id, a, b from t order by id"
    assert query(target, everything) == query(source, everything)


@pytest.mark.parametrize("engine", ENGINES)
def test_files(engine: str, make: Make, tmp_path: Path) -> None:
    source = make(engine, "source")
    fill(source)

    def write(kind: str, **more: Any) -> str:
        path = tmp_path / f"out.{kind}"
        item = {"sourceTable": "Order Lines", "sinkType": kind, "sinkPath": str(path), "verify": True, **more}
        made = transfer(source, None, tmp_path, item)["objects"][0]
        assert made["bytes"] == path.stat().st_size
        assert made["checksum"] == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        return path.read_bytes().decode()

    rows = list(csv.reader(io.StringIO(write("csv"), newline="")))
    assert [row[0] for row in sorted(rows[1:], key=lambda r: int(r[0]))] == ["-3", "1", "2", "9223372036854775807"]
    by_id = {row[0]: row for row in rows[1:]}
    assert by_id["-3"][1] == "tab\tline\nback\\slash \\N \r end\b\f\v"
    assert by_id["1"][5] == "true"
    assert by_id["1"][10] == "00ff0a095c"
    objects = {found["id"]: found for found in map(json.loads, write("jsonl").splitlines())}
    assert objects[1]["doc"] == {"a": [1, None, "x"]}
    assert objects[1]["done"] is True
    assert base64.b64decode(objects[1]["raw"]) == b"\x00\xff\n\t\\"
    assert objects[-3]["select"] == by_id["-3"][1]
    assert objects[2]["price"] is None
    # the statements are read back by the same engine
    other = make(engine, "other")
    run(other, SHOP[engine])
    text = write("sql", mode="upsert", keyColumns=["id"])
    kind = registry.get("sql_script")
    ctx = RunContext(resolve_connection=lambda name: other)
    for _ in range(2):
        kind.call({"connection": "other", "sql": text, "transaction": "none"}, ctx)
    mark = "`" if engine == "mysql" else '"'
    everything = f"select * from {mark}Order Lines{mark} order by 1"
    assert [tuple(map(shortest, r)) for r in query(other, everything)] == [
        tuple(map(shortest, r)) for r in query(source, everything)
    ]
    assert not list(tmp_path.glob(".*part"))
    with pytest.raises(StepFailed, match=r"Is a directory|Not a directory|File exists"):
        transfer(source, None, tmp_path, {"sourceTable": "Order Lines", "sinkType": "csv", "sinkPath": str(tmp_path)})


@pytest.mark.parametrize("engine", ENGINES)
def test_parquet_is_read_back_as_it_was(engine: str, make: Make, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    source = make(engine, "source")
    fill(source)
    path = tmp_path / "out.parquet"
    item = {"sourceTable": "Order Lines", "sinkType": "parquet", "sinkPath": str(path), "verify": True}
    made = transfer(source, None, tmp_path, item)["objects"][0]
    assert (made["rowsWritten"], made["bytes"]) == (4, path.stat().st_size)
    assert made["checksum"] == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    table = parquet.read_table(path)
    kinds = {name: str(table.schema.field(name).type) for name in ("id", "done", "day", "at", "seen", "raw", "ratio")}
    assert kinds == {
        "id": "int64", "done": "bool", "day": "date32[day]", "at": "timestamp[us]", "seen": "timestamp[us, tz=UTC]",
        "raw": "binary", "ratio": "double",
    }  # fmt: skip
    # the same rows as the JSON lines, which are held against the source elsewhere
    lines = tmp_path / "out.jsonl"
    transfer(source, None, tmp_path, {**item, "sinkType": "jsonl", "sinkPath": str(lines)})
    wanted = {row["id"]: row for row in map(json.loads, lines.read_text(encoding="utf-8").splitlines())}
    found = {row["id"]: {**row, "doc": row["doc"] and json.loads(row["doc"])} for row in table.to_pylist()}
    assert checksum(found) == checksum(wanted)
    transfer(source, None, tmp_path, {**item, "sinkType": "csv", "sinkPath": str(tmp_path / "out.csv")})
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as opened:
        read = {int(row["id"]): row for row in csv.DictReader(opened)}
    assert read.keys() == found.keys()
    as_csv = {n: {name: like(row[name], name, read[n][name]) for name in row} for n, row in found.items()}
    assert checksum(as_csv) == checksum(found)


def like(value: Any, name: str, text: str) -> Any:
    """A field of a CSV file as the type that ``value`` has."""
    if value is None or name == "doc":
        return json.loads(text) if text else None
    if isinstance(value, bool):
        return {"true": True, "false": False}[text]
    if isinstance(value, bytes):
        return bytes.fromhex(text)
    return type(value).fromisoformat(text) if isinstance(value, date | clock) else type(value)(text)


def checksum(rows: dict[int, dict[str, Any]]) -> str:
    """Of all values in one spelling, whichever file they come from."""

    def spelt(value: Any, name: str) -> str:
        if value is not None and name in ("at", "seen"):
            value = value if isinstance(value, datetime) else datetime.fromisoformat(value)
            return str(value.isoformat())
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            return str(Decimal(str(value)).normalize())
        return json.dumps(value, sort_keys=True) if name == "doc" else str(value)

    lines = [[name, spelt(value, name)] for _, row in sorted(rows.items()) for name, value in sorted(row.items())]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def test_parquet_says_what_it_cannot_hold(make: Make, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    source = make("postgresql", "source")
    run(source, "create table t (id int, day date)", "insert into t values (1, 'infinity')")
    item = {"sourceTable": "t", "sinkType": "parquet", "sinkPath": str(tmp_path / "x.parquet")}
    with pytest.raises(StepFailed, match="the column 'day' holds a value that Parquet's type date32") as caught:
        transfer(source, None, tmp_path, item)
    assert caught.value.error_type == "value"
    assert not list(tmp_path.glob("*parquet*"))
    columns = {"id": "id", "day": {"target": "day", "cast": "text"}}
    assert transfer(source, None, tmp_path, {**item, "columns": columns})["objects"][0]["rowsWritten"] == 1


def test_parquet_holds_few_wide_rows_at_once(make: Make, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    source = make("sqlite", "source")
    run(source, SMALL, MANY["sqlite"].format(3000).replace("'x'", "hex(zeroblob(2000))"))
    path = tmp_path / "wide.parquet"
    transfer(source, None, tmp_path, {"sourceTable": "t", "sinkType": "parquet", "sinkPath": str(path)})
    found = parquet.read_metadata(path)
    assert found.num_rows == 3000
    assert found.num_row_groups >= 5


def test_parquet_lets_go_of_its_reader(tmp_path: Path) -> None:
    """MySQL would else read all rows that are left, before the next statement."""
    pytest.importorskip("pyarrow")
    left = []

    def reading() -> Generator[tuple[bytes, int], None, None]:
        try:
            yield b"x\n", 1
            yield b"y\n", 1
        finally:
            left.append("closed")

    column = Column("id", ColumnType("int", TypeKind.INTEGER))
    guard = Guard(RunContext(), 0, "the transfer")
    with pytest.raises(StepFailed) as caught:
        write_parquet(tmp_path / "x.parquet", reading(), [Field(column, column)], guard, Counter())
    assert left == ["closed"]
    assert caught.value.error_type == "value"


def test_parquet_says_what_it_needs(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make("sqlite", "source")
    fill(source)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    item = {"sourceTable": "Order Lines", "sinkType": "parquet", "sinkPath": str(tmp_path / "x.parquet")}
    with pytest.raises(StepFailed, match="pip install pyarrow") as caught:
        transfer(source, None, tmp_path, item)
    assert caught.value.error_type == "setup"
    assert not list(tmp_path.glob("*parquet*"))


MANY = {
    "postgresql": "insert into t select n, 'x', 1 from generate_series(1, {0}) as g (n)",
    "mysql": "insert into t select seq, 'x', 1 from seq_1_to_{0}",
    "sqlite": "with recursive r(n) as (select 1 union all select n + 1 from r where n < {0}) "
    "insert into t select n, 'x', 1 from r",
}
BLOCKERS = [("postgresql", "postgresql"), ("mysql", "mysql"), ("sqlite", "mysql"), ("mysql", "postgresql")]


@pytest.mark.parametrize(("left", "right"), [*BLOCKERS, ("postgresql", "sqlite")])
def test_a_cancel_stops_it_and_leaves_the_target(left: str, right: str, make: Make, tmp_path: Path) -> None:
    source, target = make(left, "source"), make(right, "target")
    run(source, SMALL, MANY[left].format(200_000))
    run(target, SMALL, "insert into t values (-1, 'old', 1)")
    known = {"source": source, "target": target}
    asked: list[float] = []

    def cancelled() -> bool:
        asked.append(time.monotonic())
        return len(asked) > 3

    ctx = RunContext(resolve_connection=known.__getitem__, temp_dir=tmp_path, is_cancelled=cancelled)
    payload = {"source": "source", "target": "target", "objects": [{"sourceTable": "t", "mode": "replace"}]}
    with pytest.raises(Cancelled):
        registry.get("data_transfer_migration").call(payload, ctx)
    assert rows_of(target) == [(-1, "old", 1.0)]


@pytest.mark.parametrize(("left", "right"), [("postgresql", "mysql"), ("mysql", "postgresql")])
def test_a_locked_table_is_given_up_at_the_time_limit(left: str, right: str, make: Make, tmp_path: Path) -> None:
    source, target = make(left, "source"), make(right, "target")
    run(source, SMALL, MANY[left].format(50_000))
    run(target, SMALL, "insert into t values (-1, 'old', 1)")
    started = time.monotonic()
    with target.connect() as other:
        other.exec_driver_sql("lock table t" if right == "postgresql" else "select * from t for update")
        with pytest.raises(TimedOut, match="was stopped after 5 s; the target"):
            transfer(source, target, tmp_path, {"sourceTable": "t", "mode": "replace"}, timeoutSeconds=5)
        other.rollback()
    assert time.monotonic() - started < 9
    assert rows_of(target) == [(-1, "old", 1.0)]


@pytest.mark.parametrize(("left", "right"), [("postgresql", "postgresql"), ("sqlite", "mysql"), ("mysql", "sqlite")])
def test_kill_in_the_middle_leaves_the_old_table(left: str, right: str, make: Make, tmp_path: Path) -> None:
    source, target = make(left, "source"), make(right, "target")
    run(source, SMALL, MANY[left].format(100_000))
    run(target, SMALL, "insert into t values (-1, 'old', 1)")
    code = f"""
import os, signal
from blocks.connections import Connection
from flows.task_types.data import sinks, load
from taskcenter.context import Cancelled, RunContext
from taskcenter.errors import StepFailed, TimedOut
from taskcenter.task_types import registry
from pathlib import Path
known = {{"source": Connection({describe_connection(source)}), "target": Connection({describe_connection(target)})}}
seen = []
class Dies(load.Counter):
    def add(self, rows, size):
        super().add(rows, size)
        if self.rows > 50_000:
            os.kill(os.getpid(), signal.SIGKILL)
import flows.task_types.data.transfer as t
t.Counter = Dies
ctx = RunContext(resolve_connection=known.__getitem__, temp_dir=Path({str(tmp_path)!r}))
payload = {{"source": "source", "target": "target", "objects": [{{"sourceTable": "t", "mode": "replace"}}]}}
registry.get("data_transfer_migration").call(payload, ctx)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    end = time.monotonic() + 10
    while rows_of(target) != [(-1, "old", 1.0)] and time.monotonic() < end:
        time.sleep(0.1)
    assert rows_of(target) == [(-1, "old", 1.0)]
    assert (
        transfer(source, target, tmp_path, {"sourceTable": "t", "mode": "replace"})["objects"][0]["rowsWritten"]
        == 100_000
    )


def describe_connection(connection: Connection) -> str:
    c = connection
    return (
        f"name={c.name!r}, dialect={c.dialect!r}, host={c.host!r}, port={c.port!r}, database={c.database!r}, "
        f"user={c.user!r}, password={c.password!r}, options={dict(c.options)!r}"
    )


CUT = {
    "postgresql": "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
    "and pid <> pg_backend_pid()",
    "mysql": "select concat('kill ', id) from information_schema.processlist where db = database() "
    "and id <> connection_id()",
}


@pytest.mark.parametrize(("left", "right"), [("postgresql", "mysql"), ("mysql", "postgresql")])
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_connection_that_breaks_in_the_middle(
    left: str, right: str, side: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.task_types.data import transfer as module

    source, target = make(left, "source"), make(right, "target")
    run(source, SMALL, MANY[left].format(250_000))
    run(target, SMALL, "insert into t values (-1, 'old', 1)")
    broken = {"source": source, "target": target}[side]

    class Cuts(module.Counter):
        def add(self, rows: int, size: int) -> None:
            if self.rows == 0:
                for (command,) in query(broken, CUT[broken.dialect]):
                    if broken.dialect == "mysql":
                        run(broken, str(command))
            super().add(rows, size)

    monkeypatch.setattr(module, "Counter", Cuts)
    # more than the sockets between can hold
    wide = "select id + 0 as id, repeat('x', 39) as name, amount from t"
    with pytest.raises(StepFailed, match="moving the query to t failed, the target is as it was") as caught:
        transfer(source, target, tmp_path, {"sourceQuery": wide, "targetTable": "t", "mode": "replace"})
    assert caught.value.error_type == "connection_lost"
    assert rows_of(target) == [(-1, "old", 1.0)]
