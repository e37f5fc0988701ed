"""Holding a run really stops it, and ``maxRuntime`` really ends it. (spec 5.5, 5.7)"""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import psutil
import pytest

from taskcenter.errors import Refused
from taskcenter.models import Run
from taskcenter.status import RunPhase, RunStatus
from taskcenter_console.services import cancelling, pausing
from taskcenter_console.services import runs as run_service
from taskcenter_console.services import tasks as task_service
from tests.integration.conftest import LiveCenter
from tests.integration.workers import Bench, wait

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="warm processes are forked on Linux only")

COUNT = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i > {file}; sleep 0.05; done"
STUBBORN = (
    "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "if os.fork() == 0: os.setsid()\n"
    "open({file!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(60)"
)
LOOP = "def loop():\n    while True:\n        pass\n"


def start(live: LiveCenter, kind: str, **fields: Any) -> str:
    data = {"name": f"hold-{uuid.uuid4().hex[:8]}", "taskType": kind, **fields}
    task = task_service.save(live.center, data, live.caller)
    return run_service.start(live.center, task.slug, live.caller).id


def number(file: Path) -> int:
    try:
        return int(file.read_text() or 0)
    except (OSError, ValueError):
        return 0


def over(live: LiveCenter, run_id: str, timeout: float = 30) -> Run:
    return run_service.wait(live.center, run_id, timeout=timeout)


# hold --------------------------------------------------------------------------------------------------------


def test_a_held_counter_stands_still_and_goes_on_where_it_was(live_center: LiveCenter, bench: Bench) -> None:
    live, file = live_center, live_center.home / "counter"
    run_id = start(live, "shell", payload={"command": ["sh", "-c", COUNT.format(file=file)], "timeoutSeconds": 8})
    wait(lambda: number(file) > 5, 30, bench.tail)
    asked = time.monotonic()
    held = pausing.pause(live.center, run_id, live.caller, reason="the server is slow")
    assert (held.status, held.phase) == (RunStatus.RUNNING, RunPhase.PAUSED)
    assert "held by tester: the server is slow since" in (held.message or "")
    assert pausing.pause(live.center, run_id, live.caller) == held
    seen = -1
    while seen != (seen := number(file)):
        time.sleep(0.4)
    stopped_after = time.monotonic() - asked - 0.8
    assert stopped_after < 1 + 2, stopped_after  # two seconds for a busy machine
    time.sleep(9)  # longer than its time-out
    assert number(file) == seen
    assert live.store.get_run(run_id).phase is RunPhase.PAUSED
    assert bench.state(run_id)["type"] == "PAUSED"
    going = pausing.proceed(live.center, run_id, live.caller)
    assert (going.status, going.phase) == (RunStatus.RUNNING, None)
    wait(lambda: seen < number(file) < seen + 60, 5, bench.tail)
    with pytest.raises(Refused):
        pausing.proceed(live.center, run_id, live.caller)
    events = [entry.event_type for entry in live.store.list_audit(run_id=run_id)]
    assert events.count("run_paused") == events.count("run_continued") == 1
    cancelling.cancel(live.center, run_id, live.caller)
    assert over(live, run_id).status is RunStatus.CANCELLED


def test_a_held_composite_starts_no_step_and_may_be_cancelled(live_center: LiveCenter, bench: Bench) -> None:
    live = live_center
    steps = [{"stepKey": key, "taskType": "wait", "payload": {"seconds": 1}} for key in ("a", "b")]
    graph = {"steps": steps, "edges": [{"fromStepKey": "a", "toStepKey": "b"}]}
    first, second = start(live, "composite", graph=graph), start(live, "composite", graph=graph)
    for run_id in (first, second):
        wait(lambda run_id=run_id: live.store.get_run(run_id).status is RunStatus.RUNNING, 30, bench.tail)  # type: ignore[misc]
        bench.api(
            "POST", f"/flow_runs/{run_id}/set_state", {"state": {"type": "PAUSED"}, "force": True}
        )  # as a UI does
    wait(lambda: all(live.store.get_run(r).phase is RunPhase.PAUSED for r in (first, second)), 10, bench.tail)
    time.sleep(3)
    for run_id in (first, second):
        assert {s.step_key: s.status.value for s in live.store.list_steps(run_id)}["b"] == "pending"
    pausing.proceed(live.center, first, live.caller)
    assert over(live, first).status is RunStatus.SUCCESS
    cancelling.cancel(live.center, second, live.caller)
    assert over(live, second).status is RunStatus.CANCELLED
    with pytest.raises(Refused):
        pausing.pause(live.center, second, live.caller)


def test_a_loop_in_the_runs_own_process_stands_still(live_center: LiveCenter, bench: Bench) -> None:
    live = live_center
    (live.home / "looping.py").write_text(LOOP)
    run_id = start(live, "python", payload={"callable": "looping:loop"})
    wait(lambda: live.store.get_run(run_id).status is RunStatus.RUNNING, 30, bench.tail)
    pid = json.loads((live.home / "run" / "processes" / run_id).read_text())[0]
    pausing.pause(live.center, run_id, live.caller)
    wait(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, 5, bench.tail)
    cancelling.cancel(live.center, run_id, live.caller)
    assert over(live, run_id).status is RunStatus.CANCELLED
    wait(lambda: not psutil.pid_exists(pid), 5)


# limit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tree", "thread", "composite"])
def test_the_limit_ends_the_whole_tree(live_center: LiveCenter, bench: Bench, kind: str) -> None:
    live, file = live_center, live_center.home / f"pids-{kind}"
    (live.home / "looping.py").write_text(LOOP)
    payload = {"command": ["python3", "-c", STUBBORN.format(file=str(file))]}
    steps = [{"stepKey": "a", "taskType": "shell", "payload": payload}]
    fields: dict[str, Any] = {
        "tree": {"payload": payload},
        "thread": {"payload": {"callable": "looping:loop"}},
        "composite": {"graph": {"steps": steps, "edges": []}},
    }[kind]
    name = {"tree": "shell", "thread": "python", "composite": "composite"}[kind]
    run_id = start(live, name, termination={"maxRuntime": 3}, **fields)
    done = over(live, run_id)
    assert (done.status, done.phase, done.error) == (
        RunStatus.FAILED,
        RunPhase.TIMED_OUT,
        "stopped after 3 s (maxRuntime)",
    )
    assert done.duration_ms is not None
    assert 3000 <= done.duration_ms < 3000 + 2000 + 1500, done  # and a busy machine
    wait(lambda: bench.state(run_id)["name"] == "TimedOut", 5, bench.tail)
    pids = [int(line) for line in file.read_text().split()] if file.exists() else []
    assert len(pids) == (0 if kind == "thread" else 2)
    wait(lambda: not any(psutil.pid_exists(pid) for pid in pids), 2)
    if kind == "composite":
        [step] = live.store.list_steps(run_id)
        assert (step.status.value, "ran longer than it may" in str(step.reason)) == ("skipped", True)
    time.sleep(1)
    assert live.store.get_run(run_id) == done
    assert bench.processes(run_id) == []


def test_without_a_kill_it_is_said_and_goes_on(live_center: LiveCenter, bench: Bench) -> None:
    live = live_center
    run_id = start(live, "shell", payload={"command": ["sleep", "3"]},
                   termination={"maxRuntime": 1, "killOnTimeout": False})  # fmt: skip
    assert over(live, run_id).status is RunStatus.SUCCESS
    assert "run_overdue" in [entry.event_type for entry in live.store.list_audit(run_id=run_id)]
    names = [event.name for event in live.store.list_events(limit=1000) if event.payload.get("runId") == run_id]
    assert names == ["task_run_started", "task_run_overdue", "task_run_finished"]


def test_a_held_run_is_not_over_its_limit(live_center: LiveCenter, bench: Bench) -> None:
    live = live_center
    run_id = start(live, "wait", payload={"seconds": 1}, termination={"maxRuntime": 3})
    wait(lambda: live.store.get_run(run_id).status is RunStatus.RUNNING, 30, bench.tail)
    pausing.pause(live.center, run_id, live.caller)
    time.sleep(5)
    assert live.store.get_run(run_id).phase is RunPhase.PAUSED
    pausing.proceed(live.center, run_id, live.caller)
    done = over(live, run_id)
    assert done.status is RunStatus.SUCCESS, (done, os.getloadavg())


@pytest.mark.parametrize(
    ("code", "limits", "said"),
    [
        ("def f():\n    while True:\n        pass\n", {"cpuSeconds": 1},
         "it used more than 1 CPU seconds (cpuSeconds)"),
        ("import time\ndef f():\n    kept = b'x' * (300 << 20)\n    time.sleep(60)\n", {"memoryMb": 200},
         "it needed more than 200 MB of memory (memoryMb)"),
    ],
)  # fmt: skip
def test_a_run_that_uses_too_much_ends_and_says_what(
    live_center: LiveCenter, bench: Bench, code: str, limits: dict[str, Any], said: str
) -> None:
    """In the run's own process, which no limit of the kernel can tell apart from its work."""
    live = live_center
    name = f"greedy_{uuid.uuid4().hex[:8]}"
    (live.home / f"{name}.py").write_text(code)
    run_id = start(live, "python", payload={"callable": f"{name}:f"}, termination={"limits": limits})
    run = run_service.wait(live.center, run_id, timeout=40)
    assert (run.status, run.phase, run.error) == (RunStatus.FAILED, None, f"stopped: {said}"), bench.tail()
    assert bench.until(run_id, "FAILED", timeout=20)["message"] == f"stopped: {said}"
    wait(lambda: not bench.processes(run_id), 20, bench.tail)
