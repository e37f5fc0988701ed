"""The scheduler beside a real Prefect server: keys, runs ahead, changes made in Prefect, Prefect's own loop."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from deployments.spec import schedule_of
from taskcenter.clock import utc_now
from taskcenter.models import Task, Trigger
from taskcenter.scheduling.occurrences import slots
from taskcenter.scheduling.state import Horizon
from taskcenter_adapter.gateway import Gateway
from taskcenter_adapter.prefect_server import server_env
from taskcenter_adapter.processes import free_port
from taskcenter_adapter.schedule import Schedule
from taskcenter_console.scheduler import leader
from taskcenter_console.scheduler.dispatch import idempotency_key
from taskcenter_console.scheduler.leader import Scheduler
from taskcenter_console.services import tasks as task_service
from taskcenter_console.services.deploy import deploy

if TYPE_CHECKING:
    from conftest import LiveCenter

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata")


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    "about",
    [
        {"type": "cron", "cron_expression": "30 2 * * *"},
        {"type": "cron", "cron_expression": "*/7 * * * 1-5"},
        {"type": "interval", "interval_seconds": 90.0, "anchor": datetime(2026, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)},
        {"type": "interval", "interval_seconds": 3600.5, "anchor": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
)
def test_the_key_is_the_one_prefect_gives(zone: str, about: dict[str, Any]) -> None:
    """Where both find the same slot, they give its run the same key: whoever is first makes it."""
    from prefect.server.schemas.schedules import CronSchedule, IntervalSchedule

    trigger = Trigger(id="r1", timezone=zone, **about)
    made = schedule_of(trigger)
    assert made is not None
    kind = CronSchedule if trigger.type == "cron" else IntervalSchedule
    theirs = kind.model_validate(made["schedule"])
    start = datetime(2026, 7, 1, 12, 0, 3, tzinfo=UTC)
    dates = list(theirs._get_dates_generator(n=20, start=start))  # type: ignore[attr-defined]
    ours = slots(trigger, start, start + timedelta(days=60), 20)
    assert [f"scheduled d s {date}" for date in dates] == [idempotency_key("d", "s", slot, zone) for slot in ours]


@pytest.mark.parametrize("cron", ["0 0 L * *", "0 0 15W * *", "0 0 LW * *", "0 0 * * 5#2", "0 0 * * 5L", "@daily"])
def test_what_prefect_cannot_read_is_no_schedule_of_its(cron: str) -> None:
    from prefect.server.schemas.schedules import CronSchedule

    made = schedule_of(Trigger(id="r1", type="cron", cron_expression=cron))
    if made is not None:
        CronSchedule.model_validate(made["schedule"])


def test_seconds_stand_where_prefect_reads_them() -> None:
    first = schedule_of(Trigger(id="r1", type="cron", cron_expression="*/10 5 * * * *", cron_seconds="first"))
    assert first is not None
    assert first["schedule"]["cron"] == "5 * * * * */10"


# a live server ---------------------------------------------------------------------------------------


@pytest.fixture
def scheduler(live: LiveCenter) -> Iterator[Callable[[], Scheduler]]:
    running: list[Scheduler] = []

    def start(**about: Any) -> Scheduler:
        made = Scheduler(live.settings, **about)
        made.start()
        running.append(made)
        return made

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def schedule(live: LiveCenter) -> Schedule:
    return live.center.need_schedule()


def until(true: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def a_task(live: LiveCenter, name: str, *triggers: dict[str, Any]) -> Task:
    data = {"name": name, "taskType": "wait", "payload": {"seconds": 0}, "triggers": list(triggers)}
    return task_service.save(live.center, data, live.caller)


def flow_runs(gateway: Gateway, task: Task) -> list[dict[str, Any]]:
    deployment = gateway.find_deployment(task.deployment_name)
    assert deployment is not None
    which = {"flow_runs": {"deployment_id": {"any_": [str(deployment["id"])]}}, "limit": 200}
    found: list[dict[str, Any]] = gateway._call("POST", "/flow_runs/filter", which)
    return found


@pytest.mark.parametrize("many", [1, 1_000])
def test_runs_exist_before_their_slot_and_are_fired_on_it(
    live: LiveCenter,
    scheduler: Callable[..., Scheduler],
    schedule: Schedule,
    monkeypatch: pytest.MonkeyPatch,
    many: int,
) -> None:
    monkeypatch.setattr(leader, "_MANY", many)
    task = a_task(live, "every two", {"type": "interval", "intervalSeconds": 2, "overlap": "allow"})
    scheduler(horizon=Horizon(min_runs=3, min_time=timedelta(seconds=10), max_runs=8))
    rows = until(lambda: len(found := schedule.ledger(task_id=task.id)) >= 4 and found)
    created = {run["id"]: datetime.fromisoformat(run["created"]) for run in flow_runs(live.gateway, task)}
    on_time = [row for row in rows if row.slot > min(created.values()) + timedelta(seconds=2)]
    assert on_time
    for row in on_time:
        assert row.verdict == "fired"
        assert created[row.run_id or ""] < row.slot
        assert row.decided_at - row.slot < timedelta(seconds=1)
    if many == 1:  # decided before the slot, for the slot, and seen when it had come
        assert any(row.decided_at == row.slot for row in on_time)
    keys = Counter(run["expected_start_time"] for run in flow_runs(live.gateway, task))
    assert set(keys.values()) == {1}
    task_service.delete(live.center, _closed(live, task).id, live.caller)


def _closed(live: LiveCenter, task: Task) -> Task:
    """No worker runs here: what is queued is closed, so that the task can go."""
    from taskcenter.ports import Changes, RunFilter
    from taskcenter.status import RunStatus

    task_service.save(live.center, {"triggers": []}, live.caller, update=task.id)
    for run in live.store.list_runs(RunFilter(task_id=task.id, open_only=True, limit=200)).items:
        live.store.record(Changes(runs=(run.model_copy(update={"status": RunStatus.CANCELLED}),)))
    return task


def test_a_schedule_switched_off_in_prefect_stops(
    live: LiveCenter, scheduler: Callable[..., Scheduler], schedule: Schedule
) -> None:
    task = a_task(live, "switched", {"type": "cron", "cronExpression": "* * * * *"})
    scheduler()
    until(lambda: len(flow_runs(live.gateway, task)) >= 3)
    deployment = live.gateway.find_deployment(task.deployment_name)
    assert deployment is not None
    path = f"/deployments/{deployment['id']}/schedules/{deployment['schedules'][0]['id']}"
    begin = time.monotonic()
    live.gateway._call("PATCH", path, {"active": False})
    until(lambda: not live.store.get_task(task.id).triggers[0].enabled)
    until(lambda: all(run["expected_start_time"] <= utc_now().isoformat() for run in flow_runs(live.gateway, task)))
    assert time.monotonic() - begin < 15
    entry = next(e for e in live.store.list_audit(task_id=task.id) if e.event_type == "task_updated")
    assert (entry.actor, entry.channel) == ("prefect", "prefect")
    live.gateway._call("PATCH", path, {"active": True, "schedule": {"cron": "*/5 * * * *", "timezone": "UTC"}})
    until(lambda: live.store.get_task(task.id).triggers[0].cron_expression == "*/5 * * * *")
    assert live.store.get_task(task.id).triggers[0].enabled
    # what Prefect takes and we do not is put back
    live.gateway._call("PATCH", path, {"schedule": {"cron": "0 0 30 2 *", "timezone": "UTC"}})
    until(
        lambda: live.gateway.find_deployment(task.deployment_name)["schedules"][0]["schedule"]["cron"] == "*/5 * * * *"
    )  # type: ignore[index]
    assert live.store.get_task(task.id).triggers[0].cron_expression == "*/5 * * * *"
    task_service.delete(live.center, _closed(live, task).id, live.caller)


def _cron_in_prefect(live: LiveCenter, task: Task) -> str:
    deployment = live.gateway.find_deployment(task.deployment_name)
    assert deployment is not None
    return str(deployment["schedules"][0]["schedule"]["cron"])


def test_a_deployment_paused_in_prefect_pauses_its_task(live: LiveCenter, scheduler: Callable[..., Scheduler]) -> None:
    task = a_task(live, "paused there", {"type": "cron", "cronExpression": "0 3 * * *"})
    scheduler()
    deployment = live.gateway.find_deployment(task.deployment_name)
    assert deployment is not None
    live.gateway.update_deployment(str(deployment["id"]), {"paused": True})
    until(lambda: live.store.get_task(task.id).status == "paused")
    live.gateway.update_deployment(str(deployment["id"]), {"paused": False})
    until(lambda: live.store.get_task(task.id).status == "active")
    task_service.delete(live.center, task.id, live.caller)


def test_beside_prefects_own_loop_no_slot_has_two_runs(
    live: LiveCenter, scheduler: Callable[..., Scheduler], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Another server process on the same Prefect database, with its loop on."""
    import sqlalchemy as sa

    from taskcenter_adapter.processes import start, wait_until

    url = sa.make_url(live.database_url).set(drivername="postgresql+asyncpg", database="prefect")
    port = free_port()
    env = server_env(live.home, url.render_as_string(hide_password=False), port)
    env |= {"PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "true", "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1"}
    import signal
    import sys

    argv = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--port", str(port)]
    other = start("other server", argv, log=tmp_path / "other.log", env=env, cwd=tmp_path, stop_signal=signal.SIGINT)
    tasks: list[Task] = []
    try:
        from taskcenter_adapter.prefect_server import healthy

        wait_until("the other server", lambda: healthy(f"http://127.0.0.1:{port}/api"), other, 90)
        for number in range(5):
            trigger = {"type": "interval", "intervalSeconds": 3 + number, "overlap": "allow"}
            tasks.append(a_task(live, f"beside {number}", trigger))
        deploy(live.center, tasks)
        scheduler(horizon=Horizon(min_runs=3, min_time=timedelta(seconds=30), max_runs=20))
        time.sleep(12)
        now = utc_now()
        made = {task.id: flow_runs(live.gateway, task) for task in tasks}
        theirs = sum("origin:scheduler" not in run["tags"] for runs in made.values() for run in runs)
        assert theirs > 0  # the loop is really on
        for task in tasks:
            runs = made[task.id]
            assert set(Counter(run["expected_start_time"] for run in runs).values()) == {1}
            fired = {row.slot for row in live.center.need_schedule().ledger(task_id=task.id)}
            past = {datetime.fromisoformat(run["expected_start_time"]) for run in runs}
            assert {at for at in past if task.triggers[0].anchor and at < now - timedelta(seconds=1)} >= {
                slot for slot in fired if slot < now - timedelta(seconds=1)
            }
    finally:
        other.stop()
        for task in tasks:
            task_service.delete(live.center, _closed(live, task).id, live.caller)
