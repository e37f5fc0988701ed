"""The numbers that are watched, read from the tables: each by an index, whatever the history's length. (spec 6.7)"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from taskcenter.status import TERMINAL_RUN, RunStatus

from .schedule_read import OPEN, SCHEDULER
from .schedule_tables import leases, run_requests
from .store_sql import SqlStore
from .tables import task_audit_logs, task_runs

__all__ = ["Numbers", "numbers"]

_DAY = timedelta(days=1)
_ENDED = tuple(status.value for status in RunStatus if status in TERMINAL_RUN)
_REPAIRS = ("run_found_in_prefect", "run_reconciled")


@dataclass(frozen=True)
class Numbers:
    open_runs: dict[str, int]
    """Runs by status that are not over."""
    due_runs: int
    """Runs that wait and whose time has come."""
    ended_runs: dict[str, int]
    """Runs by status that ended in the last day."""
    wanted: int
    """Requests whose time has come and that have no run yet."""
    lateness: float
    """Seconds that the oldest of them is late."""
    scheduler_lag: float | None
    """Seconds since the leader last looked at the clock; None when none leads."""
    repairs: int
    """What the reconciler repaired in the last day."""
    last_purge: dict[str, Any]
    """The counters of the newest purge that the audit tells of."""
    last_purge_at: datetime | None


def numbers(store: SqlStore, now: datetime) -> Numbers:
    with store.reading() as connection:
        run, asked, entry = task_runs.c, run_requests.c, task_audit_logs.c
        open_runs = dict.fromkeys(OPEN, 0) | _by_status(connection, run.status.in_(OPEN))
        waiting = sa.and_(run.status == "queued", sa.or_(run.slot.is_(None), run.slot <= now))
        due_runs = connection.execute(sa.select(sa.func.count()).select_from(task_runs).where(waiting)).scalar()
        ended = dict.fromkeys(_ENDED, 0)
        ended |= _by_status(connection, run.finished_at >= now - _DAY)
        due = sa.and_(asked.status == "wanted", asked.due <= now)
        wanted, oldest = connection.execute(sa.select(sa.func.count(), sa.func.min(asked.due)).where(due)).one()
        facts = connection.execute(
            sa.select(leases.c.facts).where(leases.c.name == SCHEDULER, leases.c.until > now)
        ).scalar()
        ticked = (facts or {}).get("tickedAt")
        repaired = sa.and_(entry.event_type.in_(_REPAIRS), entry.created_at >= now - _DAY)
        repairs = connection.execute(sa.select(sa.func.count()).select_from(task_audit_logs).where(repaired)).scalar()
        newest = (
            sa.select(entry.metadata, entry.created_at)
            .where(entry.event_type == "history_purged")
            .order_by(entry.sequence.desc())
            .limit(1)
        )
        purge = connection.execute(newest).first()
    return Numbers(
        open_runs=open_runs,
        due_runs=int(due_runs or 0),
        ended_runs={name: count for name, count in ended.items() if name in _ENDED},
        wanted=int(wanted),
        lateness=max(0.0, (now - oldest).total_seconds()) if oldest is not None else 0.0,
        scheduler_lag=(now - datetime.fromisoformat(ticked)).total_seconds() if ticked else None,
        repairs=int(repairs or 0),
        last_purge=dict(purge[0]) if purge is not None else {},
        last_purge_at=purge[1] if purge is not None else None,
    )


def _by_status(connection: Connection, where: Any) -> dict[str, int]:
    run = task_runs.c
    query = sa.select(run.status, sa.func.count()).where(where).group_by(run.status)
    return {status: int(count) for status, count in connection.execute(query)}
