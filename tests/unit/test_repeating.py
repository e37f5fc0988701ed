"""Again, on from where it failed, and what was different. (spec 1.4, 3.9)"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from taskcenter.clock import utc_now
from taskcenter.errors import Refused
from taskcenter.models import Run, StepRun
from taskcenter.ports import Changes
from taskcenter.status import Origin, RunStatus, StepStatus
from taskcenter_console.cli import cli
from taskcenter_console.commands import common
from taskcenter_console.services import repeating
from taskcenter_console.services import runs as run_service
from taskcenter_console.services.center import Caller, Center
from taskcenter_console.services.tasks import save
from tests.fakes import FakeGateway, api_client, fake_center

ME = Caller("test", "cli")
GRAPH: dict[str, Any] = {
    "steps": [{"stepKey": key, "taskType": "wait", "payload": {"seconds": 0}} for key in ("a", "b")],
    "edges": [{"fromStepKey": "a", "toStepKey": "b"}],
}


@pytest.fixture
def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def center(tmp_path: Path, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[Center]:
    with fake_center(tmp_path, gateway) as made:
        monkeypatch.setattr(common, "open_center", lambda: made)
        save(made, {"name": "nap", "taskType": "wait", "payload": {"seconds": 1}}, ME)
        save(made, {"name": "duo", "taskType": "composite", "graph": GRAPH}, ME)
        yield made


def ended(center: Center, name: str, status: RunStatus, duration: int = 100, **start: Any) -> Run:
    run = run_service.start(center, name, ME, **start)
    done = run.model_copy(update={"status": status, "phase": None, "finished_at": utc_now(), "duration_ms": duration})
    steps = [StepRun(run_id=run.id, step_key="a", status=StepStatus.SUCCESS),
             StepRun(run_id=run.id, step_key="b", position=1,
                     status=StepStatus.FAILED if status is RunStatus.FAILED else StepStatus.SUCCESS)]  # fmt: skip
    center.store.record(Changes(runs=(done,), steps=steps if name == "duo" else ()))
    return center.store.get_run(run.id)


def test_the_same_again_is_a_new_run_that_names_the_old_one(center: Center, gateway: FakeGateway) -> None:
    old = ended(center, "nap", RunStatus.FAILED, payload={"seconds": 3})
    new = repeating.retry(center, old.id[:8], ME)
    assert new.id != old.id
    assert (new.origin, new.resumed_from, new.root_run_id) == (Origin.MANUAL_RETRY, old.id, new.id)
    assert (old.attempt, new.attempt) == (1, 2)
    assert gateway.runs[new.id]["parameters"] == gateway.runs[old.id]["parameters"]
    assert {"origin:manual_retry", f"resumed:{old.id}"} <= set(gateway.runs[new.id]["tags"])
    with pytest.raises(Refused, match="not over"):
        repeating.retry(center, new.id, ME)


def test_a_composite_goes_on_from_where_it_failed(center: Center, gateway: FakeGateway) -> None:
    old = ended(center, "duo", RunStatus.FAILED)
    new = repeating.resume(center, old.id, ME)
    assert (new.origin, new.resumed_from) == (Origin.RESUME, old.id)
    assert gateway.runs[new.id]["parameters"]["options"] == {"resume": old.id}
    done = ended(center, "duo", RunStatus.SUCCESS)
    with pytest.raises(Refused, match="name the step"):
        repeating.resume(center, done.id, ME)
    assert repeating.resume(center, done.id, ME, step="b").resumed_from == done.id
    with pytest.raises(Refused, match="no steps"):
        repeating.resume(center, ended(center, "nap", RunStatus.FAILED).id, ME)


def test_what_is_different(center: Center) -> None:
    first, second = ended(center, "duo", RunStatus.FAILED, 100), ended(center, "duo", RunStatus.SUCCESS, 900)
    found = repeating.compare(center, first.id, second.id)
    assert {item["what"]: (item["first"], item["second"]) for item in found["differences"]} == {
        "status": ("failed", "success"),
        "steps.b.status": ("failed", "success"),
    }
    assert repeating.compare(center, first.id, first.id)["differences"] == []
    slow = ended(center, "duo", RunStatus.SUCCESS, 60_000)
    assert [i["what"] for i in repeating.compare(center, second.id, slow.id)["differences"]] == ["durationMs"]


def test_on_the_command_line_and_over_rest(center: Center) -> None:
    first, second = ended(center, "duo", RunStatus.FAILED), ended(center, "duo", RunStatus.SUCCESS)
    told = CliRunner().invoke(cli, ["runs", "compare", first.id, second.id])
    assert (told.exit_code, "steps.b.status" in told.stdout) == (1, True)
    assert CliRunner().invoke(cli, ["runs", "compare", first.id, first.id]).exit_code == 0
    new = CliRunner().invoke(cli, ["runs", "retry", first.id, "-q"]).stdout.strip()
    assert center.store.get_run(new).resumed_from == first.id
    new = CliRunner().invoke(cli, ["runs", "resume", first.id, "--from", "b", "-q"]).stdout.strip()
    assert center.store.get_run(new).origin is Origin.RESUME
    client = api_client(center)
    assert client.post(f"/api/runs/{first.id}/retry").json()["origin"] == "manual_retry"
    assert client.post(f"/api/runs/{first.id}/resume", json={"step": "b"}).status_code == 202
    assert client.post(f"/api/runs/{second.id}/resume").status_code == 409
    body = client.get(f"/api/runs/{first.id}/compare/{second.id}").json()
    assert [item["what"] for item in body["differences"]] == ["status", "steps.b.status"]
