"""The command line asks the service that runs, and never makes one run twice. (spec 7.3)"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from taskcenter.errors import ServerAway
from taskcenter.settings import Settings
from taskcenter_adapter.processes import free_port
from taskcenter_adapter.state import clear_state, write_state
from taskcenter_console.api.app import make_app
from taskcenter_console.commands.asking import ask_for_run, user_name
from taskcenter_console.services.center import Center
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
    run_id = ask_for_run(settings, "hello", {"payload": {"command": ["date"]}})
    assert run_id is not None
    [entry] = center.store.list_audit(run_id=run_id)
    assert (entry.event_type, entry.actor, entry.channel) == ("manual_run_requested", user_name(), "cli")


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
