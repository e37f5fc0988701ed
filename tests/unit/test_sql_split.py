"""The splitter: text that real scripts hold, per dialect, and laws that hold for any text."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.task_types.sql_split import Kind, split, tokens

DIALECTS = ("postgresql", "mysql", "sqlite")


def texts(sql: str, dialect: str) -> list[str]:
    return [statement.text for statement in split(sql, dialect)]


@pytest.mark.parametrize("dialect", [*DIALECTS, "oracle"])
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("", []),
        ("  \n;;; ; -- nothing here;\n", []),
        ("select 1", ["select 1"]),
        ("select 1;", ["select 1"]),
        ("select 1;\n\n select 2 ;", ["select 1", "select 2"]),
        ("select 'a;b', 'it''s;'; select 2", ["select 'a;b', 'it''s;'", "select 2"]),
        ("select 1 -- one; two\n; select 2", ["select 1 -- one; two", "select 2"]),
        ("select 1 /* ; */ + 2; select 3", ["select 1 /* ; */ + 2", "select 3"]),
        ("-- first;\nselect 1", ["-- first;\nselect 1"]),
        ("select 'never closed; select 2", ["select 'never closed; select 2"]),
        ("select 1 /* never closed; select 2", ["select 1 /* never closed; select 2"]),
        ("select case when a then b end; select 2", ["select case when a then b end", "select 2"]),
        ("commit; begin; select 1; end;", ["commit", "begin", "select 1", "end"]),
        ("select 'é;ü', \"x\"; select 'ø'", ["select 'é;ü', \"x\"", "select 'ø'"]),
    ],
)
def test_what_all_dialects_agree_on(dialect: str, sql: str, expected: list[str]) -> None:
    assert texts(sql, dialect) == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("/* a /* b; */ c; */ select 1; select 2", ["/* a /* b; */ c; */ select 1", "select 2"]),
        ("do $$ begin; end; $$; select 1", ["do $$ begin; end; $$", "select 1"]),
        ("select $a$ $$ ; $b$ ; $a$; select 2", ["select $a$ $$ ; $b$ ; $a$", "select 2"]),
        ("select a$b$c; select d$b$", ["select a$b$c", "select d$b$"]),
        ("select $1; select $2", ["select $1", "select $2"]),
        (r"select E'\'; x'; select 2", [r"select E'\'; x'", "select 2"]),
        (r"select '\'; select 2", [r"select '\'", "select 2"]),
        ('select "a;b""c;"; select 2', ['select "a;b""c;"', "select 2"]),
        (
            "create rule r as on insert to t do also (insert into a values (1); delete from b); select 1",
            ["create rule r as on insert to t do also (insert into a values (1); delete from b)", "select 1"],
        ),
        (
            "create or replace function f() returns int begin atomic select case when true then 1 end; "
            "select 2; end; select 3",
            [
                "create or replace function f() returns int begin atomic select case when true then 1 end; "
                "select 2; end",
                "select 3",
            ],
        ),
        (
            "create function f() returns int language plpgsql as $f$ begin return 1; end $f$; select f()",
            ["create function f() returns int language plpgsql as $f$ begin return 1; end $f$", "select f()"],
        ),
        ("select a[1:2], b::text, 'x' :: text; select 2", ["select a[1:2], b::text, 'x' :: text", "select 2"]),
        ("select 1 # 2; select 3", ["select 1 # 2", "select 3"]),
        ("select 5--1;\n; select 2", ["select 5--1;", "select 2"]),
    ],
)
def test_postgresql(sql: str, expected: list[str]) -> None:
    assert texts(sql, "postgresql") == expected


PROCEDURE = """create definer=`root`@`localhost` procedure p(in n int)
begin
  declare done int default 0;
  if n > 1 then select 1; elseif n then select 2; else select 3; end if;
  case n when 1 then select 'x;'; else begin end; end case;
  while n > 0 do set n = n - 1; end while;
  again: repeat set n = n + 1; until n > 3 end repeat again;
  l: loop leave l; end loop l;
  select if(n, 1, 2), repeat('a', 3), case when n then case when 1 then 2 end end, t.end from t;
end"""


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (r"select 'a\';b', 2; select 2", [r"select 'a\';b', 2", "select 2"]),
        (r'select "a\";b;"; select 2', [r'select "a\";b;"', "select 2"]),
        ("select 'a\\\\'; select 2", ["select 'a\\\\'", "select 2"]),
        ("select `a;b``;`; select 2", ["select `a;b``;`", "select 2"]),
        ("select 1 # one; two\n; select 2", ["select 1 # one; two", "select 2"]),
        ("select 5--1; select 2", ["select 5--1", "select 2"]),
        ("select 5 -- 1; x\n; select 2", ["select 5 -- 1; x", "select 2"]),
        ("/*!40101 SET NAMES utf8 */; select 1", ["/*!40101 SET NAMES utf8 */", "select 1"]),
        ("/* a /* b; */ select 1; select 2", ["/* a /* b; */ select 1", "select 2"]),
        (
            "DELIMITER //\ncreate procedure p() begin select 1; select 2; end//\ndelimiter ;\ncall p()",
            ["create procedure p() begin select 1; select 2; end", "call p()"],
        ),
        ("delimiter $$\nselect 1$$ select 'a$$b'$$\ndelimiter ;\nselect 3;", ["select 1", "select 'a$$b'", "select 3"]),
        ("delimiter $$\ncreate procedure p() begin end$$", ["create procedure p() begin end"]),
        ("delimiter ;;\nselect 1; ;;select 2;;", ["select 1;", "select 2"]),
        (PROCEDURE + "; select 9", [PROCEDURE, "select 9"]),
        (
            "create trigger t before insert on x for each row set new.a = 1; select 2",
            ["create trigger t before insert on x for each row set new.a = 1", "select 2"],
        ),
        (
            "create trigger t before insert on x for each row if new.a then set @a = 1; end if; select 2",
            ["create trigger t before insert on x for each row if new.a then set @a = 1; end if", "select 2"],
        ),
        (
            "create procedure if not exists p() select 1; select 2",
            ["create procedure if not exists p() select 1", "select 2"],
        ),
        (
            "create event e on schedule every 1 day do begin select 1; end; select 2",
            ["create event e on schedule every 1 day do begin select 1; end", "select 2"],
        ),
        (
            "begin not atomic select 1; select 2; end; select 3",
            ["begin not atomic select 1; select 2; end", "select 3"],
        ),
        (
            "create view v as select begin, end from procedure_log; select 2",
            ["create view v as select begin, end from procedure_log", "select 2"],
        ),
        ("drop procedure if exists p; select 1", ["drop procedure if exists p", "select 1"]),
    ],
)
def test_mysql(sql: str, expected: list[str]) -> None:
    assert texts(sql, "mysql") == expected


TRIGGER = """create temp trigger if not exists t after insert on x when new.a is not null begin
  update y set a = case when new.a then 1 end;
  insert into z values ('end;');
end"""


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (TRIGGER + "; select 1", [TRIGGER, "select 1"]),
        ('select [a;b], `c;d`, "e;f" from x; select 2', ['select [a;b], `c;d`, "e;f" from x', "select 2"]),
        ("select 5--1;\n; select 2", ["select 5--1;", "select 2"]),
        ("create view v as select trigger from x; select 2", ["create view v as select trigger from x", "select 2"]),
        (r"select '\'; select 2", [r"select '\'", "select 2"]),
        ("begin; insert into x values (1); end; select 2", ["begin", "insert into x values (1)", "end", "select 2"]),
    ],
)
def test_sqlite(sql: str, expected: list[str]) -> None:
    assert texts(sql, "sqlite") == expected


def test_lines_are_those_of_the_first_word() -> None:
    found = split("\n-- note\nselect 1;\n\n\n/* a\nb */ select\n2", "postgresql")
    assert [statement.line for statement in found] == [3, 7]


def test_colons_that_are_no_parameters() -> None:
    sql = r"select :a, ':b', x::int, y[1:n], 12:30, z := :c, \:d -- :e"
    assert [t.text for t in tokens(sql, "postgresql") if t.kind is Kind.PARAMETER] == [":a", ":c"]


def test_long_text_takes_linear_time() -> None:
    many = split("insert into t values ('" + "x''" * 50_000 + "');\n" + "select 1;\n" * 20_000, "mysql")
    assert len(many) == 20_001
    assert many[-1].line == 20_001


PIECES = {
    dialect: st.sampled_from(
        [
            "select 1",
            "select 'a;b''c'",
            "insert into t (a) values (:a)",
            "update t set a = 'ü;' where b = 2",
            "/* one; two */ delete from t where a",
            'select "x;" from y',
            *{
                "postgresql": ["do $q$ begin x; end; $q$", r"select E'\';'", "select a::int[1:2] /* /* ; */ */"],
                "mysql": [PROCEDURE, r"select 'a\';'", "select `a;`, 5--1", "/*!50003 set @a = 1 */"],
                "sqlite": [TRIGGER, r"select '\', [a;b]", "select `a;`"],
            }[dialect],
        ]
    )
    for dialect in DIALECTS
}


@pytest.mark.parametrize("dialect", DIALECTS)
@given(data=st.data())
def test_joined_statements_come_apart_again(dialect: str, data: st.DataObject) -> None:
    pieces = data.draw(st.lists(PIECES[dialect], max_size=8))
    glue = data.draw(st.sampled_from([";", " ;\n", ";\n-- and; so on\n", ";;"]))
    shown = [s.text.removeprefix("-- and; so on\n") for s in split(glue.join(pieces), dialect)]
    assert shown == pieces


@pytest.mark.parametrize("dialect", DIALECTS)
@given(sql=st.text(alphabet="ab1'\"`$;:-/*#\\[]()E \n.%ü", max_size=60))
def test_tokens_are_the_text(dialect: str, sql: str) -> None:
    assert "".join(token.text for token in tokens(sql, dialect)) == sql
    for statement in split(sql, dialect):
        assert statement.text in sql
        assert 1 <= statement.line <= sql.count("\n") + 1


@given(sql=st.text(alphabet="ab'\"`[];-/* \n", max_size=40))
def test_agrees_with_sqlite_about_what_is_complete(sql: str) -> None:
    """SQLite's own rule for "this text ends a statement" is the reference."""
    text = sql + "\n;"
    assert sqlite3.complete_statement(text) == (list(tokens(text, "sqlite"))[-1].text == ";")
