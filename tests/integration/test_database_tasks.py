"""Backups and schema snapshots as users run them: saved tasks, plans, steps of a composite, on a real center."""

from __future__ import annotations

import asyncio
import gzip
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.connections import Connection, variable_name
from composites import Composite
from composites.load import catalog
from flows import run_task
from flows.composite import composite
from taskcenter.errors import ValidationFailed
from taskcenter.ports import RunFilter
from taskcenter_console.services import tasks as task_service
from tests.databases import DIALECTS, empty_database, run
from tests.integration.conftest import LiveCenter

PASSWORD = "hunter2-top-secret-password"


def name_of(word: str) -> str:
    return f"{word}-{uuid.uuid4().hex[:8]}"


def address(connection: Connection) -> str:
    if connection.dialect == "sqlite":
        return f"sqlite:///{connection.database}"
    # these servers trust whom they know: the password is only there to be looked for afterwards
    user = f"{connection.user}:{PASSWORD}" if connection.dialect == "postgresql" else connection.user
    return f"{connection.dialect}://{user}@{connection.host}:{connection.port}/{connection.database}"


@pytest.fixture(params=DIALECTS)
def saved(
    request: pytest.FixtureRequest, tmp_path: Path, live: LiveCenter, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The name of a connection to a small database of the engine."""
    with empty_database(request.param, tmp_path) as connection:
        run(
            connection,
            "CREATE TABLE t (id int PRIMARY KEY, a varchar(20))",
            "INSERT INTO t VALUES (1, 'one'), (2, NULL)",
            "CREATE VIEW v AS SELECT id FROM t",
        )
        name = name_of("db")
        monkeypatch.setenv(variable_name(name), address(connection))
        yield name


def last_run(live: LiveCenter, slug: str) -> Any:
    return live.store.list_runs(RunFilter(task_id=live.store.get_task(slug).id)).items[0]


def made(live: LiveCenter, task_type: str, **payload: Any) -> str:
    data = {"name": name_of(task_type.replace("_", "-")), "taskType": task_type, "payload": payload}
    return task_service.save(live.center, data, live.caller).slug


def test_a_saved_backup_is_planned_and_run(live: LiveCenter, saved: str) -> None:
    slug = made(live, "backup", connection=saved, compress="gzip", verify=True, keepLast=1)
    state = asyncio.run(run_task.backup(task=slug, dry_run=True, return_state=True))
    assert state.is_completed(), state.message
    note = last_run(live, slug).result["note"]
    assert note["summary"].startswith(f"backs up all tables of {saved} to ")
    assert note["danger"] == ["older backups of this task are deleted, except the last 1"]
    assert not (live.home / "backups").exists() or not list((live.home / "backups").glob(f"*{slug}*"))
    state = asyncio.run(run_task.backup(task=slug, return_state=True))
    assert state.is_completed(), state.message
    found = last_run(live, slug)
    assert found.status == "success"
    result = found.result
    assert (result["tableCount"], result["rowCount"], result["verified"]) == (1, 2, True)
    path = Path(result["filePath"])
    assert path.parent == live.home / "backups"
    assert slug in path.name
    with gzip.open(path, "rt", encoding="utf-8") as text:
        assert "one" in text.read()


def test_a_saved_snapshot_remembers(live: LiveCenter, saved: str) -> None:
    slug = made(live, "schema_snapshot", connectionId=saved)
    for expected in (None, "snapshotId"):
        state = asyncio.run(run_task.schema_snapshot(task=slug, return_state=True))
        assert state.is_completed(), state.message
        result = last_run(live, slug).result
        assert result["changed"] is False
        assert result["persisted"]
        assert (expected in result.get("comparedWith", {})) is (expected is not None)
    assert len(live.store.snapshots.page(saved)) == 1


def test_both_as_steps(live: LiveCenter, saved: str) -> None:
    graph = Composite(name_of("both"))
    snapshot = graph.step("snapshot", "schema_snapshot", connection=saved)
    backup = graph.step("backup", "backup", connection=saved, tables=["t"])
    script = graph.step(
        "script",
        "sql_script",
        connection=saved,
        sql="select count(*) from t",
        expect="value == {{steps.backup.rowCount}}",
    )
    snapshot >> backup >> script
    data = {"name": graph.name, "taskType": "composite", "graph": graph.to_dict()}
    slug = task_service.save(live.center, data, live.caller).slug
    state = asyncio.run(composite(task=slug, return_state=True))
    assert state.is_completed(), state.message
    steps = {s.step_key: s for s in live.store.list_steps(last_run(live, slug).id)}
    assert {key: s.status.value for key, s in steps.items()} == dict.fromkeys(
        ("snapshot", "backup", "script"), "success"
    )
    assert steps["backup"].execution["tableCount"] == 1


def test_a_wrong_payload_is_refused_with_its_fields(live: LiveCenter) -> None:
    with pytest.raises(ValidationFailed) as caught:
        made(live, "backup", connection="x", keepLast=0, compress="rar", includeData="yes", nothing=1)
    places = {problem.path for problem in caught.value.problems}
    assert places >= {"payload.keepLast", "payload.compress", "payload.includeData", "payload.nothing"}
    with pytest.raises(ValidationFailed, match="keepLast and keepDays prune files that this task has named"):
        made(live, "backup", connection="x", keepLast=1, filePath="x.sql")


def test_the_catalogue_backs_up_and_checks(live: LiveCenter) -> None:
    graph = next(entry.spec for entry in catalog(live.home)[0] if entry.spec.name == "backup-and-check")
    data = {"name": name_of("nightly"), "taskType": "composite", "graph": graph.to_dict()}
    slug = task_service.save(live.center, data, live.caller).slug
    state = asyncio.run(composite(task=slug, return_state=True))
    assert state.is_completed(), state.message
    steps = {s.step_key: s for s in live.store.list_steps(last_run(live, slug).id)}
    backup = steps["backup"].execution
    assert (backup["tableCount"], backup["verified"]) == (3, True)
    assert steps["structure"].status.value == "success"
    assert f"3 tables, {backup['rowCount']} rows" in steps["report"].execution["stdoutTail"]


def test_no_password_stands_anywhere(live: LiveCenter, saved: str) -> None:
    """Bytes of every file below the data directory, Prefect's database, our own. (shows 7)"""
    for slug in (
        made(live, "backup", connection=saved, format="native"),
        made(live, "backup", connection=saved, tables=["nothing"]),
        made(live, "schema_snapshot", connection=saved, compareWith="nothing"),
        made(live, "sql_script", connection=saved, sql="select nonsense"),
    ):
        asyncio.run(getattr(run_task, live.store.get_task(slug).task_type)(task=slug, return_state=True))
        text = json.dumps([run.to_json() for run in live.store.list_runs(RunFilter(limit=500)).items])
        assert PASSWORD not in text
    needle = PASSWORD.encode()
    for file in live.home.rglob("*"):
        if file.is_file() and not file.is_symlink():
            assert needle not in file.read_bytes(), file
