"""What a statement is, and how its parameters are bound."""

from __future__ import annotations

import pytest

from flows.task_types.sql_inspect import bind, inspect, parameter_names
from taskcenter.errors import StepFailed


@pytest.mark.parametrize(
    ("sql", "effect", "tables"),
    [
        ('select * from a.b, c AS cc join "D d" x on 1 = 1', "read", ("a.b", "c", "D d")),
        ("select extract(year from ts), trim(both ' ' from n) from t where a is distinct from b", "read", ("t",)),
        ("with q as (select 1 from z) select * from q join r on true", "read", ("z", "r")),
        ("with d as (delete from logs where old returning *) select * from d", "write", ("logs",)),
        ("select * from generate_series(1, 3), lateral (select 1 from u) x", "read", ("u",)),
        ("select 1 from t for update skip locked", "read", ("t",)),
        ("insert into t (a) select a from u on conflict (a) do update set a = 1", "write", ("t", "u")),
        ("select * into n from o", "ddl", ("n", "o")),
        ("create table if not exists n as select * from o", "ddl", ("n", "o")),
        ("create unique index i on t (a)", "ddl", ("t",)),
        ("grant select, update, delete on t to u", "ddl", ()),
        ("explain select * from t", "read", ("t",)),
        ("explain analyze delete from t where a", "write", ("t",)),
        ("merge into t using s on a = b when matched then delete", "write", ("t", "s")),
        ("set search_path = x", "session", ()),
        ("start transaction", "transaction", ()),
        ("call p()", "write", ()),
    ],
)
def test_effect_and_tables(sql: str, effect: str, tables: tuple[str, ...]) -> None:
    seen = inspect(sql)
    assert (seen.effect, seen.tables) == (effect, tables)


@pytest.mark.parametrize(
    ("sql", "danger"),
    [
        ("drop table if exists a.b cascade", ("DROP TABLE a.b",)),
        ("truncate t, u", ("TRUNCATE t, u",)),
        ("delete from t", ("DELETE FROM t without WHERE",)),
        ("delete from t where a", ()),
        ("update only t set a = (select 1 from u where b)", ("UPDATE t without WHERE",)),
        ("update t set a = 1 where b", ()),
        ("with x as (select 1 from y where z) delete from t", ("DELETE FROM t without WHERE",)),
        ("with x as (delete from l returning 1) select * from x where 1 = 1", ("DELETE FROM l without WHERE",)),
        ("insert into t values (1) on duplicate key update a = 1", ()),
        ("insert into t values (1) on conflict do update set a = 1", ()),
        ("create trigger x before delete on y for each row execute function z()", ()),
        ("alter table t drop column c, alter column d drop default", ("ALTER TABLE t drops column c",)),
        ("do $$ begin if a then delete from x; end if; end $$", ("in the DO block: DELETE FROM x without WHERE",)),
        ("select 'drop table x'", ()),
    ],
)
def test_danger(sql: str, danger: tuple[str, ...]) -> None:
    assert inspect(sql).danger == danger


def test_statements_that_stand_alone() -> None:
    assert inspect("vacuum full t").alone
    assert inspect("create index concurrently i on t (a)").alone
    assert inspect("vacuum", "sqlite").alone
    assert not inspect("create index i on t (a)").alone


def test_binding_per_driver() -> None:
    sql = r"select :a::int, ':b', '50%', x[1:2], \:z, :a"
    assert bind(sql, "postgresql", {"a": 1}) == (r"select %(a)s::int, ':b', '50%%', x[1:2], :z, %(a)s", {"a": 1})
    assert bind("select :a, '%'", "sqlite", {"a": [1]}) == ("select :a, '%'", {"a": "[1]"})
    assert bind("select '%'", "mysql", {"a": 1}) == ("select '%'", None)
    assert parameter_names("select :b, :a, :b") == ["b", "a"]


def test_a_missing_value_is_named() -> None:
    with pytest.raises(StepFailed, match=":b"):
        bind("select :a, :b", "sqlite", {"a": 1})
