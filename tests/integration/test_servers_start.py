"""The first test of all: the pinned versions of Prefect, FastAPI and PostgreSQL start together and answer."""

from __future__ import annotations

import time
from importlib.metadata import version

import httpx

from taskcenter_console.services import tasks as task_service
from tests.integration.conftest import LiveCenter


def test_the_servers_start_and_answer(live_center: LiveCenter) -> None:
    assert live_center.gateway.version() == version("prefect")
    assert httpx.get(f"{live_center.api_url}/health").json() is True
    assert live_center.store.list_tasks() == [] or live_center.store.list_tasks()
    assert live_center.database_url.startswith("postgresql")


def test_prefects_own_scheduler_makes_runs(live_center: LiveCenter) -> None:
    """It starts with SQLAlchemy 2.1 too, and then makes none: "Can't evaluate bulk DML statement"."""
    data = {
        "name": "smoke cron",
        "taskType": "shell",
        "payload": {"command": ["true"]},
        "triggers": [{"type": "cron", "cronExpression": "* * * * *"}],
    }
    task = task_service.save(live_center.center, data, live_center.caller)
    found = live_center.gateway.find_deployment(task.deployment_name)
    assert found is not None
    end = time.monotonic() + 30
    while True:
        body = {"flow_runs": {"deployment_id": {"any_": [found["id"]]}}, "limit": 5}
        rows = httpx.post(f"{live_center.api_url}/flow_runs/filter", json=body).json()
        if rows:
            break
        assert time.monotonic() < end, "no scheduled run after 30 s"
        time.sleep(0.2)
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
