"""Lists of runs by task, status, time and parts of names: the same pages from every store. (spec 6.1)"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_makers import NOON, a_run

from taskcenter.models import Run
from taskcenter.ports import Changes, RunFilter, Store
from taskcenter.status import RunStatus
from taskcenter_adapter import run_search
from taskcenter_adapter.search_statements import Questions
from taskcenter_adapter.store_memory import MemoryStore
from taskcenter_adapter.store_sql import SqlStore
from taskcenter_adapter.tables import task_runs

WORDS = ("orders", "Orders-Daily", "Bestellung-ÄÖ", "50%_off", 'quo"te', "x'y", "ab", "日本語の名前")


def runs(count: int) -> list[Run]:
    chance = random.Random(3)
    return [
        a_run(
            f"run-{n:04}",
            task_slug=chance.choice(WORDS),
            name=f"{chance.choice(('calm', 'Brave'))}-{chance.choice(('otter', 'lynx'))}-{n}",
            status=chance.choice((RunStatus.SUCCESS, RunStatus.FAILED)),
            created_at=NOON + timedelta(seconds=chance.randrange(300) * 3_600),
        )
        for n in range(count)
    ]


RUNS = runs(400)


@pytest.fixture
def filled(store: Store) -> Store:
    store.record(Changes(runs=RUNS))
    return store


def all_pages(store: Store, **where: Any) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page = store.list_runs(RunFilter(cursor=cursor, **where))
        found += [run.id for run in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


def expected(text: str, **where: Any) -> list[str]:
    lowered = "".join(c.lower() if c.isascii() else c for c in text)
    fits = [
        run
        for run in RUNS
        if lowered in "".join(c.lower() if c.isascii() else c for c in f"{run.task_slug} {run.name}")
        and all(getattr(run, name) == value for name, value in where.items())
    ]
    return [run.id for run in sorted(fits, key=lambda run: (run.created_at, run.id), reverse=True)]


TEXTS = ["orders", "ORDERS", "calm-otter", "otter-39", "-17", "50%", "%", "_off", '"te', "x'y", "ÄÖ", "äö", "日本",
         "日本語", "ab", "b", "nowhere", "lynx-123", "orders brave", "s-d"]  # fmt: skip


def look_less(monkeypatch: pytest.MonkeyPatch, first: int, near: int, few: int) -> None:
    """So that few rows are as many: how many the list is walked for, and what counts as near and few beyond that."""
    for name, value in (("_FIRST", first), ("_NEAR", near), ("_FEW", few), ("_DAYS", few)):
        monkeypatch.setattr(run_search, name, value)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(("first", "near", "few"), [(800, 0, 0), (20, 1000, 500), (20, 50, 3), (5, 0, 0)])
def test_a_part_of_a_name_is_found_by_each_way(
    filled: Store, text: str, first: int, near: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_less(monkeypatch, first, near, few)
    for limit in (7, 50):
        assert all_pages(filled, search=text, limit=limit) == expected(text)
    failed = expected(text, status=RunStatus.FAILED)
    assert all_pages(filled, search=text, status=RunStatus.FAILED, limit=7) == failed


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.sampled_from(TEXTS), st.text(min_size=1, max_size=6)), limit=st.integers(1, 60))
def test_all_stores_find_the_same(sql_store: SqlStore, text: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    look_less(monkeypatch, 10, 200, 20)
    if sql_store.find_run("run-0000") is None:
        sql_store.record(Changes(runs=RUNS))
    memory = MemoryStore()
    memory.record(Changes(runs=RUNS))
    where = RunFilter(search=text, limit=limit)
    found, known = sql_store.list_runs(where), memory.list_runs(where)
    assert [run.id for run in found.items] == [run.id for run in known.items]
    assert (found.next_cursor is None) == (known.next_cursor is None)


@pytest.mark.parametrize(("first", "near", "few"), [(800, 0, 0), (20, 1000, 500), (20, 50, 3), (5, 0, 0), (3, 400, 0)])
def test_the_time_of_asking(filled: Store, first: int, near: int, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    look_less(monkeypatch, first, near, few)
    since, until = NOON + timedelta(hours=100), NOON + timedelta(hours=200)
    found = all_pages(filled, since=since, until=until, limit=30)
    inside = [run for run in RUNS if since <= run.created_at < until]
    assert found == [r.id for r in sorted(inside, key=lambda run: (run.created_at, run.id), reverse=True)]
    for limit in (3, 30):
        some = all_pages(filled, since=since, until=until, search="otter", limit=limit)
        assert some == [name for name in found if "otter" in next(r.name for r in RUNS if r.id == name)]


def test_a_name_that_changes_is_found_by_the_new_one_only(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    look_less(monkeypatch, 5, 100, 10)
    run = a_run("late", name="", created_at=NOON - timedelta(days=1))
    filled.record(Changes(runs=[run]))
    filled.record(Changes(runs=[run.model_copy(update={"name": "unheard-of-name", "status": RunStatus.RUNNING})]))
    assert all_pages(filled, search="unheard-of", limit=5) == ["late"]


def test_what_is_deleted_is_not_found(sql_store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    look_less(monkeypatch, 5, 100, 10)
    sql_store.record(Changes(runs=RUNS))
    with sql_store.engine.begin() as connection:
        connection.execute(sa.delete(task_runs).where(task_runs.c.name.contains("otter")))
    assert all_pages(sql_store, search="otter", limit=5) == []
    if sql_store.engine.dialect.name == "sqlite":
        with sql_store.engine.begin() as connection:
            connection.exec_driver_sql("INSERT INTO task_runs_search (task_runs_search) VALUES ('integrity-check')")


@pytest.mark.parametrize("text", ["otter-39", "orders brave", "50%", 'quo"te'])
def test_a_rare_text_is_found_by_the_index_of_trigrams(
    sql_store: SqlStore, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_less(monkeypatch, 5, 100, 10)
    sql_store.record(Changes(runs=RUNS))
    postgres = sql_store.engine.dialect.name == "postgresql"
    asked: list[tuple[str, Any]] = []

    @sa.event.listens_for(sql_store.engine, "before_cursor_execute")
    def hear(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    sql_store.list_runs(RunFilter(search=text, limit=40))
    by_trigrams = [one for one in asked if "MATERIALIZED" in one[0] or "MATCH" in one[0]]
    assert by_trigrams
    with sql_store.engine.connect() as connection:
        if postgres:  # so few rows would be read one by one
            connection.exec_driver_sql("SET LOCAL cpu_tuple_cost = 1000")
        for statement, values in by_trigrams:
            lines = connection.exec_driver_sql(f"EXPLAIN {'' if postgres else 'QUERY PLAN '}{statement}", values).all()
            plan = "\n".join(map(str, lines))
            assert ("ix_task_runs_search" if postgres else "VIRTUAL TABLE INDEX") in plan
            assert "SCAN task_runs" not in plan


def test_the_index_is_read_from_its_newest_part_on(sql_store: SqlStore) -> None:
    """PostgreSQL's day by day, SQLite's from a row downwards, without sorting."""
    sql_store.record(Changes(runs=RUNS))
    postgres = sql_store.engine.dialect.name == "postgresql"
    query = Questions((), (task_runs.c.id,), postgres)["days 1" if postgres else "down"]
    values = {"pattern": "%otter%", "quoted": '"otter"', "wanted": "otter", "day1": NOON.date(), "limit": 5, "top": 300}
    compiled = query.compile(sql_store.engine)
    with sql_store.engine.connect() as connection:
        if postgres:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off")
            rows = connection.exec_driver_sql(f"EXPLAIN {compiled}", {**compiled.params, **values})
        else:
            asked = tuple(values.get(name, 5) for name in compiled.positiontup or ())
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", asked)
        plan = "\n".join(map(str, rows))
    if postgres:
        condition = next(line for line in plan.splitlines() if "Index Cond" in line)
        assert "otter" in condition
        assert "date" in condition
    else:
        assert "VIRTUAL TABLE INDEX" in plan
        assert "TEMP B-TREE" not in plan
