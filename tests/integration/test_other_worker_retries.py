"""Retries under Prefect's own process worker: an attempt that failed, one that was killed, and one that a person ends.

The deployments are the same; gate, rows and attempts are the product's whoever executes. (spec 4.8, 5.2)
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from taskcenter.clock import utc_now
from taskcenter.models import Run
from taskcenter.ports import RunFilter
from taskcenter.status import TERMINAL_RUN, Origin, RunStatus
from taskcenter_adapter.prefect_server import start_worker
from taskcenter_adapter.processes import Child
from taskcenter_adapter.reconcile import reconcile
from taskcenter_console.scheduler.leader import Scheduler
from taskcenter_console.services import tasks as task_service
from tests.integration.conftest import LiveCenter
from tests.integration.workers import wait

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are found in /proc")


@pytest.fixture(scope="module")
def other(live_center: LiveCenter) -> Iterator[Child]:
    """Prefect's process worker on the pool of the tasks, and a service's scheduler."""
    env = {"TASKCENTER_PROJECT": str(live_center.home), "TASKCENTER_DATABASE_URL": live_center.database_url,
           "PREFECT_WORKER_QUERY_SECONDS": "0.5"}  # fmt: skip
    worker = start_worker(live_center.home, live_center.api_url, limit=4, kind="process", env=env)
    scheduler = Scheduler(live_center.settings)
    scheduler.start()
    try:
        wait(lambda: scheduler.leads, 20)
        yield worker
    finally:
        scheduler.stop()
        worker.stop()


def soon(live: LiveCenter, command: str, retries: int = 1) -> str:
    """A task that fires in a moment and is tried again; its id."""
    trigger = {"type": "one_shot", "runAt": (utc_now() + timedelta(seconds=1.5)).isoformat(),
               "retryPolicy": {"maxAttempts": retries, "backoffMs": 1000}}  # fmt: skip
    data = {"name": f"other-{uuid.uuid4().hex[:8]}", "taskType": "shell",
            "payload": {"command": ["/bin/sh", "-c", command]}, "triggers": [trigger]}  # fmt: skip
    return task_service.save(live.center, data, live.caller).id


def attempts(live: LiveCenter, task_id: str) -> list[Run]:
    return sorted(live.store.list_runs(RunFilter(task_id=task_id)).items, key=lambda run: run.attempt)


def over(live: LiveCenter, task_id: str, count: int, said: Any, timeout: float = 60) -> list[Run]:
    def done() -> list[Run] | None:
        runs = attempts(live, task_id)
        return runs if len(runs) == count and all(run.status in TERMINAL_RUN for run in runs) else None

    found: list[Run] = wait(done, timeout, said)
    return found


def test_a_failed_and_a_killed_attempt_are_tried_again(live_center: LiveCenter, other: Child, tmp_path: Path) -> None:
    live = live_center
    marker = f"sleep 9{uuid.uuid4().int % 10**6}"
    once = tmp_path / "once"
    fails = soon(live, f"test -e {once} || {{ touch {once}; exit 3; }}")
    killed = soon(live, marker)
    runs = over(live, fails, 2, lambda: other.tail(60))
    assert [(run.attempt, run.origin, run.status) for run in runs] == [
        (1, Origin.SCHEDULER, RunStatus.FAILED), (2, Origin.SCHEDULER_RETRY, RunStatus.SUCCESS),
    ]  # fmt: skip
    assert {run.root_run_id for run in runs} == {runs[0].id}
    assert {run.total_attempts for run in runs} == {2}
    assert at_least_apart(runs, 1.0)
    victims = wait(lambda: processes(marker), 40, lambda: other.tail(60))
    engines = {psutil.Process(pid).ppid() for pid in victims} - set(victims)
    for pid in (*engines, *victims):
        os.kill(pid, signal.SIGKILL)

    def second() -> bool:
        reconcile(live.store, live.gateway, utc_now())  # what a service does every few seconds
        return len(attempts(live, killed)) == 2

    wait(second, 40, lambda: other.tail(60))
    first, again = attempts(live, killed)
    assert (first.status, again.attempt, again.origin) == (RunStatus.FAILED, 2, Origin.SCHEDULER_RETRY)
    for pid in wait(lambda: processes(marker), 40, lambda: other.tail(60)):
        os.kill(pid, signal.SIGKILL)
    assert over(live, killed, 2, lambda: other.tail(60))[1].status is RunStatus.FAILED


def at_least_apart(runs: list[Run], seconds: float) -> bool:
    ended, began = runs[0].finished_at, runs[1].started_at
    assert isinstance(ended, datetime)
    assert isinstance(began, datetime)
    return (began - ended).total_seconds() >= seconds


def processes(marker: str) -> list[int]:
    """The shells of this task, without the processes above them."""
    found = []
    for process in psutil.process_iter():
        try:
            argv = process.cmdline()
        except psutil.Error:
            continue
        if argv == ["/bin/sh", "-c", marker] or argv == marker.split():
            found.append(process.pid)
    return found
