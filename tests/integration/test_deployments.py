"""Tasks as deployments on a real server: publishing again changes nothing, triggers are schedules, pauses hold."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from deployments.publish import diff, publish
from taskcenter.models import Task
from taskcenter_adapter import gateway
from taskcenter_console.scheduler.leader import Scheduler
from taskcenter_console.services import tasks as task_service
from tests.integration.conftest import LiveCenter


def make(live: LiveCenter, *triggers: dict[str, Any], **more: Any) -> Task:
    data = {
        "name": f"deployed {uuid.uuid4().hex[:8]}",
        "description": "What it is for",
        "taskType": "shell",
        "payload": {"command": ["true"]},
        "tags": ["nightly", "blue"],
        "triggers": list(triggers),
        **more,
    }
    return task_service.save(live.center, data, live.caller)


def changes(live: LiveCenter, task: Task) -> dict[str, Any]:
    found = live.gateway.find_deployment(task.deployment_name)
    assert found is not None
    [change] = diff([task], [{**found, "flow_name": task.task_type}])
    return dict(change.fields)


@pytest.fixture
def scheduler(live: LiveCenter) -> Iterator[None]:
    """Makes the runs ahead, as the service does."""
    running = Scheduler(live.settings)
    running.start()
    yield
    running.stop()


def scheduled(live: LiveCenter, task: Task, count: int) -> list[datetime]:
    """Expected start times of its scheduled runs, once there are ``count``."""
    found = live.gateway.find_deployment(task.deployment_name)
    assert found is not None
    end = time.monotonic() + 30
    while True:
        body = {"flow_runs": {"deployment_id": {"any_": [found["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
        rows = httpx.post(f"{live.api_url}/flow_runs/filter", json=body).json()
        if len(rows) >= count:
            return [datetime.fromisoformat(row["expected_start_time"].replace("Z", "+00:00")) for row in rows]
        assert time.monotonic() < end, rows
        time.sleep(0.2)


def test_publishing_again_changes_nothing(live: LiveCenter) -> None:
    task = make(
        live,
        {"type": "cron", "cronExpression": "30 2 * * 1-5", "timezone": "Europe/Berlin"},
        {"type": "interval", "intervalSeconds": 90},
        {"type": "one_shot", "runAt": (datetime.now(UTC) + timedelta(days=2)).isoformat()},
        maxConcurrent=2,
    )
    assert changes(live, task) == {}
    assert [change.kind for change in publish(live.gateway, [task])] == ["same"]


def test_a_changed_trigger_is_an_update_that_keeps_the_other_schedule(live: LiveCenter) -> None:
    task = make(
        live,
        {"type": "cron", "cronExpression": "0 1 * * *"},
        {"type": "cron", "cronExpression": "0 2 * * *"},
    )
    before = {s["slug"]: s["id"] for s in live.gateway.find_deployment(task.deployment_name)["schedules"]}  # type: ignore[index]
    first, second = task.triggers
    new = second.model_copy(update={"cron_expression": "0 3 * * *"})
    changed = task.model_copy(update={"triggers": (first, new), "description": "Another"})
    assert set(changes(live, changed)) == {"schedules", "description"}
    publish(live.gateway, [changed])
    assert changes(live, changed) == {}
    after = {s["slug"]: s["id"] for s in live.gateway.find_deployment(task.deployment_name)["schedules"]}  # type: ignore[index]
    assert after == before
    publish(live.gateway, [changed.model_copy(update={"triggers": (first,)})])
    left = live.gateway.find_deployment(task.deployment_name)["schedules"]  # type: ignore[index]
    assert [s["slug"] for s in left] == [first.id]


@pytest.mark.usefixtures("scheduler")
def test_an_interval_keeps_its_phase(live: LiveCenter) -> None:
    task = make(live, {"type": "interval", "intervalSeconds": 900, "anchor": "2026-01-01T00:07:00Z"})
    for slot in scheduled(live, task, 3):
        assert (slot.minute % 15, slot.second) == (7, 0)


@pytest.mark.usefixtures("scheduler")
def test_a_one_shot_is_scheduled_once(live: LiveCenter) -> None:
    when = (datetime.now(UTC) + timedelta(minutes=30)).replace(microsecond=0)
    task = make(live, {"type": "one_shot", "runAt": when.isoformat()})
    assert scheduled(live, task, 1) == [when]


@pytest.mark.usefixtures("scheduler")
def test_pausing_takes_the_runs_ahead_away(live: LiveCenter) -> None:
    task = make(live, {"type": "interval", "intervalSeconds": 3600})
    assert scheduled(live, task, 1)
    task_service.save(live.center, {"status": "paused"}, live.caller, update=task.slug)
    found = live.gateway.find_deployment(task.deployment_name)
    assert found is not None
    assert found["paused"] is True
    end = time.monotonic() + 20
    body = {"flow_runs": {"deployment_id": {"any_": [found["id"]]}}}
    while httpx.post(f"{live.api_url}/flow_runs/filter", json=body).json():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_deleting_a_task_deletes_its_deployment_and_keeps_the_audit(live: LiveCenter) -> None:
    task = make(live)
    task_service.delete(live.center, task.slug, live.caller)
    assert live.gateway.find_deployment(task.deployment_name) is None
    kinds = [entry.event_type for entry in live.store.list_audit(task_id=task.id)]
    assert kinds == ["task_deleted", "task_created"]


def test_the_runs_since_a_moment_are_those_that_began_ended_or_were_due(
    live: LiveCenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "_FEW", 2)  # several pages
    ours, other = ({"id": str((live.gateway.find_deployment(make(live).deployment_name) or {})["id"])} for _ in "ab")
    api = httpx.Client(base_url=live.gateway.api_url, timeout=20)

    def run(deployment: dict[str, str], due: datetime, *states: str) -> str:
        body = {"state": {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}}
        run_id = str(api.post(f"/deployments/{deployment['id']}/create_flow_run", json=body).json()["id"])
        for state in states:
            live.gateway.set_run_state(run_id, state)
        return run_id

    now = datetime.now(UTC)
    long_ago = now - timedelta(days=9)
    wanted = {
        run(ours, now - timedelta(seconds=30)),
        run(ours, long_ago, "PENDING", "RUNNING"),
        run(ours, long_ago, "PENDING", "RUNNING", "COMPLETED"),
        run(ours, long_ago, "CANCELLED"),
        run(ours, now + timedelta(minutes=1)),
    }
    run(ours, long_ago)
    run(other, now, "PENDING", "RUNNING", "COMPLETED")
    found = [row["id"] for row in live.gateway.runs_since(now - timedelta(minutes=1), [ours["id"]])]
    assert len(found) == len(set(found))
    assert set(found) == wanted
    api.close()
