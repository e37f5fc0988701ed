"""Who executes: the workers and their processes, as they say and as this machine sees them. (spec 5.2)"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psutil

from taskcenter.clock import utc_now
from taskcenter_adapter.leases import Lease
from taskcenter_adapter.run_leases import RunLeases
from taskcenter_adapter.store_sql import SqlStore

from .center import Center

__all__ = ["listing"]


def listing(center: Center, *, now: datetime | None = None) -> list[dict[str, Any]]:
    """Each worker of the type ``taskcenter``: where, how many runs, its processes with age and memory (MB).

    ``state``: online, silent (nothing heard for a while) or gone. Memory is known of processes of this machine only.
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
    processes = [{"role": "worker", "runId": None, "phase": None, **_process(held, facts.get("pid"))}]
    if warm.get("pid"):
        processes.append({"role": "warm", "runId": None, "phase": None, **_process(held, warm["pid"])})
    for run_id, known in runs.items():
        processes.append(
            {"role": "run", "runId": run_id, "phase": known.get("phase"), **_process(held, known.get("pid"))}
        )
    return {
        "holder": held.holder,
        "name": facts.get("name"),
        "pool": facts.get("pool"),
        "host": facts.get("host"),
        "state": state,
        "limit": facts.get("limit"),
        "running": len(runs),
        "heardUntil": held.until.isoformat(),
        "warmSeconds": warm.get("seconds"),
        "processes": processes,
    }


def _process(held: Lease, pid: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"pid": pid, "since": None, "memoryMb": None}
    if pid and held.here and not held.dead:
        try:
            process = psutil.Process(int(pid))
            found["since"] = datetime.fromtimestamp(process.create_time()).astimezone().isoformat()
            found["memoryMb"] = round(process.memory_info().rss / 2**20, 1)
        except psutil.Error:
            found["pid"] = None
    return found
