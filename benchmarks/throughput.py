"""Many short runs at once, from deployment to finished rows, beside Prefect's process worker. (issue C, show 2)

    python -m benchmarks.throughput [--runs 500] [--peer 60] [--limit 4]

One freshly started embedded server. All runs of a composite with one step that does nothing are asked for before
the worker starts; then the clock runs from the first run's start to the last one's end, both as our tables have
them. The same task, the same tables and the same number of runs at once for both workers; a run is lost when it has
no finished row here or no final state in Prefect.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.start import Field
from taskcenter.models import Run
from taskcenter.ports import RunFilter
from taskcenter.status import TERMINAL_RUN, RunStatus
from taskcenter_adapter.prefect_server import POOL

STEP = {"stepKey": "nothing", "taskType": "wait", "payload": {"seconds": 0}}
_PATIENCE = 1800.0


def measure(field: Field, kind: str, count: int, limit: int) -> tuple[float, int]:
    """Runs per second and the number of runs that were lost."""
    name = f"noop-{kind}"
    field.save(name, "composite", graph={"steps": [STEP], "edges": []})
    task = field.center.store.get_task(name)
    deployment = field.center.gateway.find_deployment(task.deployment_name)
    assert deployment is not None
    asked = [field.ask_prefect(str(deployment["id"]), parameters={"task": name}) for _ in range(count)]
    with field.worker(kind, POOL, limit=limit, settle=0):
        end = time.monotonic() + _PATIENCE
        while _finished(field, task.id) < count and time.monotonic() < end:
            time.sleep(1)
    runs = {run.id: run for run in _rows(field, task.id) if run.status is RunStatus.SUCCESS and run.finished_at}
    theirs = field.center.gateway.runs_by_id(asked)
    lost = [i for i in asked if i not in runs or theirs.get(i, {}).get("state_type") != "COMPLETED"]
    started = [run.started_at for run in runs.values() if run.started_at]
    ended = [run.finished_at for run in runs.values() if run.finished_at]
    return len(ended) / (max(ended) - min(started)).total_seconds(), len(lost)


def _rows(field: Field, task_id: str) -> Iterator[Run]:
    cursor = None
    while True:
        page = field.center.store.list_runs(RunFilter(task_id=task_id, limit=500, cursor=cursor))
        yield from page.items
        if (cursor := page.next_cursor) is None:
            return


def _finished(field: Field, task_id: str) -> int:
    return sum(run.status in TERMINAL_RUN for run in _rows(field, task_id))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--peer", type=int, default=60, help="runs of the process worker")
    parser.add_argument("--limit", type=int, default=4, help="runs at once")
    options = parser.parse_args()
    rates = {}
    with tempfile.TemporaryDirectory(prefix="tc-through-") as folder:
        field = Field(Path(folder), 1, 1)
        try:
            for kind, count in (("taskcenter", options.runs), ("process", options.peer)):
                if count:
                    rates[kind], lost = measure(field, kind, count, options.limit)
                    line = f"{kind + ' worker':18s} {count:4d} runs, {options.limit} at once: {rates[kind]:6.2f} runs/s"
                    print(f"{line}, {lost} lost, load {os.getloadavg()[0]:.1f}", flush=True)
                    if lost:
                        sys.exit("runs were lost")
        finally:
            field.close()
    if len(rates) == 2:
        print(f"ours does {rates['taskcenter'] / rates['process']:.1f}x the runs of the process worker (bar: 5x)")


if __name__ == "__main__":
    main()
