"""Purging half of a long history beside a writer, against deleting it 10,000 rows at a time. (spec 6.5, 9)

    python -m benchmarks.retention --database sqlite
    python -m benchmarks.retention --database postgresql --server postgresql://postgres@127.0.0.1

One million runs with five log lines each by default; the runs lie evenly over 60 days and the policy keeps 30. The
same rows are first deleted by plain batches of 10,000 in a copy of the database, alone; then the purge deletes them
while another process writes 50 log lines a second and notes how long each write took.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.filling import fill
from retention.policy import Policy, plan
from retention.purge import Report, purge
from taskcenter.clock import utc_now
from taskcenter.models import LogLine, Run
from taskcenter.ports import Changes
from taskcenter_adapter.database import make_engine, upgrade
from taskcenter_adapter.store_sql import SqlStore

RAW = 10_000


def write_beside(url: str) -> int:
    """50 log lines a second, each in a transaction of its own, as a run's process writes them, until stdin ends."""
    store = SqlStore(make_engine(url))
    run = Run(id=str(uuid.uuid4()), task_slug="writer", task_type="shell", created_at=utc_now(), status="running")
    store.record(Changes(runs=(run,)))
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    print("ready", flush=True)
    waits: list[float] = []
    at, number = time.perf_counter(), 0
    while not over.is_set():
        number += 1
        line = LogLine(run_id=run.id, sequence=number, time=utc_now(), message=f"line {number} of the writer")
        began = time.perf_counter()
        store.record(Changes(logs=(line,)))
        waits.append(time.perf_counter() - began)
        at += 0.02
        time.sleep(max(0.0, at - time.perf_counter()))
    print(json.dumps(waits), flush=True)
    return 0


def waited(waits: list[float]) -> dict[str, float]:
    ms = sorted(1_000 * wait for wait in waits)
    cut = statistics.quantiles(ms, n=100)
    return {"writes": len(ms), "p50": round(cut[49], 1), "p99": round(cut[98], 1), "max": round(ms[-1], 1)}


def raw_deletes(url: str, cutoff: Any) -> dict[str, Any]:
    """What anybody would write first."""
    engine = make_engine(url)
    key = "ctid" if engine.dialect.name == "postgresql" else "rowid"
    pick = {"ctid": "ctid = ANY(ARRAY({}))", "rowid": "rowid IN ({})"}[key]
    kinds = {
        "logs": ("task_run_logs", "time < :cutoff"),
        "runs": ("task_runs", "finished_at < :cutoff AND status IN ('success', 'failed', 'cancelled')"),
    }
    found: dict[str, Any] = {}
    if key == "rowid":  # as long a log as anybody's commit brings in by itself while no purge is at work

        @sa.event.listens_for(engine, "connect")
        def short(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA wal_autocheckpoint=16000")

    began = time.perf_counter()
    for kind, (table, where) in kinds.items():
        inner = f"SELECT {key} FROM {table} WHERE {where} LIMIT {RAW}"
        statement = sa.text(f"DELETE FROM {table} WHERE {pick.format(inner)}")
        moment = cutoff if key == "ctid" else cutoff.strftime("%Y-%m-%d %H:%M:%S.%f")
        found[kind] = 0
        while True:
            with engine.begin() as connection:
                count = connection.execute(statement, {"cutoff": moment}).rowcount
            found[kind] += count
            if count < RAW:
                break
    found["seconds"] = time.perf_counter() - began
    engine.dispose()
    return found


def size_of(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            return int(connection.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one())
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return Path(str(engine.url.database)).stat().st_size


def measure(url: str, copy: str, runs: int, lines: int) -> dict[str, Any]:
    now = utc_now()
    made = plan(Policy(), (), now)
    raw = raw_deletes(copy, made.latest)
    print(f"raw: {raw}", file=sys.stderr)
    engine = make_engine(url)
    before = size_of(engine)
    argv = [sys.executable, "-m", "benchmarks.retention", "--write", url]
    writer = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    writer.stdout.readline()
    time.sleep(1)
    store = SqlStore(engine)
    report = Report(made)
    purge(store, report, lambda: made)
    waits = json.loads(writer.communicate("", timeout=60)[0])
    rate = (report.counts["deletedRunLogs"] + report.counts["deletedRuns"]) / report.deleting
    raw_rate = (raw["logs"] + raw["runs"]) / raw["seconds"]
    result = {
        "database": engine.dialect.name,
        "runs": runs,
        "logs": runs * lines,
        "raw": {**raw, "rowsPerSecond": round(raw_rate)},
        "purge": {**report.to_dict(), "deletingSeconds": round(report.deleting, 1), "steps": report.steps,
                  "longestStepMs": round(1_000 * report.longest, 1), "rowsPerSecond": round(rate)},
        "ratio": round(rate / raw_rate, 2),
        "writerMs": waited(waits),
        "bytes": {"before": before, "after": size_of(engine)},
    }  # fmt: skip
    result["sameRows"] = raw["logs"] == report.counts["deletedRunLogs"] and raw["runs"] == report.counts["deletedRuns"]
    store.close()
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--server", default="postgresql://postgres@127.0.0.1")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--lines", type=int, default=5)
    parser.add_argument("--keep", help="SQLite: keep the filled file here and use it again.")
    parser.add_argument("--write", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.write:
        return write_beside(chosen.write)
    began = time.perf_counter()
    if chosen.database == "sqlite":
        with tempfile.TemporaryDirectory(prefix="retention-") as folder:
            filled = Path(chosen.keep) if chosen.keep else Path(folder) / "filled.db"
            if not filled.exists():
                engine = make_engine(f"sqlite:///{filled}")
                upgrade(engine)
                fill(engine, chosen.runs, chosen.lines)
            print(f"filled after {time.perf_counter() - began:.0f} s", file=sys.stderr)
            urls = []
            for name in ("ours.db", "raw.db"):
                shutil.copy(filled, Path(folder) / name)
                urls.append(f"sqlite:///{Path(folder) / name}")
            os.sync()  # else the first one to ask for its changes on the disk waits for the copies too
            print(json.dumps(measure(*urls, chosen.runs, chosen.lines), indent=2))
        return 0
    server = sa.make_url(chosen.server)
    admin = make_engine(server.set(database="postgres")).execution_options(isolation_level="AUTOCOMMIT")
    names = [f"retention_{uuid.uuid4().hex[:8]}_{kind}" for kind in ("ours", "raw")]
    urls = [server.set(database=name).render_as_string(hide_password=False) for name in names]
    try:
        with admin.connect() as connection:
            connection.exec_driver_sql(f'CREATE DATABASE "{names[0]}"')
        engine = make_engine(urls[0])
        upgrade(engine)
        fill(engine, chosen.runs, chosen.lines)
        engine.dispose()
        with admin.connect() as connection:
            connection.exec_driver_sql(f'CREATE DATABASE "{names[1]}" TEMPLATE "{names[0]}"')
        print(f"filled after {time.perf_counter() - began:.0f} s", file=sys.stderr)
        print(json.dumps(measure(*urls, chosen.runs, chosen.lines), indent=2))
    finally:
        with admin.connect() as connection:
            for name in names:
                connection.exec_driver_sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
