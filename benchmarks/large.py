"""Memory of a composite of thousands of steps, and whether each of them is in the books. (issue C, show 3)

    python -m benchmarks.large [--steps 2000,5000] [--database postgres]

Each composite runs in a process of its own (waves of 100 steps, two parents each) against one freshly started server.
Then our rows are counted, all of which must be there and right, and Prefect's task runs: those that its recorder
dropped are named. Ends with 1 when a row of ours is missing or wrong, or 2,000 steps took more than 400 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.composite import WIDTH, client_env, serve

MEGABYTES = 400
"""Of a run of 2,000 steps."""
_PATIENCE = 120.0


def run(steps: int) -> dict[str, Any]:
    """Runs in the measuring process; the environment names the server."""
    from composites import Composite
    from taskcenter import task_type
    from taskcenter_adapter.gateway import Gateway
    from taskcenter_adapter.runtime import Runtime

    @task_type("bench_double")
    def bench_double(x: int) -> dict[str, int]:
        return {"twice": 2 * x}

    graph = Composite(f"bench-large-{steps}", max_parallel=WIDTH)
    before: list[Any] = []
    for first in range(0, steps, WIDTH):
        wave = [graph.step(f"s{n:05d}", "bench_double", x=n) for n in range(first, min(first + WIDTH, steps))]
        for i, source in enumerate(before):
            for target in {wave[i % len(wave)], wave[(i + 1) % len(wave)]}:
                graph.edge(source, target)
        before = wave
    begin = time.perf_counter()
    state = asyncio.run(graph.to_flow()(return_state=True))
    took = time.perf_counter() - begin
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    store = Runtime.open().store
    run_id = store.list_runs().items[0].id
    rows = {row.step_key: row for row in store.list_steps(run_id)}
    wrong = [
        key for n in range(steps)
        if (row := rows.get(key := f"s{n:05d}")) is None or row.status != "success" or not _right(row.execution, n)
    ]  # fmt: skip
    shown = _shown(Gateway(os.environ["PREFECT_API_URL"], tries=3), graph.name, steps)
    return {
        "steps": steps, "completed": state.is_completed(), "seconds": took, "megabytes": held, "wrong": wrong,
        "dropped": sorted(set(rows) - shown),
    }  # fmt: skip


def _right(execution: Any, number: int) -> bool:
    return isinstance(execution, dict) and execution.get("twice") == 2 * number


def _shown(gateway: Any, flow: str, steps: int) -> set[str]:
    """The steps that Prefect shows as completed, once it shows all of them or no more come."""
    body = {"flows": {"name": {"any_": [flow]}}, "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    count, since = -1, time.monotonic()
    end = since + _PATIENCE
    while count < steps and time.monotonic() < end and time.monotonic() - since < 20:
        time.sleep(0.5)
        now = gateway._call("POST", "/task_runs/count", body)
        count, since = (now, time.monotonic()) if now != count else (count, since)
    found: set[str] = set()
    while page := gateway._call("POST", "/task_runs/filter", {**body, "limit": 200, "offset": len(found)}):
        found |= {one["name"] for one in page}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", default="2000,5000")
    parser.add_argument("--database", default="postgres", choices=("postgres", "sqlite"))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one)))
        return
    missed = []
    with tempfile.TemporaryDirectory(prefix="tc-bench-") as folder:
        home = Path(folder)
        api, ours, stop = serve(home, options.database)
        env = client_env(home, api, ours)
        try:
            for steps in map(int, options.steps.split(",")):
                argv = [sys.executable, "-m", "benchmarks.large", "--one", str(steps)]
                done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    sys.exit(f"{steps} steps failed:\n{done.stderr[-2000:]}")
                found = json.loads(done.stdout.splitlines()[-1])
                missed += _tell(found)
        finally:
            stop()
    for text in missed:
        print(f"missed: {text}")
    sys.exit(1 if missed else 0)


def _tell(found: dict[str, Any]) -> list[str]:
    """Prints the figures; gives the bars that are missed."""
    steps, dropped, held = found["steps"], found["dropped"], found["megabytes"]
    wrong = found["wrong"]
    print(f"{steps} steps: {found['seconds']:.1f} s, {held:.0f} MB at most, {len(wrong)} rows missing or wrong")
    named = ", ".join(dropped[:20]) + (" …" if len(dropped) > 20 else "")
    print(f"  Prefect shows {steps - len(dropped)} of them" + (f"; dropped: {named}" if dropped else ""))
    missed = [f"{steps} steps: {', '.join(wrong[:5])} missing or wrong"] if wrong else []
    missed += [] if found["completed"] else [f"the run of {steps} steps did not complete"]
    return [*missed, *([f"{held:.0f} MB for 2,000 steps"] if steps == 2000 and held > MEGABYTES else [])]


if __name__ == "__main__":
    main()
