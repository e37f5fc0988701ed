"""Tasks over REST: what is made, changed, refused and remembered. (spec 1.1, 7.4)"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from taskcenter.errors import Conflict, ServerAway
from taskcenter_console.services import tasks
from taskcenter_console.services.center import Center
from tests.fakes import FakeGateway, api_client, fake_center

if TYPE_CHECKING:
    from starlette.testclient import TestClient

HELLO: dict[str, Any] = {"name": "Hello", "taskType": "shell", "payload": {"command": ["echo", "hello"]}}
GRAPH: dict[str, Any] = {
    "steps": [
        {"stepKey": "a", "taskType": "wait", "payload": {"seconds": 1}},
        {"stepKey": "b", "taskType": "wait", "payload": {"seconds": 1}},
    ],
    "edges": [{"fromStepKey": "a", "toStepKey": "b"}],
}


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def center(tmp_path: Path, gateway: FakeGateway) -> Iterator[Center]:
    with fake_center(tmp_path, gateway) as center:
        yield center


@pytest.fixture
def client(center: Center) -> TestClient:
    return api_client(center)


def errors(answer: Any, status: int = 422) -> dict[str, str]:
    """Path → sentence of a refusal."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return {item["path"]: item["message"] for item in answer.json()["errors"]}


# make --------------------------------------------------------------------------------------------------------


def test_a_task_is_made_published_and_found_again(client: TestClient, gateway: FakeGateway) -> None:
    made = client.post("/api/tasks", json={**HELLO, "tags": [" A ", "a", ""], "owner": "  "})
    assert made.status_code == 201
    assert made.headers["location"] == "/api/tasks/hello"
    assert made.headers["etag"] == '"1"'
    task = made.json()
    assert (task["slug"], task["tags"], task["owner"], task["revision"]) == ("hello", ["a"], None, 1)
    for name in ("hello", task["id"]):
        found = client.get(f"/api/tasks/{name}")
        assert found.json() == task
        assert found.headers["etag"] == '"1"'
    assert client.get(made.headers["location"]).status_code == 200
    assert list(gateway.deployments) == ["shell/hello"]


def test_both_spellings_are_taken_and_camel_case_is_given(client: TestClient) -> None:
    made = client.post("/api/tasks", json={"name": "W", "task_type": "wait", "payload": {"seconds": 1}}).json()
    assert made["taskType"] == "wait"
    assert "task_type" not in made


def test_a_composite_brings_its_graph(client: TestClient) -> None:
    for name, more in (("One", {"graph": GRAPH}), ("Two", GRAPH)):
        made = client.post("/api/tasks", json={"name": name, "taskType": "composite", **more})
        assert made.status_code == 201, made.text
        assert [step["stepKey"] for step in made.json()["graph"]["steps"]] == ["a", "b"]


def test_without_a_prefect_server_it_is_saved_all_the_same(client: TestClient, gateway: FakeGateway) -> None:
    gateway.away = True
    assert client.post("/api/tasks", json=HELLO).status_code == 201


def test_every_problem_is_listed_and_nothing_is_stored(client: TestClient) -> None:
    bad = {"name": " ", "taskType": "shell", "status": "asleep", "surprise": 1, "termination": {"maxRuntime": -1}}
    found = errors(client.post("/api/tasks", json=bad))
    assert {"name", "status", "surprise", "termination.maxRuntime"} <= set(found)
    found = errors(client.post("/api/tasks", json={**HELLO, "payload": {"command": "", "colour": "red"}}))
    assert "payload.colour" in found
    assert errors(client.post("/api/tasks", json={**HELLO, "taskType": "fly"}))["taskType"].startswith("there is no")
    assert client.get("/api/tasks").json()["items"] == []
    assert client.get("/api/audit").json()["items"] == []


@pytest.mark.parametrize("body", [[], "x", 1, None, True, [HELLO]])
def test_a_body_that_is_no_object_is_refused(client: TestClient, body: Any) -> None:
    assert client.post("/api/tasks", json=body).status_code == 422


@pytest.mark.parametrize("graph", [5, "x", [], {"steps": 5}, {"steps": [5]}, {"steps": [{"stepKey": "a"}]}, {"x": 1}])
def test_a_graph_that_is_none_is_refused(client: TestClient, graph: Any) -> None:
    assert errors(client.post("/api/tasks", json={"name": "C", "taskType": "composite", "graph": graph}))


def test_a_cycle_is_drawn(client: TestClient) -> None:
    edges = [*GRAPH["edges"], {"fromStepKey": "b", "toStepKey": "a"}]
    body = {"name": "C", "taskType": "composite", "graph": {**GRAPH, "edges": edges}}
    assert "→" in str(errors(client.post("/api/tasks", json=body)))


def test_a_slug_is_taken_once(client: TestClient) -> None:
    client.post("/api/tasks", json=HELLO)
    again = client.post("/api/tasks", json=HELLO)
    assert again.status_code == 409
    assert again.json()["type"] == "urn:taskcenter:problem:conflict"


# list --------------------------------------------------------------------------------------------------------


def test_lists_are_filtered_sorted_and_cut(client: TestClient) -> None:
    several: dict[str, dict[str, Any]] = {
        "Beta": {"owner": "ann", "tags": ["x"], "status": "paused"},
        "Alpha": {"category": "night", "description": "Counts ORDERS"},
        "Gamma": {"taskType": "wait", "payload": {"seconds": 1}},
    }
    for name, more in several.items():
        assert client.post("/api/tasks", json={**HELLO, "name": name, **more}).status_code == 201

    def names(query: str = "") -> list[str]:
        answer = client.get(f"/api/tasks{query}")
        assert answer.status_code == 200, answer.text
        return [item["name"] for item in answer.json()["items"]]

    assert names() == ["Alpha", "Beta", "Gamma"]
    assert names("?status=paused") == names("?owner=ann") == names("?tag=X") == ["Beta"]
    assert names("?taskType=wait") == names("?task_type=wait") == ["Gamma"]
    assert names("?category=night") == names("?search=orders") == ["Alpha"]
    assert names("?sortBy=created_at") == ["Gamma", "Alpha", "Beta"]
    assert names("?limit=1&offset=1") == ["Beta"]
    assert names("?search=nothing") == []


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "limit=x", "offset=-1", f"offset={2**70}", "status=asleep", "sortBy=id", "colour=red"],
)
def test_a_filter_that_is_none_is_refused_with_its_name(client: TestClient, query: str) -> None:
    assert query.partition("=")[0] in errors(client.get(f"/api/tasks?{query}"))


def test_odd_filters_and_names_find_nothing(client: TestClient) -> None:
    client.post("/api/tasks", json=HELLO)
    for odd in ("%00", "%ff%fe", "%ed%a0%80", "%25", "_", "'%20or%201=1--"):
        assert client.get(f"/api/tasks?search={odd}&owner={odd}&tag={odd}").json()["items"] == []
        assert client.get(f"/api/tasks/{odd}").status_code == 404
    assert client.get("/api/tasks/..%2f..%2fetc%2fpasswd").status_code == 404


# change ------------------------------------------------------------------------------------------------------


def test_absent_keeps_and_null_clears(client: TestClient) -> None:
    client.post("/api/tasks", json={**HELLO, "owner": "ann", "category": "night", "maxConcurrent": 2})
    changed = client.patch("/api/tasks/hello", json={"owner": None, "maxConcurrent": None, "description": "Says hello"})
    assert changed.status_code == 200
    assert changed.headers["etag"] == '"2"'
    task = changed.json()
    assert (task["owner"], task["category"], task["maxConcurrent"]) == (None, "night", 0)
    assert (task["description"], task["revision"]) == ("Says hello", 2)


def test_a_change_is_checked_as_a_whole(client: TestClient) -> None:
    client.post("/api/tasks", json=HELLO)
    assert errors(client.patch("/api/tasks/hello", json={"taskType": "wait"}))
    assert "name" in errors(client.patch("/api/tasks/hello", json={"name": None}))
    assert "surprise" in errors(client.patch("/api/tasks/hello", json={"surprise": None}))
    assert client.get("/api/tasks/hello").json()["revision"] == 1


def test_the_id_and_the_revision_are_not_the_clients(client: TestClient) -> None:
    first = client.post("/api/tasks", json=HELLO).json()
    changed = client.patch("/api/tasks/hello", json={"id": "other", "revision": 99, "createdAt": None}).json()
    assert (changed["id"], changed["revision"], changed["createdAt"]) == (first["id"], 2, first["createdAt"])


def test_only_the_definition_that_was_seen_is_changed(client: TestClient) -> None:
    tag = client.post("/api/tasks", json=HELLO).headers["etag"]
    assert client.patch("/api/tasks/hello", json={"owner": "ann"}, headers={"If-Match": tag}).status_code == 200
    late = client.patch("/api/tasks/hello", json={"owner": "bob"}, headers={"If-Match": tag})
    assert late.status_code == 412
    assert late.json()["type"] == "urn:taskcenter:problem:precondition_failed"
    assert client.get("/api/tasks/hello").json()["owner"] == "ann"
    for revision, match in ((2, "*"), (3, '"3"'), (4, '"9", "4"')):
        again = client.patch("/api/tasks/hello", json={}, headers={"If-Match": match})
        assert (again.status_code, again.headers["etag"]) == (200, f'"{revision + 1}"')
    for match in ('W/"5"', "5", '"two"', "", '"'):
        assert client.patch("/api/tasks/hello", json={}, headers={"If-Match": match}).status_code == 412
    assert client.delete("/api/tasks/hello", headers={"If-Match": '"1"'}).status_code == 412
    assert client.delete("/api/tasks/hello", headers={"If-Match": "*"}).status_code == 204


def test_a_change_in_between_is_seen_too(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.post("/api/tasks", json=HELLO)

    def conflict(*_: Any, **__: Any) -> None:
        raise Conflict("changed in between", revision=2)

    monkeypatch.setattr(tasks, "save", conflict)
    assert client.patch("/api/tasks/hello", json={}, headers={"If-Match": '"1"'}).status_code == 412
    assert client.patch("/api/tasks/hello", json={}).status_code == 409


def test_a_slug_of_another_task_stays_a_conflict(client: TestClient) -> None:
    client.post("/api/tasks", json=HELLO)
    client.post("/api/tasks", json={**HELLO, "name": "Other"})
    answer = client.patch("/api/tasks/other", json={"slug": "hello"}, headers={"If-Match": '"1"'})
    assert answer.status_code == 409


def test_deleting_takes_the_deployment_and_leaves_the_audit(client: TestClient, gateway: FakeGateway) -> None:
    task = client.post("/api/tasks", json=HELLO).json()
    gone = client.delete("/api/tasks/hello")
    assert (gone.status_code, gone.content) == (204, b"")
    assert client.get("/api/tasks/hello").status_code == 404
    assert client.delete("/api/tasks/hello").status_code == 404
    assert gateway.deployments == {}
    entries = client.get("/api/audit", params={"task": task["id"]}).json()["items"]
    assert [entry["eventType"] for entry in entries] == ["task_deleted", "task_created"]
    assert {(entry["actor"], entry["channel"]) for entry in entries} == {("local", "api")}
    assert len(client.get("/api/audit", params={"task": task["id"], "limit": 1}).json()["items"]) == 1


def test_nothing_is_deleted_while_prefect_is_away(client: TestClient, gateway: FakeGateway) -> None:
    client.post("/api/tasks", json=HELLO)
    gateway.away = True
    answer = client.delete("/api/tasks/hello")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert client.get("/api/tasks/hello").status_code == 200


def test_every_version_is_remembered(client: TestClient) -> None:
    client.post("/api/tasks", json={"name": "C", "taskType": "composite", "graph": GRAPH})
    client.patch("/api/tasks/c", json={"owner": "ann"})
    items = client.get("/api/tasks/c/revisions").json()["items"]
    assert [item["revision"] for item in items] == [2, 1]
    assert [item["definition"]["owner"] for item in items] == ["ann", None]
    assert items[1]["graph"]["steps"][0]["stepKey"] == "a"
    assert client.get("/api/tasks/x/revisions").status_code == 404


def test_events_are_listed_as_written(client: TestClient) -> None:
    client.post("/api/tasks", json=HELLO)
    client.delete("/api/tasks/hello")
    assert [e["name"] for e in client.get("/api/events").json()["items"]] == ["task:created", "task:deleted"]
    assert len(client.get("/api/events?limit=1").json()["items"]) == 1
    assert "limit" in errors(client.get("/api/events?limit=501"))
    assert "limit" in errors(client.get("/api/audit?limit=0"))


# import and export -------------------------------------------------------------------------------------------


def test_what_was_exported_can_be_imported(client: TestClient, tmp_path: Path) -> None:
    client.post("/api/tasks", json={**HELLO, "triggers": [{"type": "cron", "cronExpression": "0 1 * * *"}]})
    client.post("/api/tasks", json={"name": "C", "taskType": "composite", "graph": GRAPH})
    document = client.get("/api/tasks/export").json()
    assert [row["slug"] for row in client.get("/api/tasks/export?task=c").json()["tasks"]] == ["c"]
    assert client.get("/api/tasks/export?task=nothing").status_code == 404
    with fake_center(tmp_path / "other") as other:
        there = api_client(other)
        seen = there.post("/api/tasks/import", json=document).json()
        assert [item["kind"] for item in seen["items"]] == ["create", "create"]
        assert not seen["applied"]
        assert there.get("/api/tasks").json()["items"] == []
        done = there.post("/api/tasks/import?apply=true", json=document)
        assert (done.status_code, done.json()["applied"]) == (200, True)
        again = there.post("/api/tasks/import?apply=true", json=document).json()
        assert [item["kind"] for item in again["items"]] == ["same", "same"]
        assert there.get("/api/tasks/export").json() == document


def test_an_import_is_carried_out_whole_or_not_at_all(client: TestClient) -> None:
    document = {"schemaVersion": 1, "tasks": [HELLO, {"name": "Bad", "taskType": "shell", "colour": 1}]}
    seen = client.post("/api/tasks/import", json=document).json()
    assert [item["kind"] for item in seen["items"]] == ["create", "refused"]
    assert errors(client.post("/api/tasks/import?apply=true", json=document)) == {
        "tasks[1].colour": "Extra inputs are not permitted"
    }
    twice = {"tasks": [HELLO, {**HELLO, "owner": "ann"}]}
    assert "tasks[1].slug" in errors(client.post("/api/tasks/import?apply=true", json=twice))
    assert client.get("/api/tasks").json()["items"] == []


@pytest.mark.parametrize("body", [{}, {"tasks": {}}, {"tasks": [], "schemaVersion": 2}, 5, {"tasks": None}])
def test_what_is_no_import_is_refused(client: TestClient, body: Any) -> None:
    assert client.post("/api/tasks/import", json=body).status_code == 422


def test_odd_rows_of_an_import_are_refused_by_name(client: TestClient) -> None:
    seen = client.post("/api/tasks/import", json={"tasks": [5, None, [], {}, {"name": 5}]}).json()
    assert [item["kind"] for item in seen["items"]] == ["refused"] * 5


# plan --------------------------------------------------------------------------------------------------------


def test_a_plan_says_what_would_happen(client: TestClient, gateway: FakeGateway) -> None:
    client.post("/api/tasks", json={"name": "C", "taskType": "composite", "graph": GRAPH})
    plan = client.post("/api/tasks/c/plan").json()
    assert [step["stepKey"] for step in plan["steps"]] == ["a", "b"]
    skipped = client.post("/api/tasks/c/plan", json={"options": {"skip": ["b"]}}).json()
    assert [step["predicted"] for step in skipped["steps"]] == ["success", "skipped"]
    assert skipped["planHash"] != plan["planHash"]
    stale = client.post("/api/tasks/c/plan", json={"options": {"skip": ["b"], "planHash": plan["planHash"]}})
    assert stale.status_code == 409
    assert client.post("/api/tasks/c/plan", json={"options": {"skip": ["z"]}}).status_code in (409, 422)
    assert gateway.runs == {}


def test_a_plain_task_has_a_plan_of_one_step(client: TestClient) -> None:
    client.post("/api/tasks", json=HELLO)
    plan = client.post("/api/tasks/hello/plan", json={"payload": {"command": ["date"]}}).json()
    assert plan["steps"][0]["resolvedPayload"] == {"command": ["date"]}
    assert "date" in plan["steps"][0]["note"]["summary"]
    assert errors(client.post("/api/tasks/hello/plan", json={"payload": {"command": 5}}))
    assert client.post("/api/tasks/nothing/plan").status_code == 404


def test_a_name_is_never_taken_for_a_file(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('it was imported')")
    (tmp_path / "evil.json").write_text("{}")
    for name in ("evil.py", "evil.json", "..%2fevil.py"):
        assert client.post(f"/api/tasks/{name}/plan").status_code == 404
        assert client.post(f"/api/tasks/{name}/run").status_code == 404
        for route in ("", "/plan", "/render"):
            assert client.get(f"/api/composites/{name}{route}").status_code == 404


# health ------------------------------------------------------------------------------------------------------


def test_health_says_what_is_away_and_never_fails(
    client: TestClient, gateway: FakeGateway, center: Center, monkeypatch: pytest.MonkeyPatch
) -> None:
    well = client.get("/api/health").json()
    assert (well["status"], well["store"]["ok"], well["prefect"]["ok"]) == ("ok", True, True)
    assert well["prefect"]["url"] == "http://127.0.0.1:4200"
    assert well["uptimeSeconds"] >= 0
    gateway.away = True
    ill = client.get("/api/health").json()
    assert (ill["status"], ill["store"]["ok"], ill["prefect"]["ok"]) == ("degraded", True, False)
    assert "does not answer" in ill["prefect"]["message"]

    def broken(_: str) -> None:
        raise RuntimeError("password=hunter2-is-long")

    monkeypatch.setattr(center.store, "get_setting", broken)
    worse = client.get("/api/health")
    assert worse.status_code == 200
    assert worse.json()["store"] == {"ok": False, "message": "failed with RuntimeError"}


def test_health_of_a_center_with_nothing_behind_it(tmp_path: Path) -> None:
    from taskcenter.settings import Settings

    def away() -> Any:
        raise ServerAway("no Task Center is running")

    with Center(Settings(home=tmp_path), open_store=away, open_gateway=away) as center:
        client = api_client(center)
        health = client.get("/api/health").json()
        assert not health["store"]["ok"]
        assert not health["prefect"]["ok"]
        assert health["prefect"]["url"] is None
        assert client.get("/").status_code == 200
        assert client.get("/api/tasks").status_code == 503


def test_health_does_not_wait_for_a_part_that_hangs(center: Center, gateway: FakeGateway) -> None:
    import threading
    import time

    from taskcenter_console.services.health import health

    done = threading.Event()
    gateway.version = lambda: str(done.wait(20))  # type: ignore[method-assign]
    began = time.monotonic()
    found = health(center, patience=0.1)
    done.set()
    assert time.monotonic() - began < 5
    assert found.prefect == "does not answer within 0.1 s"
    assert found.store is None


# task types --------------------------------------------------------------------------------------------------


def test_task_types_are_listed_with_their_schema(client: TestClient) -> None:
    keys = [item["key"] for item in client.get("/api/task-types").json()["items"]]
    assert {"shell", "sql_script", "http", "composite"} <= set(keys)
    assert keys == sorted(keys)
    shell = client.get("/api/task-types/shell").json()
    assert "command" in shell["payloadSchema"]["properties"]
    for key in ("fly", "shell%00", "a.b", "A%20B", "x" * 300):
        assert client.get(f"/api/task-types/{key}").status_code == 404
