"""A service's scheduler as a process of its own, on a clock that runs faster, beside a Prefect that is one file.

``python -m tests.scheduler_process DATABASE_URL PREFECT_FILE BEGAN SPEED``. It stands for a service in tests that kill
it: everything is the product's own but the clock and the far end of the gateway.
"""

from __future__ import annotations

import logging
import signal
import sqlite3
import sys
import threading
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from taskcenter.clock import utc_now
from taskcenter.settings import Settings
from taskcenter_adapter.gateway import NewRun
from taskcenter_adapter.store import open_store
from taskcenter_console.scheduler.leader import Scheduler
from taskcenter_console.services.center import Center
from tests.fakes import FakeGateway

START = datetime(2026, 3, 28, 22, 0, tzinfo=UTC)


class FileGateway(FakeGateway):
    """Keeps flow runs in a SQLite file: one per deployment and idempotency key, as Prefect does."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        self._turn = threading.Lock()
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute("PRAGMA synchronous=OFF")
        self._file.execute(
            "CREATE TABLE IF NOT EXISTS runs "
            "(id TEXT PRIMARY KEY, key TEXT UNIQUE, trigger_id TEXT, at TEXT, state TEXT)"
        )

    def close(self) -> None:
        self._file.close()

    def deployments_with_flow(self, tag: str) -> list[dict[str, Any]]:
        return [{"id": f"d-t{n}", "name": f"t{n}", "flow_name": "shell", "parameters": {"task": f"t{n}"},
                 "schedules": [], "paused": False} for n in range(20)]  # fmt: skip

    def create_run(self, deployment_id: str, run: NewRun) -> dict[str, Any]:
        row = (str(uuid.uuid4()), run.idempotency_key, run.parameters.get("trigger_id"), str(run.at), "SCHEDULED")
        with self._turn:
            self._file.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)
            (found,) = self._file.execute("SELECT id FROM runs WHERE key = ?", (run.idempotency_key,)).fetchone()
        return {"id": found, "name": "run", "state_name": "Scheduled"}

    def create_runs(self, deployment_id: str, runs: Sequence[NewRun]) -> list[str | None]:
        return [str(self.create_run(deployment_id, run)["id"]) for run in runs]

    def runs_by_id(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        with self._turn:
            found = self._file.execute(
                f"SELECT id, state FROM runs WHERE id IN ({','.join('?' * len(ids))})", list(ids)
            ).fetchall()
        return {run_id: {"id": run_id, "state_type": state} for run_id, state in found}

    def runs_by_key(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        with self._turn:
            found = self._file.execute(
                f"SELECT id, state FROM runs WHERE key IN ({','.join('?' * len(keys))})", list(keys)
            ).fetchall()
        return {run_id: {"id": run_id, "state_type": state} for run_id, state in found}

    def delete_run(self, run_id: str) -> None:
        with self._turn:
            self._file.execute("DELETE FROM runs WHERE id = ?", (run_id,))

    def set_run_state(self, run_id: str, kind: str, name: str | None = None, message: str = "") -> None:
        with self._turn:
            self._file.execute("UPDATE runs SET state = ? WHERE id = ?", (kind, run_id))


def main() -> None:
    url, path, began, speed = sys.argv[1:5]
    first = datetime.fromisoformat(began)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)

    def now() -> datetime:
        return START + (utc_now() - first) * float(speed)

    def center(settings: Settings) -> Center:
        return Center(settings, open_store=lambda: open_store(url), open_gateway=lambda: FileGateway(Path(path)))

    home = Path(path).parent
    settings = Settings(home=home, project=home)
    scheduler = Scheduler(settings, now=now, open_center=center, lease=timedelta(seconds=1))
    scheduler.start()
    print("ready", flush=True)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    scheduler.stop()


if __name__ == "__main__":
    main()
