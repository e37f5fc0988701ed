"""``backup`` on real servers: what is restored is what was there."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from blocks.connections import Connection
from flows.task_types.database.catalog import rows
from flows.task_types.database.model import Structure
from flows.task_types.database.quoting import qualified, quote
from flows.task_types.database.reflect import reflect
from flows.task_types.database.restore import restore
from flows.task_types.database.snapshot import consistent
from flows.task_types.sql_split import split
from taskcenter.context import Cancelled, RunContext
from taskcenter.errors import Refused, StepFailed
from taskcenter.task_types import registry
from tests.databases import DIALECTS, empty_database, run
from tests.integration.test_database_structure import DDL
from tests.random_databases import RandomDatabase, databases, fill

CASES = {"postgresql": 8, "mysql": 8, "sqlite": 25}
"""How many random databases per engine; TASKCENTER_TEST_CASES asks for a campaign of so many."""
CAMPAIGN = int(os.environ.get("TASKCENTER_TEST_CASES", "0"))


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def pair(dialect: str, tmp_path: Path) -> Iterator[tuple[Connection, Connection]]:
    with empty_database(dialect, tmp_path) as source, empty_database(dialect, tmp_path) as target:
        yield source, target


@pytest.fixture
def ctx(home: Path, pair: tuple[Connection, Connection]) -> RunContext:
    return context(pair[0], home)


def context(connection: Connection, home: Path) -> RunContext:
    temp = home / "tmp"
    temp.mkdir(exist_ok=True)
    return RunContext(task="nightly", data_dir=home, temp_dir=temp, resolve_connection=lambda name: connection)


def backup(ctx: RunContext, **payload: Any) -> dict[str, Any]:
    payload = {"connection": "db", **payload}
    assert registry.get("backup").check(payload) == []
    result: dict[str, Any] = registry.get("backup").call(payload, ctx)
    return result


def content(connection: Connection) -> tuple[Structure, dict[str, list[Any]]]:
    """Structure and all rows, in an order of their own, exact to the bit."""
    with consistent(connection) as opened:
        found = reflect(opened)
        driver: Any = opened.connection.driver_connection
        if connection.dialect == "mysql":
            driver.decoders = {}
        if connection.dialect == "sqlite":
            driver.text_factory = bytes
        data = {}
        for table in found.tables:
            name = qualified(table.schema, table.name, connection.dialect)
            sql = f"SELECT * FROM {name}"
            if connection.dialect == "postgresql":
                sql = f"SELECT t::text FROM {name} t"
            if connection.dialect == "mysql":
                names = (quote(c.name, "mysql") + (" + 0e0" if c.type.sql == "float" else "") for c in table.columns)
                sql = f"SELECT {', '.join(names)} FROM {name}"
            data[table.label] = sorted(repr(row) for row in rows(opened, sql))
    return replace(found, database="", version=""), data


def assert_equal(one: Connection, two: Connection) -> None:
    (left, left_rows), (right, right_rows) = content(one), content(two)
    for part in dataclasses.fields(left):
        assert getattr(left, part.name) == getattr(right, part.name), part.name
    assert left_rows == right_rows


MORE: dict[str, list[str]] = {
    "postgresql": [
        "CREATE TABLE a (id int PRIMARY KEY, b int)",
        "CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a)",
        "INSERT INTO a VALUES (1, NULL)",
        "INSERT INTO b VALUES (2, 1)",
        "UPDATE a SET b = 2",
        "ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b",
        'INSERT INTO "order" (amount, tags) VALUES (5, \'{"x y",NULL,"\\\\"}\'), (6, \'{}\')',
        "CREATE VIEW zz AS SELECT id, count(*) AS n FROM a GROUP BY id",
        "CREATE VIEW aa AS SELECT * FROM zz",
        "CREATE MATERIALIZED VIEW mv AS SELECT * FROM aa",
        "CREATE UNIQUE INDEX mvi ON mv (id)",
        "CREATE FUNCTION of_view() RETURNS SETOF aa LANGUAGE sql AS 'SELECT * FROM public.aa'",
        "CREATE FUNCTION seven() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 7'",
        "CREATE TABLE uses (i int DEFAULT seven(), j int GENERATED ALWAYS AS (seven()) STORED, k int)",
        "INSERT INTO uses (k) VALUES (1)",
        "CREATE TABLE part (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
        "CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
        "CREATE INDEX part_i ON part (at)",
        "INSERT INTO part VALUES (1, '2020-05-05')",
        "CREATE RULE nothing AS ON DELETE TO uses DO INSTEAD NOTHING",
        "CREATE STATISTICS st ON id, b FROM a",
        "ALTER TABLE a ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY seen ON a FOR SELECT TO PUBLIC USING (id > 0)",
        "COMMENT ON FUNCTION seven() IS 'it''s'",
        "COMMENT ON TABLE a IS 'x'",
        "CREATE SEQUENCE lone START 5",
        "SELECT nextval('lone')",
        "ALTER TABLE sales.item DISABLE TRIGGER t",
        "CREATE UNLOGGED TABLE quick (a int)",
        "CREATE TABLE nothing ()",
    ],
    "mysql": [
        "CREATE TABLE a (id int PRIMARY KEY, b int)",
        "CREATE TABLE b (id int PRIMARY KEY, a int, FOREIGN KEY (a) REFERENCES a (id))",
        "INSERT INTO a VALUES (1, NULL)",
        "INSERT INTO b VALUES (2, 1)",
        "UPDATE a SET b = 2",
        "ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b (id)",
        "CREATE VIEW zz AS SELECT id, count(*) AS n FROM a GROUP BY id",
        "CREATE VIEW aa AS SELECT * FROM zz",
        "CREATE SEQUENCE s START WITH 5",
        "CREATE TABLE uses (id bigint DEFAULT nextval(s), b int)",
        "INSERT INTO uses (b) VALUES (1)",
        "CREATE PROCEDURE p() BEGIN SELECT 1; SELECT 'it''s; //'; END",
        "CREATE EVENT ev ON SCHEDULE EVERY 1 DAY DO BEGIN SELECT 1; END",
        "INSERT INTO `order` (`Line no`, amount) VALUES (0, 5)",
    ],
    "sqlite": [
        "CREATE TABLE a (id int PRIMARY KEY, b int)",
        "INSERT INTO a VALUES (1, 'x' || char(0) || 'y'), (2, 0.1), (3, 5e-324), (4, 1.7976931348623157e308), "
        "(5, x'00ff'), (6, 9e999), (7, CAST(x'ff41' AS TEXT)), (-9223372036854775808, 1e300), (8, '')",
        "CREATE VIEW zz AS SELECT * FROM a",
        "CREATE VIEW aa AS SELECT * FROM zz",
        "CREATE TRIGGER on_view INSTEAD OF DELETE ON zz BEGIN DELETE FROM a WHERE id = old.id; END",
        'INSERT INTO "order" ("Line no", amount) VALUES (1, 5)',
        "PRAGMA user_version = 7",
    ],
}


def test_all_kinds_of_objects_come_back(pair: tuple[Connection, Connection], ctx: RunContext, dialect: str) -> None:
    source, target = pair
    run(source, *DDL[dialect], *MORE[dialect])
    result = backup(ctx, compress="gzip", verify=True)
    path = Path(result["filePath"])
    assert path.parent == ctx.data_dir / "backups"
    assert path.name.endswith(".sql.gz")
    assert path.stat().st_mode & 0o777 == 0o600
    assert result["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert result["bytes"] == path.stat().st_size
    assert result["verified"] is True
    assert result["rowCount"] == sum(len(data) for data in content(source)[1].values()) - (dialect == "postgresql")
    restore(path, target, "gzip")
    assert_equal(source, target)


CLIENTS: dict[str, Callable[[Connection], list[str]]] = {
    "postgresql": lambda c: ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", f"postgresql://{c.user}@{c.host}:{c.port}/{c.database}"],
    "mysql": lambda c: ["mariadb", "--no-defaults", f"-h{c.host}", f"-P{c.port}", f"-u{c.user}", str(c.database)],
    "sqlite": lambda c: ["sqlite3", "-bail", str(c.database)],
}  # fmt: skip


def test_the_script_is_for_the_engines_own_client_too(
    pair: tuple[Connection, Connection], ctx: RunContext, dialect: str
) -> None:
    source, target = pair
    argv = CLIENTS[dialect](target)
    if shutil.which(argv[0]) is None:
        pytest.skip(f"the client {argv[0]} is not installed here; restore() is tested without it")
    run(source, *DDL[dialect], *MORE[dialect])
    path = Path(backup(ctx)["filePath"])
    with path.open("rb") as script:
        done = subprocess.run(argv, stdin=script, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert_equal(source, target)


EMPTY = {
    "postgresql": ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"],
    "mysql": ["DROP DATABASE {0}", "CREATE DATABASE {0}", "USE {0}"],
}


def test_random_databases_come_back(pair: tuple[Connection, Connection], ctx: RunContext, dialect: str) -> None:
    source, target = pair

    # a campaign tells a failing case at once; making it small can take longer than the campaign
    phases = [Phase.explicit, Phase.generate] + ([] if CAMPAIGN else [Phase.shrink])

    @settings(
        phases=phases,
        max_examples=CAMPAIGN or CASES[dialect],
        deadline=None,
        derandomize=not CAMPAIGN,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(databases(dialect))
    def check(database: RandomDatabase) -> None:
        for connection in (source, target):
            if dialect == "sqlite":
                Path(str(connection.database)).write_bytes(b"")
            else:
                run(connection, *(s.format(connection.database) for s in EMPTY[dialect]))
        fill(source, database)
        result = backup(ctx)
        path = Path(result["filePath"])
        try:
            restore(path, target, "none")
            assert_equal(source, target)
            assert result["tableCount"] == len(database.tables)
        finally:
            path.unlink()

    check()


MANY = {
    "postgresql": "INSERT INTO {0} SELECT n, repeat('x', 50) FROM generate_series(1, {1}) g (n)",
    "mysql": "INSERT INTO {0} WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 1000) "
    "SELECT (a.n - 1) * 1000 + b.n, repeat('x', 50) FROM r a, r b WHERE (a.n - 1) * 1000 + b.n <= {1}",
    "sqlite": "INSERT INTO {0} WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < {1}) "
    "SELECT n, hex(zeroblob(25)) FROM r",
}


def tables_of(connection: Connection, names: str, count: int) -> None:
    for name in names:
        run(
            connection,
            f"CREATE TABLE {name} (id bigint PRIMARY KEY, t varchar(80))",
            MANY[connection.dialect].format(name, count),
        )


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_one_snapshot_while_somebody_writes(
    pair: tuple[Connection, Connection], ctx: RunContext, dialect: str, journal: str
) -> None:
    """The writer keeps a and b equal in each of its transactions; so must the backup."""
    source, target = pair
    if dialect != "sqlite" and journal == "delete":
        return
    if dialect == "sqlite":
        run(source, f"PRAGMA journal_mode = {journal}")
    tables_of(source, "ab", 3000)
    stop, written = threading.Event(), 0

    def write() -> None:
        nonlocal written
        with source.engine() as engine:
            while not stop.is_set():
                with engine.begin() as opened:
                    for name in "ab":
                        opened.exec_driver_sql(f"INSERT INTO {name} VALUES ({1_000_000 + written}, 'new')")
                written += 1

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[int] = []

    def slow() -> bool:
        seen.append(written)
        time.sleep(0.01)
        return False

    ctx.is_cancelled = slow
    try:
        result = backup(ctx)
    finally:
        stop.set()
        writer.join()
    assert seen[-1] > seen[0], "nothing was written meanwhile: the test has shown nothing"
    restore(Path(result["filePath"]), target, "none")
    data = content(target)[1]
    counts = {len(found) for found in data.values()}
    assert len(counts) == 1
    assert counts.pop() < 3000 + written


CHILD = """
import sys, time
from pathlib import Path
from blocks.connections import Connection
from flows.task_types.sql_split import split
from taskcenter.context import Cancelled, RunContext
from taskcenter.errors import Refused, StepFailed
from taskcenter.task_types import registry
connection = Connection(**eval(sys.argv[1]))
home = Path(sys.argv[2])
def slow():
    time.sleep(0.02)
    return False
ctx = RunContext(task="t", data_dir=home, temp_dir=home, resolve_connection=lambda n: connection, is_cancelled=slow)
registry.get("backup").call({"connection": "db", "filePath": sys.argv[3]}, ctx)
"""


def test_a_killed_backup_leaves_nothing_under_the_name(
    pair: tuple[Connection, Connection], ctx: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = pair
    tables_of(source, "abcdefgh", 5000)
    folder = ctx.data_dir / "backups"
    path = folder / "kept.sql"
    folder.mkdir()
    path.write_text("the one before")
    parts = {f: getattr(source, f) for f in ("name", "dialect", "host", "port", "database", "user")}
    child = subprocess.Popen([sys.executable, "-c", CHILD, repr(parts), str(ctx.data_dir), str(path)])
    try:
        for _ in range(600):
            half = [f for f in folder.iterdir() if f != path]
            if half and half[0].stat().st_size > 0:
                break
            assert child.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        time.sleep(0.1)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert path.read_text() == "the one before"
    assert len(list(folder.iterdir())) == 2, "a part beside it"
    backup(ctx, filePath=str(path))
    assert [f.name for f in folder.iterdir()] == ["kept.sql"], "the next backup has tidied up"
    assert path.read_text().startswith("-- taskcenter backup")


def test_cancel_in_the_middle(pair: tuple[Connection, Connection], ctx: RunContext) -> None:
    tables_of(pair[0], "abc", 3000)
    asked = 0

    def is_cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 12

    ctx.is_cancelled = is_cancelled
    with pytest.raises(Cancelled):
        backup(ctx)
    assert list((ctx.data_dir / "backups").iterdir()) == []


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_a_locked_table(pair: tuple[Connection, Connection], ctx: RunContext, dialect: str) -> None:
    source, _ = pair
    tables_of(source, "a", 10)
    lock = {"postgresql": "LOCK TABLE a IN ACCESS EXCLUSIVE MODE", "mysql": "LOCK TABLES a WRITE"}[dialect]
    with source.connect() as other:
        other.exec_driver_sql(lock)
        with pytest.raises(StepFailed, match="somebody else holds a lock") as caught:
            backup(ctx, lockTimeoutSeconds=1)
        assert caught.value.error_type == "locked"
        started = time.monotonic()
        ctx.is_cancelled = lambda: time.monotonic() - started > 0.5
        with pytest.raises(Cancelled):
            backup(ctx)
        assert time.monotonic() - started < 4
    assert list((ctx.data_dir / "backups").iterdir()) == []


def test_tables_and_without_rows(pair: tuple[Connection, Connection], ctx: RunContext, dialect: str) -> None:
    source, target = pair
    tables_of(source, "abc", 10)
    run(source, "CREATE VIEW va AS SELECT id FROM a", "CREATE VIEW vva AS SELECT id FROM va")
    with pytest.raises(StepFailed, match="there is no table 'nope'") as caught:
        backup(ctx, tables=["nope"])
    assert caught.value.error_type == "missing_table"
    result = backup(ctx, excludeTables=["A"], includeData=False, verify=True)
    assert (result["tableCount"], result["rowCount"]) == (2, 0)
    assert len(result["warnings"]) == 2
    restore(Path(result["filePath"]), target, "none")
    found = content(target)
    assert [t.name for t in found[0].tables] == ["b", "c"]
    assert found[0].views == ()
    only = backup(ctx, tables=["c"], verify=True)
    assert (only["tableCount"], only["rowCount"]) == (1, 10)


def test_the_disk_refuses(pair: tuple[Connection, Connection], ctx: RunContext) -> None:
    tables_of(pair[0], "a", 5000)
    if pair[0].dialect == "sqlite":
        run(pair[0], "PRAGMA journal_mode = wal")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(StepFailed, match="cannot be written: File too large; nothing was left") as caught:
            backup(ctx)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert caught.value.error_type == "file"
    assert list((ctx.data_dir / "backups").iterdir()) == []


def test_native(pair: tuple[Connection, Connection], ctx: RunContext, dialect: str) -> None:
    source, _ = pair
    tables_of(source, "abc", 100)
    run(source, "CREATE VIEW va AS SELECT id FROM a")
    result = backup(ctx, format="native", verify=True, compress="zstd")
    assert result["rowCount"] == 300
    assert result["filePath"].endswith({"postgresql": ".dump.zst", "mysql": ".sql.zst", "sqlite": ".db.zst"}[dialect])
    if dialect == "sqlite":
        with pytest.raises(StepFailed, match="copies a SQLite file as a whole"):
            backup(ctx, format="native", tables=["a"])
    else:
        assert backup(ctx, format="native", tables=["a"], verify=True)["rowCount"] == 100
        assert backup(ctx, format="native", excludeTables=["a", "b"], includeData=False)["tableCount"] == 1


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_native_without_the_tool(
    pair: tuple[Connection, Connection], ctx: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(StepFailed, match="is not installed here; install it or use format sql") as caught:
        backup(ctx, format="native")
    assert caught.value.error_type == "tool"


def test_a_wrong_restore_is_no_backup(
    pair: tuple[Connection, Connection], ctx: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.task_types.database import restore as module

    tables_of(pair[0], "a", 10)
    real = module.restore

    def lossy(path: Path, connection: Connection, *more: Any) -> None:
        real(path, connection, *more)
        run(connection, "DELETE FROM a WHERE id = 3")

    monkeypatch.setattr(module, "restore", lossy)
    with pytest.raises(StepFailed, match="10 written, 9 restored") as caught:
        backup(ctx, verify=True)
    assert caught.value.error_type == "verify"
    assert list((ctx.data_dir / "backups").iterdir()) == []


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_older_ones_go(pair: tuple[Connection, Connection], ctx: RunContext) -> None:
    folder = ctx.data_dir / "backups"
    first = Path(backup(ctx)["filePath"])
    stem = first.name[: -len("20260101000000.sql")]
    first.unlink()
    for year in (2020, 2021, 2022, 2023):
        (folder / f"{stem}{year}0101000000.sql").touch()
    other = folder / "else_nightly_20200101000000.sql"
    other.touch()
    gone = backup(ctx, keepLast=3)["pruned"]
    assert gone == [f"{stem}20210101000000.sql", f"{stem}20200101000000.sql"]
    assert backup(ctx, keepLast=3, keepDays=36500)["pruned"] == []
    assert len(backup(ctx, keepDays=1)["pruned"]) >= 2
    assert other.exists()


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_where_it_may_write(
    pair: tuple[Connection, Connection], ctx: RunContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKCENTER_PROJECT", str(ctx.data_dir))
    with pytest.raises(Refused, match="TASKCENTER_FILE_ROOTS"):
        backup(ctx, filePath=str(tmp_path / "elsewhere" / "x.sql"))
    monkeypatch.setenv("TASKCENTER_FILE_ROOTS", str(tmp_path / "elsewhere"))
    assert backup(ctx, filePath=str(tmp_path / "elsewhere" / "x.sql.gz"))["compress"] == "gzip"
    with gzip.open(tmp_path / "elsewhere" / "x.sql.gz", "rt") as text:
        assert text.readline().startswith("-- taskcenter backup")
    assert Path(backup(ctx, filePath=f"{tmp_path}/elsewhere/sub/")["filePath"]).parent.name == "sub"


@pytest.mark.parametrize("dialect", ["postgresql"])
def test_what_cannot_be_carried_over_is_refused(pair: tuple[Connection, Connection], ctx: RunContext) -> None:
    run(pair[0], "CREATE TABLE p (a int)", "CREATE TABLE c () INHERITS (p)")
    with pytest.raises(StepFailed, match=r"the table public\.c, which inherits from public\.p") as caught:
        backup(ctx)
    assert caught.value.error_type == "unsupported"
    assert backup(ctx, excludeTables=["c"])["tableCount"] == 1


@given(st.floats(allow_nan=False))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_floats_for_sqlite_are_exact(value: float) -> None:
    from flows.task_types.database.dump_sqlite import exact_float

    found = sqlite3.connect(":memory:").execute(f"SELECT {exact_float(value)}").fetchone()[0]
    assert json.dumps(found) == json.dumps(value)


DUMPERS: dict[str, Callable[[Connection], list[str]]] = {
    "postgresql": lambda c: ["pg_dump", "--inserts", f"--dbname=postgresql://{c.user}@{c.host}:{c.port}/{c.database}"],
    "mysql": lambda c: [
        *("mariadb-dump", "--no-defaults", f"-h{c.host}", f"-P{c.port}", f"-u{c.user}"),
        *("--routines", "--events", "--hex-blob", str(c.database)),
    ],
    "sqlite": lambda c: ["sqlite3", str(c.database), ".dump"],
}


def test_scripts_of_the_engines_own_tools_come_apart_right(pair: tuple[Connection, Connection], dialect: str) -> None:
    """Their dumps are the nastiest scripts at hand: bodies, DELIMITER, odd literals. Each statement runs by itself."""
    source, target = pair
    argv = DUMPERS[dialect](source)
    if shutil.which(argv[0]) is None:
        pytest.skip(f"the tool {argv[0]} is not installed here; the splitter's own corpus is tested without it")
    more = [s for s in MORE[dialect] if "char(0)" not in s and "SEQUENCE s" not in s and "nextval(s)" not in s]
    run(source, *DDL[dialect], *(s for s in more if not s.startswith("INSERT INTO uses")))
    done = subprocess.run(argv, capture_output=True, check=True)
    text = "\n".join(line for line in done.stdout.decode().split("\n") if not line.startswith("\\"))
    if dialect == "postgresql":
        text = text.replace("CREATE SCHEMA public;", "")  # whether it stands there depends on how the source was made
    run(target, *(piece.text for piece in split(text, dialect)))
    assert_equal(source, target)


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_a_connection_that_breaks_in_the_middle(
    pair: tuple[Connection, Connection], ctx: RunContext, dialect: str
) -> None:
    source, _ = pair
    tables_of(source, "abc", 3000)
    kill = {
        "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND "
        "pid <> pg_backend_pid()",
        "mysql": "BEGIN NOT ATOMIC DECLARE n bigint; SELECT id INTO n FROM information_schema.processlist WHERE "
        "db = database() AND id <> connection_id() LIMIT 1; KILL n; END",
    }[dialect]
    asked = 0

    def is_cancelled() -> bool:
        nonlocal asked
        asked += 1
        if asked == 8:
            run(source, kill)
        return False

    ctx.is_cancelled = is_cancelled
    with pytest.raises(StepFailed, match="the connection broke in the middle") as caught:
        backup(ctx)
    assert caught.value.error_type == "connection_lost"
    assert list((ctx.data_dir / "backups").iterdir()) == []


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_a_wrong_connection(pair: tuple[Connection, Connection], ctx: RunContext, dialect: str) -> None:
    from taskcenter.errors import ConnectionUnavailable

    source, _ = pair
    for wrong, said in (
        ({"database": "no_such_database"}, r"no_such_database"),
        ({"port": 1}, r"cannot be opened"),
        ({"user": "nobody_knows", "password": "a-secret-word"}, r"cannot be opened|nobody_knows"),
    ):
        ctx.resolve_connection = lambda name, wrong=wrong: replace(source, **wrong)  # type: ignore[misc]
        with pytest.raises(ConnectionUnavailable, match=said) as caught:
            backup(ctx)
        assert "a-secret-word" not in str(caught.value)
        assert "\n" not in caught.value.message
    assert not list((ctx.data_dir / "backups").glob("*"))


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_the_tool_gets_no_password_by_argument(
    pair: tuple[Connection, Connection], ctx: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = pair
    run(source, "CREATE TABLE t (a int PRIMARY KEY)")
    # the server trusts whom it knows; MariaDB's root has no password and would refuse one
    word = "a-secret-word" if source.dialect == "postgresql" else ""
    ctx.resolve_connection = lambda name: replace(source, password=word or None)
    seen: list[list[str]] = []
    real = subprocess.Popen

    def popen(argv: list[str], **more: Any) -> Any:
        seen.append(argv)
        assert more["env"].get("PGPASSWORD", "") == word
        assert set(more["env"]) <= {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "PGPASSWORD"} | {
            name for name in os.environ if name.startswith("LC_")
        }
        return real(argv, **more)

    monkeypatch.setattr(subprocess, "Popen", popen)
    backup(ctx, format="native", verify=True)
    assert len(seen) == 2
    assert word == "" or word not in str(seen)


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_what_a_login_may_not_see_is_not_left_out_in_silence(
    pair: tuple[Connection, Connection], ctx: RunContext, dialect: str
) -> None:
    source, _ = pair
    role = f"tc_role_{os.getpid()}"
    made = {
        "postgresql": [
            f"CREATE ROLE {role} LOGIN",
            "CREATE TABLE t (a int PRIMARY KEY)",
            "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY small ON t USING (a < 5)",
            f"GRANT SELECT ON t TO {role}",
            f"GRANT USAGE ON SCHEMA public TO {role}",
        ],
        "mysql": [
            f"CREATE USER {role}@'127.0.0.1'",
            "CREATE TABLE t (a int PRIMARY KEY)",
            "CREATE PROCEDURE secret() SELECT 1",
            f"GRANT SELECT, EXECUTE ON {source.database}.* TO {role}@'127.0.0.1'",
        ],
    }[dialect]
    gone = {"postgresql": [f"DROP OWNED BY {role}", f"DROP ROLE {role}"], "mysql": [f"DROP USER {role}@'127.0.0.1'"]}
    run(source, *made)
    try:
        ctx.resolve_connection = lambda name: replace(source, user=role)
        with pytest.raises(StepFailed) as caught:
            backup(ctx)
    finally:
        run(source, *gone[dialect])
    assert caught.value.error_type == {"postgresql": "permission", "mysql": "unsupported"}[dialect]
    assert ("row-level security policy" if dialect == "postgresql" else "secret()") in caught.value.message
