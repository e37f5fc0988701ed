"""What the scheduler adds between a slot and its run, on a real Prefect server. (spec 4.2)

``python -m benchmarks.dispatch`` makes 1,000 tasks that are due in the same minute, and in the next: every flow run
must be there before its slot, none missing, none twice, and the verdict that lets it start must be committed at once.

``python -m benchmarks.dispatch --beside`` switches Prefect's own loop on beside ours, for ten minutes and 50 triggers:
no slot may have two flow runs. ``--triggers`` and ``--minutes`` change the size.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from taskcenter.clock import utc_now
from taskcenter.models import Task, Trigger
from taskcenter.scheduling.decisions import Decisions
from taskcenter.scheduling.state import Horizon
from taskcenter.settings import Settings
from taskcenter.status import Priority
from taskcenter_adapter.database import make_engine, upgrade
from taskcenter_adapter.gateway import Gateway
from taskcenter_adapter.postgres import remove_cluster, start_postgres
from taskcenter_adapter.prefect_server import healthy, server_env, start_server
from taskcenter_adapter.processes import free_port, start, wait_until
from taskcenter_adapter.schedule import Schedule
from taskcenter_adapter.schedule_read import Part
from taskcenter_adapter.state import clear_state, write_state
from taskcenter_console.scheduler.leader import Scheduler
from taskcenter_console.services.center import Center
from taskcenter_console.services.deploy import deploy

MINUTE = timedelta(minutes=1)


@contextmanager
def servers(*, beside: bool) -> Iterator[Center]:
    """PostgreSQL, a Prefect server and a center; with ``beside`` a second server whose loop is on."""
    home = Path(tempfile.mkdtemp(prefix="tc-bench-"))
    postgres = start_postgres(home)
    database = postgres.url("prefect", "asyncpg")
    port, other = free_port(), None
    server = start_server(home, database, port)
    url, api = postgres.url("taskcenter"), f"http://127.0.0.1:{port}/api"
    upgrade(make_engine(url))
    write_state(home, {"databaseUrl": url, "prefectApiUrl": api, "serviceUrl": ""})
    if beside:
        second = free_port()
        env = {**server_env(home, database, second), "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "true"}
        env |= {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5"}
        app = (sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app")
        argv = [*app, "--port", str(second), "--log-level", "warning"]
        other = start("other server", argv, log=home / "other.log", env=env, cwd=home, stop_signal=signal.SIGINT)
        wait_until("the other server", lambda: healthy(f"http://127.0.0.1:{second}/api"), other, 90)
    try:
        with Center(Settings(home=home, database_url=url, prefect_api_url=api, project=home)) as center:
            center.gateway.ensure_pool("taskcenter")
            yield center
    finally:
        clear_state(home)
        for child in (other, server):
            if child is not None:
                child.stop()
        postgres.stop()
        remove_cluster(home)
        shutil.rmtree(home, ignore_errors=True)


def make_tasks(center: Center, count: int, cron: str = "* * * * *") -> None:
    order = (Priority.LOW, Priority.HIGH, Priority.NORMAL)
    tasks = [
        center.store.save_task(
            Task(
                name=f"job {number}",
                task_type="wait",
                payload={"seconds": 0},
                priority=order[number % 3],
                triggers=(Trigger(type="cron", cron_expression=cron, overlap="allow"),),
            )
        )
        for number in range(count)
    ]
    deploy(center, tasks, everything=True)


@contextmanager
def commits_watched() -> Iterator[dict[tuple[str, datetime], datetime]]:
    """When the verdict of each slot was committed: from then on a worker may start its run."""
    done: dict[tuple[str, datetime], datetime] = {}
    commit = Schedule.commit

    def watched(self: Schedule, part: Part, decisions: Decisions, *rest: Any, **more: Any) -> None:
        commit(self, part, decisions, *rest, **more)
        at = utc_now()
        for row in decisions.occurrences:
            done.setdefault((row.trigger_id, row.slot), at)

    Schedule.commit = watched  # type: ignore[method-assign]
    try:
        yield done
    finally:
        Schedule.commit = commit  # type: ignore[method-assign]


def flow_runs(gateway: Gateway) -> list[dict[str, Any]]:
    which = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, "sort": "ID_DESC"}
    # Prefect's loop goes on making runs while they are read page by page: one may stand on two pages.
    return list({run["id"]: run for run in gateway._pages("/flow_runs/filter", which)}.values())


def when(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def dispatch(count: int, minutes: int) -> None:
    with servers(beside=False) as center, commits_watched() as committed:
        # Time for publishing (0.15 s each) and for making the runs of all slots (15 each second).
        ready = timedelta(seconds=60 + count * (0.15 + minutes / 15))
        first = (utc_now() + ready).replace(second=0, microsecond=0) + MINUTE
        last = first + (minutes - 1) * MINUTE
        slots = ",".join(str((first + n * MINUTE).minute) for n in range(minutes))
        begin = time.monotonic()
        make_tasks(center, count, f"{slots} * * * *")
        print(f"{count} tasks due at minutes {slots}, saved and published in {time.monotonic() - begin:.0f} s")
        schedule = center.need_schedule()
        scheduler = Scheduler(center.settings, horizon=Horizon(min_runs=minutes, min_time=timedelta(minutes=1)))
        cpu, begin = time.process_time(), time.monotonic()
        scheduler.start()
        time.sleep((last - utc_now()).total_seconds() + 15)
        cpu, begin = time.process_time() - cpu, time.monotonic() - begin
        scheduler.stop()
        rows = schedule.ledger(since=first, until=last, limit=10_000_000)
        runs = [run for run in flow_runs(center.gateway) if first <= when(run["expected_start_time"]) <= last]
        created = {run["id"]: when(run["created"]) for run in runs}
        per_slot = Counter((run["deployment_id"], run["expected_start_time"]) for run in runs)
        doubled = [key for key, n in per_slot.items() if n > 1]
        after = sum(created[run["id"]] >= when(run["expected_start_time"]) for run in runs)
        delays = sorted((committed[row.trigger_id, row.slot] - row.slot).total_seconds() for row in rows)
        print(f"slots {minutes} x {count}, verdicts {len(rows)}, flow runs {len(runs)}, "
              f"missing {len(rows) - len(runs)}, "
              f"doubled {len(doubled)}, made after their slot {after}")  # fmt: skip
        for share in (0.5, 0.99):
            taken = delays[int(share * (len(delays) - 1))]
            print(f"slot -> verdict committed, p{share * 100:.0f}: {taken * 1000:.0f} ms")
        print(f"CPU of the scheduler, all runs made and all slots decided: {cpu:.1f} s in {begin:.0f} s")


def beside(count: int, minutes: int) -> None:
    with servers(beside=True) as center:
        make_tasks(center, count)
        scheduler = Scheduler(center.settings)
        scheduler.start()
        first = utc_now()
        time.sleep(minutes * 60)
        scheduler.stop()
        runs = flow_runs(center.gateway)
        theirs = sum("origin:scheduler" not in run["tags"] for run in runs)
        per_slot = Counter((run["deployment_id"], run["expected_start_time"]) for run in runs)
        fired = center.need_schedule().ledger(since=first, limit=1_000_000)
        print(f"{count} minute triggers, {minutes} minutes, Prefect's own loop beside ours: {len(runs)} flow runs "
              f"({theirs} made by Prefect's loop), {len(fired)} verdicts, "
              f"slots with two runs: {sum(n > 1 for n in per_slot.values())}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", action="store_true")
    parser.add_argument("--triggers", type=int)
    parser.add_argument("--minutes", type=int)
    given = parser.parse_args()
    if given.beside:
        beside(given.triggers or 50, given.minutes or 10)
    else:
        dispatch(given.triggers or 1_000, given.minutes or 2)


if __name__ == "__main__":
    main()
