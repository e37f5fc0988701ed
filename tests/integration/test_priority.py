"""Who starts first, what waits and who executes. (spec 5.2)"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from taskcenter.errors import Refused
from taskcenter.models import Run
from taskcenter.status import Priority, RunStatus
from taskcenter_console.services import queue, workers
from taskcenter_console.services import runs as run_service
from taskcenter_console.services import tasks as task_service
from tests.integration.conftest import LiveCenter
from tests.integration.workers import Bench, begin, wait

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="warm processes are forked on Linux only")


@pytest.fixture
def one_place(live_center: LiveCenter, tmp_path: Path) -> Iterator[Callable[[], Bench]]:
    """Starts a worker that does one run at a time, when everything is asked for."""
    made: list[Bench] = []

    def make() -> Bench:
        made.append(begin(live_center, tmp_path / "project", "taskcenter", 1))
        return made[-1]

    yield make
    for bench in made:
        bench.worker.stop()


def task(live: LiveCenter, priority: str) -> str:
    data = {"name": f"prio-{priority}-{uuid.uuid4().hex[:6]}", "taskType": "wait", "payload": {"seconds": 0.3},
            "priority": priority}  # fmt: skip
    return task_service.save(live.center, data, live.caller).slug


def test_high_first_then_as_they_came_and_a_bump_counts(
    live_center: LiveCenter, one_place: Callable[[], Bench]
) -> None:
    live = live_center
    low, normal, high = (task(live, priority) for priority in ("low", "normal", "high"))
    lows = [run_service.start(live.center, low, live.caller).id for _ in range(6)]
    plain = run_service.start(live.center, normal, live.caller).id
    first = run_service.start(live.center, high, live.caller).id
    queue.bump(live.center, lows[4], Priority.HIGH, live.caller)
    expected = [lows[4], first, plain, *lows[:4], lows[5]]
    shown = [item for item in queue.listing(live.center) if item.run_id in expected]
    assert [item.run_id for item in shown] == expected
    assert [item.priority for item in shown[:3]] == [Priority.HIGH, Priority.HIGH, Priority.NORMAL]
    bench = one_place()
    ended: list[Run] = [run_service.wait(live.center, run_id, timeout=60) for run_id in expected]
    assert {run.status for run in ended} == {RunStatus.SUCCESS}, bench.tail()
    assert sorted(expected, key=lambda i: str(live.store.get_run(i).started_at)) == expected
    audit = live.store.list_audit(run_id=lows[4])
    assert [(e.before, e.after) for e in audit if e.event_type == "run_priority_changed"] == [
        ({"priority": "low"}, {"priority": "high"})
    ]
    with pytest.raises(Refused):
        queue.bump(live.center, first, Priority.LOW, live.caller)


def test_the_worker_and_its_processes_are_shown(live_center: LiveCenter, one_place: Callable[[], Bench]) -> None:
    bench = one_place()

    def known() -> list[dict[str, Any]]:
        found = workers.listing(live_center.center)
        return [worker for worker in found if worker["processes"][0]["pid"] == bench.worker.process.pid]

    [found] = wait(known, 60, bench.tail)
    assert (found["state"], found["limit"], found["pool"]) == ("online", 1, "taskcenter")
    roles = {process["role"]: process for process in found["processes"]}
    assert roles["warm"]["pid"] == bench.zygote().pid
    assert roles["warm"]["memoryMb"] > 20
    bench.worker.process.kill()
    bench.worker.process.wait(10)
    [found] = [w for w in workers.listing(live_center.center) if w["holder"] == found["holder"]]
    assert (found["state"], found["processes"][0]["memoryMb"]) == ("gone", None)


def test_a_tasks_own_limit_holds_and_leaves_no_gap(live_center: LiveCenter, bench: Bench) -> None:
    live = live_center
    data = {
        "name": f"narrow-{uuid.uuid4().hex[:6]}",
        "taskType": "wait",
        "payload": {"seconds": 0.3},
        "maxConcurrent": 1,
    }
    slug = task_service.save(live.center, data, live.caller).slug
    ids = [run_service.start(live.center, slug, live.caller).id for _ in range(5)]
    runs = [run_service.wait(live.center, run_id, timeout=60) for run_id in ids]
    assert {run.status for run in runs} == {RunStatus.SUCCESS}, bench.tail()
    spans = sorted((run.started_at, run.finished_at) for run in runs if run.started_at and run.finished_at)
    assert len(spans) == 5
    for (_, ended), (began, _) in pairwise(spans):
        assert 0 <= (began - ended).total_seconds() < 8  # Prefect alone lets half a minute pass
