"""The scheduler's threads, beside a Prefect server that goes away and comes back. (spec 4.2)"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from taskcenter.models import Task, Trigger
from taskcenter.scheduling.state import Horizon
from taskcenter_console.scheduler.leader import Scheduler
from taskcenter_console.services.center import Center
from taskcenter_console.services.deploy import deploy
from tests.fakes import FakeGateway, fake_center


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
