"""Versions of a task: what differs, field by field, and going back. (spec 1.1)"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from taskcenter.errors import Conflict, NotFound, Refused
from taskcenter.revision_diff import differences
from taskcenter_console.cli import cli
from taskcenter_console.commands import common
from taskcenter_console.services import history, revisions, runs, tasks
from taskcenter_console.services.center import Caller, Center
from tests.fakes import api_client, fake_center

CALLER = Caller("ada", "cli")


@pytest.fixture(params=[False, True], ids=["memory", "database"])
def center(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Center]:
    with fake_center(tmp_path, scheduled=request.param) as made:
        yield made


def step(key: str, **fields: Any) -> dict[str, Any]:
    return {"stepKey": key, "taskType": "wait", "payload": {"seconds": 1}, **fields}


def edge(a: str, b: str, **fields: Any) -> dict[str, Any]:
    return {"fromStepKey": a, "toStepKey": b, **fields}


def graph_of(*edges: dict[str, Any], **steps: dict[str, Any]) -> dict[str, Any]:
    return {"steps": [step(key, **fields) for key, fields in steps.items()], "edges": list(edges)}


def nightly(center: Center) -> str:
    """Three revisions of one composite."""
    first = {
        "name": "Nightly",
        "taskType": "composite",
        "tags": ["a", "b"],
        "graph": graph_of(edge("a", "b"), a={}, b={}),
        "triggers": [{"type": "cron", "cronExpression": "0 6 * * *"}],
    }
    tasks.save(center, first, CALLER)
    second = graph_of(edge("a", "c", condition="failed"), c={"retries": 2}, a={"payload": {"seconds": 9}})
    tasks.save(center, {"graph": second, "tags": ["b", "c"], "description": "by night"}, CALLER, update="nightly")
    tasks.save(center, {"status": "paused"}, CALLER, update="nightly")
    return "nightly"


def test_a_diff_is_told_by_field_step_and_edge(center: Center) -> None:
    old, new, found = revisions.diff(center, nightly(center), 1, 2)
    told = {(d.path, d.kind): (d.before, d.after) for d in found}
    assert (old, new) == (1, 2)
    assert set(told) == {
        ("description", "changed"),
        ("tags[a]", "removed"),
        ("tags[c]", "added"),
        ("steps[a].payload.seconds", "changed"),
        ("steps[b]", "removed"),
        ("steps[c]", "added"),
        ("edges[a → b]", "removed"),
        ("edges[a → c]", "added"),
    }
    assert told["steps[a].payload.seconds", "changed"] == (1, 9)


def test_order_is_no_difference_and_secrets_are_not_shown() -> None:
    a, b = {"tags": ["x", "y"], "revision": 1, "triggers": []}, {"tags": ["y", "x"], "revision": 2, "triggers": []}
    one = {"steps": [{"stepKey": "a"}, {"stepKey": "b"}], "edges": [{"fromStepKey": "a", "toStepKey": "b"}]}
    assert differences(a, b, one, {**one, "steps": one["steps"][::-1]}) == []
    found = differences({"environment": {"DB_PASSWORD": "first-value"}}, {"environment": {"X": "password=other-value"}})
    assert "-value" not in str(found)


def test_two_revisions_are_compared_without_reading_the_rest(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    name = nightly(center)
    monkeypatch.setattr(center.store, "list_revisions", None)
    assert revisions.diff(center, name)[:2] == (2, 3)
    with pytest.raises(NotFound, match=f"no revision {10**30}; there is 1 to 3"):
        revisions.diff(center, name, 1, 10**30)
    assert revisions.rollback(center, name, 1, CALLER).revision == 4


def test_a_step_whose_name_sounds_like_a_secret_is_told_like_any_other(center: Center) -> None:
    first, second = (graph_of(refresh_token={"payload": {"seconds": n}}) for n in (1, 2))
    tasks.save(center, {"name": "Tokens", "taskType": "composite", "graph": first}, CALLER)
    tasks.save(center, {"graph": second}, CALLER, update="tokens")
    (found,) = revisions.diff(center, "tokens", 1, 2)[2]
    assert (found.path, found.before, found.after) == ("steps[refresh_token].payload.seconds", 1, 2)
    told = graph_of(refresh_token={"payload": {"password": "first-value"}})
    assert "first-value" not in str(differences({}, {}, told, {"steps": []}))
    assert revisions.rollback(center, "tokens", 1, CALLER).revision == 3


def test_rollback_makes_the_old_definition_new(center: Center) -> None:
    name = nightly(center)
    saved = revisions.rollback(center, name, 1, CALLER, reason="broke the night")
    assert (saved.revision, saved.tags, saved.status.value) == (4, ("a", "b"), "active")
    assert revisions.diff(center, name, 1, 4)[2] == []
    rows = history.revisions(center, name)
    assert [row["revision"] for row in rows] == [4, 3, 2, 1]
    assert rows[0]["createdBy"] == "ada"
    assert rows[0]["reason"] == "composite/nightly was rolled back to revision 1: broke the night"
    assert rows[3]["graph"] == rows[0]["graph"]
    kinds = [entry.event_type for entry in center.store.list_audit(task_id=saved.id)]
    assert kinds[:2] == ["task_rolled_back", "task_updated"]
    assert saved.triggers[0].id == rows[3]["definition"]["triggers"][0]["id"]


def test_what_cannot_be_rolled_back_is_refused(center: Center) -> None:
    name = nightly(center)
    with pytest.raises(NotFound, match="no revision 9; there is 1 to 3"):
        revisions.rollback(center, name, 9, CALLER)
    with pytest.raises(Refused, match="nothing to roll back"):
        revisions.rollback(center, name, 3, CALLER)
    with pytest.raises(Conflict):
        tasks.save(center, {"tags": []}, CALLER, update=name, expected_revision=2)


def test_over_rest(center: Center) -> None:
    name = nightly(center)
    client = api_client(center)
    assert client.get(f"/api/tasks/{name}/diff").json()["items"][0]["path"] == "status"
    between = client.get(f"/api/tasks/{name}/diff", params={"from": 1, "to": 2}).json()
    assert (between["from"], between["to"], len(between["items"])) == (1, 2, 8)
    assert client.get(f"/api/tasks/{name}/diff", params={"from": 7}).status_code == 404
    done = client.post(f"/api/tasks/{name}/rollback", json={"revision": 2, "reason": "again"})
    assert (done.status_code, done.json()["revision"], done.headers["etag"]) == (200, 4, '"4"')
    assert client.post(f"/api/tasks/{name}/rollback", json={"revision": 2}).status_code == 409
    assert client.get(f"/api/tasks/{name}/revisions").json()["items"][0]["createdBy"] == "local"


def test_on_the_command_line(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    name = nightly(center)
    monkeypatch.setattr(common, "open_center", lambda: center)

    def call(*argv: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["task", *argv], prog_name="taskcenter")
        return done.exit_code, done.stdout

    assert call("diff", name, "1", "2")[0] == 1
    assert "+ edges[a → c]" in call("diff", name, "1", "2")[1]
    assert "~ steps[a].payload.seconds: 1 → 9" in call("diff", name, "1", "2")[1]
    assert call("rollback", name, "1", "--reason", "why")[0] == 0
    assert call("diff", name, "1", "4") == (0, "revisions 1 and 4 are the same\n")
    code, text = call("history", name, "--json")
    assert code == 0
    assert json.loads(text)["items"][0]["reason"].endswith("revision 1: why")


def test_a_run_shows_the_revision_it_ran(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    name = nightly(center)
    first = runs.start(center, name, CALLER)
    revisions.rollback(center, name, 1, CALLER)
    second = runs.start(center, name, CALLER)
    client = api_client(center)
    for run, revision in ((first, 3), (second, 4)):
        assert client.get(f"/api/runs/{run.id}").json()["taskRevision"] == revision
        monkeypatch.setattr(common, "open_center", lambda: center)
        monkeypatch.setattr(Center, "close", lambda _: None)
        shown = CliRunner().invoke(cli, ["runs", "show", run.id], prog_name="taskcenter").stdout
        assert f"revision   {revision}\n" in shown
    compared = client.get(f"/api/runs/{first.id}/compare/{second.id}").json()
    assert "taskRevision" in json.dumps(compared)
