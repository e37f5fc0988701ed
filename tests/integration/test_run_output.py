"""Much output, and results of every kind, through a run of their own. (spec 5.6, 6.2)"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from taskcenter.status import RunStatus
from taskcenter_console.cli import cli
from taskcenter_console.services import runs as run_service
from taskcenter_console.services import tasks as task_service
from tests.fakes import api_client
from tests.integration.conftest import LiveCenter
from tests.integration.workers import Bench, wait

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="memory is read from /proc")

LINES = 500_000
PRINTS = f"awk 'BEGIN {{ for (i = 0; i < {LINES}; i++) printf \"%099d\\n\", i }}'"


def save(live: LiveCenter, kind: str, payload: dict[str, Any]) -> str:
    data = {"name": f"output-{uuid.uuid4().hex[:8]}", "taskType": kind, "payload": payload}
    return task_service.save(live.center, data, live.caller).slug


def peak_kb(pid: int) -> int:
    """The most memory a process ever had resident; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def test_fifty_megabytes_of_output_neither_block_nor_fill_memory(live_center: LiveCenter, bench: Bench) -> None:
    live = live_center
    slug = save(live, "shell", {"shell": f"sleep 1; {PRINTS}; sleep 1", "captureOutput": True})
    run_id = run_service.start(live.center, slug, live.caller).id
    wait(lambda: bench.processes(run_id), 20, bench.tail)
    seen: dict[int, list[int]] = {}
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            for pid in bench.processes(run_id):
                seen.setdefault(pid, []).append(peak_kb(pid))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        run = run_service.wait(live.center, run_id, timeout=120)
    finally:
        done.set()
        watcher.join()
    assert run.status is RunStatus.SUCCESS, bench.tail()
    grown = max(max(peaks) - peaks[0] for peaks in seen.values())
    assert grown < 100 * 1024, f"{grown / 1024:.0f} MB more than at the start"
    assert run.result["stdoutTail"].endswith(f"{LINES - 1:099d}\n")


def test_prefects_own_command_cancels_a_run(live_center: LiveCenter, bench: Bench) -> None:
    live = live_center
    slug = save(live, "shell", {"command": ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"]})
    run_id = run_service.start(live.center, slug, live.caller).id
    wait(lambda: live.store.get_run(run_id).status is RunStatus.RUNNING, 20, bench.tail)
    wait(lambda: len(bench.processes(run_id)) > 1, 20, bench.tail)
    argv = [sys.executable, "-m", "prefect", "flow-run", "cancel", run_id]
    env = {**os.environ, "PREFECT_API_URL": live.api_url}
    said = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=env, check=False)
    assert said.returncode == 0, said.stderr
    ended = run_service.wait(live.center, run_id, timeout=30)
    assert ended.status is RunStatus.CANCELLED
    assert bench.processes(run_id) == []
    assert bench.state(run_id)["type"] == "CANCELLED"
    [entry] = [e for e in live.store.list_audit(run_id=run_id) if e.event_type == "run_cancel_requested"]
    assert (entry.actor, entry.channel) == ("prefect", "prefect")


EVERY_KIND: dict[str, Any] = {
    "none": None, "yes": True, "no": False, "zero": 0, "negative": -7, "beyond float": 2**53 + 1, "huge": 10**60,
    "float": 0.1, "tiny": 5e-324, "large": 1.7976931348623157e308, "whole": 1e23, "minus zero": -0.0,
    "text": "Ünïcödé 日本 🚀 \u202e \"quoted\" \\ \t\n", "empty text": "", "list": [], "object": {}, "": "empty key",
    "deep": {"a": [{"b": [[], [None, {"c": [1, 2.5, "x"]}]]}]}, "rows": [[n, str(n)] for n in range(300)],
}  # fmt: skip
"""What JSON can say, which comes back as it was."""
RETURNS = f"result = {{**{EVERY_KIND!r}, 'nul': 'a\\x00b', 'half': 'a\\ud800b', 'key\\x00': 1}}"
REPLACED = {"nul": "a\ufffdb", "half": "a\ufffdb", "key\ufffd": 1, "minus zero": 0.0}
"""What the database cannot hold is the same through every door: one character, and a zero without its sign."""


def test_a_result_of_every_kind_comes_back_the_same_through_every_door(live: LiveCenter, bench: Bench) -> None:
    slug = save(live, "python", {"code": RETURNS})
    run = run_service.wait(live.center, run_service.start(live.center, slug, live.caller).id, timeout=40)
    assert run.status is RunStatus.SUCCESS, (run.error, bench.tail())
    wanted = {**EVERY_KIND, **REPLACED}
    doors = {
        "row": run.result,
        "REST": api_client(live.center).get(f"/api/runs/{run.id}").json()["result"],
        "command": json.loads(CliRunner().invoke(cli, ["runs", "show", run.id, "--json"]).stdout)["result"],
    }
    for door, found in doors.items():
        assert json.dumps(found["result"], sort_keys=True) == json.dumps(wanted, sort_keys=True), door


@pytest.mark.parametrize(
    ("code", "path"),
    [
        ("result = {'rows': [1, {'share': float('nan')}]}", "result.rows[1].share"),
        ("result = [float('-inf')]", "result[0]"),
        ("result = {'x': object()}", "result.x"),
    ],
)
def test_a_result_that_is_no_json_is_refused_with_its_path(
    live: LiveCenter, bench: Bench, code: str, path: str
) -> None:
    slug = save(live, "python", {"code": code})
    run = run_service.wait(live.center, run_service.start(live.center, slug, live.caller).id, timeout=40)
    assert run.status is RunStatus.FAILED, bench.tail()
    assert path in (run.error or "")
    assert run.result is None
