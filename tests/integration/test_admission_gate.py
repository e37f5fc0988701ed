"""One admission gate for every way to start, under several workers and under Prefect's own. (spec 5.2)"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from taskcenter.clock import utc_now
from taskcenter.models import Run
from taskcenter.ports import Changes
from taskcenter.status import TERMINAL_RUN, Origin, RunPhase, RunStatus
from taskcenter_adapter.gateway import NewRun
from taskcenter_adapter.mapping import tags_for
from taskcenter_adapter.prefect_server import start_worker
from taskcenter_adapter.processes import Child
from taskcenter_console.services import lookahead, queue, repeating
from taskcenter_console.services import runs as run_service
from taskcenter_console.services import tasks as task_service
from taskcenter_console.services.rescuing import Rescuer
from tests.integration.conftest import LiveCenter
from tests.integration.workers import CONNECTIONS, Bench, begin, wait

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="warm processes are forked on Linux only")

SQL = {"connection": "test-postgresql", "sql": "select pg_sleep(0.4)"}


@pytest.fixture(autouse=True)
def nothing_left_open(live_center: LiveCenter) -> None:
    """As the service does, which is not there: close what a worker left that was stopped while its last run ended."""
    Rescuer(live_center.center).look(utc_now(), patient=False)


@pytest.fixture
def limited(live_center: LiveCenter) -> Iterator[Callable[[str, str, int], None]]:
    """Sets a limit, for this test."""
    made: list[tuple[str, str]] = []

    def limit(scope: str, name: str, at_once: int) -> None:
        made.append((scope, name))
        queue.set_limit(live_center.center, scope, name, at_once, live_center.caller)

    yield limit
    for scope, name in made:
        queue.set_limit(live_center.center, scope, name, 0, live_center.caller)


def save(live: LiveCenter, kind: str = "wait", **fields: Any) -> str:
    payload: dict[str, Any] = {"seconds": 0.4} if kind == "wait" else SQL
    data = {"name": f"gate-{uuid.uuid4().hex[:8]}", "taskType": kind, "payload": payload, **fields}
    return task_service.save(live.center, data, live.caller).slug


def start_as(live: LiveCenter, slug: str, origin: Origin, number: int) -> str:
    """A run as the scheduler, a backfill or an attempt makes it, with its row."""
    task = live.store.get_task(slug)
    deployment = live.gateway.find_deployment(task.deployment_name)
    assert deployment is not None
    tags = tags_for(origin, attempt=2 if origin is Origin.SCHEDULER_RETRY else 1)
    made = live.gateway.create_run(str(deployment["id"]), NewRun({"task": slug}, tags))
    row = Run(
        id=made["id"], task_id=task.id, task_slug=slug, task_type=task.task_type, origin=origin,
        root_run_id=made["id"], name=made["name"], created_at=datetime.now().astimezone(),
    )  # fmt: skip
    live.store.record(Changes(runs=(row,)))
    return str(made["id"])


def over(live: LiveCenter, ids: list[str], said: Callable[[], str]) -> list[Run]:
    runs = [run_service.wait(live.center, run_id, timeout=90) for run_id in ids]
    assert {run.status for run in runs} == {RunStatus.SUCCESS}, said()
    return runs


def most_at_once(runs: list[Run]) -> int:
    moments: list[tuple[datetime, int]] = []
    for run in runs:
        assert run.started_at is not None
        assert run.finished_at is not None
        moments += [(run.started_at, 1), (run.finished_at, -1)]
    most = now = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


@pytest.mark.parametrize("scope", ["pool", "task", "tag", "connection"])
def test_a_limit_holds_on_every_path(
    live_center: LiveCenter, bench: Bench, limited: Callable[[str, str, int], None], scope: str
) -> None:
    live, tag = live_center, f"t{uuid.uuid4().hex[:6]}"
    slug = save(live, "sql_script" if scope == "connection" else "wait", tags=[tag])
    [before] = over(live, [run_service.start(live.center, slug, live.caller).id], bench.tail)
    limited(scope, {"pool": "", "task": slug, "tag": tag, "connection": "test-postgresql"}[scope], 2)
    ids = [run_service.start(live.center, slug, live.caller).id for _ in range(2)]
    ids.append(repeating.retry(live.center, before.id, live.caller).id)
    paths = (Origin.SCHEDULER, Origin.BACKFILL, Origin.SCHEDULER_RETRY, Origin.AFTER, Origin.PREFECT)
    ids += [start_as(live, slug, origin, n) for n, origin in enumerate(paths)]
    runs = over(live, ids, bench.tail)
    assert most_at_once(runs) == 2


def test_a_resumed_composite_and_its_steps_count(
    live_center: LiveCenter, bench: Bench, limited: Callable[[str, str, int], None]
) -> None:
    live, tag = live_center, f"t{uuid.uuid4().hex[:6]}"
    part = save(live, tags=[tag])
    steps = [{"stepKey": "first", "referencedTaskId": part}, {"stepKey": "second", "taskType": "wait",
              "payload": {"seconds": 0.3}}]  # fmt: skip
    graph = {"steps": steps, "edges": [{"fromStepKey": "first", "toStepKey": "second"}]}
    whole = save(live, "composite", payload={}, graph=graph)
    [before] = over(live, [run_service.start(live.center, whole, live.caller).id], bench.tail)
    limited("tag", tag, 1)
    ids = [repeating.resume(live.center, before.id, live.caller, step="first").id]
    ids += [run_service.start(live.center, slug, live.caller).id for slug in (part, whole, part)]
    assert most_at_once(over(live, ids, bench.tail)) == 1


def test_who_waits_says_for_what_and_holds_no_process(
    live_center: LiveCenter, bench: Bench, limited: Callable[[str, str, int], None]
) -> None:
    live, tag = live_center, f"t{uuid.uuid4().hex[:6]}"
    slug = save(live, payload={"seconds": 3}, tags=[tag])
    limited("tag", tag, 1)
    first, second = (run_service.start(live.center, slug, live.caller).id for _ in range(2))
    waits = f"at most 1 runs with the tag {tag} go at once"
    wait(lambda: live.store.get_run(second).phase is RunPhase.AWAITING_SLOT, 10, bench.tail)
    assert live.store.get_run(second).message == f"it waits: {waits}"
    [shown] = [item for item in queue.listing(live.center) if item.run_id == second]
    assert shown.waits_for == waits
    wait(lambda: live.store.get_run(first).status is RunStatus.RUNNING, 10, bench.tail)
    [held] = [gate for gate in lookahead.why(live.center, slug).gates if gate.name == "limits"]
    assert waits in held.sentence
    assert bench.processes(second) == []
    assert bench.state(second)["type"] == "SCHEDULED"
    assert most_at_once(over(live, [first, second], bench.tail)) == 1
    assert live.store.get_run(second).phase is None


def test_two_workers_share_the_places(
    live_center: LiveCenter, bench: Bench, tmp_path: Path, limited: Callable[[str, str, int], None]
) -> None:
    live, tag = live_center, f"t{uuid.uuid4().hex[:6]}"
    other = begin(live, tmp_path / "project", "taskcenter", 10)
    try:
        slugs = [save(live, tags=[tag]) for _ in range(2)]
        limited("tag", tag, 2)
        ids = [run_service.start(live.center, slug, live.caller).id for slug in slugs * 5]
        runs = over(live, ids, lambda: bench.tail() + other.tail())
        assert most_at_once(runs) == 2
        began = [run.id for run in sorted(runs, key=lambda run: str(run.started_at))]
        places = [abs(began.index(run_id) - n) for n, run_id in enumerate(ids)]
        assert max(places) <= 1, "first come, first served; two that start together may be written in either order"
    finally:
        other.worker.stop()


@pytest.fixture
def process_worker(live_center: LiveCenter) -> Iterator[Child]:
    """Prefect's own process worker, alone on the pool of the tasks."""
    env = {"TASKCENTER_PROJECT": str(live_center.home), **CONNECTIONS}
    worker = start_worker(live_center.home, live_center.api_url, limit=4, kind="process", env=env)
    try:
        yield worker
    finally:
        worker.stop()


def test_under_prefects_own_worker_the_flow_asks_itself(
    live_center: LiveCenter, process_worker: Child, limited: Callable[[str, str, int], None]
) -> None:
    live, tag = live_center, f"t{uuid.uuid4().hex[:6]}"
    limited("tag", tag, 1)
    slug = save(live, payload={"seconds": 12}, tags=[tag])
    broken = save(live, "shell", payload={"command": ["/bin/sh", "-c", "exit 3"]}, tags=[tag])
    ids = [run_service.start(live.center, slug, live.caller).id]
    failing = run_service.start(live.center, broken, live.caller).id
    waited: set[str] = set()

    def all_over() -> bool:
        runs = [live.store.get_run(run_id) for run_id in [*ids, failing]]
        waited.update(run.id for run in runs if run.phase is RunPhase.AWAITING_SLOT)
        return all(run.status in TERMINAL_RUN for run in runs)

    # A fresh interpreter each time one asks, on a machine that is busy with other tests.
    wait(all_over, 240, lambda: process_worker.tail(60))
    runs = [live.store.get_run(run_id) for run_id in ids]
    assert {run.status for run in runs} == {RunStatus.SUCCESS}, process_worker.tail(60)
    failed = live.store.get_run(failing)
    assert (failed.status, failed.attempt) == (RunStatus.FAILED, 1)
    assert "exit" in (failed.error or "")
    assert most_at_once([*runs, failed]) == 1
    assert waited, "two at once asked for one place"
    assert all(live.store.list_logs(run.id) for run in runs)
    again = repeating.retry(live.center, failing, live.caller)
    ended = run_service.wait(live.center, again.id, timeout=120)
    assert (ended.status, ended.attempt, ended.resumed_from) == (RunStatus.FAILED, 2, failing)
