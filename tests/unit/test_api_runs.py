"""Runs over REST: asking, waiting, looking. (spec 1.4, 7.4)"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from taskcenter.clock import utc_now
from taskcenter.models import LogLine, StepRun
from taskcenter.ports import Changes
from taskcenter.status import RunStatus, StepStatus
from taskcenter_console.api import route_runs
from taskcenter_console.api.route_runs import wait_of
from taskcenter_console.services.center import Center
from tests.fakes import FakeGateway, api_client, fake_center

if TYPE_CHECKING:
    from starlette.testclient import TestClient

HELLO = {"name": "Hello", "taskType": "shell", "payload": {"command": ["echo", "hello"]}}


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def center(tmp_path: Path, gateway: FakeGateway) -> Iterator[Center]:
    with fake_center(tmp_path, gateway) as center:
        yield center


@pytest.fixture
def client(center: Center) -> TestClient:
    client = api_client(center)
    assert client.post("/api/tasks", json=HELLO).status_code == 201
    return client


def finish(center: Center, run_id: str, status: RunStatus = RunStatus.SUCCESS) -> None:
    run = center.store.get_run(run_id)
    ended = {"status": status, "phase": None, "started_at": utc_now(), "finished_at": utc_now(), "result": {"n": 1}}
    center.store.record(Changes(runs=(run.model_copy(update=ended),)))


def start(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/api/tasks/hello/run", json=body)
    assert answer.status_code == 202, answer.text
    run: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/api/runs/{run['id']}"
    return run


# ask ---------------------------------------------------------------------------------------------------------


def test_a_run_is_asked_for_and_found_again(client: TestClient, gateway: FakeGateway) -> None:
    run = start(client, payload={"command": ["date"]})
    assert (run["status"], run["taskSlug"], run["origin"]) == ("queued", "hello", "manual")
    asked = gateway.runs[run["id"]]
    assert asked["parameters"] == {"task": "hello", "dry_run": False, "payload": {"command": ["date"]}}
    found = client.get(f"/api/runs/{run['id']}").json()
    assert found["prefectUrl"] == f"http://127.0.0.1:4200/runs/flow-run/{run['id']}"
    assert found["steps"] == []
    assert client.get(f"/api/runs/{run['id'][:8]}").json()["id"] == run["id"]
    entries = client.get("/api/audit", params={"run": run["id"]}).json()["items"]
    assert [entry["eventType"] for entry in entries] == ["manual_run_requested"]


def test_a_deployment_that_went_away_is_made_again(client: TestClient, gateway: FakeGateway) -> None:
    start(client)
    [deployment] = gateway.deployments.values()
    gateway.delete_deployment(deployment["id"])
    run = start(client)
    [again] = gateway.deployments.values()
    assert again["id"] != deployment["id"]
    assert gateway.runs[run["id"]]["deployment_id"] == again["id"]


def test_an_empty_body_runs_it_as_it_is(client: TestClient, gateway: FakeGateway) -> None:
    assert client.post("/api/tasks/hello/run").status_code == 202
    assert client.post("/api/tasks/hello/run", json=None).status_code == 202
    assert client.post("/api/tasks/hello/run", json={}).status_code == 202
    assert len(gateway.runs) == 3


def test_a_run_may_be_for_later_or_for_show(client: TestClient, gateway: FakeGateway) -> None:
    run = start(client, at="2030-01-01T12:00:00+02:00", dryRun=True)
    assert (run["slot"], run["dryRun"]) == ("2030-01-01T10:00:00Z", True)
    assert gateway.runs[run["id"]]["at"].isoformat() == "2030-01-01T10:00:00+00:00"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"payload": {"command": 5}}, "payload.command"),
        ({"payload": []}, "payload"),
        ({"at": "soon"}, "at"),
        ({"surprise": 1}, "surprise"),
        ({"options": {"surprise": 1}}, "options.surprise"),
        ({"options": {"skip": "a"}}, "options.skip"),
        ({"dryRun": "perhaps"}, "dryRun"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(
    client: TestClient, gateway: FakeGateway, body: Any, path: str
) -> None:
    answer = client.post("/api/tasks/hello/run", json=body)
    assert answer.status_code == 422
    assert path in [item["path"] for item in answer.json()["errors"]]
    assert gateway.runs == {}


def test_steps_are_for_composites(client: TestClient) -> None:
    assert client.post("/api/tasks/hello/run", json={"options": {"skip": ["a"]}}).status_code == 409


def test_a_danger_text_wants_a_confirmation(client: TestClient, gateway: FakeGateway) -> None:
    client.patch("/api/tasks/hello", json={"danger": "says hello to everybody"})
    answer = client.post("/api/tasks/hello/run")
    assert answer.status_code == 409
    assert "says hello to everybody" in answer.json()["detail"]
    assert gateway.runs == {}
    start(client, confirm=True)
    start(client, dryRun=True)


def test_no_run_while_prefect_is_away(client: TestClient, gateway: FakeGateway) -> None:
    gateway.away = True
    answer = client.post("/api/tasks/hello/run")
    assert answer.status_code == 503
    assert client.get("/api/runs").json()["items"] == []


def test_no_run_of_what_is_not_there(client: TestClient) -> None:
    assert client.post("/api/tasks/nothing/run", json={}).status_code == 404


# wait --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=5", 5),
        ("respond-async, wait=10", 10),
        ("wait = 7; x=1", 7),
        ("WAIT=3", 3),
        ("wait=600", 60),
        ("wait=0", 0),
        ("wait=-1", None),
        ("wait=x", None),
        ("wait=5s", None),
        ("await=5", None),
        ("", None),
        (None, None),
    ],
)
def test_how_long_a_client_would_wait(prefer: str | None, seconds: int | None) -> None:
    assert wait_of(prefer) == seconds


def test_who_waits_gets_the_finished_run(client: TestClient, center: Center, gateway: FakeGateway) -> None:
    def end_soon(run: dict[str, Any]) -> None:
        threading.Timer(0.3, finish, (center, run["id"])).start()

    gateway.on_run = end_soon
    answer = client.post("/api/tasks/hello/run", headers={"Prefer": "wait=30"})
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=30"
    assert (answer.json()["status"], answer.json()["result"]) == ("success", {"n": 1})


def test_who_waits_too_short_gets_the_run_as_it_stands(client: TestClient) -> None:
    began = time.monotonic()
    answer = client.post("/api/tasks/hello/run", headers={"Prefer": "wait=1"})
    assert answer.status_code == 202
    assert 0.9 < time.monotonic() - began < 10
    assert client.post("/api/tasks/hello/run", headers={"Prefer": "wait=0"}).status_code == 202


def test_nobody_waits_for_longer_than_allowed(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_runs, "MAX_WAIT", 0)
    answer = client.post("/api/tasks/hello/run", headers={"Prefer": "wait=600"})
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=0")


# look --------------------------------------------------------------------------------------------------------


def test_runs_are_listed_page_by_page(client: TestClient, center: Center) -> None:
    client.post("/api/tasks", json={**HELLO, "name": "Other"})
    ids = [start(client)["id"] for _ in range(5)]
    finish(center, ids[0], RunStatus.FAILED)

    def page(**query: Any) -> dict[str, Any]:
        answer = client.get("/api/runs", params=query)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    first = page(limit=3)
    assert [run["id"] for run in first["items"]] == ids[:1:-1]
    second = page(limit=3, cursor=first["nextCursor"])
    assert ([run["id"] for run in second["items"]], second["nextCursor"]) == (ids[1::-1], None)
    assert [run["id"] for run in page(status="failed")["items"]] == ids[:1]
    assert len(page(task="hello")["items"]) == 5
    assert page(task="other")["items"] == []


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("status=asleep", 422),
        ("limit=0", 422),
        ("limit=501", 422),
        ("cursor=nonsense", 422),
        ("cursor=%00", 422),
        ("cursor=%ff", 422),
        ("colour=red", 422),
        ("task=nothing", 404),
    ],
)
def test_a_filter_that_is_none_is_refused(client: TestClient, query: str, status: int) -> None:
    answer = client.get(f"/api/runs?{query}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_steps_and_lines_of_a_run(client: TestClient, center: Center) -> None:
    run_id = start(client)["id"]
    steps = [StepRun(run_id=run_id, step_key=key, position=i, status=StepStatus.SUCCESS) for i, key in enumerate("ab")]
    lines = [LogLine(run_id=run_id, sequence=i, time=utc_now(), message=f"line {i}") for i in range(5)]
    center.store.record(Changes(steps=steps, logs=lines))
    assert [step["stepKey"] for step in client.get(f"/api/runs/{run_id}").json()["steps"]] == ["a", "b"]
    assert [step["stepKey"] for step in client.get(f"/api/runs/{run_id}/steps").json()["items"]] == ["a", "b"]

    def messages(query: str = "") -> list[str]:
        return [line["message"] for line in client.get(f"/api/runs/{run_id}/logs{query}").json()["items"]]

    assert messages() == [f"line {i}" for i in range(5)]
    assert messages("?after=2") == ["line 3", "line 4"]
    assert messages("?after=0&limit=2") == ["line 1", "line 2"]
    for query in ("after=-2", "limit=0", "limit=2001", f"after={2**70}", "x=1"):
        assert client.get(f"/api/runs/{run_id}/logs?{query}").status_code == 422


def test_a_run_that_is_not_there(client: TestClient) -> None:
    for run_id in ("0" * 36, "ab", "%00%00%00%00", "%25%25%25%25", "____"):
        for route in ("", "/steps", "/logs"):
            assert client.get(f"/api/runs/{run_id}{route}").status_code == 404


def test_a_beginning_that_two_runs_have_is_refused(client: TestClient, center: Center) -> None:
    run = center.store.get_run(start(client)["id"])
    center.store.record(Changes(runs=[run.model_copy(update={"id": f"abcd-{i}"}) for i in range(2)]))
    assert client.get("/api/runs/abcd").status_code == 409


# cancel ------------------------------------------------------------------------------------------------------


def test_a_waiting_run_is_cancelled_at_once(client: TestClient, gateway: FakeGateway) -> None:
    run = start(client)
    answer = client.post(f"/api/runs/{run['id']}/cancel", json={"reason": "a mistake\nof mine"})
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["message"]) == ("cancelled", "cancelled by local: a mistake of mine")
    assert gateway.runs[run["id"]]["state_type"] == "CANCELLED"
    entries = client.get("/api/audit", params={"run": run["id"]}).json()["items"]
    kinds = {entry["eventType"]: entry["message"] for entry in entries}
    assert kinds["run_cancel_requested"] == "a mistake of mine"
    assert "manual_run_cancelled" in kinds
    again = client.post(f"/api/runs/{run['id']}/cancel")
    assert (again.status_code, again.json()) == (200, answer.json())


def test_a_run_at_work_is_asked_and_stays_running(client: TestClient, center: Center, gateway: FakeGateway) -> None:
    run = start(client)
    gateway.runs[run["id"]]["state_type"] = "RUNNING"
    row = center.store.get_run(run["id"]).model_copy(update={"status": RunStatus.RUNNING, "phase": None})
    center.store.record(Changes(runs=(row,)))
    for _ in range(2):
        answer = client.post(f"/api/runs/{run['id']}/cancel", json={})
        assert answer.status_code == 202
        assert (answer.json()["status"], answer.json()["phase"]) == ("running", "cancelling")
    entries = client.get("/api/audit", params={"run": run["id"]}).json()["items"]
    assert [entry["eventType"] for entry in entries].count("run_cancel_requested") == 1


def test_a_run_that_prefect_does_not_know_is_cancelled_here(client: TestClient, gateway: FakeGateway) -> None:
    run = start(client)
    del gateway.runs[run["id"]]
    assert client.post(f"/api/runs/{run['id']}/cancel").json()["status"] == "cancelled"


def test_cancelling_what_is_not_there_or_while_prefect_is_away(client: TestClient, gateway: FakeGateway) -> None:
    assert client.post("/api/runs/ffffffff/cancel").status_code == 404
    run = start(client)
    assert client.post(f"/api/runs/{run['id']}/cancel", json={"surprise": 1}).status_code == 422
    gateway.away = True
    assert client.post(f"/api/runs/{run['id']}/cancel").status_code == 503
    assert client.get(f"/api/runs/{run['id']}").json()["status"] == "queued"
