"""From "run now" to the first line of user code, beside Prefect's own workers. (issue C, shows 1 and 4)

    python -m benchmarks.start [--samples 30] [--slow 30] [--only ours,process,serve,slots,memory]

One freshly started embedded server and the Task Center service; then one way of executing after the other, alone,
so that each has the machine for itself, and each sample waits until the machine is idle. Ours runs saved tasks (a
shell command, and a composite whose first step is that command) with rows, log lines and audit; the peers run the
least there is, a Prefect flow whose first line notes the time. Peers poll: their samples come at random moments of
their interval. Slots: runs for a whole second ahead.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.composite import serve
from taskcenter.settings import Settings
from taskcenter_adapter.prefect_server import start_worker, worker_env
from taskcenter_adapter.processes import Child, free_port, start, wait_until
from taskcenter_adapter.state import write_state
from taskcenter_console.services import tasks as task_service
from taskcenter_console.services.center import Caller, Center

PLAIN = """\
import time
from pathlib import Path
from prefect import flow

STAMP = Path({stamp!r})

@flow
def main():
    now = time.time_ns()
    STAMP.with_suffix(".part").write_text(str(now))
    STAMP.with_suffix(".part").rename(STAMP)

if __name__ == "__main__":
    main.serve(name="served", limit=4)
"""
OURS = "ours: task, API"
ASLEEP = """\
import time
from prefect import flow

@flow
def main():
    time.sleep(25)
"""
IDLE_PERCENT = 20.0
Rows = dict[str, list[float]]


class Field:
    """The servers, and what the ways of executing share."""

    def __init__(self, home: Path, samples: int, slow: int, patience: float = 30.0) -> None:
        self.home, self.samples, self.slow, self.patience = home, samples, slow, patience
        self.busy = 0
        self.stamp = home / "stamp"
        self.file = home / "plain.py"
        self.file.write_text(PLAIN.format(stamp=str(self.stamp)))
        self.api, database, self._stop = serve(home, "postgres")
        port = free_port()
        self.service = f"http://127.0.0.1:{port}"
        state = {"databaseUrl": database, "prefectApiUrl": self.api, "serviceUrl": self.service, "project": str(home)}
        write_state(home, state)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "TASKCENTER_"))}
        self.env = {**env, "TASKCENTER_HOME": str(home), "TASKCENTER_PROJECT": str(home), "TASKCENTER_PORT": str(port)}
        self.console = start("service", [sys.executable, "-m", "taskcenter_console.serve"], log=home / "service.log",
                             env=self.env, cwd=home)  # fmt: skip
        wait_until("the service", self._serves, self.console, 60)
        self.center = Center(Settings(home=home, database_url=database, prefect_api_url=self.api, project=home))
        self.http = httpx.Client(timeout=60)

    def _serves(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.service}/api/health").status_code == 200
        return False

    def close(self) -> None:
        self.console.stop()
        self.center.close()
        self._stop()

    def save(self, name: str, kind: str, **fields: Any) -> None:
        data = {"name": name, "taskType": kind, **fields}
        task_service.save(self.center, data, Caller("benchmark", "cli"))

    def deployment(self, pool: str, file: str = "plain.py") -> str:
        """The flow ``main`` of a file as a deployment of ``pool``."""
        flow = self.http.post(f"{self.api}/flows/", json={"name": "main"}).json()
        steps = [{"prefect.deployments.steps.set_working_directory": {"directory": str(self.home)}}]
        body = {"name": pool, "flow_id": flow["id"], "entrypoint": f"{file}:main", "work_pool_name": pool}
        body["pull_steps"] = steps
        return str(self.http.post(f"{self.api}/deployments/", json=body).raise_for_status().json()["id"])

    def ask_prefect(self, deployment: str, **body: Any) -> str:
        made = self.http.post(f"{self.api}/deployments/{deployment}/create_flow_run", json={"parameters": {}, **body})
        return str(made.raise_for_status().json()["id"])

    def ask_us(self, task: str) -> str:
        made = self.http.post(f"{self.service}/api/tasks/{task}/run", json={})
        return str(made.raise_for_status().json()["id"])

    def ask_cli(self, task: str) -> str:
        """The command as a user types it, its own start included."""
        argv = [str(Path(sys.executable).parent / "taskcenter"), "run", task, "--no-wait", "--json"]
        done = subprocess.run(argv, env=self.env, cwd=self.home, capture_output=True, text=True, check=True)
        return str(json.loads(done.stdout)["id"])

    def until_over(self, run_id: str) -> None:
        end = time.monotonic() + 60
        while self.http.get(f"{self.api}/flow_runs/{run_id}").json()["state_type"] in (
            "SCHEDULED",
            "PENDING",
            "RUNNING",
        ):
            if time.monotonic() > end:
                raise SystemExit(f"the run {run_id} did not end")
            time.sleep(0.1)

    def first_line(self) -> float:
        """Seconds since the epoch, as the user's code noted them."""
        end = time.monotonic() + 90
        while not self.stamp.exists():
            if time.monotonic() > end:
                raise SystemExit("the user's code did not start within 90 s")
            time.sleep(0.01)
        return int(self.stamp.read_text()) / 1e9

    def sample(self, ask: Callable[[], str], count: int, spread: float) -> list[float]:
        """``count`` times from asking to the first line; the first, which warms up, is left out."""
        took = []
        for n in range(count + 1):
            time.sleep(0.5 + random.uniform(0, spread))
            self.wait_until_idle()
            self.stamp.unlink(missing_ok=True)
            begin = time.time()
            run_id = ask()
            at = self.first_line()
            self.until_over(run_id)
            if n:
                took.append(at - begin)
        return took

    def wait_until_idle(self) -> None:
        """The bar is for an idle machine: let whatever else runs here finish first, and count when it does not."""
        end = time.monotonic() + self.patience
        while psutil.cpu_percent(0.3) > IDLE_PERCENT:
            if time.monotonic() > end:
                self.busy += 1
                return

    def slots(self, deployment: str, count: int) -> list[float]:
        """From the slot, a whole second some seconds ahead, to the first line; negative would be too early."""
        late = []
        for n in range(count + 1):
            self.stamp.unlink(missing_ok=True)
            slot = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=random.randint(3, 5))
            state = {"type": "SCHEDULED", "state_details": {"scheduled_time": slot.isoformat()}}
            run_id = self.ask_prefect(deployment, state=state)
            at = self.first_line()
            self.until_over(run_id)
            if n:
                late.append(at - slot.timestamp())
        return late

    @contextlib.contextmanager
    def worker(self, kind: str, pool: str, *, limit: int = 4, settle: float = 5, **env: str) -> Iterator[Child]:
        self.center.gateway.ensure_pool(pool, kind)
        more = {**env, "TASKCENTER_PROJECT": str(self.home)}
        child = start_worker(self.home, self.api, kind=kind, pool=pool, limit=limit, env=more)
        try:
            wait_until("the worker", lambda: self.center.gateway.workers_online(pool) > 0, child, 60)
            time.sleep(settle)
            yield child
        finally:
            child.stop()

    @contextlib.contextmanager
    def served(self, **env: str) -> Iterator[str]:
        child = start("serve", [sys.executable, self.file], log=self.home / "serve.log",
                      env={**worker_env(self.home, self.api), **env}, cwd=self.home)  # fmt: skip
        try:
            path = f"{self.api}/deployments/name/main/served"
            wait_until("serve", lambda: httpx.get(path).status_code == 200, child, 60)
            time.sleep(3)
            yield str(httpx.get(path).json()["id"])
        finally:
            child.stop()


def ours(field: Field, rows: Rows) -> None:
    command = ["sh", "-c", f"date +%s%N > {field.stamp}.part; mv {field.stamp}.part {field.stamp}"]
    step = {"stepKey": "first", "taskType": "shell", "payload": {"command": command}}
    then = {"stepKey": "then", "taskType": "shell", "payload": {"command": ["true"]}}
    edge = {"fromStepKey": "first", "toStepKey": "then"}
    with field.worker("taskcenter", "taskcenter"):
        field.save("stamp", "shell", payload={"command": command})
        field.save("graph", "composite", graph={"steps": [step, then], "edges": [edge]})
        plain = field.deployment("taskcenter")
        rows[OURS] = field.sample(lambda: field.ask_us("stamp"), field.samples, 0.5)
        rows["ours: composite's first step, API"] = field.sample(lambda: field.ask_us("graph"), field.samples, 0.5)
        rows["ours: task, CLI with its own start"] = field.sample(lambda: field.ask_cli("stamp"), field.samples, 0.5)
        rows["ours: plain Prefect flow"] = field.sample(lambda: field.ask_prefect(plain), field.samples, 0.5)


def process(field: Field, rows: Rows) -> None:
    for name, seconds, count in (("default query", "10", field.slow), ("0.25 s query", "0.25", field.samples)):
        env = {"PREFECT_WORKER_QUERY_SECONDS": seconds, "PREFECT_WORKER_PREFETCH_SECONDS": "10"}
        with field.worker("process", "peers", **env):
            ask = functools.partial(field.ask_prefect, field.deployment("peers"))
            rows[f"process worker, {name}"] = field.sample(ask, count, float(seconds))


def served(field: Field, rows: Rows) -> None:
    for name, seconds, count in (("serve, default poll", "10", field.slow), ("serve, 1 s poll", "1", field.samples)):
        with field.served(PREFECT_RUNNER_POLL_FREQUENCY=seconds) as deployment:
            rows[name] = field.sample(functools.partial(field.ask_prefect, deployment), count, float(seconds))


def slots(field: Field, rows: Rows) -> None:
    with field.worker("taskcenter", "taskcenter"):
        rows["slot, ours"] = field.slots(field.deployment("taskcenter"), field.samples)
    with field.worker("process", "peers", PREFECT_WORKER_QUERY_SECONDS="0.25"):
        rows["slot, process worker, 0.25 s query"] = field.slots(field.deployment("peers"), min(field.slow, 10))


def memory(field: Field) -> list[str]:
    """Of the warm process and of four runs at once: what is their own, and with their share of what is shared (PSS)."""
    (field.home / "asleep.py").write_text(ASLEEP)
    lines = []
    for kind, pool in (("taskcenter", "taskcenter"), ("process", "peers")):
        with field.worker(kind, pool) as child:
            deployment = field.deployment(pool, "asleep.py")
            runs = [field.ask_prefect(deployment) for _ in range(4)]
            time.sleep(15)
            for process in psutil.Process(child.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    used = process.memory_full_info()
                    warm = kind == "taskcenter" and process.ppid() == child.process.pid
                    what = "warm process" if warm else "of a run" if process.num_threads() > 1 else "the spare"
                    size = f"PSS {used.pss / 2**20:6.1f} MB, its own {used.uss / 2**20:6.1f} MB"
                    lines.append(f"{kind + ' worker':18s} {what:13s} {size}")
            for run_id in runs:
                field.until_over(run_id)
    return lines


def percentile(values: Sequence[float], share: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1] if len(values) > 1 else values[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--slow", type=int, default=30, help="samples of the peers that poll every ten seconds")
    parser.add_argument("--patience", type=float, default=30, help="seconds to wait for an idle machine, each sample")
    parser.add_argument("--only", default="ours,process,serve,slots,memory")
    options = parser.parse_args()
    parts = options.only.split(",")
    rows: Rows = {}
    said: list[str] = []
    print(f"{'from asking to the first line':36s} {'n':>3s} {'p50':>8s} {'p95':>8s} {'min':>8s} {'max':>8s}   of ours")
    with tempfile.TemporaryDirectory(prefix="tc-start-") as folder:
        field = Field(Path(folder), options.samples, options.slow, options.patience)
        try:
            for name, part in (("ours", ours), ("process", process), ("serve", served), ("slots", slots)):
                if name in parts:
                    known = set(rows)
                    part(field, rows)
                    tell(rows, known)
            if "memory" in parts:
                said = memory(field)
        finally:
            field.close()
    print(f"{field.busy} samples on a busy machine; load at the end {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    peer = rows.get("process worker, default query")
    if peer and OURS in rows:
        ratio = statistics.median(peer) / statistics.median(rows[OURS])
        print(f"\nthe process worker's p50 is {ratio:.1f}x ours (bar: 15x)")
    print("\n".join(["", *said]))


def tell(rows: Rows, known: set[str]) -> None:
    """The rows that are new."""
    base = statistics.median(rows[OURS]) if OURS in rows else None
    for name, took in rows.items():
        if name in known:
            continue
        middle = statistics.median(took)
        ratio = f"{middle / base:7.1f}x" if base and not name.startswith("slot") else ""
        spread = f"{percentile(took, 95):6.3f} s {min(took):6.3f} s {max(took):6.3f} s"
        print(f"{name:36s} {len(took):3d} {middle:6.3f} s {spread} {ratio}", flush=True)


if __name__ == "__main__":
    main()
