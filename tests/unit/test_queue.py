"""The queue on the command line and over REST. (spec 5.2, 7.3, 7.4)"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from taskcenter.clock import utc_now
from taskcenter.status import Priority
from taskcenter_adapter.mapping import priority_of
from taskcenter_console.cli import cli
from taskcenter_console.commands import common
from taskcenter_console.services import queue
from taskcenter_console.services import runs as run_service
from taskcenter_console.services.center import Caller, Center
from taskcenter_console.services.tasks import save
from tests.fakes import FakeGateway, api_client, fake_center

ME = Caller("test", "cli")


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def center(tmp_path: Path, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[Center]:
    with fake_center(tmp_path, gateway) as made:
        monkeypatch.setattr(common, "open_center", lambda: made)
        save(made, {"name": "nap", "taskType": "wait", "payload": {"seconds": 1}}, ME)
        yield made


def wait_for(center: Center, gateway: FakeGateway, minutes: float, *tags: str) -> str:
    """A run that waits since so many minutes."""
    run = run_service.start(center, "nap", ME)
    at = (utc_now() - timedelta(minutes=minutes)).isoformat()
    gateway.runs[run.id] |= {"created": at, "next_scheduled_start_time": at, "tags": [*tags]}
    return run.id


@pytest.mark.parametrize(
    ("tags", "queued", "priority"),
    [
        ((), "high", Priority.HIGH),
        (("priority:low",), "high", Priority.LOW),
        (("priority:urgent",), "high", Priority.NORMAL),
        ((), "default", Priority.NORMAL),
        ((), None, Priority.NORMAL),
    ],
)
def test_the_priority_of_a_run(tags: tuple[str, ...], queued: str | None, priority: Priority) -> None:
    assert priority_of(tags, queued) is priority


def test_the_order_and_that_low_is_never_starved(center: Center, gateway: FakeGateway) -> None:
    """After thirty minutes, three steps of ageing, a low run goes before a high one that has just come."""
    low_new = wait_for(center, gateway, 1, "priority:low")
    high = wait_for(center, gateway, 0, "priority:high")
    low_old = wait_for(center, gateway, 31, "priority:low")
    later = wait_for(center, gateway, -5)
    normal, normal_old = wait_for(center, gateway, 2), wait_for(center, gateway, 3)
    found = queue.listing(center)
    assert [item.run_id for item in found] == [low_old, high, normal_old, normal, low_new, later]
    assert [item.place for item in found] == [1, 2, 3, 4, 5, None]


def test_queue_and_bump_on_the_command_line(center: Center, gateway: FakeGateway) -> None:
    first, second = wait_for(center, gateway, 2), wait_for(center, gateway, 1)
    shown = CliRunner().invoke(cli, ["queue", "list", "-q"])
    assert shown.stdout.split() == [first, second]
    done = CliRunner().invoke(cli, ["queue", "bump", second[:8]])
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(cli, ["queue", "list", "-q"]).stdout.split() == [second, first]
    assert "high" in CliRunner().invoke(cli, ["queue", "list"]).stdout
    gateway.runs[first]["state_type"] = "RUNNING"
    assert CliRunner().invoke(cli, ["queue", "bump", first]).exit_code == 4
    empty = CliRunner().invoke(cli, ["workers"])
    assert (empty.exit_code, "taskcenter up" in empty.output) == (0, True)


def test_queue_and_priority_over_rest(center: Center, gateway: FakeGateway) -> None:
    first, second = wait_for(center, gateway, 2), wait_for(center, gateway, 1)
    client = api_client(center)
    assert [item["runId"] for item in client.get("/api/queue").json()["items"]] == [first, second]
    assert client.post(f"/api/runs/{first}/priority", json={"priority": "low"}).status_code == 200
    assert [item["place"] for item in client.get("/api/queue").json()["items"]] == [1, 2]
    assert client.get("/api/queue").json()["items"][0]["runId"] == second
    assert client.post(f"/api/runs/{first}/priority", json={"priority": "urgent"}).status_code == 422
    assert client.get("/api/workers").json() == {"items": []}
    gateway.away = True
    assert client.get("/api/queue").status_code == 503
