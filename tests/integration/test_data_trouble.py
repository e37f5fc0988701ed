"""What goes wrong while data is moved or compared: a sentence of a known kind, and a target as it was. (shows 8)"""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blocks.connections import Connection
from taskcenter.context import RunContext
from taskcenter.errors import ConnectionUnavailable, StepFailed, TimedOut
from taskcenter.task_types import registry
from tests.integration.test_data_transfer import CUT, MANY, SMALL, rows_of, transfer
from tests.many_databases import ENGINES, Make, making, query, run

CROSSED = [("postgresql", "mysql"), ("mysql", "sqlite"), ("sqlite", "postgresql")]
PASSWORD = "not-the-one-4711"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setenv("TASKCENTER_PROJECT", str(tmp_path))
    with making(tmp_path) as made:
        yield made


def compare(source: Connection, target: Connection, temp: Path, **more: Any) -> dict[str, Any]:
    known = {"source": source, "target": target}
    ctx = RunContext(resolve_connection=known.__getitem__, temp_dir=temp, data_dir=temp)
    names = {"sourceConnection": "source", "targetConnection": "target", "sourceTable": "t", "targetTable": "t"}
    result: dict[str, Any] = registry.get("data_compare_sync").call({**names, **more}, ctx)
    return result


@contextmanager
def small_disk(size: int = 150_000) -> Iterator[None]:
    """No file of this process grows beyond ``size``: what a full disk is to one that writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)


def noisy(connection: Connection, rows: int) -> None:
    """Rows that no compression makes small."""
    texts = {"postgresql": "md5(n::text)", "mysql": "md5(seq)", "sqlite": "hex(randomblob(16))"}
    run(connection, SMALL, MANY[connection.dialect].format(rows).replace("'x'", texts[connection.dialect]))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["csv", "jsonl", "sql", "parquet"])
def test_a_disk_that_is_full_leaves_the_file_that_was_there(engine: str, kind: str, make: Make, tmp_path: Path) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    source = make(engine, "source")
    noisy(source, 20_000)
    path = tmp_path / f"out.{kind}"
    path.write_text("the one before")
    item = {"sourceTable": "t", "sinkType": kind, "sinkPath": str(path)}
    with small_disk(), pytest.raises(StepFailed, match=r"moving t to .* failed: .*File too large") as caught:
        transfer(source, None, tmp_path, item)
    assert caught.value.error_type == "file"
    assert path.read_text() == "the one before"
    assert not list(tmp_path.glob(".*part"))


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_a_full_disk_under_a_sqlite_target(engine: str, make: Make, tmp_path: Path) -> None:
    source, target = make(engine, "source"), make("sqlite", "target")
    noisy(source, 20_000)
    run(target, SMALL, "insert into t values (-1, 'old', 1)")
    with small_disk(), pytest.raises(StepFailed, match="the target is as it was") as caught:
        transfer(source, target, tmp_path, {"sourceTable": "t", "mode": "replace"})
    assert caught.value.error_type in ("full", "file")
    assert rows_of(target) == [(-1, "old", 1.0)]


def test_a_full_disk_under_the_script_of_a_comparison(make: Make, tmp_path: Path) -> None:
    source, target = make("postgresql", "source"), make("mysql", "target")
    noisy(source, 20_000)
    run(target, SMALL)
    with small_disk(), pytest.raises(StepFailed, match="nothing was changed: File too large") as caught:
        compare(source, target, tmp_path, applyScript=True, statementLimit=0)
    assert caught.value.error_type == "file"
    assert query(target, "select count(*) from t") == [(0,)]


@pytest.mark.parametrize(
    ("left", "right", "side"),
    [
        (left, right, side)
        for left, right in CROSSED
        for side, engine in (("source", left), ("target", right))
        if engine != "sqlite"  # a file has no connection that breaks
    ],
)
def test_a_connection_that_breaks_while_it_is_compared(
    left: str, right: str, side: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.task_types.data import compare as module

    source, target = make(left, "source"), make(right, "target")
    broken = {"source": source, "target": target}[side]
    for connection in (source, target):
        run(connection, SMALL, MANY[connection.dialect].format(200_000))
    wide = "update t set name = '0123456789012345678901234567890123456789'"
    run(broken, wide)

    def cut(self: Any, source_rows: int, target_rows: int) -> None:
        if not hasattr(self, "was_cut"):
            self.was_cut = True
            for (command,) in query(broken, CUT[broken.dialect]):
                if broken.dialect == "mysql":
                    run(broken, str(command))

    monkeypatch.setattr(module._Comparison, "_counted", cut)
    with pytest.raises(StepFailed, match="comparing t with t failed, nothing was changed") as caught:
        compare(source, target, tmp_path)
    assert caught.value.error_type == "connection_lost"


@pytest.mark.parametrize(("left", "right"), [("mysql", "postgresql"), ("postgresql", "mysql")])
def test_a_locked_table_is_waited_for_until_the_limit(left: str, right: str, make: Make, tmp_path: Path) -> None:
    source, target = make(left, "source"), make(right, "target")
    for connection in (source, target):
        run(connection, SMALL)
    run(source, "insert into t values (1, 'one', 1)")
    with target.connect() as other:
        other.exec_driver_sql(
            "lock table t in access exclusive mode" if right == "postgresql" else "lock tables t write"
        )
        started = time.monotonic()
        with pytest.raises(TimedOut, match="the comparison was stopped after 5 s; the target is as it was"):
            compare(source, target, tmp_path, applyScript=True, timeoutSeconds=5)
        assert time.monotonic() - started < 9
        other.exec_driver_sql("unlock tables") if right == "mysql" else other.rollback()
    assert query(target, "select count(*) from t") == [(0,)]


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_bytes_are_no_number_though_their_digits_look_like_one(engine: str, make: Make, tmp_path: Path) -> None:
    """SQLite keeps bytes in a column of numbers: 0x861161 is not 861161, nor a day, nor a document."""
    source, target = make("sqlite", "source"), make(engine, "target")
    kinds = {"postgresql": "double precision, whole bigint, doc jsonb", "mysql": "double, whole bigint, doc json"}
    run(source, "create table t (id integer primary key, ratio real, whole integer, doc json)")
    run(target, f"create table t (id integer primary key, ratio {kinds[engine]})")
    run(target, "insert into t values (1, 861161, 1, '1')")
    for values, column in (("x'861161', 1, '1'", "ratio"), ("1, x'11', '1'", "whole"), ("1, 1, x'11'", "doc")):
        run(source, "delete from t", f"insert into t values (1, {values})")
        with pytest.raises(StepFailed, match=f"the target is as it was: the column '{column}' holds bytes") as caught:
            transfer(source, target, tmp_path, {"sourceTable": "t", "mode": "replace"})
        assert caught.value.error_type == "value"
        assert compare(source, target, tmp_path)["summary"]["changed"] == 1
    assert query(target, "select ratio from t") == [(861161.0,)]


def test_a_key_that_is_no_number_is_named(make: Make, tmp_path: Path) -> None:
    source, target = make("sqlite", "source"), make("postgresql", "target")
    run(source, "create table t (a integer, b integer, x text, primary key (a, b))")
    run(source, "insert into t values (1, 'one', 'x')")
    run(target, "create table t (a int, b int, x text, primary key (a, b))", "insert into t values (1, 1, 'x')")
    with pytest.raises(StepFailed, match="the key '1, one' is not a number") as caught:
        compare(source, target, tmp_path)
    assert caught.value.error_type == "order"


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_wrong_connection_is_named_without_its_password(engine: str, side: str, make: Make, tmp_path: Path) -> None:
    good = make("sqlite", "good")
    run(good, SMALL)
    bad = replace(make(engine, "bad"), port=1, password=PASSWORD)
    source, target = (bad, good) if side == "source" else (good, bad)
    ctx = RunContext(data_dir=tmp_path, temp_dir=tmp_path, resolve_connection=lambda name: bad)
    for call in (
        lambda: transfer(source, target, tmp_path, {"sourceTable": "t"}),
        lambda: compare(source, target, tmp_path),
        lambda: registry.get("backup").call({"connection": "bad"}, ctx),
        lambda: registry.get("sql_script").call({"connection": "bad", "sql": "select 1"}, ctx),
        lambda: registry.get("schema_snapshot").call(
            {"connection": "bad", "persistSnapshot": False, "compareWith": "none"}, ctx
        ),
    ):
        with pytest.raises(ConnectionUnavailable) as caught:
            call()
        assert "bad" in caught.value.message
        assert PASSWORD not in caught.value.message


BASE: dict[str, Any] = {"source": "a", "target": "b"}
TABLE: dict[str, Any] = {"sourceTable": "t"}


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"objects": [{}]}, "name either sourceTable or sourceQuery"),
        ({"objects": [{**TABLE, "sourceQuery": "select 1"}]}, "name either sourceTable or sourceQuery"),
        ({"objects": [{"sourceQuery": "select 1"}]}, "a sourceQuery needs a targetTable"),
        ({"objects": [{**TABLE, "sinkType": "csv"}]}, "the sink type csv needs a sinkPath"),
        ({"objects": [{**TABLE, "sinkPath": "x"}]}, "a sinkPath is for files"),
        ({"objects": [{**TABLE, "mode": "upsert"}]}, "upsert needs keyColumns"),
        (
            {"objects": [{**TABLE, "mode": "upsert", "keyColumns": ["id"], "sinkType": "csv", "sinkPath": "x"}]},
            "upsert goes to a database or a sql file only",
        ),
        ({"objects": [{**TABLE, "watermarkColumn": "id", "mode": "replace"}]}, "choose append or upsert"),
        ({"objects": [{"sourceQuery": "q", "targetTable": "t", "watermarkColumn": "id"}]}, "needs a sourceTable"),
        ({"objects": [{**TABLE, "watermarkColumn": "id", "sinkType": "sql", "sinkPath": "x"}]}, "for the sink type"),
        ({"objects": [{**TABLE, "verify": True, "mode": "upsert", "keyColumns": ["id"]}]}, "verify compares whole"),
        ({"objects": [{**TABLE, "columns": [{"source": "a", "cast": "int; drop table x"}]}]}, "the name of a type"),
        ({"objects": []}, "at least 1"),
        ({"objects": [TABLE], "target": None}, "a target connection is needed"),
        ({"objects": [TABLE], "waitForCompletion": False}, "a run always ends with its transfer"),
        ({"objects": [TABLE], "mappingProfile": "x"}, "there are no mapping profiles"),
        ({"objects": [TABLE], "timeoutSeconds": 4}, "5"),
        ({"objects": [TABLE], "timeoutSeconds": 86_401}, "86400"),
    ],
)
def test_each_wrong_payload_of_a_transfer_has_its_sentence(payload: dict[str, Any], said: str) -> None:
    problems = registry.get("data_transfer_migration").check({**BASE, **payload})
    assert said in "; ".join(map(str, problems))
