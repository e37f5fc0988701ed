"""The scheduler of a whole center, as a user meets it: attempts, kills, pauses, Prefect's own command."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.conftest import Started


def until(true: Callable[[], Any], seconds: float = 40) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def make(up: Started, name: str, command: str, *trigger: str) -> None:
    argv = ("task", "create", "--name", name, "--type", "shell", "--set", f'command=["/bin/sh", "-c", "{command}"]')
    done = up.taskcenter(*argv)
    assert done.returncode == 0, done.stderr
    done = up.taskcenter("trigger", "add", name, *trigger)
    assert done.returncode == 0, done.stderr


def runs(up: Started, name: str) -> list[dict[str, Any]]:
    """Oldest first."""
    found: list[dict[str, Any]] = up.api(f"/api/runs?task={name}")["items"]
    return sorted(found, key=lambda run: run["attempt"])


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_each_attempt_is_a_run_at_its_time(up: Started) -> None:
    make(up, "tries", "exit 3", "--at", "+1s", "--retries", "2", "--backoff", "2000")
    found = until(lambda: len(r := runs(up, "tries")) == 3 and r[2]["status"] == "failed" and r)
    assert [(r["attempt"], r["origin"]) for r in found] == [
        (1, "scheduler"), (2, "scheduler_retry"), (3, "scheduler_retry"),
    ]  # fmt: skip
    assert {r["rootRunId"] for r in found} == {found[0]["id"]}
    for before, after, seconds in ((found[0], found[1], 2), (found[1], found[2], 4)):
        waited = (at(after["startedAt"]) - at(before["finishedAt"])).total_seconds()
        assert seconds <= waited < seconds + 4
    ledger = up.api("/api/tasks/tries/ledger")
    assert [row["verdict"] for row in ledger["items"]] == ["fired"]
    assert ledger["items"][0]["runId"] == found[0]["id"]


def test_an_attempt_that_is_killed_counts(up: Started) -> None:
    marker = "sleep 97"
    make(up, "killed", marker, "--at", "+1s", "--retries", "1", "--backoff", "1000")
    until(lambda: (r := runs(up, "killed")) and r[0]["status"] == "running")
    until(lambda: _processes(marker))
    for pid in {_parent(pid) for pid in _processes(marker)}:
        os.kill(pid, signal.SIGKILL)
    found = until(lambda: len(r := runs(up, "killed")) == 2 and r[0]["status"] == "failed" and r)
    assert found[1]["attempt"] == 2
    for run in found:
        up.taskcenter("runs", "cancel", run["id"])


def _processes(marker: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                argv = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if argv[:1] == [b"/bin/sh"] and marker.encode() in b" ".join(argv):
                found.append(int(entry.name))
    return found


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_pause_keeps_attempts_waiting(up: Started) -> None:
    make(up, "waits", "exit 3", "--at", "+1s", "--retries", "1", "--backoff", "8000")
    until(lambda: (r := runs(up, "waits")) and r[0]["status"] == "failed")
    held = httpx.post(f"{up.state['serviceUrl']}/api/scheduler/hold", json={"state": "paused", "reason": "a test"})
    assert held.status_code == 200, held.text
    try:
        time.sleep(11)
        assert [r["status"] for r in runs(up, "waits")][1:] in ([], ["queued"])
        assert "a test" in up.taskcenter("scheduler", "state").stdout
    finally:
        assert up.taskcenter("scheduler", "resume").returncode == 0
    until(lambda: [r["status"] for r in runs(up, "waits")] == ["failed", "failed"])


def test_prefects_own_command_switches_a_trigger_off(up: Started) -> None:
    make(up, "switched", "true", "--cron", "0 3 * * *")
    url = f"{up.state['prefectApiUrl']}/deployments/name/shell/switched"
    (schedule,) = httpx.get(url, timeout=10).json()["schedules"]
    done = up.shell("prefect", "deployment", "schedule", "pause", "shell/switched", schedule["id"])
    assert done.returncode == 0, done.stderr
    begin = time.monotonic()
    until(lambda: not up.api("/api/tasks/switched")["triggers"][0]["enabled"])
    assert time.monotonic() - begin < 15
    audit = up.api("/api/audit")["items"]
    assert any(entry["actor"] == "prefect" and entry["object"] == "task switched" for entry in audit)
