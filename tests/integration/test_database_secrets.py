"""The passwords of connections stand in no row, log, error, argv or file, whatever a database task does. (shows 7)

Every type runs well and badly, over servers that ask for the password and over a wrong one; then both databases are
dumped and every file is searched, for the password and for the forms that it takes in addresses, JSON and encodings.
"""

from __future__ import annotations

import asyncio
import base64
import html
import json
import logging
import shlex
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from blocks.connections import Connection, variable_name
from flows import run_task
from taskcenter_console.services import tasks as task_service
from tests.databases import empty_database, run, server
from tests.integration.conftest import LiveCenter

PASSWORD = "Zq8'vK\"x/9&wJ%4ü#tR@5:2m"


def forms(secret: str) -> dict[str, bytes]:
    """What the secret looks like after the usual transformations; each is long enough to be no accident."""
    raw = secret.encode()
    made = {
        "raw": raw,
        "quoted": urllib.parse.quote(secret, safe="").encode(),
        "quoted, with slashes": urllib.parse.quote(secret).encode(),
        "quoted plus": urllib.parse.quote_plus(secret).encode(),
        "json": json.dumps(secret)[1:-1].encode(),
        "json, unicode": json.dumps(secret, ensure_ascii=False)[1:-1].encode(),
        "repr": repr(secret)[1:-1].encode(),
        "shell": shlex.quote(secret).encode(),
        "html": html.escape(secret).encode(),
        "sql": secret.replace("'", "''").encode(),
        "hex": raw.hex().encode(),
        "latin-1": secret.encode("latin-1"),
        "half of it": raw[: len(raw) // 2],
    }
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + raw)
        made[f"base64, offset {offset}"] = encoded[4 if offset else 0 : -4]
    return made


FORMS = forms(PASSWORD)


def found_in(data: bytes) -> list[str]:
    return [name for name, form in FORMS.items() if form in data]


@contextmanager
def seen_arguments() -> Iterator[list[str]]:
    """The command lines of all processes that carry the password, looked at all the time."""
    found: list[str] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    data = path.read_bytes()
                except OSError:
                    continue
                found.extend(found_in(data))
            time.sleep(0.005)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


@contextmanager
def with_password(dialect: str, folder: Path) -> Iterator[Connection]:
    """An empty database behind a login of its own that has the password."""
    login = f"tc_{uuid.uuid4().hex[:8]}"
    literal = "'" + PASSWORD.replace("'", "''") + "'"
    with empty_database(dialect, folder) as connection:
        admin = server(dialect)
        if dialect == "postgresql":
            run(admin, f"CREATE ROLE {login} SUPERUSER LOGIN PASSWORD {literal}")
            gone = f"DROP ROLE {login}"
        else:
            run(admin, f"CREATE USER {login}@'%' IDENTIFIED BY {literal}", f"GRANT ALL ON *.* TO {login}@'%'")
            gone = f"DROP USER {login}@'%'"
        try:
            run(connection, "CREATE TABLE t (id int PRIMARY KEY, a varchar(20))", "INSERT INTO t VALUES (1, 'one')")
            yield replace(connection, user=login, password=PASSWORD)
        finally:
            if dialect == "postgresql":
                run(connection, f"REASSIGN OWNED BY {login} TO postgres", f"DROP OWNED BY {login}")
            run(admin, gone)


def address(c: Connection, **other: Any) -> str:
    values = {"host": c.host, "port": c.port, "password": c.password, "database": c.database, **other}
    secret = urllib.parse.quote(str(values["password"]), safe="")
    return f"{c.dialect}://{c.user}:{secret}@{values['host']}:{values['port']}/{values['database']}"


def jobs(db: str, other: str, wrong: str, away: str, files: Path) -> list[tuple[str, dict[str, Any]]]:
    """Every type, as it goes well and as it fails."""
    transfer = {"source": db, "target": other, "objects": [{"sourceTable": "t", "mode": "replace", "verify": True}]}
    compare = {"sourceConnection": db, "targetConnection": other, "sourceTable": "t", "targetTable": "t"}
    made: list[tuple[str, dict[str, Any]]] = [
        ("sql_script", {"connection": db, "sql": "select 1"}),
        ("sql_script", {"connection": db, "sql": "select nonsense"}),
        ("sql_script", {"connection": db, "sql": "select 1", "expect": "value > 7"}),
        ("backup", {"connection": db, "verify": True}),
        ("backup", {"connection": db, "format": "native", "verify": True}),
        ("backup", {"connection": db, "tables": ["nothing"]}),
        ("schema_snapshot", {"connection": db}),
        ("schema_snapshot", {"connection": db, "compareWith": other, "failOn": "any"}),
        ("data_transfer_migration", transfer),
        ("data_transfer_migration", {**transfer, "objects": [{"sourceTable": "nothing"}]}),
        ("data_compare_sync", {**compare, "applyScript": True, "filePath": str(files / f"{db}.sql")}),
        ("data_compare_sync", {**compare, "targetTable": "nothing"}),
    ]
    for bad in (wrong, away):
        made += [
            ("sql_script", {"connection": bad, "sql": "select 1"}),
            ("backup", {"connection": bad}),
            ("backup", {"connection": bad, "format": "native"}),
            ("schema_snapshot", {"connection": bad}),
            ("data_transfer_migration", {**transfer, "target": bad}),
            ("data_compare_sync", {**compare, "sourceConnection": bad}),
        ]
    return made


def dump(url: str) -> Iterator[tuple[str, bytes]]:
    """Every row of every table as text."""
    with psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://")) as opened:
        names = opened.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        for (name,) in names:
            with opened.cursor().copy(f"COPY {name} TO STDOUT") as copy:
                yield name, b"".join(map(bytes, copy)).replace(rb"\\", b"\\")


@pytest.mark.parametrize("dialect", ["postgresql", "mysql"])
def test_a_password_is_nowhere(
    dialect: str, live: LiveCenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    mark = uuid.uuid4().hex[:6]
    with with_password(dialect, tmp_path) as db, with_password(dialect, tmp_path) as other:
        names = {f"{word}-{mark}": word for word in ("db", "other", "wrong", "away")}
        wrong = address(db, password=PASSWORD[::-1] + PASSWORD, database="nowhere")
        addresses = {"db": address(db), "other": address(other), "wrong": wrong, "away": address(db, port=1)}
        for name, word in names.items():
            monkeypatch.setenv(variable_name(name), addresses[word])
        states = []
        with seen_arguments() as arguments:
            for kind, payload in jobs(*names, live.home / "files"):
                data = {"name": f"{kind}-{uuid.uuid4().hex[:8]}".replace("_", "-"), "taskType": kind}
                slug = task_service.save(live.center, {**data, "payload": payload}, live.caller).slug
                state = asyncio.run(getattr(run_task, kind)(task=slug, return_state=True))
                states.append((kind, state.is_completed(), str(state.message)))
    good = {kind for kind, fine, _ in states if fine}
    bad = {kind for kind, fine, _ in states if not fine}
    types = {"sql_script", "backup", "schema_snapshot", "data_transfer_migration", "data_compare_sync"}
    assert (good, bad) == (types, types), states
    assert arguments == []
    assert found_in(json.dumps(states, ensure_ascii=False).encode()) == []
    assert found_in(caplog.text.encode()) == []
    time.sleep(1)  # Prefect's recorders write behind
    for database in ("taskcenter", "prefect"):
        url = urllib.parse.urlsplit(live.database_url)._replace(path=f"/{database}")
        for table, data in dump(urllib.parse.urlunsplit(url)):
            assert found_in(data) == [], f"{database}: {table}"
    for file in live.home.rglob("*"):
        if file.is_file() and not file.is_symlink():
            assert found_in(file.read_bytes()) == [], file
