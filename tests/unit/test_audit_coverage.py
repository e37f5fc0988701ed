"""Every route and every command that writes stands in the audit afterwards: this walks all of them. (spec 6.4)

A new route or command fails here until it is named among those that only read, or there is a way to perform it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from taskcenter.clock import utc_now
from taskcenter.ports import AuditFilter, Changes
from taskcenter.status import RunPhase, RunStatus
from taskcenter_console.api.app import make_app
from taskcenter_console.cli import cli
from taskcenter_console.commands import common
from taskcenter_console.commands.reference import commands
from taskcenter_console.services.center import Center
from tests.fakes import FakeGateway, api_client, fake_center

TASK = {"name": "job", "taskType": "wait", "payload": {"seconds": 0}}
STEPS = {"name": "two", "steps": [{"stepKey": "a", "taskType": "wait", "payload": {"seconds": 0}}], "edges": []}

OFF = {"type": "interval", "intervalSeconds": 60, "enabled": False}
CALENDAR = {"name": "days", "exclude": [{"weekdays": ["sat"]}]}

READING_ROUTES = {
    ("POST", "/api/composites/check"),
    ("POST", "/api/composites/plan"),
    ("POST", "/api/tasks/{name}/plan"),
    ("POST", "/api/tasks/{name}/batch/plan"),
}
WRITING_GETS = {("GET", "/api/tasks/export"), ("GET", "/api/audit/export")}
"""What leaves the house is audited though nothing changes."""
READING_COMMANDS = {
    *("doctor", "plan", "runs compare", "runs list", "runs logs", "runs show", "queue list", "workers", "stats"),
    *("task list", "task show", "task types", "composite check", "composite list", "composite plan"),
    *("composite render", "composite show", "trigger lint", "trigger list", "trigger preview", "calendar list"),
    *("calendar show", "scheduler state", "why", "ledger", "simulate", "backtest", "db check", "db current", "db url"),
    *("audit list", "audit show", "audit verify", "retention show", "retention preview"),
    *("snapshot list", "snapshot show", "snapshot diff", "queue limits", "redact test", "redact patterns"),
    *("secret list", "task diff", "task history", "batch list", "batch show"),
}
OTHERWISE = {
    "init": "writes files of a project and knows no center",
    "up": "starts processes; what they do is audited by themselves",
    "demo": "as up",
    "serve": "as up",
    "redact add": "writes a file in the home of this machine and knows no center",
    "redact remove": "as redact add",
}


class World:
    """A center with one of everything, anew for each case."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gateway = FakeGateway()
        self.center = fake_center(folder, self.gateway, scheduled=True)
        self.client = api_client(self.center)

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        answer = self.client.request(method, path, json=body, **more)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.headers.get("content-type") == "application/json" and answer.content else None

    def task(self, name: str = "job", **fields: Any) -> str:
        return str(self.ask("POST", "/api/tasks", {**TASK, "name": name, **fields})["slug"])

    def trigger(self, **fields: Any) -> dict[str, Any]:
        if self.center.store.find_task("job") is None:
            self.task()
        return dict(
            self.ask("POST", "/api/tasks/job/triggers", fields or {"type": "cron", "cronExpression": "0 2 * * *"})
        )

    def run(self, status: RunStatus = RunStatus.QUEUED, phase: RunPhase | None = None, **task: Any) -> str:
        slug = self.task(**task)
        run = self.center.store.get_run(self.ask("POST", f"/api/tasks/{slug}/run", {})["id"])
        began = utc_now() if status is not RunStatus.QUEUED else None
        ended = utc_now() if status in (RunStatus.FAILED, RunStatus.SUCCESS) else None
        new = {"status": status, "phase": phase, "started_at": began, "finished_at": ended}
        self.center.store.record(Changes(runs=(run.model_copy(update=new),)))
        return run.id

    def composite(self) -> dict[str, Any]:
        return {"name": "two", "payload": {}, "taskType": "composite", "graph": STEPS}

    def entries(self) -> set[str]:
        return {entry.id for entry in self.center.store.page_audit(AuditFilter(limit=500))}


@pytest.fixture
def world(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path)
    monkeypatch.chdir(tmp_path)
    opened = lambda: Center(  # noqa: E731
        made.center.settings, open_store=lambda: made.center.store, open_gateway=lambda: made.gateway
    )
    monkeypatch.setattr(common, "open_center", opened)
    monkeypatch.setattr(common, "center_if_running", opened)
    monkeypatch.setattr(Center, "close", lambda _: None)
    yield made
    made.center.store.close()


# routes ----------------------------------------------------------------------------------------------

Act = Callable[[World], Callable[[], Any]]
"""Makes ready what is needed, and gives what is looked at."""


def _route(method: str, path: str, body: Any = None, ready: Callable[[World], dict[str, str]] | None = None) -> Act:
    def prepare(world: World) -> Callable[[], Any]:
        names = ready(world) if ready else {}
        return lambda: world.ask(method, path.format(**names), body)

    return prepare


def _a_task(world: World) -> dict[str, str]:
    return {"name": world.task()}


def _a_trigger(**fields: Any) -> Callable[[World], dict[str, str]]:
    def ready(world: World) -> dict[str, str]:
        made = world.trigger(**fields)
        return {"trigger_id": made["id"], "token": made.get("token") or ""}

    return ready


def _paused_trigger(world: World) -> dict[str, str]:
    made = world.trigger()
    world.ask("POST", f"/api/triggers/{made['id']}/pause", {"reason": "x"})
    return {"trigger_id": made["id"]}


def _a_run(status: RunStatus = RunStatus.QUEUED, phase: RunPhase | None = None) -> Callable[[World], dict[str, str]]:
    return lambda world: {"run_id": world.run(status, phase)}


def _a_run_that_prefect_forgot(world: World) -> dict[str, str]:
    run_id = world.run()
    run = world.center.store.get_run(run_id)
    del world.gateway.runs[run_id]
    long_ago = run.model_copy(update={"id": "forgotten", "created_at": run.created_at - timedelta(hours=1)})
    world.center.store.record(Changes(runs=(long_ago,)))
    return {}


def _a_batch(world: World) -> dict[str, str]:
    return {"batch_id": world.ask("POST", f"/api/tasks/{world.task()}/batch", {"items": [{"seconds": 0}]})["id"]}


def _a_failed_composite(world: World) -> dict[str, str]:
    return {"run_id": world.run(RunStatus.FAILED, **world.composite())}


def _a_calendar(world: World) -> dict[str, str]:
    world.ask("PUT", "/api/calendars/workdays", {"exclude": [{"weekdays": ["sat"]}]})
    return {"name": "workdays"}


def _two_revisions(world: World) -> dict[str, str]:
    name = world.task()
    world.ask("PATCH", f"/api/tasks/{name}", {"description": "new"})
    return {"name": name}


def _a_secret(world: World) -> dict[str, str]:
    world.ask("PUT", "/api/secrets/db", {"value": "correct-horse-battery"})
    return {"name": "db"}


def _held(world: World) -> dict[str, str]:
    world.ask("POST", "/api/scheduler/hold", {"state": "paused"})
    return {}


def _period() -> dict[str, Any]:
    end = utc_now().replace(minute=0, second=0, microsecond=0)
    return {"from": (end - timedelta(days=3)).isoformat(), "to": end.isoformat(), "apply": True}


ROUTES: dict[tuple[str, str], Act] = {
    (method, path): _route(method, path, *rest)
    for method, path, *rest in (
        ("POST", "/api/tasks", TASK),
        ("GET", "/api/tasks/export"),
        ("POST", "/api/tasks/import"),
        ("PATCH", "/api/tasks/{name}", {"description": "new"}, _a_task),
        ("DELETE", "/api/tasks/{name}", None, _a_task),
        ("POST", "/api/tasks/{name}/run", {}, _a_task),
        ("POST", "/api/tasks/{name}/batch", {"items": [{"seconds": 0}]}, _a_task),
        ("POST", "/api/batches/{batch_id}/cancel", {}, _a_batch),
        ("POST", "/api/tasks/{name}/triggers", {"type": "interval", "intervalSeconds": 60}, _a_task),
        ("PATCH", "/api/triggers/{trigger_id}", {"enabled": False}, _a_trigger()),
        ("DELETE", "/api/triggers/{trigger_id}", None, _a_trigger()),
        ("POST", "/api/triggers/{trigger_id}/pause", {"reason": "x"}, _a_trigger()),
        ("POST", "/api/triggers/{trigger_id}/resume", {}, _paused_trigger),
        ("POST", "/api/triggers/{trigger_id}/token", None, _a_trigger(type="ad_hoc")),
        ("DELETE", "/api/triggers/{trigger_id}/token", None, _a_trigger(type="ad_hoc")),
        ("POST", "/api/triggers/{trigger_id}/backfill", _period(), _a_trigger()),
        ("POST", "/api/hooks/{token}", {}, _a_trigger(type="ad_hoc")),
        ("POST", "/api/scheduler/hold", {"state": "paused"}),
        ("POST", "/api/scheduler/resume", {}, _held),
        ("PUT", "/api/calendars/{name}", {"exclude": [{"weekdays": ["sat"]}]}, lambda _: {"name": "workdays"}),
        ("DELETE", "/api/calendars/{name}", None, _a_calendar),
        ("POST", "/api/runs/{run_id}/cancel", {}, _a_run()),
        ("POST", "/api/runs/{run_id}/pause", {}, _a_run(RunStatus.RUNNING)),
        ("POST", "/api/runs/{run_id}/continue", {}, _a_run(RunStatus.RUNNING, RunPhase.PAUSED)),
        ("POST", "/api/runs/{run_id}/retry", {}, _a_run(RunStatus.FAILED)),
        ("POST", "/api/runs/{run_id}/resume", {}, _a_failed_composite),
        ("POST", "/api/runs/{run_id}/priority", {"priority": "high"}, _a_run()),
        ("GET", "/api/audit/export"),
        ("POST", "/api/tasks/{name}/rollback", {"revision": 1}, _two_revisions),
        ("PUT", "/api/queue/limits", {"scope": "pool", "atOnce": 3}),
        ("PUT", "/api/secrets/{name}", {"value": "correct-horse-battery"}, lambda _: {"name": "db"}),
        ("DELETE", "/api/secrets/{name}", None, _a_secret),
        ("POST", "/api/secrets/rotate-key", None, _a_secret),
        ("PATCH", "/api/retention", {"failedDays": 365}),
        ("POST", "/api/retention/purge", {}),
    )
}
ROUTES["POST", "/api/tasks/import"] = lambda world: (
    lambda: world.ask("POST", "/api/tasks/import?apply=true", {"schemaVersion": 1, "tasks": [TASK]})
)


def writing_routes() -> set[tuple[str, str]]:
    paths = make_app(None).openapi()["paths"]  # type: ignore[arg-type]
    every = {(method.upper(), path) for path, item in paths.items() for method in item}
    return {route for route in every if route[0] != "GET"} - READING_ROUTES | (every & WRITING_GETS)


def test_there_is_a_way_to_perform_every_route_that_writes() -> None:
    assert set(ROUTES) == writing_routes()


@pytest.mark.parametrize(("method", "path"), sorted(writing_routes()))
def test_a_route_that_writes_is_audited(world: World, method: str, path: str) -> None:
    act = ROUTES[method, path](world)
    before = world.entries()
    act()
    new = world.entries() - before
    assert new
    found = [e for e in world.center.store.page_audit(AuditFilter(limit=500)) if e.id in new]
    assert {entry.channel for entry in found} == {"api"}
    assert {entry.address for entry in found} == {"testclient"}


@pytest.mark.parametrize(("method", "path"), sorted(READING_ROUTES))
def test_a_route_that_only_reads_writes_nothing(world: World, method: str, path: str) -> None:
    world.task()
    before = world.entries()
    bodies = {"composites": STEPS, "batch": {"items": [{"seconds": 1}]}}
    world.ask(method, path.format(name="job"), next((body for word, body in bodies.items() if word in path), {}))
    assert world.entries() == before


def test_a_refusal_is_audited(world: World) -> None:
    run = world.run(RunStatus.SUCCESS)
    assert world.client.post(f"/api/runs/{run}/pause").status_code == 409
    entry = world.center.store.page_audit(AuditFilter(result="refused"))[0]
    assert (entry.event_type, entry.object) == ("refused", f"POST /api/runs/{run}/pause")
    assert "only a run at work can be held" in entry.message
    assert CliRunner().invoke(cli, ["runs", "pause", run]).exit_code == 4
    assert world.center.store.page_audit(AuditFilter(result="refused"))[0].channel == "cli"


# commands --------------------------------------------------------------------------------------------


def _command(*words: str, ready: Callable[[World], dict[str, str]] | None = None, stdin: str | None = None) -> Act:
    def prepare(world: World) -> Callable[[], Any]:
        names = ready(world) if ready else {}

        def act() -> None:
            argv = [word.format(**names) for word in words]
            done = CliRunner().invoke(cli, argv, input=stdin, catch_exceptions=False)
            assert done.exit_code == 0, done.output

        return act

    return prepare


def _file(name: str, data: Any) -> Callable[[World], dict[str, str]]:
    def ready(world: World) -> dict[str, str]:
        path = world.folder / name
        path.write_text(json.dumps(data))
        return {"file": str(path)}

    return ready


COMMANDS: dict[str, Act] = {
    "task create": _command("task", "create", "--name", "job", "--type", "wait", "--set", "seconds=0"),
    "task edit": _command("task", "edit", "{name}", "--set", "seconds=1", ready=_a_task),
    "task delete": _command("task", "delete", "{name}", "--yes", ready=_a_task),
    "task disable": _command("task", "disable", "{name}", ready=_a_task),
    "task enable": _command("task", "enable", "{name}", ready=lambda w: {"name": w.task(status="paused")}),
    "task pause": _command("task", "pause", "{name}", ready=_a_task),
    "task export": _command("task", "export", ready=_a_task),
    "task import": _command("task", "import", "{file}", "--apply", ready=_file("tasks.json", [TASK])),
    "trigger add": _command("trigger", "add", "{name}", "--every", "60", ready=_a_task),
    "trigger edit": _command("trigger", "edit", "{trigger_id}", "--every", "60", ready=_a_trigger()),
    "trigger disable": _command("trigger", "disable", "{trigger_id}", ready=_a_trigger()),
    "trigger enable": _command("trigger", "enable", "{trigger_id}", ready=_a_trigger(**OFF)),
    "trigger pause": _command("trigger", "pause", "{trigger_id}", ready=_a_trigger()),
    "trigger resume": _command("trigger", "resume", "{trigger_id}", ready=_paused_trigger),
    "trigger remove": _command("trigger", "remove", "{trigger_id}", ready=_a_trigger()),
    "trigger token": _command("trigger", "token", "{trigger_id}", ready=_a_trigger(type="ad_hoc")),
    "calendar set": _command("calendar", "set", "{file}", ready=_file("c.json", CALENDAR)),
    "calendar remove": _command("calendar", "remove", "{name}", ready=_a_calendar),
    "publish": _command("publish", ready=_a_task),
    "run": _command("run", "{name}", "--no-wait", ready=_a_task),
    "batch cancel": _command("batch", "cancel", "{batch_id}", ready=_a_batch),
    "runs cancel": _command("runs", "cancel", "{run_id}", ready=_a_run()),
    "runs pause": _command("runs", "pause", "{run_id}", ready=_a_run(RunStatus.RUNNING)),
    "runs continue": _command("runs", "continue", "{run_id}", ready=_a_run(RunStatus.RUNNING, RunPhase.PAUSED)),
    "runs retry": _command("runs", "retry", "{run_id}", ready=_a_run(RunStatus.FAILED)),
    "runs resume": _command("runs", "resume", "{run_id}", ready=_a_failed_composite),
    "queue bump": _command("queue", "bump", "{run_id}", ready=_a_run()),
    "scheduler pause": _command("scheduler", "pause"),
    "scheduler disable": _command("scheduler", "disable"),
    "scheduler resume": _command("scheduler", "resume", ready=_held),
    "fire": _command("fire", "{trigger_id}", ready=_a_trigger(type="ad_hoc")),
    "backfill": _command("backfill", "{trigger_id}", "--from", "-3d", "--to", "-1d", "--yes", ready=_a_trigger()),
    "reconcile": _command("reconcile", ready=_a_run_that_prefect_forgot),
    "queue limit": _command("queue", "limit", "pool", "3"),
    "secret set": _command("secret", "set", "db", stdin="correct-horse-battery\n"),
    "secret delete": _command("secret", "delete", "db", "--yes", ready=_a_secret),
    "secret rotate": _command("secret", "rotate", ready=_a_secret),
    "task rollback": _command("task", "rollback", "{name}", "1", ready=_two_revisions),
    "retention set": _command("retention", "set", "60"),
    "retention purge": _command("retention", "purge"),
    "audit export": _command("audit", "export", "-o", "audit.jsonl"),
}  # fmt: skip
ELSEWHERE = {"db upgrade"}
"""Needs a database of an older version: the test below."""


def writing_commands() -> set[str]:
    every = {name for name, command in commands() if not isinstance(command, click.Group)}
    assert every >= READING_COMMANDS | set(OTHERWISE)
    return every - READING_COMMANDS - set(OTHERWISE)


def test_there_is_a_way_to_perform_every_command_that_writes() -> None:
    assert set(COMMANDS) | ELSEWHERE == writing_commands()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_that_writes_is_audited(world: World, name: str) -> None:
    act = COMMANDS[name](world)
    before = world.entries()
    act()
    new = world.entries() - before
    assert new
    found = [e for e in world.center.store.page_audit(AuditFilter(limit=500)) if e.id in new]
    assert "cli" in {entry.channel for entry in found}
    assert all(entry.address for entry in found if entry.channel == "cli")


def test_an_upgrade_of_the_database_is_audited(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from taskcenter_adapter.store import open_store

    url = f"sqlite:///{tmp_path}/new.db"
    monkeypatch.setenv("TASKCENTER_DATABASE_URL", url)
    for _ in range(2):
        assert CliRunner().invoke(cli, ["db", "upgrade"]).exit_code == 0
    store = open_store(url)
    assert [entry.event_type for entry in store.page_audit()] == ["database_upgraded"]
    store.close()
