"""``taskcenter audit verify`` of a long audit: the live table, and its export. (spec 6.4, 9)

    python -m benchmarks.audit [--entries 100000] [--databases postgresql,sqlite]

The entries are written and sealed by the production store: every tenth with a diff, as saving a task leaves it, the
others as runs do. Then the command is timed as a person starts it, interpreter and imports included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from taskcenter.models import AuditEntry
from taskcenter.ports import Changes
from taskcenter_adapter.database import make_engine, upgrade
from taskcenter_adapter.postgres import remove_cluster, start_postgres
from taskcenter_adapter.store_sql import SqlStore

BAR = 5.0
_BATCH = 1_000
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder}/audit.db"
        return
    server = start_postgres(folder)
    try:
        yield server.url("taskcenter")
    finally:
        server.stop()
        remove_cluster(folder)


def entry(number: int) -> AuditEntry:
    run, at = f"00000000-0000-4000-8000-{number:012d}", _BEGIN + timedelta(seconds=number)
    if number % 10 == 0:
        before: dict[str, Any] = {"name": "orders", "status": "active", "payload": {"script": "SELECT 1;\n" * 20}}
        change: dict[str, Any] = {"before": before, "after": {**before, "status": "paused", "revision": number}}
        return AuditEntry(
            event_type="task_updated", actor="ada", channel="api", address="10.0.0.7", object="task orders",
            message="orders was saved", created_at=at, **change,
        )  # fmt: skip
    facts = {"status": "success", "attempt": 1, "durationMs": number}
    return AuditEntry(
        event_type="manual_run_finished", run_id=run, object=f"run {run}", message="done", metadata=facts, created_at=at
    )


def fill(url: str, count: int) -> None:
    engine = make_engine(url)
    upgrade(engine)
    store = SqlStore(engine)
    for at in range(0, count, _BATCH):
        store.record(Changes(audit=[entry(number) for number in range(at, min(at + _BATCH, count))]))
    store.chain.seal_all()
    store.close()


def taskcenter(*argv: str, url: str, home: Path) -> tuple[float, str]:
    env = {**os.environ, "TASKCENTER_HOME": str(home), "TASKCENTER_DATABASE_URL": url}
    begin = time.perf_counter()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("taskcenter")), *argv], env=env, capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"taskcenter {' '.join(argv)}: {done.stdout}{done.stderr}")
    return took, done.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--databases", default="postgresql,sqlite")
    options = parser.parse_args()
    slow = False
    for kind in options.databases.split(","):
        with tempfile.TemporaryDirectory(prefix="tc-audit-") as name:
            folder = Path(name)
            with database(kind, folder) as url:
                begin = time.perf_counter()
                fill(url, options.entries)
                print(f"{kind}: {options.entries} entries written and sealed in {time.perf_counter() - begin:.1f} s")
                export = folder / "audit.jsonl"
                taskcenter("audit", "export", "-o", str(export), url=url, home=folder)
                for what, argv in (("live table", ()), ("export", (str(export),))):
                    timed = sorted(taskcenter("audit", "verify", *argv, url=url, home=folder) for _ in range(3))
                    took, said = timed[1]
                    slow = slow or took > BAR
                    print(f"{kind}: verify, {what}: {took:.2f} s (bar: {BAR:g}); {said.splitlines()[0]}", flush=True)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
