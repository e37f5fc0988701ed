"""Names into connections, addresses into parts, and errors that help without telling the password."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.connections import Connection, block_name, parse_url, resolve, variable_name
from taskcenter.errors import ConnectionUnavailable


def test_an_address_comes_apart() -> None:
    made = parse_url("dw", "postgresql+psycopg2://app:p%40ss%2F:x@db.example.com:6543/sales%20x?sslmode=require")
    assert (made.dialect, made.host, made.port, made.database) == ("postgresql", "db.example.com", 6543, "sales x")
    assert (made.user, made.password, made.options) == ("app", "p@ss/:x", {"sslmode": "require"})
    assert parse_url("x", "mariadb://[::1]:3307/d").host == "::1"
    assert parse_url("x", "sqlite:////var/a%20b.db?create=true").database == "/var/a b.db"
    assert parse_url("x", "sqlite:///rel.db").database == "rel.db"


@given(user=st.text(min_size=1), password=st.text(min_size=1))
def test_any_login_survives_the_address(user: str, password: str) -> None:
    from urllib.parse import quote

    try:
        made = parse_url("x", f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@h/d")
    except UnicodeEncodeError:  # a lone surrogate has no percent form
        return
    assert (made.user, made.password, made.host) == (user, password, "h")


def test_the_password_is_shown_nowhere() -> None:
    made = parse_url("dw", "postgresql://app:hunter2@db:5432/sales")
    for text in (repr(made), str(made), made.describe(), str(made.url())):
        assert "hunter2" not in text
    assert made.url().password == "hunter2"
    assert made.url().drivername == "postgresql+psycopg"


def test_where_a_name_is_looked_for(tmp_path: Path) -> None:
    asked: list[str] = []

    def lookup(name: str) -> Connection | None:
        asked.append(name)
        return Connection(name=name, dialect="sqlite") if name == "my-block" else None

    env = {"TASKCENTER_CONNECTION_DATA_WAREHOUSE": "mysql://h/d"}
    assert resolve("Data Warehouse", lookup=lookup, env=env, home=tmp_path).dialect == "mysql"
    assert resolve("My Block", lookup=lookup, env=env, home=tmp_path).name == "my-block"
    assert resolve("warehouse", lookup=lookup, env=env, home=tmp_path).database == str(
        tmp_path / "sample" / "warehouse.db"
    )
    assert asked == ["my-block"]
    with pytest.raises(ConnectionUnavailable) as caught:
        resolve("nope", lookup=lookup, env=env, home=tmp_path)
    for part in ("TASKCENTER_CONNECTION_NOPE", "sample", "taskcenter-database/nope", "postgresql://"):
        assert part in caught.value.message
    assert block_name(" Data  Warehouse! ") == "data-warehouse"
    assert variable_name("data-warehouse") == "TASKCENTER_CONNECTION_DATA_WAREHOUSE"


@pytest.mark.parametrize("name", ["", "  ", "--"])
def test_a_name_needs_letters(name: str) -> None:
    with pytest.raises(ConnectionUnavailable, match="letter or a digit"):
        resolve(name)


def test_an_unreadable_address_is_not_repeated() -> None:
    with pytest.raises(ConnectionUnavailable) as caught:
        resolve("x", env={"TASKCENTER_CONNECTION_X": "user hunter2"})
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:///{folder}/none.db", "does not exist"),
        ("sqlite:///{folder}", "is a folder"),
        ("sqlite:///{folder}/text.db", "file is not a database"),
        ("postgresql://app:hunter2@127.0.0.1:1/x", "onnection refused"),
        ("mysql://app:hunter2@127.0.0.1:1/x", "onnect"),
        ("postgresql://app:hunter2@127.0.0.1:1/x?nonsense=1", "nonsense"),
        ("nosuchdialect://h/d", "no driver"),
    ],
)
def test_what_cannot_be_opened_says_why(tmp_path: Path, url: str, says: str) -> None:
    (tmp_path / "text.db").write_text("this is no database, it is text of some length\n" * 50)
    connection = parse_url("dw", url.format(folder=tmp_path))
    with pytest.raises(ConnectionUnavailable) as caught, connection.connect():
        pass
    assert says in caught.value.message
    assert "'dw'" in caught.value.message
    assert "hunter2" not in caught.value.message


def test_a_missing_file_is_made_only_when_asked(tmp_path: Path) -> None:
    with parse_url("x", f"sqlite:///{tmp_path}/new.db?create=true").connect() as opened:
        opened.exec_driver_sql("create table t (a)")
        opened.commit()
    assert (tmp_path / "new.db").is_file()


def test_sqlite_transactions_are_real(tmp_path: Path) -> None:
    connection = parse_url("x", f"sqlite:///{tmp_path}/new.db?create=true")
    with connection.connect() as opened:
        opened.exec_driver_sql("create table t (a)")
        opened.rollback()
    with sqlite3.connect(tmp_path / "new.db") as seen:
        assert seen.execute("select count(*) from sqlite_master").fetchone() == (0,)


def test_naming_connections_costs_no_heavy_import() -> None:
    code = (
        "import sys, blocks.connections, flows.task_types.sql_script, flows.task_types.http, flows.task_types.shell,"
        " flows.task_types.wait, flows.task_types.python, flows.task_types.prefect_deployment;"
        "print([m for m in ('sqlalchemy', 'prefect', 'httpx', 'psycopg', 'psutil') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
