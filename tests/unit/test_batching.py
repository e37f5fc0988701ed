"""Batches through service, REST and command line; the "worker" ends what the dispatcher has made. (spec 1.4)"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from taskcenter.batches import BatchItem, ItemStatus, at_once, summary
from taskcenter.clock import utc_now
from taskcenter.errors import ValidationFailed
from taskcenter.ports import AuditFilter, Changes
from taskcenter.status import RunStatus
from taskcenter_console.cli import cli
from taskcenter_console.commands import batch as command
from taskcenter_console.commands import common
from taskcenter_console.commands.batch_file import read_items
from taskcenter_console.scheduler.dispatch import Dispatcher
from taskcenter_console.services.center import Center
from tests.fakes import FakeGateway, api_client, fake_center

if TYPE_CHECKING:
    from starlette.testclient import TestClient

NAP = {"name": "nap", "taskType": "wait", "payload": {"seconds": 5}, "priority": "low"}


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def center(home: Path, tmp_path: Path, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[Center]:
    made = fake_center(tmp_path, gateway, scheduled=True)
    opened = Center(made.settings, open_store=lambda: made.store, open_gateway=lambda: gateway)
    monkeypatch.setattr(Center, "close", lambda _: None)
    monkeypatch.setattr(common, "open_center", lambda: opened)
    monkeypatch.setattr(common, "center_if_running", lambda: opened)
    monkeypatch.chdir(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def client(center: Center) -> TestClient:
    client = api_client(center)
    assert client.post("/api/tasks", json=NAP).status_code == 201
    return client


def serve(center: Center, *ends: RunStatus) -> int:
    """One pass of the service, then each run that it made ends: in turn as told, else well. How many it made."""
    schedule = center.need_schedule()
    schedule.batches.tend(utc_now())
    dispatcher = Dispatcher(schedule.requests, center.gateway)
    made = dispatcher.step(utc_now())
    dispatcher.close()
    going = [run for run in center.store.list_runs().items if run.status is RunStatus.QUEUED]
    for number, run in enumerate(sorted(going, key=lambda run: run.batch_item or 0)):
        status = ends[number] if number < len(ends) else RunStatus.SUCCESS
        error = f"item failed\nat {number}" if status is RunStatus.FAILED else None
        ended = {"status": status, "started_at": utc_now(), "finished_at": utc_now(), "duration_ms": 5, "error": error}
        center.store.record(Changes(runs=(run.model_copy(update={**ended, "result": {"n": run.batch_item}}),)))
    return made


# the core --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "cpus", "found"), [(1, 8, 1), (128, 2, 128), (0, 8, 8), (0, None, 1), (0, 500, 128), (-1, 2, 128)]
)
def test_how_many_at_once(asked: int, cpus: int | None, found: int) -> None:
    assert at_once(asked, cpus) == found


def test_errors_are_merged_the_most_frequent_first() -> None:
    ends = ["a\nb", "c", "c", None]
    made = summary([BatchItem(n, ItemStatus.FAILED, error=error) for n, error in enumerate(ends, 1)])
    assert [(e["error"], e["count"], e["items"]) for e in made["errors"]] == [
        ("c", 2, [2, 3]), ("a", 1, [1]), ("it failed and did not say why", 1, [4]),
    ]  # fmt: skip
    many = summary([BatchItem(n, ItemStatus.FAILED, error="x") for n in range(1, 101)])
    assert (many["errors"][0]["count"], len(many["errors"][0]["items"])) == (100, 20)


# REST ------------------------------------------------------------------------------------------------


def test_over_rest_from_asking_to_the_end(client: TestClient, center: Center, gateway: FakeGateway) -> None:
    body = {"items": [{"seconds": n} for n in (1, 2, 3)], "payload": {"seconds": 9}, "parallel": 2}
    answer = client.post("/api/tasks/nap/batch", json=body)
    assert answer.status_code == 202, answer.text
    batch = answer.json()
    assert answer.headers["location"] == f"/api/batches/{batch['id']}"
    assert (batch["status"], batch["total"], batch["parallel"], batch["counts"]["waiting"]) == ("running", 3, 2, 3)
    assert gateway.runs == {}
    assert serve(center, RunStatus.SUCCESS, RunStatus.FAILED) == 2
    told = list(gateway.runs.values())
    assert [run["parameters"] for run in told] == [{"task": "nap", "payload": {"seconds": n}} for n in (1, 2)]
    assert {f"batch:{batch['id']}", "item:2", "priority:low", "origin:manual"} <= set(told[1]["tags"])
    assert serve(center) == 1
    serve(center)
    found = client.get(f"/api/batches/{batch['id'][:6]}?results=true").json()
    assert [(item["item"], item["status"], item["arguments"]) for item in found["items"]] == [
        (1, "success", {"seconds": 1}), (2, "failed", {"seconds": 2}), (3, "success", {"seconds": 3}),
    ]  # fmt: skip
    assert found["items"][2]["result"] == {"n": 3}
    assert found["errors"] == [{"error": "item failed", "count": 1, "items": [2]}]
    assert (found["status"], found["closedAt"] is not None) == ("failed", True)
    (row,) = client.get("/api/batches?task=nap").json()["items"]
    assert row == {key: value for key, value in found.items() if key != "items"}
    assert len(client.get(f"/api/runs?batch={batch['id']}").json()["items"]) == 3
    events = [entry.event_type for entry in center.store.page_audit(AuditFilter()) if "batch" in entry.event_type]
    assert events == ["batch_finished", "batch_requested"]


def test_bad_items_are_all_named_and_nothing_is_made(client: TestClient, center: Center, gateway: FakeGateway) -> None:
    body = {"items": [{"seconds": 1}, {"seconds": "soon"}, 7, {"seconds": 1, "surprise": 2}]}
    answer = client.post("/api/tasks/nap/batch", json=body)
    assert answer.status_code == 422
    problems = answer.json()["errors"]
    assert [problem["path"] for problem in problems] == [
        "items[1].payload.seconds",
        "items[2]",
        "items[3].payload.surprise",
    ]
    assert "item 2: " in problems[0]["message"]
    assert "item 3 must be an object of arguments, not a plain value" in problems[1]["message"]
    assert client.get("/api/batches").json()["items"] == []
    assert center.need_schedule().requests.wanted(utc_now()) == []
    assert gateway.runs == {}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"items": []}, "items"),
        ({"items": [{}] * 1001}, "items"),
        ({"items": [{}], "parallel": 129}, "parallel"),
        ({"items": [{}], "parallel": -2}, "parallel"),
    ],
)
def test_limits_of_a_batch(client: TestClient, body: dict[str, Any], path: str) -> None:
    answer = client.post("/api/tasks/nap/batch", json=body)
    assert answer.status_code == 422
    assert path in answer.text


def test_what_is_for_one_run_or_for_composites_is_refused(client: TestClient) -> None:
    one = client.post("/api/tasks/nap/batch", json={"items": [{}], "options": {"planHash": "x"}})
    assert (one.status_code, "of one run, not of a batch" in one.text) == (422, True)
    steps = client.post("/api/tasks/nap/batch", json={"items": [{}], "options": {"skip": ["a"]}})
    assert (steps.status_code, "nap has no steps" in steps.text) == (409, True)
    assert client.get("/api/batches/nope").status_code == 404
    assert client.post("/api/tasks/none/batch", json={"items": [{}]}).status_code == 404


def test_secrets_in_the_clear_are_refused_in_items_too(client: TestClient) -> None:
    client.post("/api/tasks", json={"name": "env", "taskType": "shell", "payload": {"command": ["true"]}})
    item = {"environment": {"API_TOKEN": "ghp_012345678901234567890123456789012345"}}
    answer = client.post("/api/tasks/env/batch", json={"items": [{}, item]})
    assert answer.status_code == 422
    assert "item 2" in answer.text
    assert "ghp_0123" not in answer.text


def test_a_danger_is_confirmed_once_for_all(client: TestClient) -> None:
    client.post("/api/tasks", json={**NAP, "name": "drop", "danger": "It drops all."})
    assert client.post("/api/tasks/drop/batch", json={"items": [{}, {}]}).status_code == 409
    assert client.post("/api/tasks/drop/batch", json={"items": [{}, {}], "confirm": True}).status_code == 202


def test_the_plan_says_what_each_would_do_and_makes_nothing(client: TestClient, gateway: FakeGateway) -> None:
    body = {"items": [{"seconds": 1}, {"seconds": "x"}], "stopOnError": True}
    made = client.post("/api/tasks/nap/batch/plan", json=body).json()
    assert (made["total"], made["stopOnError"]) == (2, True)
    assert [(item["item"], item["ok"], bool(item["summary"])) for item in made["items"]] == [
        (1, True, True),
        (2, False, False),
    ]
    assert [problem["path"] for problem in made["problems"]] == ["items[1].payload.seconds"]
    assert (client.get("/api/batches").json()["items"], gateway.runs) == ([], {})


def test_a_batch_of_a_composite_has_inputs_and_step_choices(
    client: TestClient, center: Center, gateway: FakeGateway
) -> None:
    graph = {"steps": [{"stepKey": "a", "taskType": "wait", "payload": {"seconds": 0}},
                       {"stepKey": "b", "taskType": "wait", "payload": {"seconds": 0}}], "edges": []}  # fmt: skip
    assert client.post("/api/tasks", json={"name": "duo", "taskType": "composite", "graph": graph}).status_code == 201
    body = {"items": [{"day": 1}, {"day": 2}], "options": {"skip": ["b"]}, "parallel": 2}
    plan = client.post("/api/tasks/duo/batch/plan", json=body).json()
    assert all(item["summary"].startswith("2 steps, hash") for item in plan["items"])
    assert client.post("/api/tasks/duo/batch", json=body).status_code == 202
    serve(center)
    assert [run["parameters"] for run in gateway.runs.values()] == [
        {"task": "duo", "payload": {"day": n}, "options": {"skip": ["b"]}} for n in (1, 2)
    ]


def test_cancelling_takes_back_what_waits_and_cancels_what_is_on_its_way(client: TestClient, center: Center) -> None:
    batch = client.post("/api/tasks/nap/batch", json={"items": [{}] * 3, "parallel": 1}).json()
    dispatcher = Dispatcher(center.need_schedule().requests, center.gateway)
    dispatcher.step(utc_now())
    answer = client.post(f"/api/batches/{batch['id']}/cancel", json={"reason": "wrong file"})
    assert [run["status"] for run in answer.json()["items"]] == ["cancelled"]
    dispatcher.step(utc_now())
    dispatcher.close()
    serve(center)
    found = client.get(f"/api/batches/{batch['id']}").json()
    assert (found["status"], found["stopped"]) == ("cancelled", "cancelled by local: wrong file")
    assert (found["counts"]["cancelled"], found["counts"]["notStarted"]) == (1, 2)
    assert client.post(f"/api/batches/{batch['id']}/cancel").json()["items"] == []


# the command line ------------------------------------------------------------------------------------


def invoke(*args: str, **options: Any) -> Result:
    return CliRunner().invoke(cli, list(args), prog_name="taskcenter", **options)


def test_the_command_waits_and_says_what_it_came_to(
    client: TestClient, center: Center, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "items.csv").write_text("seconds\n1\n2\n3\n")
    ends = iter([(RunStatus.SUCCESS, RunStatus.FAILED), ()])
    monkeypatch.setattr(command.time, "sleep", lambda _: serve(center, *next(ends, ())))
    done = invoke("run", "nap", "--batch", "items.csv", "--parallel", "2")
    assert done.exit_code == 1, done.output
    assert "● success: item 1  5 ms  run " in done.stdout
    assert "✗ failed: item 2  5 ms  run " in done.stdout
    assert "3 items: 2 success, 1 failed" in done.stdout
    assert "1 × item failed (item 2)" in done.stdout
    (row,) = json.loads(invoke("batch", "list", "--json").stdout)["items"]
    shown = invoke("batch", "show", row["id"][:8])
    assert shown.exit_code == 1
    assert '{"seconds": 2}' in shown.stdout


def test_the_command_leaves_it_to_itself_plans_and_cancels(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "items.json").write_text('[{"seconds": 1}, {"seconds": "x"}]')
    planned = invoke("run", "nap", "--batch", "items.json", "--dry-run")
    assert (planned.exit_code, "✗ failed" in planned.stdout, "item 2: " in planned.stderr) == (2, True, True)
    refused = invoke("run", "nap", "--batch", "items.json", "--no-wait")
    assert (refused.exit_code, "items[1].payload.seconds: item 2: " in refused.stderr) == (2, True)
    (tmp_path / "items.json").write_text('[{"seconds": 1}, {"seconds": 2}]')
    made = invoke("run", "nap", "--batch", "items.json", "--no-wait", "-q")
    assert made.exit_code == 0, made.output
    cancelled = invoke("batch", "cancel", made.stdout.strip())
    assert "2 items never start, 0 runs are cancelled" in cancelled.stdout
    assert invoke("run", "nap", "--parallel", "2").exit_code == 2
    assert invoke("run", "nap", "--batch", "items.json", "--at", "2030-01-01").exit_code == 2


@pytest.mark.parametrize(
    ("name", "text", "items"),
    [
        ("a.json", '[{"a": 1}, {"b": "x"}]', [{"a": 1}, {"b": "x"}]),
        ("a.json", '{"items": [{"a": null}]}', [{"a": None}]),
        ("a.yaml", "- a: 1\n- b: [1, 2]\n", [{"a": 1}, {"b": [1, 2]}]),
        ("a.jsonl", '{"a": 1}\n\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        ("a.csv", "\ufeffa,b.c\r\n1,x\r\n,\"two\nlines, and \"\"more\"\"\"\r\n",
         [{"a": 1, "b": {"c": "x"}}, {"b": {"c": 'two\nlines, and "more"'}}]),
        ("a.csv", "sql\nselect 1 where a=2\n", [{"sql": "select 1 where a=2"}]),
    ],
)  # fmt: skip
def test_files_of_items(tmp_path: Path, name: str, text: str, items: list[Any]) -> None:
    (tmp_path / name).write_bytes(text.encode())
    assert read_items(str(tmp_path / name))[0] == items


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", '{"a": 1}', "must hold a list"),
        ("a.json", "[1", "is not JSON"),
        ("a.jsonl", '{"a": 1}\n{"a"\n{"a": 3}\n[', "item 2 (line 2): is not JSON"),
        ("a.jsonl", '{"a": 1}\n{"a"\n{"a": 3}\n[', "item 4 (line 4): is not JSON"),
        ("a.csv", "a,b\n1\n", "item 1 (line 2): has 1 fields, and the first line names 2"),
        ("a.csv", "a,a\n1,2\n", "names the fields, each once"),
        ("a.csv", 'a\n"x\n', "is not CSV"),
    ],
)
def test_files_that_cannot_be_read_say_where(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValidationFailed) as caught:
        read_items(str(tmp_path / name))
    assert said in caught.value.message
