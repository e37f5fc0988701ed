"""Cancelling for real: whatever the work is, the run says ``cancelled`` when it is gone and not before. (spec 5.4)"""

from __future__ import annotations

import json
import socket
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from blocks.connections import parse_url
from taskcenter.models import Run
from taskcenter.ports import RunFilter
from taskcenter.status import TERMINAL_RUN, RunPhase, RunStatus
from taskcenter_console.services import cancelling
from taskcenter_console.services import runs as run_service
from taskcenter_console.services import tasks as task_service
from tests.integration.conftest import LiveCenter
from tests.integration.workers import CONNECTIONS, Bench, wait

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="warm processes are forked on Linux only")

GRACE = 10.0
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import os, signal, time; os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
print("at work", flush=True)
time.sleep(300)
"""
LOOP = """
def loop(mark):
    print("at work")
    while True:
        pass
"""
MARK = uuid.uuid4().hex
ASKS = {
    "postgresql": "select count(*) from pg_stat_activity where query like '%{mark}%' and state <> 'idle' and pid <> "
    "pg_backend_pid()",
    "mysql": "select count(*) from information_schema.processlist where info like '%{mark}%' and id <> connection_id()",
}
SLEEPS = {"postgresql": "select pg_sleep(300)", "mysql": "select sleep(300)"}


def statements(dialect: str, mark: str) -> int:
    """How many statements with ``mark`` in their text the server is working on."""
    from sqlalchemy import text

    address = CONNECTIONS[f"TASKCENTER_CONNECTION_TEST_{dialect.upper()}"]
    with parse_url("looking", address).engine() as engine, engine.connect() as connection:
        return int(connection.execute(text(ASKS[dialect].format(mark=mark))).scalar_one())


def save(live: LiveCenter, kind: str, **fields: Any) -> str:
    """A task whose failure would be retried twice."""
    data = {"name": f"cancel-{uuid.uuid4().hex[:8]}", "taskType": kind, "retryPolicy": {"maxAttempts": 2}, **fields}
    return task_service.save(live.center, data, live.caller).slug


def processes_of(run_id: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TASKCENTER_RUN_ID") == run_id and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@dataclass
class Ended:
    """A run that was cancelled at work: how long it took, and whether its work was gone when it said so."""

    run: Run
    seconds: float
    left: int
    too_early: bool = False


@pytest.fixture(scope="module")
def ended(live_center: LiveCenter, bench: Bench) -> dict[str, Ended]:
    """One run of each type, all at work, all cancelled at once."""
    live = live_center
    (live.home / "busy_module.py").write_text(LOOP)
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    shell = {"command": ["python3", "-c", STUBBORN]}
    steps = [
        {"stepKey": "before", "taskType": "shell", "payload": {"command": ["true"]}},
        {"stepKey": "amid", "taskType": "shell", "payload": {"command": ["sleep", "300"]}},
        {"stepKey": "after", "taskType": "shell", "payload": {"command": ["true"]}},
    ]
    edges = [{"fromStepKey": a, "toStepKey": b} for a, b in (("before", "amid"), ("amid", "after"))]
    sql = {d: f"{s} -- {MARK}" for d, s in SLEEPS.items()}
    slugs = {
        "shell": save(live, "shell", payload=shell),
        "postgresql": save(live, "sql_script", payload={"connection": "test-postgresql", "sql": sql["postgresql"]}),
        "mysql": save(live, "sql_script", payload={"connection": "test-mysql", "sql": sql["mysql"]}),
        "python": save(live, "python", payload={"code": "print('at work', flush=True)\nwhile True: pass"}),
        "thread": save(live, "python", payload={"callable": "busy_module:loop", "kwargs": {"mark": MARK}}),
        "http": save(live, "http", payload={"url": f"http://127.0.0.1:{port}/", "timeoutSeconds": 300}),
        "composite": save(live, "composite", graph={"steps": steps, "edges": edges}),
    }
    runs = {kind: run_service.start(live.center, slug, live.caller) for kind, slug in slugs.items()}
    ids = {kind: run.id for kind, run in runs.items()}

    def at_work() -> bool:
        if any(live.store.get_run(run_id).status is not RunStatus.RUNNING for run_id in ids.values()):
            return False
        steps = {step.step_key: step.status.value for step in live.store.list_steps(ids["composite"])}
        said = all(live.store.list_logs(ids[kind]) for kind in ("shell", "python"))
        asleep = all(statements(dialect, MARK) for dialect in SLEEPS)
        return steps.get("amid") == "running" and said and asleep

    wait(at_work, 90, lambda: bench.tail() + str([live.store.get_run(i) for i in ids.values()]))
    begin = time.monotonic()
    for kind, run_id in ids.items():
        if kind != "http":
            run = cancelling.cancel(live.center, run_id, live.caller, reason=f"the {kind} is no longer needed")
            assert (run.status, run.phase) == (RunStatus.RUNNING, RunPhase.CANCELLING), run
    bench.api("POST", f"/flow_runs/{ids['http']}/set_state", {"state": {"type": "CANCELLING"}})  # as Prefect's UI does
    again = cancelling.cancel(live.center, ids["shell"], live.caller)
    assert again.status is RunStatus.RUNNING
    found: dict[str, Ended] = {}

    def over() -> bool:
        for kind, run_id in ids.items():
            run = live.store.get_run(run_id)
            if kind not in found and run.status in TERMINAL_RUN:
                took = time.monotonic() - begin
                left = len(processes_of(run_id)) + len(bench.processes(run_id))
                left += statements(kind, MARK) if kind in SLEEPS else 0
                found[kind] = Ended(run, took, left)
        return len(found) == len(ids)

    wait(over, 60, lambda: bench.tail() + str(set(ids) - set(found)))
    silent.close()
    return found


KINDS = ["shell", "postgresql", "mysql", "python", "thread", "http", "composite"]


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_cancelled_when_the_work_is_gone(ended: dict[str, Ended], kind: str) -> None:
    it = ended[kind]
    assert (it.run.status, it.left) == (RunStatus.CANCELLED, 0), it
    assert it.seconds < GRACE + 2 + 3, it  # three seconds for looking at seven runs on a busy machine


@pytest.mark.parametrize("kind", KINDS)
def test_who_and_why_are_kept_and_no_retry_follows(ended: dict[str, Ended], live_center: LiveCenter, kind: str) -> None:
    run, store = ended[kind].run, live_center.store
    asked = [entry for entry in store.list_audit(run_id=run.id) if entry.event_type == "run_cancel_requested"]
    assert len(asked) == 1
    if kind == "http":
        assert (asked[0].actor, asked[0].channel) == ("prefect", "prefect")
    else:
        assert (asked[0].actor, asked[0].message) == ("tester", f"the {kind} is no longer needed")
        assert f"cancelled by tester: the {kind} is no longer needed" in (run.message or "")
    attempts = store.list_runs(RunFilter(root_run_id=run.root_run_id)).items
    assert [attempt.id for attempt in attempts] == [run.id]
    known = live_center.gateway.find_run(run.id)
    assert known is not None
    assert known["state_type"] == "CANCELLED"


def test_the_steps_of_a_cancelled_composite(ended: dict[str, Ended], live_center: LiveCenter) -> None:
    steps = {step.step_key: step for step in live_center.store.list_steps(ended["composite"].run.id)}
    assert {key: step.status.value for key, step in steps.items()} == {
        "before": "success",
        "amid": "skipped",
        "after": "skipped",
    }
    assert steps["amid"].reason == steps["after"].reason == "the run was cancelled"


def test_a_run_that_is_over_stays_as_it_is(ended: dict[str, Ended], live_center: LiveCenter) -> None:
    run = ended["shell"].run
    assert cancelling.cancel(live_center.center, run.id, live_center.caller, reason="again") == run
    done = run_service.start(live_center.center, save(live_center, "shell", payload={"command": ["true"]}),
                             live_center.caller)  # fmt: skip
    done = run_service.wait(live_center.center, done.id, timeout=30)
    assert done.status is RunStatus.SUCCESS
    assert cancelling.cancel(live_center.center, done.id, live_center.caller) == done


@pytest.mark.alone
def test_what_waits_is_cancelled_at_once_and_never_starts(live_center: LiveCenter, bench: Bench) -> None:
    live = live_center
    slug = save(live, "shell", payload={"command": ["touch", str(live.home / "never")]})
    run = run_service.start(live.center, slug, live.caller, at=datetime.now(UTC) + timedelta(seconds=3))
    begin = time.monotonic()
    gone = cancelling.cancel(live.center, run.id, live.caller)
    assert time.monotonic() - begin < 2
    assert (gone.status, gone.phase, gone.started_at) == (RunStatus.CANCELLED, None, None)
    time.sleep(4)
    assert not (live.home / "never").exists()
    seen = [row["type"] for row in bench.api("GET", f"/flow_run_states/?flow_run_id={run.id}")]
    assert seen == ["SCHEDULED", "CANCELLED"]


def test_a_killed_run_leaves_no_statement_on_the_server(live_center: LiveCenter, bench: Bench) -> None:
    """Nobody is left to cancel it: the server looks by itself."""
    live, mark = live_center, uuid.uuid4().hex
    slug = save(live, "sql_script", payload={"connection": "test-postgresql", "sql": f"select pg_sleep(300) -- {mark}"},
                retryPolicy={"maxAttempts": 0})  # fmt: skip
    run = run_service.start(live.center, slug, live.caller)
    wait(lambda: statements("postgresql", mark), 30, bench.tail)
    pid, _, _ = json.loads((live.home / "run" / "processes" / run.id).read_text())
    psutil.Process(pid).kill()
    over = run_service.wait(live.center, run.id, timeout=10)
    assert (over.status, over.phase) == (RunStatus.FAILED, RunPhase.CRASHED)
    wait(lambda: not statements("postgresql", mark), 10)
