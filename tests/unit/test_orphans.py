"""A run whose process is gone is told to Prefect; one that lives, or lives elsewhere, is left alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

from taskcenter_adapter.orphans import close_orphans, is_orphan

HOST = socket.gethostname()


def run(pid: str) -> dict[str, Any]:
    return {"id": "11111111-2222-3333-4444-555555555555", "infrastructure_pid": pid}


def test_a_process_that_carries_the_run_is_alive() -> None:
    env = {**os.environ, "PREFECT__FLOW_RUN_ID": run("")["id"]}
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=env)
    try:
        assert not is_orphan(run(f"{HOST}:{child.pid}"), HOST)
    finally:
        child.communicate(b"\n")
    assert is_orphan(run(f"{HOST}:{child.pid}"), HOST)


def test_a_number_that_another_process_has_now_is_no_life_sign() -> None:
    assert is_orphan(run(f"{HOST}:{os.getpid()}"), HOST)


def test_runs_of_other_machines_and_of_nobody_are_not_judged() -> None:
    for pid in ("elsewhere:1", "", "x", f"{HOST}:abc"):
        assert not is_orphan(run(pid), HOST)


def test_prefect_is_told() -> None:
    class Told:
        def __init__(self) -> None:
            self.states: list[tuple[str, str]] = []

        def open_runs(self, tag: str) -> list[dict[str, Any]]:
            return [run(f"{HOST}:{os.getpid()}"), run("elsewhere:1")]

        def set_run_state(self, run_id: str, kind: str, message: str = "") -> None:
            self.states.append((run_id, kind))

    gateway: Any = Told()
    assert close_orphans(gateway) == [run("")["id"]]
    assert gateway.states == [(run("")["id"], "CRASHED")]
