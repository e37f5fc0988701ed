"""Starts a Prefect server and a Prefect worker as children, tuned as measured. (spec 0.5, prefect-facts)"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import httpx

from .processes import Child, start, wait_until

__all__ = ["POOL", "healthy", "server_env", "start_server", "start_worker", "worker_env"]

POOL = "taskcenter"
"""The work pool that every task's deployment uses."""


def _clean() -> dict[str, str]:
    """This process's environment without Prefect settings of the user's: the embedded server has its own."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}


def server_env(home: Path, database_url: str, port: int) -> dict[str, str]:
    """Environment of the embedded server. ``database_url`` is for SQLAlchemy's async drivers."""
    api = f"http://127.0.0.1:{port}/api"
    return {
        **_clean(),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_PROFILES_PATH": str(home / "prefect" / "profiles.toml"),
        "PREFECT_API_URL": api,
        "PREFECT_UI_API_URL": api,
        "PREFECT_API_DATABASE_CONNECTION_URL": database_url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_UI_V2_ENABLED": "false",  # the older interface makes no request to the outside
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        # rows of task runs: larger batches, written within a second (default: 12–19 s behind 1,000 tasks)
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",  # Task Center's scheduler takes its place
        # Marking one run that waits costs as much as making it, when the machine has no time to spare.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "60",
    }


def healthy(api_url: str, timeout: float = 1.0) -> bool:
    try:
        return httpx.get(f"{api_url}/health", timeout=timeout).status_code == 200
    except httpx.HTTPError:
        return False


def start_server(home: Path, database_url: str, port: int) -> Child:
    """A Prefect API server on 127.0.0.1:``port``; raises ServerAway with the end of its log if it does not start."""
    child = start(
        "prefect server",
        [
            *(sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
            *("--host", "127.0.0.1", "--port", str(port), "--timeout-keep-alive", "30"),
            *("--log-level", "warning", "--no-access-log"),
        ],
        log=home / "logs" / "prefect-server.log",
        env=server_env(home, database_url, port),
        cwd=home,
        stop_signal=signal.SIGINT,
        death_signal=signal.SIGTERM,
    )
    wait_until("the Prefect server", lambda: healthy(f"http://127.0.0.1:{port}/api"), child, 90)
    return child


def worker_env(home: Path, api_url: str, kind: str = "taskcenter") -> dict[str, str]:
    """Environment of the worker and so of every run it starts.

    A process worker only polls. One of the type ``taskcenter`` is woken by events and wakes up for its slots; its
    polling finds what they missed.
    """
    return {
        **_clean(),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_PROFILES_PATH": str(home / "prefect" / "profiles.toml"),
        "PREFECT_API_URL": api_url,
        "PREFECT_WORKER_QUERY_SECONDS": "1" if kind == "taskcenter" else "0.5",
        "PREFECT_WORKER_PREFETCH_SECONDS": "20",  # a process worker's run is up when its slot comes, and waits for it
        "PREFECT_LOGGING_LEVEL": "INFO",
        # of the embedded server it is known: each client of each run would ask for both again
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
        "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "TASKCENTER_HOME": str(home),
    }


def start_worker(
    home: Path,
    api_url: str,
    *,
    limit: int = 4,
    env: dict[str, str] | None = None,
    kind: str = "taskcenter",
    pool: str = POOL,
) -> Child:
    """A worker for ``pool`` that runs at most ``limit`` runs at once; ``kind`` is Prefect's type of the worker."""
    return start(
        "worker",
        [
            *(sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", kind),
            *("--name", f"{pool}-{os.getpid()}", "--limit", str(limit)),
        ],
        log=home / "logs" / "worker.log",
        env={**worker_env(home, api_url, kind), **(env or {})},
        cwd=home,
        stop_signal=signal.SIGTERM,
    )
