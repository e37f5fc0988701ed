"""``sql_script`` on the real servers: what the driver, the server and we make of it together.

Addresses: TASKCENTER_TEST_POSTGRES_URL, TASKCENTER_TEST_MYSQL_URL. Without a server the tests are skipped with the
reason; where CI is set they fail instead.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from blocks.connections import Connection, parse_url
from taskcenter.context import Cancelled, RunContext
from taskcenter.errors import ConnectionUnavailable, StepFailed, TimedOut
from taskcenter.task_types import registry

URLS = {
    "postgresql": os.environ.get("TASKCENTER_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres"),
    "mysql": os.environ.get("TASKCENTER_TEST_MYSQL_URL", "mysql://root@127.0.0.1:3306/test"),
}
SLEEP = {"postgresql": "select pg_sleep(60)", "mysql": "select sleep(60)"}
RUNNING = {
    "postgresql": "select count(*) from pg_stat_activity where state <> 'idle' and query like '%MARK%' and pid <> "
    "pg_backend_pid()",
    "mysql": "select count(*) from information_schema.processlist where info like '%MARK%' and id <> connection_id()",
}
BUSY = {
    # statements that are no sleep: MySQL's own limit is for SELECT only, and a DO block is no query
    "postgresql": "do $$ begin perform pg_sleep(60); end $$",
    "mysql": "insert into {table} (a) select benchmark(100000000000, sha2('x', 512))",
    "sqlite": "with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r",
}


@dataclass
class Database:
    connection: Connection
    ctx: RunContext
    table: str

    @property
    def dialect(self) -> str:
        return self.connection.dialect

    def run(self, sql: str, **payload: Any) -> Any:
        payload = {"sql": sql.replace("{table}", self.table), "connection": "db", **payload}
        problems = registry.get("sql_script").check(payload)
        assert not problems, problems
        return registry.get("sql_script").call(payload, self.ctx)

    def running(self, mark: str) -> int:
        """How many statements with ``mark`` in their text the server is working on."""
        with self.connection.connect() as opened:
            sql = RUNNING[self.dialect].replace("MARK", mark).replace("%", "%%")
            return int(opened.exec_driver_sql(sql).scalar_one())

    def gone(self, mark: str, within: float = 2.0) -> bool:
        end = time.monotonic() + within
        while self.running(mark) and time.monotonic() < end:
            time.sleep(0.05)
        return self.running(mark) == 0


@pytest.fixture(params=["postgresql", "mysql", "sqlite"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    dialect: str = request.param
    url = URLS.get(dialect, f"sqlite:///{tmp_path}/x.db?create=true")
    connection = parse_url("db", url)
    try:
        with connection.connect():
            pass
    except ConnectionUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no {dialect} server: {error.message}")
    table = f"tc_{uuid.uuid4().hex[:12]}"
    ctx = RunContext(resolve_connection=lambda name: connection)
    made = Database(connection, ctx, table)
    made.run("create table {table} (a bigint, b varchar(200))")
    yield made
    ctx.is_cancelled = None
    made.run("drop table {table}")


SERVERS = pytest.mark.parametrize("db", ["postgresql", "mysql"], indirect=True)
"""For what is only to be seen on a server; SQLite has none."""


def test_many_statements_with_parameters(db: Database) -> None:
    output = db.run(
        "insert into {table} values (:n, '50% :n ;'); -- and; more\nupdate {table} set b = :text where a = :n;"
        "select a, b from {table} where a = :n and b = :text",
        parameters={"n": 2**40, "text": 'it\'s 100% "ü" :x \\ ;'},
        fetch=10,
        expect=["rows == 1", f"value == {2**40}"],
    )
    assert output["dbType"] == db.dialect
    assert output["rows"] == [{"a": 2**40, "b": 'it\'s 100% "ü" :x \\ ;'}]
    assert [s["rows"] for s in output["statements"]] == [1, 1, 1]
    assert (output["resultSets"], output["totalRows"]) == (1, 3)


def test_percent_signs_without_parameters(db: Database) -> None:
    assert db.run("select 'a%%b %s' as x", fetch=1)["rows"] == [{"x": "a%%b %s"}]


def test_single_is_all_or_nothing(db: Database) -> None:
    with pytest.raises(StepFailed, match=r"statement 2 \(line 2\) failed"):
        db.run("insert into {table} (a) values (1);\nselect nonsense from {table}")
    db.run("select count(*) from {table}", expect="value == 0")
    with pytest.raises(StepFailed, match="expected rows == 5, but rows is 1"):
        db.run("insert into {table} (a) values (1)", expect="rows == 5")
    db.run("select count(*) from {table}", expect="value == 0")


def test_per_statement_and_none_keep_what_went_before(db: Database) -> None:
    for count, mode in enumerate(("per_statement", "none"), 1):
        with pytest.raises(StepFailed):
            db.run("insert into {table} (a) values (1); select nonsense", transaction=mode)
        db.run("select count(*) from {table}", expect=f"value == {count}")


def test_own_transaction(db: Database) -> None:
    output = db.run("begin; insert into {table} (a) values (1); rollback; select count(*) from {table}", fetch=1)
    assert output["transaction"] == "none"
    db.run("select count(*) from {table}", expect="value == 0")


def test_ddl_rolls_back_where_the_database_can(db: Database) -> None:
    with pytest.raises(StepFailed):
        db.run("create table {table}_2 (a int); select nonsense")
    if db.dialect == "mysql":
        assert db.run("drop table {table}_2")["transaction"] == "per_statement"
    else:
        with pytest.raises(StepFailed):
            db.run("select * from {table}_2")


@pytest.mark.alone
@SERVERS
def test_time_out_stops_it_on_the_server(db: Database) -> None:
    mark = uuid.uuid4().hex
    seen: list[int] = []
    watcher = threading.Timer(0.5, lambda: seen.append(db.running(mark)))
    watcher.start()
    started = time.monotonic()
    with pytest.raises(TimedOut, match=r"ran longer than 1 s and was stopped on the server") as caught:
        db.run(f"{SLEEP[db.dialect]} /* {mark} */", timeoutSeconds=1)
    took = time.monotonic() - started
    watcher.join()
    assert seen == [1]
    assert caught.value.error_type == "timeout"
    assert 0.9 < took < 3
    assert db.gone(mark)


@pytest.mark.alone
@SERVERS
@pytest.mark.parametrize("kind", ["sleeps", "works"])
def test_thirty_seconds_are_gone_after_three(db: Database, kind: str) -> None:
    """By the server's own list, looked at all the time by somebody else. (shows 6)

    The best of three counts: a server that writes out what a whole test run has left behind may itself stand still.
    """
    works = {
        # not FROM generate_series: its rows go to a file, and how long that takes to go is the disk's affair
        "postgresql": "select count(*) from (select generate_series(1, 500000000)) a",
        "mysql": "select benchmark(2000000000, sha2('x', 512))",
    }
    statement = SLEEP[db.dialect].replace("60", "30") if kind == "sleeps" else works[db.dialect]
    seen: list[float] = []
    while len(seen) < 3 and not (seen and min(seen) <= 3):
        seen.append(_seconds_at_work(db, statement))
    assert 0.5 < min(seen) <= 3, seen


def _seconds_at_work(db: Database, statement: str) -> float:
    """How long the server shows the statement at work, which has a second."""
    mark = uuid.uuid4().hex
    looks: list[tuple[float, int]] = []
    done = threading.Event()

    def look() -> None:
        sql = RUNNING[db.dialect].replace("MARK", mark).replace("%", "%%")
        with db.connection.connect() as opened:
            while not done.wait(0.05):
                looks.append((time.monotonic(), int(opened.exec_driver_sql(sql).scalar_one())))
                opened.rollback()

    watcher = threading.Thread(target=look)
    watcher.start()
    started = time.monotonic()
    with pytest.raises(TimedOut):
        db.run(f"{statement} /* {mark} */", timeoutSeconds=1)
    time.sleep(0.5)
    done.set()
    watcher.join()
    assert looks[-1][1] == 0
    return max(at - started for at, running in looks if running)


@pytest.mark.alone
def test_time_out_of_what_is_no_query(db: Database) -> None:
    mark = uuid.uuid4().hex
    started = time.monotonic()
    with pytest.raises(TimedOut):
        db.run(f"{BUSY[db.dialect]} /* {mark} */", timeoutSeconds=0.5)
    assert time.monotonic() - started < 4
    assert db.dialect == "sqlite" or db.gone(mark)


@SERVERS
def test_a_script_that_lifts_the_limit_is_stopped_all_the_same(db: Database) -> None:
    lift = {"postgresql": "set statement_timeout = 0", "mysql": "set session max_statement_time = 0"}[db.dialect]
    mark = uuid.uuid4().hex
    with pytest.raises(TimedOut):
        db.run(f"{lift}; {SLEEP[db.dialect]} /* {mark} */", timeoutSeconds=0.5)
    assert db.gone(mark)


def test_cancel_stops_it_on_the_server(db: Database) -> None:
    mark = uuid.uuid4().hex
    started = time.monotonic()
    db.ctx.is_cancelled = lambda: time.monotonic() - started > 0.5
    with pytest.raises(Cancelled):
        db.run(f"insert into {{table}} (a) values (1); {BUSY[db.dialect]} /* {mark} */", timeoutSeconds=0)
    assert time.monotonic() - started < 3
    db.ctx.is_cancelled = None
    assert db.dialect == "sqlite" or db.gone(mark)
    db.run("select count(*) from {table}", expect="value == 0")


@SERVERS
def test_a_lock_is_waited_for_no_longer_than_the_time_out(db: Database) -> None:
    db.run("insert into {table} (a) values (1)")
    with db.connection.connect() as other:
        other.exec_driver_sql(f"update {db.table} set a = 2")
        with pytest.raises(TimedOut):
            db.run("update {table} set a = 3", timeoutSeconds=0.5)
        other.commit()
    db.run("select a from {table}", expect="value == 2")


def test_a_million_rows_do_not_sit_in_memory(db: Database) -> None:
    import psutil

    numbers = {
        "postgresql": "select n, repeat('x', 200) as x from generate_series(1, 1000000) as g (n)",
        "mysql": "with recursive r(n) as (select 1 union all select n + 1 from r where n < 1000) "
        "select a.n, repeat('x', 200) as x from r as a, r as b",
        "sqlite": "with recursive r(n) as (select 1 union all select n + 1 from r where n < 1000000) "
        "select n, hex(zeroblob(100)) as x from r",
    }
    before = psutil.Process().memory_info().rss
    output = db.run(numbers[db.dialect], fetch=2, timeoutSeconds=60, expect="rows == 1000000")
    assert psutil.Process().memory_info().rss - before < 50 * 1024 * 1024
    assert len(output["rows"]) == 2


def test_empty_results_and_odd_column_names(db: Database) -> None:
    output = db.run("select a, b, a from {table}", fetch=5, expect="rows == 0")
    assert (output["rows"], output["resultSets"], output["totalRows"]) == ([], 1, 0)
    assert db.run(
        'select 1, 2 as "x y", 3 as "x y"' if db.dialect != "mysql" else "select 1, 2 `x y`, 3 `x y`", fetch=1
    )
    assert len(db.run("select 1 as x, 2 as x, 3 as x", fetch=1)["rows"][0]) == 3


def test_values_of_all_kinds_are_json(db: Database) -> None:
    import json

    queries: dict[str, tuple[str, Callable[[dict[str, Any]], bool]]] = {
        "postgresql": (
            "select 10.50::numeric as n, 'NaN'::float8 as f, now() as t, date '2026-01-02' as d, "
            "interval '1 day' as i, "
            "'\\x00ff'::bytea as y, array[1, null] as a, '{\"k\": [1]}'::jsonb as j, gen_random_uuid() as u, "
            "int4range(1, 3) as r, null as z, true as b, inet '10.0.0.1' as p",
            lambda row: row["n"] == 10.5 and row["y"] == "AP8=" and row["j"] == {"k": [1]} and row["a"] == [1, None],
        ),
        "mysql": (
            "select cast(10.50 as decimal(10, 2)) as n, now() as t, date '2026-01-02' as d, "
            "cast('25:00:00' as time) as i, "
            "x'00ff' as y, json_object('k', 1) as j, null as z, true as b, cast(18446744073709551615 as unsigned) as u",
            lambda row: row["n"] == 10.5 and row["d"] == "2026-01-02" and row["u"] == 2**64 - 1,
        ),
        "sqlite": ("select 10.5 as n, x'00ff' as y, null as z", lambda row: row["n"] == 10.5 and row["y"] == "AP8="),
    }
    sql, holds = queries[db.dialect]
    row = db.run(sql, fetch=1)["rows"][0]
    json.dumps(row, allow_nan=False)
    assert holds(row), row


def test_bodies_with_semicolons(db: Database) -> None:
    scripts = {
        "postgresql": "create function {table}_f() returns int language plpgsql as $f$ begin insert into {table} (a) "
        "values (1); return 2; end $f$; select {table}_f(); drop function {table}_f",
        "mysql": "DELIMITER //\ncreate procedure {table}_p() begin insert into {table} (a) values (1); select 1; "
        "select 2; end//\ndelimiter ;\ncall {table}_p(); drop procedure {table}_p;",
        "sqlite": "create trigger {table}_t after insert on {table} when new.a = 9 begin insert into {table} (a) "
        "values (1); end; insert into {table} (a) values (9); delete from {table} where a = 9",
    }
    output = db.run(scripts[db.dialect])
    assert output["resultSets"] == {"postgresql": 1, "mysql": 2, "sqlite": 0}[db.dialect]
    db.run("select count(*), min(a) from {table}", expect="value == 1")


@pytest.mark.parametrize("db", ["postgresql"], indirect=True)
def test_postgresql_only(db: Database) -> None:
    assert db.run("vacuum {table}")["transaction"] == "none"
    assert db.run("create index concurrently on {table} (a)")["transaction"] == "none"
    assert db.run("select :ids::bigint[]", parameters={"ids": [1, 2]}, fetch=1)["rows"] == [{"int8": [1, 2]}]
    with pytest.raises(StepFailed, match="COPY"):
        db.run("copy {table} from stdin")
    db.run("alter table {table} add constraint {table}_u unique (a) deferrable initially deferred")
    with pytest.raises(StepFailed, match="the commit failed: duplicate key") as caught:
        db.run("insert into {table} (a) values (1); insert into {table} (a) values (1)")
    assert caught.value.error_type == "sql"


def test_changed_rows_with_returning(db: Database) -> None:
    output = db.run("insert into {table} (a) values (1), (2) returning a", fetch=5)
    assert output["rows"] == [{"a": 1}, {"a": 2}]
    assert output["totalRows"] == 2


@SERVERS
def test_nobody_stays_connected(db: Database) -> None:
    who = {
        "postgresql": "select count(*) from pg_stat_activity where application_name = 'taskcenter' and "
        "pid <> pg_backend_pid() and query like '%{table}%'",
        "mysql": "select count(*) from information_schema.processlist where info like '%{table}%' and "
        "id <> connection_id()",
    }[db.dialect]
    db.run("select * from {table}")
    time.sleep(0.2)
    db.run(who, expect="value == 0")


def test_a_plan_says_what_it_will_cost(db: Database) -> None:
    t = db.table
    sql = f"select * from {t} where a = :n; update {t} set a = 1; select * from nowhere; drop table {t}"
    payload = {"sql": sql, "connection": "db", "parameters": {"n": 5}}
    note = registry.get("sql_script").preview(payload, db.ctx)
    assert note is not None
    statements = note.details["statements"]
    assert len(statements) == 4
    if db.dialect == "postgresql":
        assert [("cost" in s, "rows" in s) for s in statements] == [
            (True, True),
            (True, True),
            (False, False),
            (False, False),
        ]
        assert statements[0]["cost"] > 0
    elif db.dialect == "sqlite":
        assert not any("cost" in s for s in statements)
    db.run("select count(*) from {table}", expect="value == 0")
