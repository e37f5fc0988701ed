"""Who executes: the workers and their processes, as they say. (spec 5.2)"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from taskcenter.clock import utc_now
from taskcenter.recycling import leak_marks
from taskcenter_adapter.leases import Lease
from taskcenter_adapter.run_leases import RunLeases
from taskcenter_adapter.store_sql import SqlStore

from .center import Center

__all__ = ["listing"]


def listing(center: Center, *, now: datetime | None = None) -> list[dict[str, Any]]:
    """Each worker of the type ``taskcenter``: where, how many runs, its processes as it measured them last.

    ``state``: online, silent (nothing heard for a while) or gone; ``free``: how many runs it could take. What stands of
    the processes of a worker that is gone is only which they were.
    """
    store, at = center.store, now or utc_now()
    if not isinstance(store, SqlStore):
        return []
    return [_facts(held, at) for held in RunLeases(store).workers()]


def _facts(held: Lease, now: datetime) -> dict[str, Any]:
    facts = held.facts
    state = "gone" if held.dead else "silent" if held.until <= now else "online"
    runs = facts.get("runs") or {}
    warm = facts.get("warm") or {}
    limit = facts.get("limit")
    known: list[tuple[str, str | None, str | None, Mapping[str, Any]]]
    known = [("worker", None, None, facts.get("process") or {"pid": facts.get("pid")})]
    if warm.get("pid"):
        known.append(("warm", None, "running" if runs else "idle", warm))
    known += [("run", run_id, run.get("phase"), run) for run_id, run in runs.items()]
    return {
        "holder": held.holder,
        "name": facts.get("name"),
        "pool": facts.get("pool"),
        "host": facts.get("host"),
        "state": state,
        "limit": limit,
        "running": len(runs),
        "free": 0 if state != "online" else None if limit is None else max(0, limit - len(runs)),
        "heardAt": facts.get("heardAt"),
        "heardUntil": held.until.isoformat(),
        "warmSeconds": warm.get("seconds"),
        "renewed": warm.get("renewed", 0),
        "nextTurn": warm.get("nextTurn"),
        "processes": [
            {"role": role, "runId": run_id, "phase": phase, **_process(measured, now, gone=held.dead)}
            for role, run_id, phase, measured in known
        ],
    }


def _process(measured: Mapping[str, Any], now: datetime, *, gone: bool) -> dict[str, Any]:
    """As it was measured last, with what a person should look at."""
    told = {} if gone else measured
    since, grown = told.get("since"), told.get("grownMb")
    age = now - datetime.fromisoformat(since) if since else None
    return {
        "pid": measured.get("pid"),
        "since": since,
        "ageSeconds": round(age.total_seconds()) if age is not None else None,
        "cpuSeconds": told.get("cpuSeconds"),
        "memoryMb": told.get("memoryMb"),
        "grownMb": grown,
        "marks": list(leak_marks(age, grown)) if age is not None else [],
    }
