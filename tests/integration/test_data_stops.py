"""Transfers and comparisons that meet the clock, a lock or a writer: nothing is half done. (shows 2, 3, 8)"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blocks.connections import Connection
from taskcenter.context import RunContext
from taskcenter.errors import ConnectionUnavailable, StepFailed, TimedOut
from taskcenter.task_types import registry
from tests.integration.test_data_transfer import MANY, SMALL, rows_of, transfer
from tests.integration.test_data_trouble import CROSSED, compare
from tests.many_databases import Make, making, query, run

ENDLESS = {
    "postgresql": "select 1 as id, 'x' as name, 1 as amount from pg_sleep(60)",
    "mysql": "select sleep(60) as id, 'x' as name, 1 as amount",  # when it is killed it gives a row
    "sqlite": "with recursive r(n) as (select 1 union all select n + 1 from r) "
    "select n as id, 'x' as name, 1 as amount from r where n < 0",
}
"""Queries that are at work for a long time."""
AT_WORK = {
    "postgresql": "select count(*) from pg_stat_activity where datname = current_database() and state = 'active' "
    "and pid <> pg_backend_pid()",
    "mysql": "select count(*) from information_schema.processlist where db = database() and command = 'Query' "
    "and id <> connection_id()",
}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setenv("TASKCENTER_PROJECT", str(tmp_path))
    with making(tmp_path) as made:
        yield made


def test_a_query_without_end_is_stopped_at_the_limit_and_on_its_server(make: Make, tmp_path: Path) -> None:
    """All three engines at once, as the source of one another: the shortest limit is five seconds."""

    def stopped(left: str, source: Connection, target: Connection) -> float:
        started = time.monotonic()
        item = {"sourceQuery": ENDLESS[left], "targetTable": "t", "mode": "replace"}
        with pytest.raises(TimedOut, match="was stopped after 5 s; the target is as it was"):
            transfer(source, target, tmp_path, item, timeoutSeconds=5)
        return time.monotonic() - started

    pairs = [(left, make(left, "source"), make(right, "target")) for left, right in CROSSED]
    for _, _, target in pairs:
        run(target, SMALL, "insert into t values (-1, 'old', 1)")
    with ThreadPoolExecutor(len(pairs)) as pool:
        took = [found.result() for found in [pool.submit(stopped, *pair) for pair in pairs]]
    assert max(took) < 10, took
    for left, source, target in pairs:
        assert rows_of(target) == [(-1, "old", 1.0)]
        if left in AT_WORK:
            end = time.monotonic() + 5
            while query(source, AT_WORK[left]) != [(0,)] and time.monotonic() < end:
                time.sleep(0.1)
            assert query(source, AT_WORK[left]) == [(0,)]


@pytest.mark.parametrize("lock", ["EXCLUSIVE", "IMMEDIATE"])
def test_a_sqlite_file_that_somebody_writes_to(lock: str, make: Make, home: Path, tmp_path: Path) -> None:
    """A commit on its way keeps everybody out; a transaction that has begun to write keeps other writers out."""
    source, target = make("sqlite", "source"), make("sqlite", "target")
    run(source, SMALL, "insert into t values (1, 'one', 1)")
    run(target, SMALL, "insert into t values (-1, 'old', 1)")
    quick = replace(target, options={"timeout": 0.2})
    ctx = RunContext(data_dir=home, temp_dir=home, resolve_connection=lambda name: quick)
    reading = [
        lambda: transfer(quick, source, tmp_path, {"sourceTable": "t", "targetTable": "copy"}),
        lambda: registry.get("backup").call({"connection": "db", "lockTimeoutSeconds": 1}, ctx),
        lambda: registry.get("schema_snapshot").call(
            {"connection": "db", "persistSnapshot": False, "compareWith": "none"}, ctx
        ),
    ]
    writing = [
        lambda: transfer(source, quick, tmp_path, {"sourceTable": "t", "mode": "replace"}),
        lambda: compare(source, quick, tmp_path, applyScript=True),
        lambda: registry.get("sql_script").call({"connection": "db", "sql": "delete from t"}, ctx),
    ]
    with target.engine() as engine, engine.execution_options(sqlite_begin=lock).begin():
        for call in reading if lock == "IMMEDIATE" else ():
            call()
        for call in writing if lock == "IMMEDIATE" else [*reading, *writing]:
            with pytest.raises((StepFailed, ConnectionUnavailable), match=r"locked|holds a lock") as caught:
                call()
            assert lock == "EXCLUSIVE" or isinstance(caught.value, StepFailed)
    assert rows_of(source) == [(1, "one", 1.0)]
    assert rows_of(target) == [(-1, "old", 1.0)]


@pytest.mark.parametrize(("left", "right"), CROSSED)
def test_a_writer_while_the_tables_are_read(
    left: str, right: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison is of one instant, and is not applied to another one."""
    from flows.task_types.data import compare as module

    source, target = make(left, "source"), make(right, "target")
    for connection in (source, target):
        if connection.dialect == "sqlite":
            run(connection, "pragma journal_mode = wal")  # else nobody writes while somebody reads
        run(connection, SMALL, MANY[connection.dialect].format(20_000))
    run(target, "delete from t where id = 7")
    moved: list[int] = []

    def move(self: Any, source_rows: int, target_rows: int) -> None:
        if not moved:
            moved.append(source_rows)
            for connection in (source, target):
                run(connection, "update t set name = 'moved' where id > 19000")
        real(self, source_rows, target_rows)

    real = module._Comparison._counted
    monkeypatch.setattr(module._Comparison, "_counted", move)
    with pytest.raises(StepFailed, match="the source and the target changed while they were compared") as caught:
        compare(source, target, tmp_path, applyScript=True, algorithm="merge")
    assert caught.value.error_type == "moved"
    assert query(target, "select count(*) from t where id = 7") == [(0,)]
    again = compare(source, target, tmp_path, applyScript=True)
    assert (again["summary"]["missingInTarget"], again["summary"]["changed"], again["applied"]) == (1, 0, True)
    assert query(target, "select count(*) from t") == [(20_000,)]


@pytest.mark.parametrize(("left", "right"), [*CROSSED, ("postgresql", "sqlite")])
def test_incremental_loses_and_doubles_nothing_while_others_insert(
    left: str, right: str, make: Make, tmp_path: Path
) -> None:
    source, target = make(left, "source"), make(right, "target")
    auto = {
        "postgresql": "bigserial primary key",
        "mysql": "bigint auto_increment primary key",
        "sqlite": "integer primary key autoincrement",
    }
    run(source, f"create table t (id {auto[left]}, who integer)")
    if left == "sqlite":
        run(source, "pragma journal_mode = wal")
    writers = 1 if left == "sqlite" else 4  # one at a time is what SQLite allows
    stop, began = threading.Event(), threading.Barrier(writers + 1)

    def insert(who: int) -> None:
        with source.connect() as opened:
            began.wait()
            while not stop.is_set():
                for _ in range(3):
                    opened.exec_driver_sql(f"insert into t (who) values ({who})")
                    time.sleep(0.002 * who)  # ids are taken in one order and committed in another
                opened.commit()

    threads = [threading.Thread(target=insert, args=(n,)) for n in range(1, writers + 1)]
    for thread in threads:
        thread.start()
    began.wait()
    item = {"sourceTable": "t", "watermarkColumn": "id"}
    steps = [transfer(source, target, tmp_path, item)["objects"][0]["rowsWritten"] for _ in range(6)]
    stop.set()
    for thread in threads:
        thread.join()
    steps.append(transfer(source, target, tmp_path, item)["objects"][0]["rowsWritten"])
    everything = "select id, who from t order by id"
    assert query(source, everything) == query(target, everything)
    assert sum(1 for rows in steps if rows) >= 3, "nothing was inserted meanwhile: the test has shown nothing"


def test_incremental_does_not_believe_an_old_list_of_transactions(make: Make, tmp_path: Path) -> None:
    """InnoDB shows the same old list as long as somebody reads it more often than every 0.1 s."""
    source, target = make("mysql", "source"), make("sqlite", "target")
    run(source, "create table t (id bigint auto_increment primary key, who integer)")
    looked, stop = threading.Event(), threading.Event()

    def look() -> None:
        with source.connect() as opened:
            while not stop.is_set():
                opened.exec_driver_sql("select count(*) from information_schema.innodb_trx").all()
                looked.set()
                time.sleep(0.02)

    watcher = threading.Thread(target=look)
    watcher.start()
    looked.wait()
    try:
        with source.connect() as late, ThreadPoolExecutor(1) as pool:
            late.exec_driver_sql("insert into t (who) values (1)")
            run(source, "insert into t (who) values (2)")
            moving = pool.submit(transfer, source, target, tmp_path, {"sourceTable": "t", "watermarkColumn": "id"})
            time.sleep(0.5)
            stop.set()
            time.sleep(0.5)
            late.commit()
            assert moving.result(30)["objects"][0]["rowsWritten"] == 2
    finally:
        stop.set()
        watcher.join()
    assert query(target, "select id, who from t order by id") == [(1, 1), (2, 2)]
