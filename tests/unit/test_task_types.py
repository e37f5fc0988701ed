"""The built-in task types as plain functions: sql_script on SQLite, wait, python. No server, no Prefect."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.connections import Connection
from flows.task_types.sql_expect import parse
from flows.task_types.values import plain
from taskcenter.context import Cancelled, RunContext
from taskcenter.errors import StepFailed, TimedOut
from taskcenter.task_types import registry

SLOW = "with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r"
BUILT_IN = ("sql_script", "shell", "script", "python", "http", "wait", "prefect_deployment")


@pytest.fixture
def ctx(tmp_path: Path) -> RunContext:
    database = Connection(name="db", dialect="sqlite", database=str(tmp_path / "x.db"), options={"create": True})
    return RunContext(resolve_connection=lambda name: database, temp_dir=tmp_path, data_dir=tmp_path)


def call(kind: str, ctx: RunContext, **payload: Any) -> Any:
    problems = registry.get(kind).check(payload)
    assert not problems, problems
    return registry.get(kind).call(payload, ctx)


def sql(ctx: RunContext, text: str, **payload: Any) -> Any:
    return call("sql_script", ctx, sql=text, connection="db", **payload)


@pytest.mark.parametrize("key", BUILT_IN)
def test_every_type_has_a_schema_a_preview_and_a_sentence(key: str) -> None:
    kind = registry.get(key)
    assert kind.schema()["properties"]
    assert kind.plan is not None


@pytest.mark.parametrize("key", registry.keys())
def test_what_lists_say_of_a_type_is_one_sentence_for_its_users(key: str) -> None:
    about = (registry.get(key).function.__doc__ or "").partition("\n")[0]
    assert about.endswith(".")
    assert not re.search("``|Raises|Gives|this function|RunContext", about)


@pytest.mark.parametrize(
    ("kind", "payload", "says"),
    [
        ("sql_script", {"connection": "db"}, "payload.sql: is required and missing"),
        ("sql_script", {"sql": " ", "connection": "db"}, "payload.sql: must not be blank"),
        (
            "sql_script",
            {"sql": "x", "connection": "db", "fetch": "3"},
            "payload.fetch: Input should be a valid int",
        ),
        ("sql_script", {"sql": "x", "connection": "db", "fetch": 1001}, "less than or equal to 1000"),
        ("sql_script", {"sql": "x", "connection": "db", "timeoutSeconds": 3601}, "less than or equal to 3600"),
        ("sql_script", {"sql": "x", "connection": "db", "timeoutSeconds": True}, "valid number"),
        ("sql_script", {"sql": "x", "connection": "db", "expect": "rows = many"}, "right side"),
        ("sql_script", {"sql": "x", "connection": "db", "colour": 1}, "payload.colour: is not a field"),
        ("wait", {}, "exactly one of seconds and until"),
        ("wait", {"seconds": -1}, "greater than or equal to 0"),
        ("python", {"callable": "no colon"}, "payload.callable"),
        ("python", {"code": "x", "isolate": "yes"}, "valid boolean"),
        ("python", {"callable": "a:b", "isolate": False, "timeoutSeconds": 1}, "process of its own"),
        ("prefect_deployment", {"deployment": "name"}, "payload.deployment"),
    ],
)
def test_bad_payloads_are_refused_with_their_place(kind: str, payload: dict[str, Any], says: str) -> None:
    assert any(says in str(problem) for problem in registry.get(kind).check(payload))


@pytest.mark.parametrize("name", ["sql", "query", "script"])
def test_both_spellings_and_the_aliases(name: str) -> None:
    check = registry.get("sql_script").check
    assert not check({name: "select 1", "connection": "db", "query_timeout_seconds": 5})
    assert not check({name: "select 1", "connection": "db", "queryTimeoutSeconds": 0})


def test_sql_gives_what_the_spec_names(ctx: RunContext) -> None:
    text = "create table t (a int, b text); insert into t values (1, ';'), (:n, '%'); select a, b, a from t order by a"
    output = sql(ctx, text, parameters={"n": 2}, fetch=1)
    durations = [s.pop("durationMs") for s in output["statements"]]
    assert all(d >= 0 for d in durations)
    assert output == {
        "executor": "sql",
        "dbType": "sqlite",
        "resultSets": 1,
        "totalRows": 4,
        "sqlLength": len(text),
        "timeoutSeconds": 30,
        "transaction": "single",
        "statements": [{"index": 1, "rows": 0}, {"index": 2, "rows": 2}, {"index": 3, "rows": 2}],
        "rows": [{"a": 1, "b": ";", "a_2": 1}],
    }


def test_a_failure_undoes_the_whole_script(ctx: RunContext) -> None:
    sql(ctx, "create table t (a int primary key)")
    with pytest.raises(StepFailed, match=r"statement 2 \(line 2\) failed: UNIQUE constraint failed: t.a") as caught:
        sql(ctx, "insert into t values (1);\ninsert into t values (1)")
    assert caught.value.error_type == "sql"
    assert sql(ctx, "select * from t")["totalRows"] == 0


def test_per_statement_keeps_what_went_before(ctx: RunContext) -> None:
    sql(ctx, "create table t (a int primary key)")
    with pytest.raises(StepFailed):
        sql(ctx, "insert into t values (1); insert into t values (1)", transaction="per_statement")
    assert sql(ctx, "select * from t")["totalRows"] == 1


def test_a_failed_expectation_carries_the_rows_and_undoes(ctx: RunContext) -> None:
    sql(ctx, "create table t (a int)")
    with pytest.raises(StepFailed, match="expected rows == 0, but rows is 2") as caught:
        sql(ctx, "insert into t values (7), (8); select a from t order by a", expect="rows == 0")
    assert caught.value.error_type == "expect"
    assert caught.value.output["rows"] == [{"a": 7}, {"a": 8}]
    assert sql(ctx, "select count(*) from t", expect=["value == 0", "rows == 1"])["totalRows"] == 1


def test_a_script_may_steer_its_own_transaction(ctx: RunContext) -> None:
    text = "begin; create table t (a int); rollback; select count(*) from sqlite_master"
    assert sql(ctx, text, expect="value == 0")["transaction"] == "none"
    with pytest.raises(StepFailed, match="steers its own transaction"):
        sql(ctx, text, transaction="single")
    with pytest.raises(StepFailed, match="BEGIN in line 2 begins a transaction that the script never ends"):
        sql(ctx, "begin; commit;\nbegin; create table t (a int)")
    assert sql(ctx, "savepoint a; create table t (a); rollback to a")["transaction"] == "single"


def test_what_cannot_be_in_a_transaction(ctx: RunContext) -> None:
    assert sql(ctx, "vacuum")["transaction"] == "none"
    with pytest.raises(StepFailed, match="VACUUM in line 1 cannot run inside a transaction"):
        sql(ctx, "vacuum; select 1")
    assert sql(ctx, "vacuum; select 1", transaction="none")["totalRows"] == 1


def test_sql_time_out_and_cancel_stop_the_statement(ctx: RunContext) -> None:
    started = time.monotonic()
    with pytest.raises(TimedOut, match=r"ran longer than 0\.2 s"):
        sql(ctx, SLOW, timeoutSeconds=0.2)
    ctx.is_cancelled = lambda: time.monotonic() - started > 1
    with pytest.raises(Cancelled):
        sql(ctx, SLOW, timeoutSeconds=0)
    assert time.monotonic() - started < 5


def test_a_watcher_that_cannot_ask_still_times_out(ctx: RunContext) -> None:
    calls = iter([False])
    ctx.is_cancelled = lambda: next(calls)  # the check before the statement works, later ones raise
    with pytest.raises(TimedOut):
        sql(ctx, SLOW, timeoutSeconds=0.2)


def test_sql_only_comments_or_missing_parameters(ctx: RunContext) -> None:
    with pytest.raises(StepFailed, match="no statement"):
        sql(ctx, "-- nothing")
    with pytest.raises(StepFailed, match=":who"):
        sql(ctx, "select :who")


def test_the_sql_preview_is_offline() -> None:
    note = registry.get("sql_script").preview(
        {"sql": "delete from orders; select :x from items;\ndrop table old", "connection": "dw"}, RunContext()
    )
    assert note is not None
    assert note.summary == "3 statements on dw: 1 read, 1 write, 1 ddl"
    assert note.connections == ("dw",)
    assert note.details["tables"] == ["items", "old", "orders"]
    assert note.danger == (
        "statement 1: DELETE FROM orders without WHERE",
        "statement 3: DROP TABLE old",
        "parameter :x has no value",
    )


def test_the_preview_reads_each_dialect_and_builds_no_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKCENTER_HOME", str(tmp_path))
    monkeypatch.setenv("TASKCENTER_CONNECTION_MY", "mysql://h/d")
    for connection, text in (("sample", "select [a;b]"), ("my", "select 'a\\';b'")):
        note = registry.get("sql_script").preview({"sql": text, "connection": connection}, RunContext())
        assert note is not None
        assert note.summary == f"1 statement on {connection}: 1 read"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "rows", "value", "holds"),
    [
        ("rows == 0", 0, None, True),
        ("rows != 0", 0, None, False),
        ("value > 100", 1, 100.5, True),
        ("value >= 0.1", 1, Decimal("0.1"), True),
        ("value == 0.1", 1, 0.1, True),
        ("value > 5", 1, None, False),
        ("value == null", 1, None, True),
        ("value = 'ok'", 1, "ok", True),
        ('value <> "ok"', 1, "ok", False),
        ("value > 5", 1, "text", False),
        ("value >= '2026-01-01'", 1, datetime(2026, 2, 1, tzinfo=UTC).date(), True),
    ],
)
def test_expectations(text: str, rows: int, value: Any, holds: bool) -> None:
    assert (parse(text).broken(rows=rows, value=value) == "") is holds


@pytest.mark.parametrize("text", ["", "rows", "rows == 'x'", "rows == 1.5", "row == 1", "value == __import__('os')", 5])
def test_expectations_that_are_none(text: Any) -> None:
    with pytest.raises(ValueError):
        parse(text)


@given(value=st.decimals(allow_nan=False, allow_infinity=False))
def test_decimals_never_change_their_value(value: Decimal) -> None:
    shown = plain(value)
    assert Decimal(repr(shown) if isinstance(shown, float) else shown) == value


def test_odd_values_become_json() -> None:
    assert plain([Decimal("10.50"), float("inf"), b"\x00\xff", {"a": (1, None)}, range(2)]) == [
        10.5,
        "inf",
        "AP8=",
        {"a": [1, None]},
        "range(0, 2)",
    ]


def test_wait_waits_reports_and_stops(ctx: RunContext) -> None:
    seen: list[float] = []
    ctx.on_progress = lambda percent, *_: seen.append(percent)
    assert 0.3 <= call("wait", ctx, seconds=0.3)["waitedSeconds"] < 1
    assert seen == sorted(seen)
    soon = (datetime.now(UTC) + timedelta(seconds=0.2)).isoformat()
    assert call("wait", ctx, until=soon)["waitedSeconds"] < 1
    assert call("wait", ctx, until="2001-01-01T00:00:00")["waitedSeconds"] < 0.1
    started = time.monotonic()
    ctx.is_cancelled = lambda: time.monotonic() - started > 0.3
    with pytest.raises(Cancelled):
        call("wait", ctx, seconds=60)
    assert time.monotonic() - started < 2


def test_python_in_this_process(ctx: RunContext) -> None:
    assert call("python", ctx, callable="json:dumps", kwargs={"obj": [1]})["result"] == "[1]"
    assert call("python", ctx, callable=f"{__name__}:asks_context")["result"] == str(ctx.temp_dir)
    assert call("python", ctx, callable=f"{__name__}:later", kwargs={"x": 2})["result"] == 4
    with pytest.raises(StepFailed, match="ZeroDivisionError") as caught:
        call("python", ctx, callable=f"{__name__}:divides")
    assert caught.value.error_type == "exception"
    assert "divides" in caught.value.output["traceback"]
    with pytest.raises(StepFailed, match="No module named 'no_such_module'"):
        call("python", ctx, callable="no_such_module:f")


def asks_context(ctx: RunContext) -> Path:
    return ctx.temp_dir


async def later(x: int) -> int:
    return x * 2


def divides() -> float:
    return 1 / 0


def test_python_in_its_own_process(ctx: RunContext) -> None:
    lines: list[tuple[str, str]] = []
    ctx.on_output = lambda line, stream: lines.append((line, stream))
    ctx.resolve_secret = lambda name: f"<{name}>"
    code = "import http.client, os\nprint('hello')\nresult = [a, s, 'TASKCENTER_HOME' in os.environ]"
    output = call("python", ctx, code=code, kwargs={"a": 1, "s": {"secret": "k"}})
    assert output["result"] == [1, "<k>", False]
    assert output["isolated"] is True
    assert ("hello", "stdout") in lines
    assert call("python", ctx, callable="json:dumps", kwargs={"obj": 1}, isolate=True)["result"] == "1"


def test_python_that_dies_fails_or_hangs(ctx: RunContext) -> None:
    with pytest.raises(StepFailed, match="ValueError: boo") as caught:
        call("python", ctx, code="x = 1\nraise ValueError('boo')")
    assert "raise ValueError('boo')" in caught.value.output["traceback"]
    with pytest.raises(StepFailed, match="without a result") as caught:
        call("python", ctx, code="import os; os._exit(4)")
    assert caught.value.error_type == "exit_code"
    assert caught.value.output["exitCode"] == 4
    with pytest.raises(StepFailed, match="is nan"):
        call("python", ctx, code="result = float('nan')")
    started = time.monotonic()
    with pytest.raises(TimedOut):
        call("python", ctx, code="while True: pass", timeoutSeconds=0.5)
    assert time.monotonic() - started < 4
