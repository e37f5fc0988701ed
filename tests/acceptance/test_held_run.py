"""A run that is held stays so whatever becomes of the service, and goes on where it was. (spec 5.6)"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import httpx

from tests.acceptance.conftest import Started
from tests.acceptance.test_attempts import until


def test_a_held_run_outlives_the_service(up: Started, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    loop = f"i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i > {counter}; sleep 0.05; done"
    argv = ("task", "create", "--name", "counts-on", "--type", "shell", "--set", f'command=["/bin/sh", "-c", "{loop}"]')
    assert up.taskcenter(*argv).returncode == 0
    run = httpx.post(f"{up.state['serviceUrl']}/api/tasks/counts-on/run", json={}, timeout=20).json()["id"]
    until(lambda: counter.exists() and counter.read_text().strip())
    assert up.taskcenter("runs", "pause", run).returncode == 0
    time.sleep(1)
    stood = counter.read_text()

    os.kill(_service(up), signal.SIGKILL)
    until(lambda: _answers(up))
    assert up.api(f"/api/runs/{run}")["phase"] == "paused"
    assert counter.read_text() == stood

    assert up.taskcenter("runs", "continue", run).returncode == 0
    until(lambda: int(counter.read_text().strip() or 0) > int(stood))
    assert int(counter.read_text().strip() or 0) < int(stood) + 100  # from there, and not from the beginning
    assert up.taskcenter("runs", "cancel", run).returncode == 0
    until(lambda: up.api(f"/api/runs/{run}")["status"] == "cancelled")


def _service(up: Started) -> int:
    return int(json.loads((up.home / "run" / "state.json").read_text())["children"]["service"])


def _answers(up: Started) -> bool:
    try:
        return httpx.get(f"{up.state['serviceUrl']}/api/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
