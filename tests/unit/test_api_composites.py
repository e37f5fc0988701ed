"""Composites over REST: the catalogue, checks and plans of a JSON form, pictures. (spec 3)"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from taskcenter_console.services.center import Center
from tests.fakes import api_client, fake_center

if TYPE_CHECKING:
    from starlette.testclient import TestClient

TWO: dict[str, Any] = {
    "name": "two",
    "inputs": {"seconds": 1},
    "steps": [
        {"stepKey": "a", "taskType": "wait", "payload": {"seconds": "{{inputs.seconds}}"}},
        {"stepKey": "b", "taskType": "shell", "payload": {"command": ["echo", "{{steps.a}}"]}, "join": "any"},
    ],
    "edges": [{"fromStepKey": "a", "toStepKey": "b", "condition": "success"}],
}


@pytest.fixture
def center(tmp_path: Path) -> Iterator[Center]:
    with fake_center(tmp_path) as center:
        (center.settings.project / "composites").mkdir(parents=True)
        yield center


@pytest.fixture
def client(center: Center) -> TestClient:
    return api_client(center)


def put(center: Center, name: str, text: str) -> None:
    (center.settings.project / "composites" / name).write_text(text)


def test_the_catalogue_and_the_projects_own_are_listed(client: TestClient, center: Center) -> None:
    put(center, "two.json", json.dumps(TWO))
    put(center, "broken.py", "this is not Python")
    put(center, "angry.py", "raise SystemExit(3)")
    found = client.get("/api/composites").json()
    rows = {item["name"]: item for item in found["items"]}
    assert rows["nightly-sales"]["file"] == "nightly_sales.py"
    assert (rows["two"]["steps"], rows["two"]["file"]) == (2, "two.json")
    assert sorted(item["file"] for item in found["broken"]) == ["angry.py", "broken.py"]
    assert all(item["message"] for item in found["broken"])


def test_one_is_shown_planned_and_drawn(client: TestClient, center: Center) -> None:
    put(center, "two.json", json.dumps(TWO))
    shown = client.get("/api/composites/two").json()
    assert (shown["source"], shown["taskId"]) == ("two.json", None)
    assert [step["stepKey"] for step in shown["composite"]["steps"]] == ["a", "b"]
    plan = client.get("/api/composites/two/plan").json()
    assert (plan["waves"], plan["dryRun"]) == (2, True)
    assert plan["steps"][0]["resolvedPayload"] == {"seconds": 1}
    tree = client.get("/api/composites/two/render")
    assert tree.headers["content-type"] == "text/plain; charset=utf-8"
    assert tree.text.startswith("two  2 steps, 2 waves")
    assert client.get("/api/composites/two/render?format=tree").text == tree.text
    assert client.get("/api/composites/two/render?format=mermaid").text.startswith(("flowchart", "graph"))
    assert client.get("/api/composites/two/render?format=dot").text.startswith("digraph")
    assert client.get("/api/composites/two/render?format=json").json() == shown["composite"]
    bad = client.get("/api/composites/two/render?format=pdf")
    assert (bad.status_code, bad.json()["errors"][0]["path"]) == (422, "format")


def test_the_saved_one_goes_before_the_file(client: TestClient, center: Center) -> None:
    put(center, "two.json", json.dumps(TWO))
    one_step = {"steps": TWO["steps"][:1]}
    task = client.post("/api/tasks", json={"name": "two", "taskType": "composite", "graph": one_step}).json()
    shown = client.get("/api/composites/two").json()
    assert (shown["source"], shown["taskId"], shown["revision"]) == ("saved", task["id"], 1)
    assert len(shown["composite"]["steps"]) == 1


def test_what_is_not_there_or_no_composite(client: TestClient) -> None:
    client.post("/api/tasks", json={"name": "W", "taskType": "wait", "payload": {"seconds": 1}})
    for route in ("", "/plan", "/render"):
        assert client.get(f"/api/composites/nothing{route}").status_code == 404
        assert client.get(f"/api/composites/w{route}").status_code == 409
        assert client.get(f"/api/composites/%00{route}").status_code == 404


def test_one_that_cannot_run_is_not_planned_or_drawn(client: TestClient, center: Center) -> None:
    cycle = {**TWO, "edges": [*TWO["edges"], {"fromStepKey": "b", "toStepKey": "a"}]}
    put(center, "two.json", json.dumps(cycle))
    assert client.get("/api/composites/two").status_code == 200
    for route in ("plan", "render"):
        answer = client.get(f"/api/composites/two/{route}")
        assert answer.status_code == 422
        assert "cycle" in [item["code"] for item in answer.json()["errors"]]


def test_a_check_finds_all_problems_and_is_no_error(client: TestClient) -> None:
    assert client.post("/api/composites/check", json=TWO).json() == {"ok": True, "problems": []}
    bad: dict[str, Any] = {
        "name": "bad",
        "surprise": 1,
        "steps": [{"stepKey": "a", "taskType": "fly"}, {"stepKey": "a", "taskType": "wait", "payload": {"x": 1}}],
        "edges": [{"fromStepKey": "a", "toStepKey": "z"}],
    }
    answer = client.post("/api/composites/check", json=bad)
    assert answer.status_code == 200
    found = answer.json()
    assert not found["ok"]
    assert len(found["problems"]) >= 4
    assert all(set(item) == {"code", "path", "message", "severity"} for item in found["problems"])
    assert client.post("/api/composites/check", json={}).status_code == 200
    assert client.post("/api/composites/check", json=[]).status_code == 422
    assert client.post("/api/composites/check").status_code == 422


def test_a_plan_of_a_json_form(client: TestClient) -> None:
    plan = client.post("/api/composites/plan", json=TWO).json()
    assert [step["stepKey"] for step in plan["steps"]] == ["a", "b"]
    bad = client.post("/api/composites/plan", json={"name": "x", "steps": []})
    assert bad.status_code == 422
    assert bad.json()["errors"][0]["code"] == "no_steps"


def test_nothing_was_stored(client: TestClient) -> None:
    client.post("/api/composites/check", json=TWO)
    client.post("/api/composites/plan", json=TWO)
    assert client.get("/api/tasks").json()["items"] == []
    assert client.get("/api/audit").json()["items"] == []


def test_a_large_composite_is_checked_and_planned(client: TestClient) -> None:
    steps = [{"stepKey": f"s{i}", "taskType": "wait", "payload": {"seconds": 0}} for i in range(3000)]
    edges = [{"fromStepKey": f"s{i}", "toStepKey": f"s{i + 1}"} for i in range(2999)]
    body = {"name": "long", "steps": steps, "edges": edges}
    assert client.post("/api/composites/check", json=body).json()["ok"]
    assert client.post("/api/composites/plan", json=body).json()["waves"] == 3000
