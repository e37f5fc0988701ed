"""The numbers for Prometheus, in its text format. (spec 6.7)"""

from __future__ import annotations

from collections import Counter

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from taskcenter.clock import utc_now
from taskcenter_adapter.metrics import numbers
from taskcenter_adapter.store_sql import SqlStore

from . import workers
from .center import Center

__all__ = ["exposition"]


def exposition(center: Center) -> bytes:
    """What the tables say at this moment; nothing with the store in memory."""
    registry = CollectorRegistry()
    if isinstance(center.store, SqlStore):
        _fill(registry, center, center.store)
    found: bytes = generate_latest(registry)
    return found


def _fill(registry: CollectorRegistry, center: Center, store: SqlStore) -> None:
    def gauge(name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"taskcenter_{name}", text, labels, registry=registry)

    now = utc_now()
    found = numbers(store, now)
    open_runs = gauge("runs_open", "Runs that are not over, by status.", "status")
    for status, count in found.open_runs.items():
        open_runs.labels(status).set(count)
    ended = gauge("runs_ended_last_day", "Runs that ended in the last 24 hours, by status.", "status")
    for status, count in found.ended_runs.items():
        ended.labels(status).set(count)
    gauge("queue_depth", "Runs that are due and wait.").set(found.wanted + found.due_runs)
    gauge("lateness_seconds", "How late the oldest request is that has no run yet.").set(found.lateness)
    if found.scheduler_lag is not None:
        gauge("scheduler_lag_seconds", "Seconds since the leading scheduler looked at the clock.").set(
            found.scheduler_lag
        )
    gauge("scheduler_leads", "Whether any service leads the scheduler.").set(found.scheduler_lag is not None)
    gauge("reconcile_repairs_last_day", "Differences to Prefect that were repaired in 24 hours.").set(found.repairs)
    purged = gauge("last_purge_rows", "Rows that the newest purge deleted, by counter.", "counter")
    for name, value in found.last_purge.items():
        if name.startswith("deleted"):
            purged.labels(name).set(value)
    if found.last_purge_at is not None:
        gauge("last_purge_timestamp_seconds", "When the newest purge was.").set(found.last_purge_at.timestamp())
    states, processes, running = Counter[str](), Counter[str](), 0
    for worker in workers.listing(center, now=now):
        states[worker["state"]] += 1
        running += worker["running"]
        processes.update(process["role"] for process in worker["processes"] if process["pid"])
    pool = gauge("workers", "Workers by state.", "state")
    for state in ("online", "silent", "gone"):
        pool.labels(state).set(states[state])
    roles = gauge("processes", "Processes of the workers by role.", "role")
    for role in ("worker", "warm", "run"):
        roles.labels(role).set(processes[role])
    gauge("worker_runs", "Runs that the workers execute.").set(running)
