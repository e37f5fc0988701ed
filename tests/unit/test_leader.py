"""The scheduler's threads, beside a Prefect server that goes away and comes back. (spec 4.2)"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from taskcenter.models import Task, Trigger
from taskcenter.scheduling.decisions import RunRequest
from taskcenter.scheduling.state import Horizon, State
from taskcenter.settings import Settings
from taskcenter.status import Origin
from taskcenter_adapter.leases import Lease
from taskcenter_adapter.schedule_read import Part
from taskcenter_adapter.schedule_requests import Wanted
from taskcenter_console.scheduler.dispatch import Dispatcher
from taskcenter_console.scheduler.leader import Scheduler
from taskcenter_console.scheduler.take_over import TakeOver
from taskcenter_console.services import tasks
from taskcenter_console.services.center import Caller, Center
from taskcenter_console.services.deploy import deploy
from tests.fakes import FakeGateway, fake_center

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.fixture
def center(tmp_path: Path) -> Iterator[Center]:
    with fake_center(tmp_path, FakeGateway(), scheduled=True) as center:
        yield center


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_runs_are_made_again_when_prefect_is_back(center: Center) -> None:
    gateway = center.gateway
    assert isinstance(gateway, FakeGateway)
    trigger = Trigger(id="r1", type="interval", interval_seconds=1, overlap="allow")
    deploy(center, [center.store.save_task(Task(id="t1", name="t1", task_type="wait", triggers=(trigger,)))])
    scheduler = Scheduler(
        center.settings,
        horizon=Horizon(min_runs=2, min_time=timedelta(seconds=2), max_runs=3),
        open_center=lambda settings: Center(settings, lambda: center.store, lambda: gateway),
    )
    scheduler.start()
    try:
        until(lambda: len(gateway.runs) > 2)
        gateway.away = True
        time.sleep(3)
        gateway.away = False
        made = len(gateway.runs)
        until(lambda: len(gateway.runs) > made + 1)
        assert scheduler.leads
    finally:
        scheduler.stop()


def test_a_slot_that_cannot_be_prepared_is_waited_for(tmp_path: Path) -> None:
    """All tasks of its triggers are at work: the clock does not ask for it again and again."""
    asked: list[float] = []
    schedule = SimpleNamespace(
        next_look=lambda: NOW + timedelta(seconds=0.3),
        count_at=lambda slot: 1000,
        at_slot=lambda slot, limit: Part(State((), {})),
    )
    scheduler = Scheduler(Settings(home=tmp_path, project=tmp_path), now=lambda: NOW)
    scheduler._stopping = SimpleNamespace(wait=asked.append)
    scheduler._wait(schedule, Lease("scheduler", "me", 1, NOW))
    assert asked == [pytest.approx(0.3)]


def test_a_look_reads_the_tasks_once_and_again_when_it_changed_one(
    center: Center, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = center.gateway
    assert isinstance(gateway, FakeGateway)
    reads: list[int] = []
    every = tasks.all_tasks
    monkeypatch.setattr(tasks, "all_tasks", lambda center: reads.append(1) or every(center))
    trigger = {"type": "cron", "cronExpression": "0 3 * * *"}
    caller = Caller("ada", "cli")
    task = tasks.save(
        center, {"name": "a", "taskType": "wait", "payload": {"seconds": 1}, "triggers": [trigger]}, caller
    )
    eye = TakeOver(center)
    eye.step()
    assert len(reads) == 1
    gateway.deployments[task.deployment_name]["schedules"][0]["active"] = False
    eye.step()
    assert len(reads) == 3
    assert not center.store.get_task(task.id).triggers[0].enabled
    eye.step()
    assert len(reads) == 4


def test_tasks_without_a_deployment_are_looked_for_once(center: Center) -> None:
    """Not again each time that the tasks asked for are others."""
    gateway = center.gateway
    assert isinstance(gateway, FakeGateway)
    asked: list[str] = []
    requests = SimpleNamespace(
        withdrawn=lambda limit: [],
        cancels=lambda: [],
        retries_to_move=lambda now: [],
        wanted=lambda now, limit: [Wanted(RunRequest(slug, slug, NOW, origin=Origin.MANUAL), slug) for slug in asked],
        made=lambda pairs: None,
    )
    dispatcher = Dispatcher(requests, gateway)
    looks = 0
    look = gateway.deployments_with_flow

    def counted(tag: str) -> list[dict[str, Any]]:
        nonlocal looks
        looks += 1
        return look(tag)

    gateway.deployments_with_flow = counted
    try:
        for asked[:] in (["a"], ["b"], ["a"], ["a", "b"], ["b"]):
            assert dispatcher.step(NOW) == 0
        assert looks == 2
        deploy(center, [center.store.save_task(Task(id="t1", name="a", task_type="wait"))])
        dispatcher.look()
        asked[:] = ["a"]
        assert dispatcher.step(NOW) == 1
        assert looks == 3
    finally:
        dispatcher.close()
