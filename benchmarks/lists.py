"""A page of 50 runs out of a million, by task, status, time and parts of names, at the start and far down. (spec 6.1)

python -m benchmarks.lists --database sqlite
python -m benchmarks.lists --database postgresql --server postgresql://postgres@127.0.0.1
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.filling import fill
from taskcenter.clock import utc_now
from taskcenter.ports import RunFilter
from taskcenter.status import RunStatus
from taskcenter_adapter.database import make_engine, upgrade
from taskcenter_adapter.paging import write_cursor
from taskcenter_adapter.store_sql import SqlStore
from taskcenter_adapter.tables import task_runs

PAGE = 50
FAR = 10_000


def deep(store: SqlStore, page: int, *where: Any) -> str | None:
    """The cursor of that page; found by counting, which is not measured."""
    run = task_runs.c
    query = sa.select(run.created_at, run.id).where(*where).order_by(run.created_at.desc(), run.id.desc())
    with store.reading() as connection:
        row = connection.execute(query.limit(1).offset(page * PAGE - 1)).first()
    return write_cursor(row[0], row[1]) if row else None


def questions(store: SqlStore, runs: int) -> dict[str, Callable[[random.Random], RunFilter]]:
    now = utc_now()
    last = min(FAR, runs // PAGE - 2)
    far = deep(store, last)
    failed = deep(store, min(last, runs // 20 // PAGE - 2), task_runs.c.status == "failed")

    def when(chance: random.Random) -> dict[str, Any]:
        start = now - timedelta(days=chance.uniform(1, 55))
        return {"since": start, "until": start + timedelta(hours=chance.uniform(1, 48))}

    def task(chance: random.Random) -> str:
        return f"task-{chance.randrange(200)}"

    def name(chance: random.Random) -> str:
        return chance.choice(("otter", "orders", "calm-", "amber-falcon", f"-{chance.randrange(200)} "))

    def rare(chance: random.Random) -> str:
        return chance.choice(
            (f"lynx-{chance.randrange(9973)}", f"heron-{chance.randrange(997)}", "nowhere-to-be-found")
        )

    return {
        "newest": lambda _: RunFilter(),
        f"page {last}": lambda _: RunFilter(cursor=far),
        "task": lambda c: RunFilter(task_id=task(c)),
        "status": lambda _: RunFilter(status=RunStatus.FAILED),
        "status, its last pages": lambda _: RunFilter(status=RunStatus.FAILED, cursor=failed),
        "task and status": lambda c: RunFilter(task_id=task(c), status=RunStatus.FAILED),
        "time": lambda c: RunFilter(**when(c)),
        "task, status and time": lambda c: RunFilter(task_id=task(c), status=RunStatus.SUCCESS, **when(c)),
        "search, common": lambda c: RunFilter(search=name(c)),
        "search, one task of 200": lambda c: RunFilter(search=f"orders-{10 * c.randrange(20)} "),
        "search, rare": lambda c: RunFilter(search=rare(c)),
        "search, two letters": lambda _: RunFilter(search="tt"),
        f"search at page {last}": lambda c: RunFilter(search=name(c), cursor=far),
        f"rare search at page {last}": lambda c: RunFilter(search=rare(c), cursor=far),
        "search and status": lambda c: RunFilter(search=name(c), status=RunStatus.FAILED),
        "search and time": lambda c: RunFilter(search=name(c), **when(c)),
    }


def measure(url: str, runs: int, rounds: int) -> dict[str, Any]:
    store = SqlStore(make_engine(url))
    found: dict[str, Any] = {}
    every: list[float] = []
    for label, ask in questions(store, runs).items():
        chance = random.Random(11)
        times, rows = [], 0
        for number in range(rounds + 5):
            where = ask(chance)
            began = time.perf_counter()
            page = store.list_runs(where)
            took = 1_000 * (time.perf_counter() - began)
            if number >= 5:
                times.append(took)
                rows += len(page.items)
        every += times
        found[label] = {"p50": round(statistics.median(times), 1),
                        "p95": round(statistics.quantiles(times, n=20)[18], 1),
                        "max": round(max(times), 1), "rows": round(rows / rounds, 1)}  # fmt: skip
        print(f"{label:28s}{found[label]}", file=sys.stderr)
    store.close()
    return {"runs": runs, "p95Ms": round(statistics.quantiles(every, n=20)[18], 1), "questions": found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--server", default="postgresql://postgres@127.0.0.1")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=100)
    chosen = parser.parse_args()
    began = time.perf_counter()
    if chosen.database == "sqlite":
        with tempfile.TemporaryDirectory(prefix="lists-") as folder:
            url = f"sqlite:///{Path(folder) / 'lists.db'}"
            engine = make_engine(url)
            upgrade(engine)
            fill(engine, chosen.runs, 0)
            print(f"filled after {time.perf_counter() - began:.0f} s", file=sys.stderr)
            print(json.dumps(measure(url, chosen.runs, chosen.rounds), indent=2))
        return 0
    server = sa.make_url(chosen.server)
    admin = make_engine(server.set(database="postgres")).execution_options(isolation_level="AUTOCOMMIT")
    name = f"lists_{uuid.uuid4().hex[:8]}"
    try:
        with admin.connect() as connection:
            connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
        url = server.set(database=name).render_as_string(hide_password=False)
        engine = make_engine(url)
        upgrade(engine)
        fill(engine, chosen.runs, 0)
        engine.dispose()
        print(f"filled after {time.perf_counter() - began:.0f} s", file=sys.stderr)
        print(json.dumps(measure(url, chosen.runs, chosen.rounds), indent=2))
    finally:
        with admin.connect() as connection:
            connection.exec_driver_sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
