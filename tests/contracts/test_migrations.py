"""The tables come into being by migrations, and a database that does not open says why. (spec 6.1)"""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from store_makers import a_run

from taskcenter.errors import ServerAway, SetupError, TaskCenterError
from taskcenter.ports import Changes
from taskcenter_adapter.database import check, current, include_name, make_engine, upgrade, where
from taskcenter_adapter.store_sql import SqlStore
from taskcenter_adapter.tables import metadata

SEED_TABLES = {
    "tasks", "task_triggers", "task_runs", "task_run_logs", "composite_tasks", "composite_steps", "composite_edges",
    "composite_step_runs", "task_manager_settings", "task_audit_logs",
}  # fmt: skip


@pytest.fixture
def engine(empty_url: str) -> Iterator[sa.Engine]:
    engine = make_engine(empty_url)
    yield engine
    engine.dispose()


def test_a_new_database_gets_all_tables_and_keeps_them(engine: sa.Engine) -> None:
    assert current(engine) is None
    assert not check(engine)
    upgrade(engine)
    assert check(engine)
    assert set(sa.inspect(engine).get_table_names()) >= SEED_TABLES
    store = SqlStore(engine)
    store.record(Changes(runs=[a_run()]))
    first = current(engine)
    upgrade(engine)
    assert current(engine) == first
    assert store.get_run("run-1") == a_run()


def test_migrations_and_tables_agree(engine: sa.Engine) -> None:
    upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": include_name, "compare_type": True, "target_metadata": metadata}
        )
        assert compare_metadata(context, metadata) == []


def test_the_comparison_would_see_a_difference(engine: sa.Engine) -> None:
    upgrade(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE task_runs ADD COLUMN surprise TEXT")
        connection.exec_driver_sql("DROP INDEX ix_task_runs_open")
        context = MigrationContext.configure(connection, opts={"include_name": include_name})
        assert {change[0] for change in compare_metadata(context, metadata)} == {"remove_column", "add_index"}


def test_an_upgrade_that_fails_leaves_nothing(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE task_run_logs (other TEXT)")
    with pytest.raises(sa.exc.DBAPIError):
        upgrade(engine)
    assert sa.inspect(engine).get_table_names() == ["task_run_logs"]
    assert not check(engine)


def test_foreign_keys_hold_after_an_upgrade(engine: sa.Engine) -> None:
    upgrade(engine)
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO composite_tasks (task_id, settings, options) VALUES ('x', '{}', '{}')")


def test_processes_that_upgrade_at_once_make_one_set_of_tables(empty_url: str) -> None:
    program = (
        "import sys; from taskcenter_adapter.database import *; engine = make_engine(sys.argv[1]);"
        "print('ready', flush=True); sys.stdin.readline(); upgrade(engine); assert check(engine)"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, empty_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [(process.communicate(timeout=120)[1], process.returncode) for process in processes]
    assert ends == [("", 0)] * 4
    engine = make_engine(empty_url)
    assert check(engine)
    engine.dispose()


def test_a_database_of_a_newer_version_is_left_alone(engine: sa.Engine) -> None:
    upgrade(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    assert not check(engine)
    with pytest.raises(SetupError, match="newer Task Center"):
        upgrade(engine)
    assert current(engine) == "9999"


def test_a_store_without_tables_says_how_to_get_them(engine: sa.Engine) -> None:
    store = SqlStore(engine)
    with pytest.raises(SetupError, match="run `taskcenter db upgrade`"):
        store.list_tasks()
    with pytest.raises(SetupError, match="run `taskcenter db upgrade`"):
        store.record(Changes(runs=[a_run()]))


# what does not open --------------------------------------------------------------------------------


def _said(url: str, kind: type[TaskCenterError]) -> str:
    """The sentence of the error, after a look at all it carries: no password anywhere."""
    engine = make_engine(url)
    try:
        with pytest.raises(kind) as refused:
            upgrade(engine)
    finally:
        engine.dispose()
    assert "s3cret" not in "".join(traceback.format_exception(refused.value))
    for ask in (current, check, lambda engine: SqlStore(engine).list_tasks()):
        with pytest.raises(kind):
            ask(engine)
    return str(refused.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary, " * 500)
    assert _said(f"sqlite:///{path}", SetupError) == (
        f"The file {path} is not a database, or is damaged: name another file, or restore it from a backup."
    )
    assert path.read_text() == "Dear diary, " * 500


@pytest.mark.parametrize("name", ["", "missing/store.db"])
def test_a_file_that_cannot_be_there(tmp_path: Path, name: str) -> None:
    assert "cannot be opened: its folder must exist" in _said(f"sqlite:///{tmp_path / name}", SetupError)


def test_a_file_that_can_only_be_read(sqlite_url: str) -> None:
    path = sqlite_url.removeprefix("sqlite:///")
    engine = make_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    with pytest.raises(SetupError, match="can only be read"):
        SqlStore(engine).record(Changes(runs=[a_run()]))
    engine.dispose()


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        said = _said(f"postgresql://ann:s3cret@127.0.0.1:{port}/taskcenter", ServerAway)
    assert said.startswith(f"The database server 127.0.0.1:{port}/taskcenter does not answer")


def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    said = _said(f"postgresql+psycopg://postgres@/taskcenter?host={tmp_path}&password=s3cret", ServerAway)
    assert f"{tmp_path}/taskcenter" in said


def test_a_database_that_the_server_lacks(postgres_url: str) -> None:
    url = sa.make_url(postgres_url).set(database="not_there").render_as_string(hide_password=False)
    assert "no database 'not_there'" in _said(url, SetupError)


def _server_that_answers(code: str, message: str) -> tuple[int, Callable[[], None]]:
    """The first words of a PostgreSQL server that refuses everybody with this error."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                while True:
                    size, request = struct.unpack("!ii", client.recv(8, socket.MSG_WAITALL))
                    if size > 8:
                        client.recv(size - 8, socket.MSG_WAITALL)
                        break
                    assert request  # a question for encryption: no
                    client.sendall(b"N")
                fields = b"".join(
                    f"{key}{value}\0".encode()
                    for key, value in zip("SVCM", ("FATAL", "FATAL", code, message), strict=True)
                )
                client.sendall(b"E" + struct.pack("!i", len(fields) + 5) + fields + b"\0")

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1], server.close


@pytest.mark.parametrize(
    ("code", "message", "kind", "words"),
    [
        ("28P01", 'password authentication failed for user "ann"', SetupError, "refuses the user 'ann'"),
        ("28000", 'role "ann" does not exist', SetupError, "refuses the user 'ann'"),
        ("42501", 'permission denied for database "x"', SetupError, "may not do this"),
        ("3D000", 'database "x" does not exist', SetupError, "no database 'x'"),
        ("57P03", "the database system is starting up", ServerAway, "does not answer"),
        ("53300", "sorry, too many clients already", ServerAway, "does not answer"),
    ],
)
def test_a_server_that_refuses(code: str, message: str, kind: type[TaskCenterError], words: str) -> None:
    port, close = _server_that_answers(code, message)
    try:
        assert words in _said(f"postgres://ann:s3cret@127.0.0.1:{port}/x", kind)
    finally:
        close()


def test_a_connection_that_died_is_replaced(postgres_url: str, new_postgres: Callable[[], str]) -> None:
    store = SqlStore(make_engine(postgres_url))
    assert store.list_tasks() == []
    other = make_engine(new_postgres())
    with other.connect() as connection:
        connection.execute(
            sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": store.engine.url.database},
        )
    assert store.list_tasks() == []
    other.dispose()
    store.close()


def test_addresses(tmp_path: Path) -> None:
    for url in (
        "postgres://u:s3cret@h:1/d",
        "postgresql://u:s3cret@h:1/d",
        "postgresql+asyncpg://u:s3cret@h:1/d",
        "postgresql+psycopg://u:s3cret@h:1/d",
    ):
        engine = make_engine(url)
        assert engine.url.drivername == "postgresql+psycopg"
        assert where(engine) == "h:1/d"
    assert where(make_engine("postgresql+psycopg://postgres@/taskcenter?host=/run/pg")) == "/run/pg/taskcenter"
    for url in ("nonsense s3cret", "mysql://u:s3cret@h/d", "sqlite://", "sqlite:///:memory:", ""):
        with pytest.raises(SetupError, match=r"sqlite:////path/to/file\.db") as refused:
            make_engine(url)
        assert "s3cret" not in "".join(traceback.format_exception(refused.value))


def test_an_error_shows_no_value_of_its_statement(engine: sa.Engine) -> None:
    value = "-".join(("kept", "quiet"))  # not in one piece: a traceback shows this line too
    with pytest.raises(sa.exc.DBAPIError) as refused, engine.begin() as connection:
        connection.execute(sa.text("SELECT * FROM not_there WHERE value = :value"), {"value": value})
    assert value not in "".join(traceback.format_exception(refused.value))
