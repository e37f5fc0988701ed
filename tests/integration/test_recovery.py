"""Whatever is killed, each run ends once, and nothing runs twice at once. (spec 5.3)"""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from taskcenter.clock import utc_now
from taskcenter.errors import ServerAway
from taskcenter.scheduling.state import OpenRun
from taskcenter.status import RunPhase, RunStatus
from taskcenter_adapter.leases import Lease, this_machine
from taskcenter_adapter.run_gate import Asked, RunGate
from taskcenter_adapter.run_leases import CLOSING, LEASE, RunLeases
from taskcenter_adapter.store_sql import SqlStore
from taskcenter_console.services import runs as run_service
from taskcenter_console.services import tasks as task_service
from taskcenter_console.services.rescuing import Rescuer
from tests.integration.conftest import LiveCenter
from tests.integration.workers import Bench, begin, lives, wait

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="warm processes are forked on Linux only")

STEPS = [
    {"stepKey": "done", "taskType": "shell", "payload": {"command": ["true"]}},
    {"stepKey": "amid", "taskType": "shell", "payload": {"command": ["sleep", "300"]}},
]
GRAPH = {"steps": STEPS, "edges": [{"fromStepKey": "done", "toStepKey": "amid"}]}


@pytest.fixture
def worker(live_center: LiveCenter, tmp_path: Path) -> Iterator[Callable[[], Bench]]:
    """Starts a worker on the pool of the tasks; whatever state it is left in, it is ended."""
    made: list[Bench] = []

    def make() -> Bench:
        made.append(begin(live_center, tmp_path / "project", "taskcenter", 4))
        return made[-1]

    yield make
    for bench in made:
        bench.worker.process.send_signal(signal.SIGCONT)
        bench.worker.stop()


def leases_of(live: LiveCenter) -> RunLeases:
    assert isinstance(live.store, SqlStore)
    return RunLeases(live.store)


def lease(live: LiveCenter, run_id: str) -> list[Lease]:
    """The lease of one run; other tests may have left theirs."""
    return [held for held in leases_of(live).runs() if held.name == run_id]


def claim(live: LiveCenter, run_id: str, holder: str) -> None:
    """As a worker does before it starts a run."""
    now = utc_now()
    asked = Asked(OpenRun(run_id, "", now))
    assert isinstance(live.store, SqlStore)
    assert RunGate(live.store).admit([asked], holder, now, this_machine()).start == (run_id,)


def start(live: LiveCenter, **fields: Any) -> str:
    data = {"name": f"recover-{uuid.uuid4().hex[:8]}", "taskType": "composite", "graph": GRAPH, **fields}
    task = task_service.save(live.center, data, live.caller)
    return run_service.start(live.center, task.slug, live.caller).id


def until_amid(live: LiveCenter, run_id: str, bench: Bench) -> int:
    """Waits for the step in the middle; gives the pid of the run's process."""
    wait(lambda: any(s.step_key == "amid" and s.status.value == "running" for s in live.store.list_steps(run_id)), 40,
         bench.tail)  # fmt: skip
    note = json.loads((live.home / "run" / "processes" / run_id).read_text())
    return int(note[0])


def assert_lost(live: LiveCenter, run_id: str, bench: Bench) -> None:
    run = live.store.get_run(run_id)
    assert (run.status, run.phase) == (RunStatus.FAILED, RunPhase.LOST), run
    assert "worker" in (run.error or "")
    steps = {s.step_key: s.status.value for s in live.store.list_steps(run_id)}
    assert steps == {"done": "success", "amid": "failed"}
    assert bench.state(run_id)["type"] == "CRASHED"
    assert bench.processes(run_id) == []
    assert lease(live, run_id) == []


def test_a_run_has_a_lease_as_long_as_it_runs(live_center: LiveCenter, worker: Callable[[], Bench]) -> None:
    live, bench = live_center, worker()
    graph = {"steps": [{"stepKey": "nap", "taskType": "wait", "payload": {"seconds": 13}}], "edges": []}
    run_id = start(live, graph=graph)
    [held] = wait(lambda: lease(live, run_id), 20, bench.tail)
    assert (held.name, held.here, held.dead) == (run_id, True, False)
    again = wait(lambda: [h for h in lease(live, run_id) if h.until > held.until], 10, bench.tail)
    assert again[0].epoch == held.epoch
    [known] = [w for w in leases_of(live).workers() if w.holder == held.holder]
    assert (known.facts["limit"], known.facts["pool"], run_id in known.facts["runs"]) == (4, "taskcenter", True)
    assert run_service.wait(live.center, run_id, timeout=30).status is RunStatus.SUCCESS
    wait(lambda: not lease(live, run_id), 10)
    bench.worker.stop(60)
    assert [w for w in leases_of(live).workers() if w.holder == held.holder] == []


def test_worker_warm_process_and_run_killed_together(live_center: LiveCenter, worker: Callable[[], Bench]) -> None:
    """Nobody is left to say anything; known at once, since their machine is ours."""
    live, bench = live_center, worker()
    run_id = start(live)
    pid = until_amid(live, run_id, bench)
    rescuer = Rescuer(live.center)
    assert run_id not in rescuer.look(utc_now())
    for victim in (bench.worker.process.pid, bench.zygote().pid, pid):
        os.kill(victim, signal.SIGKILL)
    bench.worker.process.wait(10)
    for left in bench.processes(run_id):
        psutil.Process(left).kill()
    wait(lambda: run_id in rescuer.look(utc_now()), 10, bench.tail)
    assert_lost(live, run_id, bench)
    assert run_id not in rescuer.look(utc_now())
    second = worker()
    done = start(live, graph={"steps": STEPS[:1], "edges": []})
    assert run_service.wait(live.center, done, timeout=30).status is RunStatus.SUCCESS, second.tail()


def test_a_silent_worker_loses_its_run_and_writes_nothing_more(
    live_center: LiveCenter, worker: Callable[[], Bench]
) -> None:
    """The worker stands still; its run goes on until the lease is over, and is ended before it is closed."""
    live, bench = live_center, worker()
    run_id = start(live)
    pid = until_amid(live, run_id, bench)
    os.kill(bench.worker.process.pid, signal.SIGSTOP)
    rescuer, over = Rescuer(live.center), utc_now() + LEASE + timedelta(seconds=6)
    assert run_id not in rescuer.look(over)  # it has only begun to look: the lease may be renewed in a moment
    assert lives(pid)
    assert run_id in Rescuer(live.center).look(over, patient=False)
    assert not lives(pid)
    assert_lost(live, run_id, bench)
    os.kill(bench.worker.process.pid, signal.SIGCONT)
    done = start(live, graph={"steps": STEPS[:1], "edges": []})
    assert run_service.wait(live.center, done, timeout=30).status is RunStatus.SUCCESS, bench.tail()
    time.sleep(1)
    wait(lambda: not lease(live, run_id), 10)
    assert_lost(live, run_id, bench)


def test_a_run_that_was_only_claimed_waits_again(live_center: LiveCenter, worker: Callable[[], Bench]) -> None:
    live = live_center
    run_id = start(live, graph={"steps": STEPS[:1], "edges": []})
    live.gateway.set_run_state(run_id, "PENDING")
    now = utc_now()
    claim(live, run_id, "here/4194304@1")
    assert run_id in Rescuer(live.center).look(now)
    known = live.gateway.find_run(run_id)
    assert known is not None
    assert known["state_type"] == "SCHEDULED"
    bench = worker()
    assert run_service.wait(live.center, run_id, timeout=40).status is RunStatus.SUCCESS, bench.tail()


def test_a_rescue_that_fails_is_tried_again(live_center: LiveCenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker and Prefect server were killed together: the run is not forgotten because nobody could be told."""
    live = live_center
    run_id = start(live, graph={"steps": STEPS[:1], "edges": []})
    live.gateway.set_run_state(run_id, "PENDING")
    leases, now = leases_of(live), utc_now()
    claim(live, run_id, "here/4194304@1")
    rescuer = Rescuer(live.center)

    def away(*args: object) -> None:
        raise ServerAway("the Prefect server does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(live.center.gateway, "find_run", away)
        assert run_id not in rescuer.look(now)
    assert run_id not in rescuer.look(now)  # somebody else may be at it
    assert run_id in rescuer.look(now + CLOSING)
    known = live.gateway.find_run(run_id)
    assert known is not None
    assert known["state_type"] == "SCHEDULED"
    assert run_id not in {held.name for held in leases.runs()}
    live.gateway.set_run_state(run_id, "CANCELLED")


def test_a_run_whose_start_could_not_be_told_waits_again(live_center: LiveCenter, worker: Callable[[], Bench]) -> None:
    """The Prefect server was away when the run began: the worker leaves it, and it begins anew."""
    live = live_center
    run_id = start(live, graph={"steps": STEPS[:1], "edges": []})
    live.gateway.set_run_state(run_id, "PENDING")
    leases, now = leases_of(live), utc_now()
    claim(live, run_id, "me")
    leases.leave(run_id, "me", now)
    assert run_id in Rescuer(live.center).look(now)
    bench = worker()
    assert run_service.wait(live.center, run_id, timeout=40).status is RunStatus.SUCCESS, bench.tail()
