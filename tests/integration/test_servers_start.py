"""The first test of all: the pinned versions of Prefect, FastAPI and PostgreSQL start together and answer."""

from __future__ import annotations

import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path

import httpx
import sqlalchemy as sa

from taskcenter_adapter.prefect_server import server_env
from taskcenter_adapter.processes import free_port, start
from taskcenter_console.services import tasks as task_service
from tests.integration.conftest import LiveCenter


def test_the_servers_start_and_answer(live_center: LiveCenter) -> None:
    assert live_center.gateway.version() == version("prefect")
    assert httpx.get(f"{live_center.api_url}/health").json() is True
    assert live_center.store.list_tasks() == [] or live_center.store.list_tasks()
    assert live_center.database_url.startswith("postgresql")


def test_prefects_own_scheduler_makes_runs(live_center: LiveCenter, tmp_path: Path) -> None:
    """Whoever brings a server of their own has its loop on. With SQLAlchemy 2.1 a server starts too, and then makes
    none: "Can't evaluate bulk DML statement"."""
    url = sa.make_url(live_center.database_url).set(drivername="postgresql+asyncpg", database="prefect")
    port = free_port()
    env = server_env(live_center.home, url.render_as_string(hide_password=False), port)
    env |= {"PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "true", "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1"}
    app = (sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app")
    argv = [*app, "--port", str(port), "--log-level", "warning"]
    other = start("other server", argv, log=tmp_path / "other.log", env=env, cwd=tmp_path, stop_signal=signal.SIGINT)
    data = {
        "name": "smoke cron",
        "taskType": "shell",
        "payload": {"command": ["true"]},
        "triggers": [{"type": "cron", "cronExpression": "* * * * *"}],
    }
    task = task_service.save(live_center.center, data, live_center.caller)
    found = live_center.gateway.find_deployment(task.deployment_name)
    assert found is not None
    end = time.monotonic() + 60
    try:
        while True:
            body = {"flow_runs": {"deployment_id": {"any_": [found["id"]]}}, "limit": 5}
            rows = httpx.post(f"{live_center.api_url}/flow_runs/filter", json=body).json()
            if rows:
                break
            assert time.monotonic() < end, "no scheduled run after 60 s"
            time.sleep(0.2)
    finally:
        other.stop()
    assert {row["state_type"] for row in rows} == {"SCHEDULED"}
    assert {row["parameters"]["trigger_id"] for row in rows} == {task.triggers[0].id}
    schedule = found["schedules"][0]["id"]
    assert rows[0]["idempotency_key"].startswith(f"scheduled {found['id']} {schedule} ")
    task_service.delete(live_center.center, task.slug, live_center.caller)


def test_the_prefect_ui_asks_nobody_outside(live_center: LiveCenter) -> None:
    """The page that is served names no host but its own."""
    page = httpx.get(live_center.api_url.removesuffix("/api") + "/", follow_redirects=True).text
    assert "<html" in page.lower()
    assert "https://" not in page.replace("https://www.w3.org", "")
