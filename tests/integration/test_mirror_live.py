"""Rows follow runs that others drive through Prefect, at once by its events and without them too. (spec 6.2)

A small one of ``tests/chaos/mirror.py``.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest

from taskcenter.clock import utc_now
from taskcenter.settings import Settings
from taskcenter.status import TERMINAL_RUN
from taskcenter_adapter.processes import free_port
from taskcenter_adapter.reconcile import check, reconcile
from taskcenter_console import mirroring
from taskcenter_console.mirroring import Housekeeper, Listener
from taskcenter_console.services import tasks as task_service
from tests.chaos.doors import EventDoor
from tests.chaos.foreign import Foreign, wanted
from tests.integration.conftest import LiveCenter
from tests.integration.workers import wait

SOON = 5.0
"""Seconds, where half of one is the promise: the machine may be busy, and a pass comes after ten."""


@pytest.fixture
def door(live_center: LiveCenter) -> Iterator[EventDoor]:
    made = EventDoor(free_port(), urlsplit(live_center.api_url).port or 0)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def settings(live_center: LiveCenter, door: EventDoor, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Those of a service whose way to Prefect goes through the door."""
    monkeypatch.setattr("taskcenter_console.services.center.prefect_api_url", lambda _: door.url)
    return replace(live_center.settings, prefect_api_url=door.url)


@pytest.fixture
def foreign(live_center: LiveCenter) -> Foreign:
    data = {"name": f"driven-{uuid.uuid4().hex[:8]}", "taskType": "wait", "payload": {"seconds": 0}}
    task = task_service.save(live_center.center, data, live_center.caller)
    deployment = live_center.gateway.find_deployment(task.deployment_name)
    assert deployment is not None
    return Foreign(live_center.api_url, "http://127.0.0.1:9", deployment["id"], task.slug, random.Random(7))


async def drive(foreign: Foreign, count: int, seconds: float) -> None:
    runs = foreign.some(count, ours=0)
    try:
        await foreign.drive(runs, seconds, 0.3)
    finally:
        await foreign.close()


def test_rows_follow_prefect_with_events_and_without(
    live_center: LiveCenter, settings: Settings, door: EventDoor, foreign: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = live_center
    passes: list[float] = []
    monkeypatch.setattr(
        mirroring, "reconcile", lambda *args, **more: (passes.append(time.monotonic()), reconcile(*args, **more))[1]
    )
    monkeypatch.setattr(mirroring, "_AGAIN", 0.5)
    housekeeper = Housekeeper(settings)
    listener = Listener(settings, housekeeper)
    delays: list[float] = []

    def heard(run_id: str, status: str, at: datetime) -> None:
        """By the event alone: no pass may have come meanwhile."""
        before = len(passes)
        while live.store.find_run(run_id) is None and len(passes) == before:
            time.sleep(0.02)
        if len(passes) == before:
            delays.append((datetime.now(UTC) - at).total_seconds())

    housekeeper.start()
    listener.start()
    try:
        wait(lambda: len(passes) >= 2, 15)  # its first one, and the one that the listener asked for
        foreign.heard = heard
        asyncio.run(drive(foreign, 20, 2))
        assert delays
        assert max(delays) < SOON
        door.shut()
        other = Foreign(live.api_url, "http://127.0.0.1:9", foreign._deployment, foreign._task, random.Random(8))
        asyncio.run(drive(other, 40, 4))
        door.open()  # whoever comes back asks for a pass, since nobody knows what happened
        driven = [run for run in foreign.done + other.done if not run.fate.startswith("deleted")]
        rows = live.store.find_runs
        wait(lambda: {r.id for r in rows([d.run_id for d in driven]).values() if r.status in TERMINAL_RUN}
             >= {d.run_id for d in driven}, 20)  # fmt: skip
    finally:
        listener.stop()
        housekeeper.stop()
    assert not listener.is_alive()
    assert not housekeeper.is_alive()
    later = utc_now() + timedelta(seconds=30)  # a run that is gone may be one that is just being made
    reconcile(live.store, live.gateway, later)
    found = rows([run.run_id for run in foreign.done + other.done])
    for run in foreign.done + other.done:
        row = found.get(run.run_id)
        assert wanted(run, row and (row.status.value, row.phase.value if row.phase else None)) is None
    assert [d for d in check(live.store, live.gateway, later).open if d.run_id in found] == []
