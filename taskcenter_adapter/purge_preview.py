"""What a purge would delete, counted by the conditions it deletes by. (spec 6.5)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Table

from .purge_conditions import Conditions
from .schedule_tables import run_requests, slot_ledger, trigger_firings
from .tables import composite_step_runs, outbox_events, task_audit_logs, task_run_logs, task_runs

__all__ = ["COUNTERS", "STEP_RUNS", "Preview", "preview"]

COUNTERS = {
    "logs": "deletedRunLogs",
    "runs": "deletedRuns",
    "audit": "deletedAuditLogs",
    "ledger": "deletedLedgerRows",
    "requests": "deletedRunRequests",
    "firings": "deletedFirings",
    "events": "deletedEvents",
}
"""Kind of row → its counter, in the order of the purge: first the seed's three."""
STEP_RUNS = "deletedStepRuns"

_ROW_BYTES = {
    "logs": 220,
    "runs": 1_400,
    "steps": 400,
    "audit": 900,
    "ledger": 350,
    "requests": 600,
    "firings": 200,
    "events": 450,
}
"""What a row takes beside its long texts, with its share of the indexes; measured on filled tables."""


@dataclass(frozen=True)
class Preview:
    """What a purge would delete now, about how much that is, and what would be the oldest that stays."""

    counts: Mapping[str, int]
    bytes: int
    oldest_log: datetime | None
    oldest_run: datetime | None
    oldest_audit: datetime | None


def preview(connection: Connection, rules: Conditions) -> Preview:
    """What a purge by these rules deletes when it is carried to its end, in one consistent look."""
    plan = rules.plan

    def count(table: Table, where: ColumnElement[bool], text: Any = None) -> tuple[int, int]:
        size = sa.func.coalesce(sa.func.sum(sa.func.length(text)), 0) if text is not None else sa.literal(0)
        found = connection.execute(sa.select(sa.func.count(), size).select_from(table).where(where)).one()
        return int(found[0]), int(found[1])

    runs_go = rules.run_goes(logs_are_gone=False)
    ids = sa.select(task_runs.c.id).where(runs_go)
    found = {
        "logs": count(task_run_logs, rules.log_goes(), task_run_logs.c.message),
        "runs": count(task_runs, runs_go),
        "audit": count(task_audit_logs, rules.audit_goes()),
        "ledger": count(slot_ledger, rules.ledger_goes()),
        "requests": count(run_requests, rules.request_goes()),
        "firings": count(trigger_firings, rules.firing_goes()),
        "events": count(outbox_events, rules.event_goes()),
        "steps": count(composite_step_runs, composite_step_runs.c.run_id.in_(ids)),
    }
    names = {**COUNTERS, "steps": STEP_RUNS}
    line, run, entry = task_run_logs.c, task_runs.c, task_audit_logs.c
    log_stays = line.time >= plan.latest if plan.plain else _not(rules.log_goes())
    audit_stays = _not(rules.audit_goes())
    if not rules.not_held(entry):
        audit_stays = entry.created_at >= plan.cutoff(plan.audit_days)
    oldest = [
        connection.execute(sa.select(column).where(stays).order_by(column).limit(1)).scalar()
        for column, stays in (
            (line.time, log_stays),
            (run.created_at, _not(runs_go)),
            (entry.created_at, audit_stays),
        )
    ]
    return Preview(
        counts={names[kind]: number for kind, (number, _) in found.items()},
        bytes=sum(_ROW_BYTES[kind] * number + text for kind, (number, text) in found.items()),
        oldest_log=oldest[0],
        oldest_run=oldest[1],
        oldest_audit=oldest[2],
    )


def _not(goes: ColumnElement[bool]) -> ColumnElement[bool]:
    """Also where the condition knows no answer, for the lack of a time."""
    return sa.not_(sa.func.coalesce(goes, sa.false()))
