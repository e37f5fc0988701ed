"""Steps per second of a composite flow against a plain Prefect flow that submits the same tasks. (issue A, shows 6)

    python -m benchmarks.composite [--rounds 5] [--database postgres,sqlite] [--json]

Both run in this process against one freshly started, tuned Prefect server, in turn, drained between runs; figures
are medians. "steps/s" counts from the flow's first line to its last step; "with flow" counts the whole call, our
rows and logs written included. Ours writes two log lines, one row and one event per step beside Prefect's task runs;
the run fails when one of them is missing on either side.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

WAVES, WIDTH, CHAIN = 10, 100, 100


def serve(home: Path, database: str) -> tuple[str, str, Callable[[], None]]:
    """Start a server; gives its API address, the address of our tables, and how to stop."""
    from taskcenter_adapter.database import make_engine, upgrade
    from taskcenter_adapter.postgres import remove_cluster, start_postgres
    from taskcenter_adapter.prefect_server import start_server
    from taskcenter_adapter.processes import free_port

    port = free_port()
    if database == "postgres":
        postgres = start_postgres(home)
        server = start_server(home, postgres.url("prefect", "asyncpg"), port)
        ours = postgres.url("taskcenter")

        def stop() -> None:
            server.stop()
            postgres.stop()
            remove_cluster(home)
    else:
        (home / "prefect").mkdir(exist_ok=True)
        server = start_server(home, f"sqlite+aiosqlite:///{home}/prefect/prefect.db", port)
        ours = f"sqlite:///{home}/taskcenter.db"
        stop = server.stop
    upgrade(make_engine(ours))
    return f"http://127.0.0.1:{port}/api", ours, stop


def client_env(home: Path, api: str, ours: str) -> dict[str, str]:
    """The environment of a measuring process."""
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")},
        "PREFECT_API_URL": api,
        "PREFECT_HOME": str(home / "client"),
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "TASKCENTER_HOME": str(home),
        "TASKCENTER_DATABASE_URL": ours,
    }


def composite_of(kind: str) -> Any:
    from composites import Composite

    graph = Composite(f"bench-{kind}", max_parallel=WIDTH)
    before: list[Any] = []
    for w in range(WAVES if kind == "waves" else CHAIN):
        wave = [graph.step(f"s{w:03d}-{i:03d}", "bench_noop", x=i) for i in range(WIDTH if kind == "waves" else 1)]
        for i, source in enumerate(before):
            for target in {wave[i], wave[(i + 1) % len(wave)]}:  # two parents each: the waves are generations
                graph.edge(source, target)
        before = wave
    return graph


def count_busy_answers() -> Counter[int]:
    """Counts the status of every answer that any client of this process gets (they repeat a 503 by themselves)."""
    import httpx

    seen: Counter[int] = Counter()
    send, asend = httpx.Client.send, httpx.AsyncClient.send

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = send(self, *args, **kwargs)
        seen[answer.status_code] += 1
        return answer

    async def acounted(self: Any, *args: Any, **kwargs: Any) -> Any:
        answer = await asend(self, *args, **kwargs)
        seen[answer.status_code] += 1
        return answer

    httpx.Client.send, httpx.AsyncClient.send = counted, acounted  # type: ignore[method-assign]
    return seen


def client(kind: str, rounds: int) -> dict[str, Any]:
    """Runs inside the measuring process; the environment names the server."""
    answers = count_busy_answers()
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE

    from taskcenter import task_type
    from taskcenter.clock import utc_now
    from taskcenter_adapter.gateway import Gateway
    from taskcenter_adapter.runtime import Runtime

    @task_type("bench_noop")
    def bench_noop(x: int) -> dict[str, int]:
        return {"x": x}

    @task(name="bench_noop", persist_result=False, cache_policy=NO_CACHE)
    def plain_noop(x: int) -> dict[str, int]:
        return {"x": x}

    spans: list[float] = []

    @flow(name=f"plain-{kind}", persist_result=False)
    def plain() -> None:
        begin = time.perf_counter()
        if kind == "waves":
            for _ in range(WAVES):
                for future in [plain_noop.submit(i) for i in range(WIDTH)]:
                    future.wait()
        else:
            last = None
            for i in range(CHAIN):
                last = plain_noop.submit(i, wait_for=[last] if last is not None else None)
            last.wait()  # type: ignore[union-attr]
        spans.append(time.perf_counter() - begin)

    graph = composite_of(kind)
    assert graph.check() == []
    ours_flow = graph.to_flow()
    steps = WAVES * WIDTH if kind == "waves" else CHAIN
    runtime = Runtime.open()
    gateway = Gateway(os.environ["PREFECT_API_URL"], tries=1)

    def drained(flow_name: str, count: int) -> float:
        begin = time.perf_counter()
        body = {"flows": {"name": {"any_": [flow_name]}}, "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        while gateway._call("POST", "/task_runs/count", body) < count:
            if time.perf_counter() - begin > 90:
                raise SystemExit(f"{flow_name}: Prefect shows fewer than {count} finished steps after 90 s")
            time.sleep(0.1)
        return time.perf_counter() - begin

    result: dict[str, Any] = {"plain": [], "ours": [], "plain_drain": [], "ours_drain": []}
    for n in range(rounds + 1):
        for name in ("plain", "ours"):
            begin = time.perf_counter()
            if name == "plain":
                plain()
                span = spans[-1]
            else:
                state = asyncio.run(ours_flow(return_state=True))
                assert state.is_completed(), state.message
            took = time.perf_counter() - begin
            if name == "ours":
                run = runtime.store.list_runs().items[0]
                rows = runtime.store.list_steps(run.id)
                assert len(rows) == steps, "a step row is missing"
                assert all(row.status == "success" for row in rows), "a step is not finished"
                span = (max(r.finished_at for r in rows) - min(r.started_at for r in rows)).total_seconds()
            lag = drained(f"plain-{kind}" if name == "plain" else graph.name, steps * (n + 1))
            if n:  # the first round warms up
                result[name].append((steps / span, steps / took))
                result[f"{name}_drain"].append(lag)
    result["answers"] = {str(status): count for status, count in sorted(answers.items())}
    result["at"] = utc_now().isoformat()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--database", default="postgres,sqlite")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        print(json.dumps(client(options.client, options.rounds)))
        return
    import subprocess

    everything: dict[str, Any] = {}
    for database in options.database.split(","):
        with tempfile.TemporaryDirectory(prefix="tc-bench-") as folder:
            home = Path(folder)
            api, ours, stop = serve(home, database)
            try:
                env = client_env(home, api, ours)
                for kind in ("waves", "chain"):
                    argv = [sys.executable, "-m", "benchmarks.composite", "--client", kind]
                    done = subprocess.run(
                        [*argv, "--rounds", str(options.rounds)], env=env, capture_output=True, text=True, check=False
                    )
                    if done.returncode != 0:
                        print(f"{database} {kind}: failed\n{done.stderr[-2000:]}", file=sys.stderr)
                        raise SystemExit(1)
                    everything[f"{database} {kind}"] = json.loads(done.stdout.splitlines()[-1])
            finally:
                stop()
    if options.json:
        print(json.dumps(everything, indent=2))
        return
    head = f"{'':18s} {'plain steps/s':>14s} {'ours':>8s} {'ratio':>7s}"
    print(f"{head} {'with flow: plain':>17s} {'ours':>8s} {'ratio':>7s} {'drain plain':>12s} {'ours':>7s}  answers 503")
    for name, figures in everything.items():
        median = statistics.median
        plain = [median(x[i] for x in figures["plain"]) for i in (0, 1)]
        own = [median(x[i] for x in figures["ours"]) for i in (0, 1)]
        drains = [median(figures[f"{k}_drain"]) for k in ("plain", "ours")]
        print(
            f"{name:18s} {plain[0]:14.0f} {own[0]:8.0f} {own[0] / plain[0]:6.2f}x {plain[1]:17.0f} {own[1]:8.0f} "
            f"{own[1] / plain[1]:6.2f}x {drains[0]:10.2f} s {drains[1]:5.2f} s "
            f"{figures['answers'].get('503', 0):5d} of {sum(figures['answers'].values())}"
        )


if __name__ == "__main__":
    main()
