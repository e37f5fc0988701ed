"""Triggers, hooks, the scheduler's state, backfills and calendars through their doors: REST and command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from taskcenter.clock import utc_now
from taskcenter_adapter.schedule import Schedule
from taskcenter_console.commands import common
from taskcenter_console.scheduler.tick import tick
from taskcenter_console.services import triggers as service
from taskcenter_console.services.center import Center
from tests.fakes import api_client, fake_center


@pytest.fixture
def center(tmp_path: Path) -> Iterator[Center]:
    with fake_center(tmp_path, scheduled=True) as made:
        yield made


@pytest.fixture
def schedule(center: Center) -> Schedule:
    return center.need_schedule()


@pytest.fixture
def api(center: Center) -> Any:
    client = api_client(center)
    made = client.post("/api/tasks", json={"name": "job", "taskType": "wait", "payload": {"seconds": 0}})
    assert made.status_code == 201, made.text
    return client


@pytest.fixture(autouse=True)
def pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_PACE", service._Pace(most=3))


def add(api: Any, **data: Any) -> dict[str, Any]:
    made = api.post("/api/tasks/job/triggers", json=data)
    assert made.status_code == 201, made.text
    return dict(made.json())


# REST --------------------------------------------------------------------------------------------------


def test_a_trigger_from_its_beginning_to_its_end(api: Any, center: Center) -> None:
    made = add(api, type="cron", cronExpression="0 2 * * *", timezone="Europe/Berlin")
    assert made["nextRunAt"] is not None
    path = f"/api/triggers/{made['id']}"
    changed = api.patch(path, json={"cronExpression": "30 2 * * *", "overlap": "allow"}).json()
    assert (changed["cronExpression"], changed["overlap"], changed["timezone"]) == (
        "30 2 * * *",
        "allow",
        "Europe/Berlin",
    )
    assert changed["revision"] == made["revision"] + 1
    until = (utc_now() + timedelta(hours=2)).isoformat()
    paused = api.post(f"{path}/pause", json={"until": until, "reason": "release"}).json()
    assert paused["pausedReason"] == "release"
    resumed = api.post(f"{path}/resume", json={"policy": "skip"}).json()
    assert (resumed["pausedReason"], resumed["pausedUntil"]) == (None, None)
    assert [t["id"] for t in api.get("/api/tasks/job/triggers").json()["items"]] == [made["id"]]
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404
    assert center.store.get_task("job").triggers == ()


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"type": "cron"}, "cronExpression"),
        ({"type": "cron", "cronExpression": "0 0 30 2 *"}, "cronExpression"),
        ({"type": "cron", "cronExpression": "٣ * * * *"}, "cronExpression"),
        ({"type": "cron", "cronExpression": "0 2 * * *", "timezone": "Mars/Olympus"}, "timezone"),
        ({"type": "interval", "intervalSeconds": 0}, "intervalSeconds"),
        ({"type": "interval", "intervalSeconds": 10, "jitterSeconds": 60}, "jitterSeconds"),
        ({"type": "one_shot"}, "runAt"),
        ({"type": "planned"}, "plan"),
        ({"type": "after"}, "taskIds"),
        ({"type": "after", "taskIds": ["nobody"]}, "taskIds[0]"),
        ({"type": "after", "taskIds": ["job"]}, "taskIds"),
        ({"type": "ad_hoc", "tokenHash": "mine"}, "tokenHash"),
        ({"type": "cron", "cronExpression": "0 2 * * *", "calendar": "nowhere"}, "calendar"),
        ({"type": "cron", "cronExpression": "0 2 * * *", "misfirePolicy": "maybe"}, "misfirePolicy"),
        ({"type": "cron", "cronExpression": "0 2 * * *", "endAt": "2001-01-01T00:00:00Z"}, "endAt"),
        ({"type": "cron", "cronExpression": "0 2 * * *", "payload": {"password": "hunter2secret"}}, "payload.password"),
    ],
)
def test_a_trigger_that_is_wrong_names_its_field_and_stores_nothing(
    api: Any, center: Center, data: dict[str, Any], path: str
) -> None:
    before = center.store.get_task("job")
    answer = api.post("/api/tasks/job/triggers", json=data)
    assert answer.status_code == 422
    assert path in [problem["path"] for problem in answer.json()["errors"]]
    assert center.store.get_task("job") == before


def test_a_hook_fires_once_per_call_and_its_token_is_shown_once(api: Any, schedule: Schedule, center: Center) -> None:
    made = add(api, type="ad_hoc", payload={"seconds": 0})
    token = made["token"]
    assert len(token) >= 32
    assert token not in json.dumps(center.store.get_task("job").to_json())
    assert "token" not in api.get("/api/tasks/job/triggers").json()["items"][0]
    assert api.post(f"/api/hooks/{token}", json={"seconds": 1}).status_code == 202
    now = utc_now()
    tick(schedule, now)
    (item,) = schedule.requests.wanted(now)
    assert (item.request.payload, item.request.origin) == ({"seconds": 1}, "ad_hoc")
    page = api.get("/api/tasks/job/ledger").json()
    assert [row["verdict"] for row in page["items"]] == ["fired"]
    assert page["counts"] == {"fired": 1}


def test_a_token_that_is_wrong_revoked_or_too_fast(api: Any, schedule: Schedule) -> None:
    made = add(api, type="ad_hoc")
    path = f"/api/hooks/{made['token']}"
    assert api.post("/api/hooks/wrong").status_code == 404
    assert [api.post(path).status_code for _ in range(4)] == [202, 202, 202, 429]
    new = api.post(f"/api/triggers/{made['id']}/token").json()["token"]
    assert api.post(path).status_code == 404
    assert api.delete(f"/api/triggers/{made['id']}/token").json()["token"] is None
    assert api.post(f"/api/hooks/{new}").status_code == 404
    bad = api.post(f"/api/hooks/{add(api, type='ad_hoc')['token']}", json={"seconds": "soon"})
    assert bad.status_code == 422
    tick(schedule, utc_now())
    assert len(schedule.requests.wanted(utc_now())) <= 3


def test_a_hook_of_a_trigger_that_is_off_is_refused(api: Any) -> None:
    made = add(api, type="ad_hoc")
    api.patch(f"/api/triggers/{made['id']}", json={"enabled": False})
    assert api.post(f"/api/hooks/{made['token']}").status_code == 409


def test_the_scheduler_is_paused_resumed_and_disabled(api: Any) -> None:
    assert api.get("/api/scheduler").json()["state"] == "running"
    held = api.post("/api/scheduler/hold", json={"state": "paused", "reason": "backup of the server"}).json()
    assert (held["state"], held["note"]) == ("paused", "backup of the server")
    assert api.post("/api/scheduler/resume").json()["state"] == "running"
    assert api.post("/api/scheduler/hold", json={"state": "disabled"}).json()["state"] == "disabled"
    assert api.post("/api/scheduler/hold", json={"state": "running"}).status_code == 422
    past = {"state": "paused", "until": "2001-01-01T00:00:00Z"}
    assert api.post("/api/scheduler/hold", json=past).status_code == 422
    assert api.get("/api/scheduler").json()["leader"] is None


def test_owed_slots_are_counted(api: Any, schedule: Schedule) -> None:
    made = add(api, type="interval", intervalSeconds=60)
    api.post(f"/api/triggers/{made['id']}/pause", json={"reason": "x"})
    tick(schedule, utc_now() + timedelta(minutes=5))
    assert schedule.ledger() == []


def test_a_backfill_shows_the_dates_first(api: Any, schedule: Schedule) -> None:
    made = add(api, type="cron", cronExpression="0 * * * *")
    end = utc_now().replace(minute=0, second=0, microsecond=0)
    period = {"from": (end - timedelta(hours=3)).isoformat(), "to": end.isoformat()}
    path = f"/api/triggers/{made['id']}/backfill"
    dates = api.post(path, json=period).json()
    assert (dates["asked"], dates["runs"]) == (False, 4)
    assert schedule.ledger() == []
    asked = api.post(path, json={**period, "apply": True, "newest": True}).json()
    assert (asked["asked"], asked["runs"]) == (True, 4)
    assert [row.verdict for row in schedule.ledger()] == ["backfilled"] * 4
    assert [item.request.slot for item in schedule.requests.wanted(utc_now())] == [
        end
    ]  # the newest first, one after another
    assert api.post(path, json=period).json()["runs"] == 0
    future = {"from": (end + timedelta(days=1)).isoformat(), "to": (end + timedelta(days=2)).isoformat()}
    assert api.post(path, json=future).status_code == 422


def test_calendars(api: Any) -> None:
    body = {"timezone": "Europe/Berlin", "exclude": [{"weekdays": ["sat", "sun"]}]}
    assert api.put("/api/calendars/workdays", json=body).status_code == 200
    add(api, type="cron", cronExpression="0 9 * * *", calendar="workdays", calendarRule="next_working_day")
    assert api.delete("/api/calendars/workdays").status_code == 409
    assert api.put("/api/calendars/odd", json={"exclude": [{}]}).status_code == 422
    assert [item["name"] for item in api.get("/api/calendars").json()] == ["workdays"]


# the command line ----------------------------------------------------------------------------------------


@pytest.fixture
def run(center: Center, monkeypatch: pytest.MonkeyPatch) -> Any:
    from taskcenter_console.cli import cli

    monkeypatch.setattr(common, "open_center", lambda: Center(
        center.settings, open_store=lambda: center.store, open_gateway=lambda: center.gateway))  # fmt: skip
    monkeypatch.setattr(Center, "close", lambda _: None)

    def call(*argv: str, code: int = 0) -> str:
        done = CliRunner().invoke(cli, list(argv))
        assert done.exit_code == code, done.output
        return done.output

    call("task", "create", "--name", "job", "--type", "wait", "--set", "seconds=0")
    call("task", "create", "--name", "other", "--type", "wait", "--set", "seconds=0")
    return call


def test_triggers_of_every_type_on_the_command_line(run: Any, center: Center) -> None:
    run("trigger", "add", "job", "--cron", "0 2 * * *", "--timezone", "Europe/Berlin")
    run("trigger", "add", "job", "--cron", "*/10 0 2 * * *", "--seconds", "first")
    run("trigger", "add", "job", "--every", "3600", "--jitter", "30")
    run("trigger", "add", "job", "--every", "60", "--from-completion")
    run("trigger", "add", "job", "--at", "+2h")
    run("trigger", "add", "job", "--at", "+2h", "--at", "+3h")
    run("trigger", "add", "job", "--startup")
    run("trigger", "add", "job", "--after", "other", "--condition", "done")
    token = run("trigger", "add", "job", "--ad-hoc", "-q").strip()
    types = [trigger.type for trigger in center.store.get_task("job").triggers]
    assert types == ["cron", "cron", "interval", "interval", "one_shot", "planned", "startup", "after", "ad_hoc"]
    assert len(token) == 32
    listed = run("trigger", "list", "job")
    for words in ("Europe/Berlin", "after the end of the run before", "2 planned times", "when the service starts",
                  "after runs of 1 task (done)", "by its token"):  # fmt: skip
        assert words in listed
    assert "by its token" in run("task", "show", "job")
    circle = run("trigger", "add", "other", "--after", "job", code=2)
    assert "other → job → other" in circle or "job → other → job" in circle


def test_one_trigger_on_the_command_line(run: Any, center: Center) -> None:
    run("trigger", "add", "job", "--cron", "0 2 * * *")
    (trigger,) = center.store.get_task("job").triggers
    assert "paused" in run("trigger", "pause", "job", "--until", "+1h", "--reason", "release")
    assert "resumed" in run("trigger", "resume", trigger.id[:8], "--owed", "skip")
    assert "(off)" in run("trigger", "disable", "job")
    run("trigger", "enable", "job")
    run("trigger", "edit", "job", "--every", "60")
    (changed,) = center.store.get_task("job").triggers
    assert (changed.id, changed.type, changed.cron_expression) == (trigger.id, "interval", None)
    assert "--cron, --every" in run("trigger", "add", "job", "--cron", "0 2 * * *", "--every", "5", code=2)
    assert "Say when it fires" in run("trigger", "add", "job", code=2)
    assert "is no time" in run("trigger", "pause", "job", "--until", "soon", code=2)
    assert "only ad_hoc triggers have a token" in run("trigger", "token", "job", code=4)
    assert "fires by itself" in run("fire", "job", code=4)
    run("trigger", "remove", "job")
    assert "has no trigger" in run("trigger", "disable", "job", code=3)


def test_firing_holding_and_calendars_on_the_command_line(run: Any, schedule: Schedule, tmp_path: Path) -> None:
    run("trigger", "add", "job", "--ad-hoc")
    run("fire", "job", "--payload", '{"seconds": 2}')
    assert "must be a JSON object" in run("fire", "job", "--payload", "[]", code=2)
    tick(schedule, utc_now())
    assert schedule.requests.wanted(utc_now())[0].request.payload == {"seconds": 2}
    assert "is paused" in run("scheduler", "pause", "--reason", "disk full", "--until", "+30m")
    assert "disk full" in run("scheduler", "state")
    assert json.loads(run("scheduler", "resume", "--json"))["state"] == "running"
    assert run("scheduler", "disable", "-q").strip() == "disabled"
    run("scheduler", "resume")
    file = tmp_path / "cal.json"
    file.write_text(json.dumps({"name": "workdays", "exclude": [{"weekdays": ["sat", "sun"]}]}))
    run("calendar", "set", str(file))
    ics = tmp_path / "days.ics"
    ics.write_text(
        "BEGIN:VCALENDAR\nBEGIN:VEVENT\nDTSTART;VALUE=DATE:20261225\nSUMMARY:Christmas\nEND:VEVENT\nEND:VCALENDAR"
    )
    run("calendar", "set", str(ics), "--name", "holidays")
    assert "holidays" in run("calendar", "list")
    assert json.loads(run("calendar", "show", "workdays"))["name"] == "workdays"
    run("calendar", "remove", "workdays")
    assert "there is no calendar" in run("calendar", "show", "workdays", code=3)


def test_a_backfill_on_the_command_line(run: Any, schedule: Schedule) -> None:
    run("trigger", "add", "job", "--cron", "0 * * * *")
    shown = run("backfill", "job", "--from", "-4h", "--to", "-1h")
    assert "nothing was done yet" in shown
    assert "asked for" in run("backfill", "job", "--from", "-4h", "--to", "-1h", "--yes")
    rows = schedule.ledger()
    assert rows
    assert {row.verdict.value for row in rows} == {"backfilled"}
    assert all(row.slot < datetime.now(row.slot.tzinfo) for row in rows)
