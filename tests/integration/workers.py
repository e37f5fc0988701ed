"""A worker on a real server, and flows for it to run."""

from __future__ import annotations

import json
import os
import textwrap
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from deployments.worker_tree import processes_of
from taskcenter_adapter.prefect_server import start_worker
from taskcenter_adapter.processes import Child
from tests.integration.conftest import LiveCenter

__all__ = ["CONNECTIONS", "HEAD", "STUBBORN", "TERMINAL", "Bench", "begin", "lives", "wait"]

CONNECTIONS = {
    "TASKCENTER_CONNECTION_TEST_POSTGRESQL": os.environ.get(
        "TASKCENTER_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres"
    ),
    "TASKCENTER_CONNECTION_TEST_MYSQL": os.environ.get("TASKCENTER_TEST_MYSQL_URL", "mysql://root@127.0.0.1:3306/test"),
}
"""Servers that tasks reach under the names ``test-postgresql`` and ``test-mysql``."""
TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass
class Bench:
    """A worker, and flows of a project of its own for it to run."""

    live: LiveCenter
    worker: Child
    folder: Path
    pool: str

    def api(self, method: str, path: str, body: Any = None) -> Any:
        answer = httpx.request(method, f"{self.live.api_url}{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def deploy(self, code: str, **fields: Any) -> str:
        """A deployment of the function ``main`` in a file of its own; gives its id."""
        name = f"f{uuid.uuid4().hex[:8]}"
        (self.folder / f"{name}.py").write_text(HEAD + textwrap.dedent(code))
        flow = self.api("POST", "/flows/", {"name": "main"})
        body = {"name": name, "flow_id": flow["id"], "entrypoint": f"{name}.py:main", "path": str(self.folder),
                "work_pool_name": self.pool, "enforce_parameter_schema": False, **fields}  # fmt: skip
        return str(self.api("POST", "/deployments/", body)["id"])

    def start(self, deployment: str, **fields: Any) -> str:
        return str(self.api("POST", f"/deployments/{deployment}/create_flow_run", {"parameters": {}, **fields})["id"])

    def state(self, run_id: str) -> Any:
        return self.api("GET", f"/flow_runs/{run_id}")["state"]

    def until(self, run_id: str, *kinds: str, timeout: float = 40) -> Any:
        """The run's state when it is one of ``kinds``."""
        return wait(lambda: (state := self.state(run_id))["type"] in kinds and state, timeout, lambda: self.tail())

    def file(self, name: str, timeout: float = 20) -> Any:
        """What a flow wrote to a file of the project."""
        path = self.folder / name
        wait(path.is_file, timeout, lambda: self.tail())
        return json.loads(path.read_text())

    def processes(self, run_id: str) -> list[int]:
        return [process.pid for process in processes_of(run_id, None)]

    def zygote(self) -> psutil.Process:
        """The worker's warm process."""
        children = psutil.Process(self.worker.process.pid).children()
        alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
        return next(child for child in alive if "deployments.warm" in " ".join(child.cmdline()))

    def tail(self) -> str:
        return self.worker.tail(60)


HEAD = """\
import asyncio, json, os, signal, subprocess, sys, time
from pathlib import Path
from prefect import flow

FOLDER = Path(__file__).resolve().parent if "FOLDER" not in os.environ else Path(os.environ["FOLDER"])

def write(name, value):
    half = FOLDER / (name + ".part")
    half.write_text(json.dumps(value))
    half.rename(FOLDER / name)
"""
STUBBORN = """
    @flow
    def main():
        code = "import os, signal, sys, time; os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN); " \\
               "print(os.getpid(), flush=True); time.sleep(300)"
        middle = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]])"
        child = subprocess.run([sys.executable, "-c", middle, code], stdout=open(FOLDER / "pid", "w"))
        while not (FOLDER / "pid").read_text().strip():
            time.sleep(0.05)
        write("stubborn.json", [os.getpid(), int((FOLDER / "pid").read_text())])
        time.sleep(300)
"""


def lives(pid: int) -> bool:
    """Whether a process runs; one that only waits to be collected by its parent does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait(ready: Callable[[], Any], timeout: float, said: Callable[[], str] = str) -> Any:
    end = time.monotonic() + timeout
    while not (found := ready()):
        assert time.monotonic() < end, said()
        time.sleep(0.05)
    return found


def begin(live: LiveCenter, folder: Path, pool: str, limit: int) -> Bench:
    folder.mkdir(exist_ok=True)
    env = {"TASKCENTER_PROJECT": str(live.home), "FOLDER": str(folder), **CONNECTIONS}
    worker = start_worker(live.home, live.api_url, limit=limit, pool=pool, kind="taskcenter", env=env)
    bench = Bench(live, worker, folder, pool)
    wait(lambda: live.gateway.workers_online(pool), 60, bench.tail)
    wait(lambda: "warm process" in bench.tail(), 60, bench.tail)
    return bench
