"""The command line asks the service that runs, and never makes one run twice. (spec 7.3)"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from taskcenter.errors import ServerAway
from taskcenter.settings import Settings
from taskcenter_adapter.gateway import Gateway
from taskcenter_adapter.processes import free_port
from taskcenter_adapter.state import clear_state, write_state
from taskcenter_console.api.app import make_app
from taskcenter_console.commands.asking import ask_for_details, ask_for_run, user_name
from taskcenter_console.services import runs
from taskcenter_console.services.center import Caller, Center
from tests.fakes import FakeGateway, api_client, fake_center

HELLO = {"name": "Hello", "taskType": "shell", "payload": {"command": ["echo", "hello"]}}
DATABASE = "postgresql://somewhere/center"


@pytest.fixture
def center(tmp_path: Path) -> Iterator[Center]:
    with fake_center(tmp_path, FakeGateway()) as center:
        api_client(center).post("/api/tasks", json=HELLO).raise_for_status()
        yield center


@pytest.fixture
def settings(center: Center, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Those of a command, beside a service over HTTP on the same home."""
    monkeypatch.delenv("TASKCENTER_PROJECT", raising=False)
    port, home = free_port(), center.settings.home
    server = uvicorn.Server(uvicorn.Config(make_app(center), host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    write_state(home, {"serviceUrl": f"http://127.0.0.1:{port}", "databaseUrl": DATABASE, "project": str(home)})
    yield Settings(home=home)
    clear_state(home)
    server.should_exit = True
    thread.join(10)


def test_the_service_makes_the_run_and_the_audit_says_who_typed(settings: Settings, center: Center) -> None:
    run = ask_for_run(settings, "hello", {"payload": {"command": ["date"]}})
    assert run is not None
    [entry] = center.store.list_audit(run_id=run["id"])
    assert (entry.event_type, entry.actor, entry.channel) == ("manual_run_requested", user_name(), "cli")


def test_what_was_asked_for_is_told_by_the_service_as_this_process_would(settings: Settings, center: Center) -> None:
    run = ask_for_run(settings, "hello", {})
    assert run is not None
    told = ask_for_details(settings, run["id"])
    assert told is not None
    assert (told["id"], told["taskSlug"], told["steps"]) == (run["id"], "hello", [])
    assert told.keys() == runs.details(center, run["id"]).keys()
    assert ask_for_details(settings, "no-such-run") is None
    clear_state(settings.home)
    assert ask_for_details(settings, run["id"]) is None


def test_nobody_is_believed_to_be_the_command_line_without_the_key(settings: Settings, center: Center) -> None:
    for said in ("wrong root", "", " root", "\u00e9 root"):
        headers = {"X-Taskcenter-Cli": said.encode()}
        run = api_client(center).post("/api/tasks/hello/run", json={}, headers=headers).json()
        [entry] = center.store.list_audit(run_id=run["id"])
        assert (entry.actor, entry.channel) == ("local", "api")


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("nope", {}),
    ("hello", {"payload": {"command": 3}}),
    ("hello", {"at": "x"}),
]


@pytest.mark.parametrize(("task", "body"), REFUSED)
def test_what_it_refuses_is_left_to_this_process(
    settings: Settings, center: Center, task: str, body: dict[str, Any]
) -> None:
    assert ask_for_run(settings, task, body) is None
    assert not center.store.list_runs().items


def test_a_command_for_another_center_is_not_asked_there(
    settings: Settings, center: Center, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert ask_for_run(replace(settings, database_url="sqlite:///other.db"), "hello", {}) is None
    monkeypatch.setenv("TASKCENTER_PROJECT", str(tmp_path))
    assert ask_for_run(replace(settings, project=tmp_path / "other"), "hello", {}) is None
    monkeypatch.delenv("TASKCENTER_PROJECT")
    clear_state(settings.home)
    assert ask_for_run(settings, "hello", {}) is None
    assert not center.store.list_runs().items


def test_one_that_breaks_off_may_have_made_it(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        write_state(settings.home, {"serviceUrl": f"http://127.0.0.1:{port}", "databaseUrl": DATABASE})

        def hang_up() -> None:
            connection, _ = deaf.accept()
            connection.recv(100)
            connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(ServerAway, match="runs list"):
            ask_for_run(settings, "hello", {})
    assert ask_for_run(settings, "hello", {}) is None  # nobody listens: nothing was asked


def test_one_that_fails_may_have_made_it(settings: Settings, center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: Any) -> None:
        raise ServerAway("the database went away")

    monkeypatch.setattr(center.store, "record", lost)  # after Prefect has made the flow run
    with pytest.raises(ServerAway, match=r"503: the database went away\).*runs list"):
        ask_for_run(settings, "hello", {})
    assert len(center.gateway.runs) == 1  # type: ignore[attr-defined]


def test_an_answer_of_prefect_that_is_lost_makes_no_second_run(center: Center, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, str] = {}

    def prefect(request: httpx.Request) -> httpx.Response:
        key = json.loads(request.content)["idempotency_key"]
        if key not in made:
            made[key] = f"run-{len(made)}"
            raise httpx.ReadTimeout("too long")
        return httpx.Response(200, json={"id": made[key], "name": "otter", "state_name": "Scheduled"})

    gateway = Gateway("http://prefect/api")
    gateway._client = httpx.Client(base_url=gateway.api_url, transport=httpx.MockTransport(prefect))
    monkeypatch.setattr("taskcenter_adapter.gateway.time.sleep", lambda _: None)
    monkeypatch.setattr(center, "_gateway", gateway)
    center.deployment_ids["shell/hello"] = "d"
    started = [runs.start(center, "hello", Caller("ada", "cli")).id for _ in range(2)]
    assert started == ["run-0", "run-1"]  # each asked for is one; a repeat within it is the same


def test_a_question_that_goes_back_to_the_person_is_no_refusal(settings: Settings, center: Center) -> None:
    client = api_client(center)
    client.patch("/api/tasks/hello", json={"danger": "It greets everybody."}).raise_for_status()
    assert ask_for_run(settings, "hello", {"confirm": False}) is None
    kinds = [entry.event_type for entry in center.store.list_audit()]
    assert "refused" not in kinds
    assert ask_for_run(settings, "hello", {"confirm": True}) is not None
    assert client.post("/api/tasks/hello/run", json={}).status_code == 409
    [entry] = [entry for entry in center.store.list_audit() if entry.event_type == "refused"]
    assert (entry.actor, entry.channel) == ("local", "api")
